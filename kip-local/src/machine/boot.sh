#!/bin/sh
# The first process of an instance, while it still sees the machine's file system: mounts the instance's own and moves there.
# Arguments: the instance's folder, and with control groups of version 2 the group its own processes are in.
set -eu
instance=$1
root=$instance/root
leaf=${2-}
if [ -n "$leaf" ]; then
    # The instance's own group is the top of what it sees, and may hold processes or groups, not both.
    echo 0 >"$leaf/cgroup.procs"
fi

# /proc is still the machine's: the numbers in it are what the machine knows this process by.
read -r stat </proc/self/stat
set -- ${stat##*) }
echo "${stat%% *} ${20}" >"$instance/init.pid"
echo "${stat%% *} ${20}"
exec >&2

mount --bind "$root" "$root"
mount --all --fstab "$instance/fstab"
cd "$root"
pivot_root . .old
exec chroot . /bin/sh /kip/init.sh
