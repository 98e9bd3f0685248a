#!/bin/sh
# The first process of an instance, while it still sees the machine's file system: mounts the instance's own and moves there.
# Argument: the instance's folder.
set -eu
instance=$1
root=$instance/root

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
