#!/bin/sh
# Becomes an instance: joins its control groups, then enters namespaces of its own and goes on as their first process.
# Arguments: the instance's folder, its network namespace, the group of its own processes (version 2 of control groups only,
# else empty), then a file of each control group to join.
set -eu
instance=$1
netns=$2
leaf=$3
shift 3
for entrance in "$@"; do
    echo $$ >"$entrance"
done
exec nsenter --net="/run/netns/$netns" \
    unshare --mount --uts --ipc --pid --cgroup --fork --propagation private \
    sh "$instance/boot.sh" "$instance" "$leaf"
