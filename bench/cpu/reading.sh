#!/bin/sh
# reading.sh BUILD [PAIRS [PER_SHARD [LATE_MS]]] - pictures per second from shards behind a server with a latency of
# LATE_MS (20), in either order, through a shard cache that holds a third of them (--order shuffle then fetches picture by
# picture), and once through one that holds all. BUILD: a build folder with reading-bench and mode-test-corpus in bin.
# Needs python3 and MODE_CLIP_MERGES.
set -eu
build=$(cd "$1" && pwd)
pairs=${2:-24000}
per_shard=${3:-500}
export MODE_TEST_LATE_MS="${4:-20}" MODE_THREADS="${MODE_THREADS:-16}" no_proxy=127.0.0.1
server_py=$(cd "$(dirname "$0")/../../tests/tools" && pwd)/shard_server.py
work=$(mktemp -d /tmp/mode-reading-XXXXXX)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work"
"$build/bin/mode-test-corpus" corpus "$pairs" "$per_shard" >/dev/null
mkdir -p site/d
for f in corpus/train/*/*.tar; do cp "$f" "site/d/$(printf %05d "$(basename "$f" .tar)").tar"; done
shards=$(ls site/d | wc -l)
size=$(stat -c %s site/d/*.tar | sort -n | tail -n 1)
echo 'late /d/' >faults
python3 -u "$server_py" site >port 2>server.log &
server=$!
while [ ! -s port ]; do sleep 0.1; done
far="http://127.0.0.1:$(cat port)/plain/d/{00000..$(printf %05d $((shards - 1)))}.tar"
echo "$shards shards of $per_shard pairs, $size bytes; latency $MODE_TEST_LATE_MS ms; $MODE_THREADS threads"
read_all() { # WINDOW BATCH EPOCHS CACHE_BYTES
    rm -rf shards
    : >requests
    MODE_SHARD_CACHE="$work/shards" MODE_SHARD_CACHE_BYTES=$4 "$build/bin/reading-bench" "$work/site/d" "$far" captions \
        "$1" "$2" $((pairs * $3 / $2))
    echo "  $(grep -c '^GET' requests) requests; the cache holds at most $(($4 / size)) shards"
}
small=$((size * shards / 3 + size / 2))
for batch in 64 1024; do
    read_all 0 $batch 1 $small
    read_all 2 $batch 2 $small
    read_all $((shards / 6)) $batch 2 $small
done
read_all 0 1024 1 $((size * shards * 2))
read_all $((shards / 6)) 1024 2 $((size * shards * 2))
