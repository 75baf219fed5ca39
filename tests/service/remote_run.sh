#!/bin/sh
# remote_run.sh BIN - a whole run whose shards are behind http://: the same bytes as with local ones, though the server
# refuses, cuts and is slow, processes are killed while they download, and the shard cache holds two of four. Then a shard
# that changes after the run was planned, and a server that stops responding. Needs the fetched encoder (MODE_TEST_MODELS)
# and python3.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
command -v python3 >/dev/null || { echo "remote_run.sh: python3 is not installed: skipped" >&2; exit 77; }
server_py=$(cd "$(dirname "$0")/../tools" && pwd)/shard_server.py

near=$work/near far=$work/far
corpus "$near" 160 40
mkdir "$far" && cp -r "$near/eval" "$far/eval"
spec "$near"
cd "$work"
: >requests
: >faults
python3 -u "$server_py" "$near" >port 2>server.log &
server=$!
trap 'kill $server 2>/dev/null || true; cleanup' EXIT
await test -s port || fail "the server of this test does not begin: $(cat server.log)"
at=http://127.0.0.1:$(cat port)/plain/train
sed "s#^data: .*#data: {train: \"$at/{0/0,1/1,2/2,3/3}.tar\"}#" "$near/run.yaml" >"$far/run.yaml"
export MODE_CACHE="$work/cache" no_proxy=127.0.0.1,localhost
unset MODE_SHARD_CACHE MODE_SHARD_CACHE_BYTES HF_TOKEN

go() { "$bin/mode" run "$1/$2.yaml" --workspace "$1" --no-progress 2>>"$work/run.log"; }
sums() { (cd "$1" && sha256sum experts/*/*.safetensors experts/centres.safetensors report/result.csv report/weights.json); }
pictures() { grep -o 'data:image/jpeg;base64,[^"]*' "$1/report/report.html" | sort; }
child() { pgrep -P "$(head -n 1 "$far/run/$1.pid")" 2>/dev/null | head -n 1; }
parts() { find cache/shards -name '*.part' 2>/dev/null | wc -l; }

"$bin/mode" up --workspace "$near"
go "$near" run || fail "the local run"
"$bin/mode" down --workspace "$near"

size=$(stat -c %s "$near/train/0/0.tar")
printf '%s\n' '503 2 /train/0' 'cut 3 /train/1' 'slow 9 /train/' >faults
MODE_SHARD_CACHE_BYTES=$((size * 5 / 2)) "$bin/mode" up --workspace "$far"
go "$far" run &
run=$!
killed=0
for _ in $(seq 1200); do # a captions process that downloads, twice
    if [ "$(parts)" -gt 0 ] && pid=$(child captions) && [ -n "$pid" ]; then
        kill -9 "$pid" && killed=$((killed + 1))
        sleep 1
    fi
    [ $killed -ge 2 ] && break
    sleep 0.1
done
[ $killed -ge 2 ] || fail "nobody was killed while it fetched"
heads=$(grep -c ^HEAD requests)
kill -9 "$(head -n 1 "$far/run/coordinator.pid")" # the next one plans from inputs.json, without the server
trains() { [ -n "$(find "$far/ckpt" -name '*.manifest' 2>/dev/null | head -n 1)" ]; }
await trains || fail "nobody trains" # and one that trains: with two of four shards it downloads all the time
hit() { kill -9 "$(child train)" 2>/dev/null; }
await hit || fail "no training to be killed"
wait $run || fail "the run over http"
sums "$near" >near.sums
sums "$far" >far.sums
diff near.sums far.sums >&2 || fail "other bytes than those of the local run"
pictures "$near" >near.pictures
pictures "$far" >far.pictures
[ -s near.pictures ] || fail "the report of the local run shows no pictures"
cmp near.pictures far.pictures || fail "the report shows other pictures"
"$bin/mode" reconcile --workspace "$far" >/dev/null || fail "reconcile"
grep -q '206 bytes=[1-9]' requests || fail "no killed download was gone on with"
grep -q 'the shard cache holds' "$far/logs/coordinator.log" || fail "nothing is said of a folder of shards that is too small"
[ "$(grep -c ^HEAD requests)" = "$heads" ] || fail "a coordinator that started again asked for the shards of a run that was planned"
[ "$(grep -c run_resumed "$far/logs/coordinator.log")" = 1 ] || fail "the coordinator was not started again"
grep -q "\"$at/0/0.tar#bytes=$size,etag=" "$far/runs/test/inputs.json" || fail "inputs.json does not pin a shard"
"$bin/mode" pairs --workspace "$far" | cut -f2 | grep -qx "$at/0/0.tar" || fail "mode pairs does not name a shard by its address"
[ "$(find cache/shards -type f ! -name lock | wc -l)" -le 2 ] || fail "more is kept than may be: $(ls -l cache/shards)"

# planned again, with presigned URLs: they are the same shards, nothing is recomputed, and the signature appears nowhere
commits=$(ls "$far/commits" | wc -l)
gets=$(grep -c ^GET requests)
for i in 0 1 2 3; do echo "$at/{$i/$i}.tar?signature=right"; done >signed.txt
echo 'sign /train/' >faults
rm -rf cache
sed -e 's/^name: .*/name: twin/' -e "s#^data: .*#data: {train: \"@$work/signed.txt\"}#" "$far/run.yaml" >"$far/twin.yaml"
go "$far" twin || fail "the same run under another name"
[ "$(ls "$far/commits" | wc -l)" -le $((commits + 1)) ] || fail "another name made new commits"
[ "$(grep -c ^GET requests)" -le $((gets + 360)) ] || fail "shards were fetched for what is done"
grep -rl signature= "$far" && fail "the signature of a presigned address is kept"
pictures "$far" | cmp - near.pictures || fail "the report shows other pictures, by presigned addresses"

# by windows of shards: all models are those of local shards; a cache that does not hold two windows is reported
rm -rf cache
: >faults
for w in near far; do
    sed -e 's/^name: .*/name: windows/' -e 's/{batch: 32/{order: windows, window_shards: 1, batch: 32/' "$work/$w/run.yaml" >"$work/$w/windows.yaml"
done
"$bin/mode" up --workspace "$near"
go "$near" windows || fail "the local run by windows"
"$bin/mode" down --workspace "$near"
go "$far" windows || fail "the run by windows over http"
sums "$near" >near-windows.sums
sums "$far" >far-windows.sums
diff near-windows.sums far-windows.sums >&2 || fail "by windows: other bytes than those of the local run"
diff near.sums near-windows.sums >/dev/null && fail "both orders give the same models"
grep -q 'two windows' "$far/logs/coordinator.log" && fail "a folder that holds two windows is complained about"
sed -e 's/^name: .*/name: narrow/' -e 's/window_shards: 1/window_shards: 2/' "$far/windows.yaml" >"$far/narrow.yaml"
go "$far" narrow &
run=$!
await_said 'two windows of 2 shards may have .* the shard cache holds' "$far/logs/coordinator.log"
"$bin/mode" cancel narrow --workspace "$far" >/dev/null || fail "cancel"
wait $run || true

# a shard that changes between the plan and its captions
rm -rf cache
echo 'slow /train/' >faults
sed -e 's/^name: .*/name: moved/' -e 's/^captions: {/captions: {seed: 5, /' "$far/run.yaml" >"$far/moved.yaml"
"$bin/mode" run "$far/moved.yaml" --workspace "$far" --no-progress 2>moved.log &
run=$!
await test -s "$far/runs/moved/inputs.json" || fail "the run is not planned: $(cat moved.log)"
printf '%s\n' 'slow /train/' 'changed /train/3' >faults
code=0
wait $run || code=$?
[ $code = 65 ] || fail "a shard that changed: exit $code: $(cat moved.log)"
grep -q "$at/3/3.tar: has changed since the run was planned" moved.log || fail "a shard that changed: $(cat moved.log)"

# a server that stops responding: a worker still reacts at once to a stop
rm -rf cache
echo 'stall /train/' >faults
sed -e 's/^name: .*/name: stuck/' -e 's/^captions: {/captions: {seed: 7, /' "$far/run.yaml" >"$far/stuck.yaml"
"$bin/mode" run "$far/stuck.yaml" --workspace "$far" --no-progress 2>stuck.log &
run=$!
fetches() { [ "$(parts)" -gt 0 ]; }
await fetches || fail "nobody fetches"
"$bin/mode" cancel stuck --workspace "$far" >/dev/null || fail "cancel"
code=0
wait $run || code=$?
[ $code = 1 ] || fail "a cancelled run: exit $code"
began=$(date +%s)
"$bin/mode" down --workspace "$far"
[ $(($(date +%s) - began)) -lt 20 ] || # which is its grace
    fail "a worker that fetches was waited for $(($(date +%s) - began)) s"
echo "remote_run: ok"
