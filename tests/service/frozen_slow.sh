#!/bin/sh
# frozen_slow.sh BIN - the coordinator is frozen for 45 s (docker pause, VM migration, swapping) while a model is trained.
# ZeroMQ drops the connections after 19 s, and every handshake after that fails: no worker takes that for a refusal, none
# exits or loses its task, and the run continues where it was.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
SEED_STEPS=400 TOTAL_STEPS=420
PAUSE_S=45

w=$work/w
corpus "$w" 600 60
spec "$w"
"$bin/mode" up --workspace "$w" >/dev/null
"$bin/mode" run "$w/run.yaml" --workspace "$w" --no-progress 2>"$work/run.log" &
run=$!
for i in $(seq 1 1200); do
    if grep -q task_start "$w/logs/train.log" 2>/dev/null; then break; fi
    kill -0 $run 2>/dev/null || fail "the run ended before anything was trained"
    sleep 0.1
done
agents=$(cat "$w"/run/*.pid | sort)
coordinator=$(head -n 1 "$w/run/coordinator.pid")
kill -STOP "$coordinator"
sleep $PAUSE_S
kill -CONT "$coordinator"
rc=0
wait $run || rc=$?
[ $rc = 0 ] || fail "the run ended with $rc"
[ "$(cat "$w"/run/*.pid | sort)" = "$agents" ] || fail "a process was started again"
grep -q link_down "$w/logs/train.log" || fail "the link was not lost: this test tested nothing"
if grep -E 'fatal|lease_lost|hung up' "$w"/logs/*.log; then fail "a worker gave up"; fi
"$bin/mode" reconcile --workspace "$w" >/dev/null || fail "the ledger does not add up"
"$bin/mode" down --workspace "$w" >/dev/null
echo "frozen: ok"
