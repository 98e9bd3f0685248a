#!/bin/sh
# Makes a cell image of the system it runs on: an instance from which an image is made afterwards, or a chroot of one.
# Debian, Ubuntu and Amazon Linux 2023. Needs root and the distribution's package mirror. Safe to run again.
set -eu

usage() {
    cat <<END
usage: install.sh AGENT

Installs containerd, runc, the CNI plugins, cloud-init and AGENT, the kip-cell program for this machine's architecture, so that an
instance of the image that is made of this system runs a pod of Kip. AGENT may be - if cells fetch it at boot (cells.agent).
END
}

die() {
    echo "install.sh: $1" >&2
    exit 1
}

case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
'')
    usage >&2
    exit 2
    ;;
esac
agent=$1
[ "$(id -u)" = 0 ] || die "needs root: run it with sudo"
[ "$agent" = - ] || [ -f "$agent" ] || die "there is no $agent: build it with cargo build --release -p kip-cell"

# What it is made of.
# shellcheck source=/dev/null
. /etc/os-release
case "$ID ${ID_LIKE-}" in
*debian* | *ubuntu*)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends ca-certificates cloud-init containerd containernetworking-plugins curl iproute2 iptables \
        procps runc
    ;;
*amzn* | *fedora* | *rhel*)
    dnf install -y ca-certificates cloud-init cni-plugins containerd iproute iptables-nft procps-ng runc
    command -v curl >/dev/null || dnf install -y curl-minimal
    ;;
*) die "knows Debian, Ubuntu and Amazon Linux, not $ID: install containerd, runc, CNI plugins, cloud-init and iptables yourself" ;;
esac

# Where the distribution has the plugins that a pod's network is made with.
plugins=
for folder in /opt/cni/bin /usr/lib/cni /usr/libexec/cni; do
    if [ -x "$folder/ptp" ] && [ -x "$folder/static" ] && [ -x "$folder/portmap" ]; then
        plugins=$folder
    fi
done
[ -n "$plugins" ] || die "found no CNI plugins ptp, static and portmap in /opt/cni/bin, /usr/lib/cni or /usr/libexec/cni"

# containerd: no more than pods need. The agent has it loaded with the pod's network and its registries' credentials.
mkdir -p /etc/containerd/certs.d /etc/cni/net.d
cat >/etc/containerd/config.toml <<END
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$plugins"
    conf_dir = "/etc/cni/net.d"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
END

# The agent starts as soon as cloud-init has written the cell's identity. The unit in /etc, which a fetched agent writes, comes before these.
units=/usr/local/lib/systemd/system
mkdir -p "$units"
cat >"$units/kip-cell.service" <<'END'
[Unit]
Description=Kip's agent
Wants=containerd.service
After=containerd.service
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/bin/kip-cell
Restart=always
RestartSec=1
OOMScoreAdjust=-900
END
cat >"$units/kip-cell.path" <<'END'
[Unit]
Description=The identity of a cell

[Path]
PathExists=/etc/kip/cell.json

[Install]
WantedBy=paths.target
END
if [ "$agent" != - ]; then
    install -D -m 0755 "$agent" /usr/local/bin/kip-cell
    /usr/local/bin/kip-cell --version || die "$agent does not run here: is it for $(uname -m)?"
    systemctl enable kip-cell.path
fi
systemctl enable containerd.service

# The second private address is the pod's: nothing else may claim it.
cat >/etc/cloud/cloud.cfg.d/90-kip.cfg <<'END'
datasource:
  Ec2:
    apply_full_imds_network_config: false
END
# Amazon Linux gives all addresses of an interface to it. Its own primary address comes by DHCP all the same.
ln -sf /dev/null /etc/systemd/system/policy-routes@.service
ln -sf /dev/null /etc/systemd/system/refresh-policy-routes@.timer

# A pod with the cell's resolver gets this file, and reaches no stub on a loopback address.
case $(readlink /etc/resolv.conf) in
*/stub-resolv.conf) ln -sf /run/systemd/resolve/resolv.conf /etc/resolv.conf ;;
esac

# The cell passes packets on between the pod and the network, whichever way they take.
cat >/etc/sysctl.d/90-kip.conf <<'END'
net.ipv4.ip_forward = 1
net.ipv4.conf.all.rp_filter = 2
net.ipv4.conf.default.rp_filter = 2
END

# A cell lives as long as its pod: it does not change under it.
for unit in apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service dnf-makecache.timer; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done

# With the sandbox's image in place a pod starts sooner, and where registry.k8s.io cannot be reached, at all. Not in a chroot.
if [ -d /run/systemd/system ]; then
    systemctl restart containerd.service
    ctr --namespace k8s.io images pull registry.k8s.io/pause:3.10 >/dev/null
else
    echo "install.sh: no systemd runs here: each cell will fetch registry.k8s.io/pause:3.10" >&2
fi

# Nothing of this system may be taken for a cell's.
rm -rf /etc/kip/cell.json /var/lib/kip-cell /etc/cni/net.d/10-kip-cell.conflist
cloud-init clean --logs --seed
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
echo "install.sh: done: stop this system and make the image of it"
