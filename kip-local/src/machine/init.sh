#!/bin/sh
# The init of an instance: keeps containerd and the agent running, and collects the dead.
set -u
cd /
umount -l /.old || exit 1
rmdir /.old
cat /kip/hostname >/proc/sys/kernel/hostname
echo 1 >/proc/sys/net/ipv4/ip_forward
# The pod's address is on a link inside; the instance answers for it on its own link, at once.
echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp
echo 0 >/proc/sys/net/ipv4/neigh/eth0/proxy_delay
# containerd's databases live and die with the instance, so they need no disk that they wait for.
cp -r /kip/image/databases /run/kip-databases || exit 1

supervise() {
    name=$1
    shift
    while :; do
        "$@" </dev/null >>"/var/log/$name.log" 2>&1
        echo "$name ended with $?; starting it again" >&2
        sleep 0.1
    done
}
supervise containerd containerd --config /etc/containerd/config.toml &
supervise kip-cell /kip/kip-cell &
# Also collects processes whose parents have ended. It returns only when both keepers are gone: then the instance is broken, and ends.
wait
exit 1
