#!/bin/sh
# waits.sh BIN - nothing waits silently: if there is no worker for a task, or none that may take it, `mode run` says once
# which stage waits, for which workers, why and what helps, and when it continues; so do `mode status` and its --json.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
bye() {
    kill ${coordinator:+"$coordinator"} ${worker:+"$worker"} ${run:+"$run"} $(cat "$work/redis.pid" 2>/dev/null) 2>/dev/null || true
    cleanup
}
trap bye EXIT
once() { # words, file
    [ "$(grep -Ec -e "$1" "$2")" = 1 ] || { cat "$2" >&2; fail "\"$1\" is said $(grep -Ec -e "$1" "$2") times"; }
}

w=$work/a
corpus "$w" 120 60
spec "$w"

# no worker of the kind
mode up --workspace "$w" --workers captions=1,embed=1,cluster=1,assign=1,evaluate=1,ensemble=1 >/dev/null
mode run "$w/run.yaml" --workspace "$w" --no-progress >"$work/out" 2>&1 &
run=$!
await_said 'no train worker is connected yet: train-seed will wait for one' "$work/out"
once 'is connected yet' "$work/out"
await_said 'train-seed: 1 task waits for a train worker, and none is connected. HINT: .mode-train --workspace' "$work/out"
said 'mode up. with train=1' "$work/out"
mode status --workspace "$w" >"$work/status"
said 'WAITS [0-9]+ s: train-seed: 1 task waits for a train worker' "$work/status"
mode status --workspace "$w" --json >"$work/status"
said '"cause": "no_worker"' "$work/status"
await_said ' warn coordinator waiting train: 1 task waits' "$w/logs/coordinator.log"
mode-train --workspace "$w" 2>"$work/worker.log" &
worker=$!
await_said 'train-(seed|dense) +(started|done)' "$work/out"
rc=0
wait $run || rc=$?
run=
[ $rc = 0 ] || { cat "$work/out" >&2; fail "the run ended with $rc"; }
once 'train-seed: 1 task waits' "$work/out"
once 'train-seed goes on' "$work/out"
mode status --workspace "$w" >"$work/status"
if grep -q WAITS "$work/status"; then fail "a finished run waits"; fi
kill $worker
wait $worker || true
worker=

# workers that cannot: no GPU for what the spec requires
sed 's/^seed: 3/seed: 4\nprecision: bf16/; s/^name: test/name: gpu/' "$w/run.yaml" >"$w/gpu.yaml"
mode run "$w/gpu.yaml" --workspace "$w" --no-progress >"$work/out" 2>&1 &
run=$!
await_said 'embed: 2 tasks wait for an embed worker with a GPU .precision bf16.; the only one, embed@.*cordoned' "$work/out"
said 'HINT: start mode-embed on a machine that has one .*precision: f32' "$work/out"
await_said 'train-seed: 1 task waits for a train worker with a GPU .precision bf16., and none is connected' "$work/out"
mode status --workspace "$w" >"$work/status"
said 'embed@.* cordoned ' "$work/status"
said '^    no task for another [0-9]+ s, then one is tried; restarting the worker resets this. Last failure: ' "$work/status"
mode cancel gpu --workspace "$w" >/dev/null
wait $run || true
run=
mode down --workspace "$w" >/dev/null

# a rejected worker is given as the reason why none is connected
mode keys "$work/keys" --admin me --out "$work/me" >/dev/null
mode keys "$work/other" --worker stranger --out "$work/stranger" >/dev/null
cp "$work/keys/server.pub" "$work/stranger/server.pub"
redis-server --port 0 --unixsocket "$work/redis.sock" --save '' --daemonize yes --dir "$work" --pidfile "$work/redis.pid" >/dev/null
: >"$work/run.log"
mode-coordinator --workspace "$w" --redis "unix://$work/redis.sock" --worker-endpoint 'tcp://127.0.0.1:*' \
    --admin-endpoint 'tcp://127.0.0.1:*' --key-dir "$work/keys" 2>"$work/run.log" &
coordinator=$!
await_said ' ready ' "$work/run.log"
door=$(sed -n 's/.* workers=\(tcp:[^ ]*\).*/\1/p' "$work/run.log")
admin="--workspace $w --coordinator-admin $(sed -n 's/.* admin=\(tcp:[^ ]*\).*/\1/p' "$work/run.log") --key-dir $work/me --key-name me"
sed 's/^seed: 3/seed: 5/; s/^name: test/name: keys/' "$w/run.yaml" >"$w/keys.yaml"
mode run "$w/keys.yaml" $admin --detach >/dev/null
mode status $admin >"$work/status"
said 'captions: 2 tasks wait for a captions worker, and none is connected. HINT: start mode-captions where .*--scale captions=1.*restart captions' "$work/status"
rc=0
mode-captions --workspace "$w" --coordinator "$door" --key-dir "$work/stranger" --key-name stranger 2>"$work/worker.log" || rc=$?
[ $rc = 77 ] || { cat "$work/worker.log" >&2; fail "a stranger's worker ended with $rc"; }
await_said 'warn coordinator refused a worker at 127.0.0.1 was rejected: its key is not in .*/keys/allow' "$work/run.log"
mode status $admin >"$work/status"
said 'captions: 2 tasks wait for a captions worker, and none is connected; 127.0.0.1 was rejected [0-9]+ s ago: its key is not in' "$work/status"
kill $coordinator
wait $coordinator || true
coordinator=
echo "waits: ok"
