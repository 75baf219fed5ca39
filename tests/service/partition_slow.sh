#!/bin/sh
# partition_slow.sh BIN - a network partition between a training worker and the coordinator, longer than a lease, in both
# directions and in one of them, while connections stay open: another worker continues from the checkpoint, the first one
# comes back and publishes nothing that is no longer its own, and the models are byte for byte those of an undisturbed run.
set -eu
bin=$1
tools=$(cd "$(dirname "$0")/../tools" && pwd)
. "$tools/service-lib.sh"
need_models
command -v python3 >/dev/null || { echo "SKIPPED: python3 is not installed" >&2; exit 77; }
SEED_STEPS=1500 TOTAL_STEPS=1520
LEASE_MS=5000
pids=
end_all() {
    for p in $pids; do kill "$p" 2>/dev/null || true; done
    for p in $pids; do wait "$p" 2>/dev/null || true; done
    pids=
}
trap 'end_all; cleanup' EXIT

has_checkpoint() { [ -n "$(find "$w/ckpt" -name '*.manifest' 2>/dev/null | head -n 1)" ]; }

corpus "$work/plain" 600 60
spec "$work/plain"
cp -r "$work/plain" "$work/corpus"
"$bin/mode" up --workspace "$work/plain" >/dev/null
"$bin/mode" run "$work/plain/run.yaml" --workspace "$work/plain" --no-progress 2>"$work/run.log" || fail "the undisturbed run"
"$bin/mode" down --workspace "$work/plain" >/dev/null

worker() { # word, name, coordinator's port
    "$bin/mode-$1" --workspace "$w" --coordinator "tcp://127.0.0.1:$3" --key-dir "$w/keys-w" --key-name w \
        --name "$2" --health-file "$w/$2.health" 2>"$w/logs/$2.log" &
    pids="$pids $!"
}

for way in both up down; do
    w=$work/$way
    cp -r "$work/corpus" "$w"
    mkdir "$w/logs"
    "$bin/mode" keys "$w/keys" --worker w --out "$w/keys-w" >/dev/null
    redis-server --port 0 --unixsocket "$w/redis.sock" --save '' --appendonly no >"$w/logs/redis.log" 2>&1 &
    pids="$pids $!"
    "$bin/mode-coordinator" --workspace "$w" --redis "unix://$w/redis.sock" --key-dir "$w/keys" --lease-ms $LEASE_MS \
        --heartbeat-ms 500 --worker-endpoint 'tcp://127.0.0.1:*' 2>"$w/logs/coordinator.log" &
    pids="$pids $!"
    await_said ' workers=tcp:' "$w/logs/coordinator.log"
    port=$(sed -n 's/.* workers=tcp:[^ ]*:\([0-9]*\).*/\1/p' "$w/logs/coordinator.log" | head -n 1)
    echo pass >"$w/state"
    python3 -u "$tools/partition_proxy.py" "$port" "$w/state" >"$w/proxy" 2>"$w/logs/proxy.log" &
    pids="$pids $!"
    await test -s "$w/proxy" || fail "$way: the proxy does not begin"
    for word in captions embed cluster assign evaluate ensemble; do worker $word $word "$port"; done
    worker train far "$(cat "$w/proxy")"
    "$bin/mode" run "$w/run.yaml" --workspace "$w" --no-progress 2>"$work/run.log" &
    run=$!
    await has_checkpoint || fail "$way: the worker that will be far has no checkpoint"
    echo $way >"$w/state"
    worker train near "$port"
    await_said 'task_start .*label=train/seed' "$w/logs/near.log"
    sleep 3
    echo pass >"$w/state"
    rc=0
    wait $run || rc=$?
    [ $rc = 0 ] || fail "$way: the run ended with $rc"
    await_said lease_lost "$w/logs/far.log"
    if grep -hE ' (fatal|nondeterministic) ' "$w"/logs/*.log; then fail "$way: see above"; fi
    "$bin/mode" reconcile --workspace "$w" >/dev/null || fail "$way: the ledger does not add up"
    for m in seed dense expert-0 expert-1; do
        cmp "$work/plain/experts/$m/open_clip_model.safetensors" "$w/experts/$m/open_clip_model.safetensors" ||
            fail "$way: $m is not the undisturbed run's"
    done
    end_all
done
echo "partition: ok"
