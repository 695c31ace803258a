#!/usr/bin/env bash
# Keep dask workers on some hosts, over ssh, until this ends (Ctrl-C):
#
#     bash cluster/bare/workers.sh tcp://10.0.0.1:8786 node1 node2 node3
#
# WORKER says what runs on each: WORKER="--interface eth1 --nworkers 4 --nthreads 2 --memory-limit 16GiB"
# The hosts must see this folder, Python and the dataset under the same paths, as on a shared home.
set -euo pipefail

scheduler=$1
shift
dask=$(command -v dask)
config=${DASK_CONFIG:-$(cd "$(dirname "$0")" && pwd)/dask.yaml}
[ $# -gt 0 ] || { echo "usage: $0 SCHEDULER HOST..." >&2; exit 2; }

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
for host in "$@"; do
    # -tt: the remote process ends with this one. REMOTE replaces ssh where hosts are reached otherwise.
    # shellcheck disable=SC2086  # both are lists of words
    ${REMOTE:-ssh -tt -o BatchMode=yes -o ServerAliveInterval=15} "$host" env "DASK_CONFIG=$config" \
        "$dask" worker "$scheduler" --name "$host" --dashboard-address 127.0.0.1:0 ${WORKER:---nthreads 2 --memory-limit 8GiB} </dev/null &
done
wait
