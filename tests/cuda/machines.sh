#!/bin/sh
# machines.sh BIN CORPUS - a run whose first models are trained by two machines, that is by a worker and a companion
# that connect by TCP with keys, with an emulated GPU each: bit-identical to --gpus 2 on one machine, also when the
# companion, its process or the leader is killed or stopped; a wrong key or another version is refused, keys are added
# and removed at SIGHUP.
set -eu
bin=$1 corpus=$2
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
export MODE_BACKEND=cuda MODE_THREADS=1 SEED_STEPS=4 TOTAL_STEPS=6
workers=captions=1,train=1 # so the seed and its continuation are made, and nothing else

shows() { "$bin/mode" status --workspace "$work/team" 2>/dev/null | grep -q "$1"; }
until_status() { await shows "$1" || fail "the status does not say \"$1\""; } # words
companion=
trap '[ -z "$companion" ] || kill -9 "$companion" 2>/dev/null || true; cleanup' EXIT
join() { # program, keys, log, options...; in a subshell
    program=$1 keys=$2 said=$3
    shift 3
    exec env CUDA_VISIBLE_DEVICES=1 "$program" join --workspace "$work/team" --team "$team" --team-keys "$keys" --node far \
        --health-file "$work/far.health" "$@" >>"$said" 2>&1
}
start_far() {
    join "$bin/mode-train" "$work/others" "$far" &
    companion=$!
}
read_keys() { # the leader, again
    kill -HUP "$(pgrep -f "mode-train --workspace=$work/team ")"
}
begun() { # how often both began to train by now
    b=$(grep -c 'memory_plan ' "$work/team/logs/train.log") || true
    echo "${b:-0}"
}
had_begun() { # likewise, before the last task failed: the next may have begun before anybody looks
    awk '/memory_plan / {n++} /task_failed / {then = n} END {print then + 0}' "$work/team/logs/train.log"
}
more_begun() { [ "$(begun)" -gt "$1" ]; }
until_begun() { await more_begun "$1" || fail "no further training begins"; } # once more than then
models() { # workspace: digests of weights and moments
    find "$work/$1/blobs" -type f -size +1M -printf '%f\n' | sort
}

"$corpus" "$work/calm" 60 30 >"$work/corpus.log"
spec "$work/calm"
sed -i 's/{batch: 32,/{batch: 8,/' "$work/calm/run.yaml"
cp -r "$work/calm" "$work/team"

CUDA_VISIBLE_DEVICES=0,1 "$bin/mode" up --workspace "$work/calm" --workers $workers --gpus 2 >"$work/run.log"
"$bin/mode" run "$work/calm/run.yaml" --workspace "$work/calm" --detach >>"$work/run.log" 2>&1
await_said 'task_done .*label=train/dense' "$work/calm/logs/train.log"
"$bin/mode" down --workspace "$work/calm" >/dev/null

"$bin/mode" keys "$work/keys" --worker worker >/dev/null
"$bin/mode" keys "$work/others" --worker worker >/dev/null
cp "$work/keys/server.pub" "$work/others/"
team=tcp://127.0.0.1:$(free_port) far=$work/far.log log=$work/team/logs/coordinator.log
MODE_EMULATOR_FAULT="$work/fault"
export MODE_EMULATOR_FAULT
CUDA_VISIBLE_DEVICES=0 MODE_MACHINES=2 MODE_TEAM=$team MODE_TEAM_KEYS=$work/keys "$bin/mode" up --workspace "$work/team" \
    --workers $workers >>"$work/run.log"
"$bin/mode" run "$work/team/run.yaml" --workspace "$work/team" --detach >>"$work/run.log" 2>&1

for words in 'machines 2' 'machines 2 --team tcp://127.0.0.1:9' 'machines 65' 'machines 2 --slots 2 --team tcp://127.0.0.1:9 --team-keys .'; do
    code=0
    "$bin/mode-train" --workspace "$work/team" --$words 2>>"$work/wrong.log" || code=$?
    [ $code = 2 ] || fail "--$words: $code"
done
until_status '2 machines, 1 missing'
code=0
(join "$bin/mode-train" "$work/others" "$work/wrong.log") || code=$?
[ $code = 77 ] && grep -q 'the leader refused this key.*SIGHUP' "$work/wrong.log" || fail "a wrong key: $code"
cp "$work/keys/allow" "$work/allow"
echo "worker other $(cat "$work/others/worker.pub")" >>"$work/keys/allow"
read_keys
await_said 'allow_list .* was read again' "$work/team/logs/train.log"
code=0
(join "$bin/../other-version/mode-train" "$work/keys" "$work/wrong.log" --backend auto) || code=$?
[ $code = 78 ] && grep -q 'the leader rejected this machine: .* version 9.9.9' "$work/wrong.log" || fail "another version: $code"
await_said 'waiting train: 1 task waits for a train worker; .*2 machines, 1 missing' "$log"
! grep -q 'task_start' "$work/team/logs/train.log" || fail "a task began without the other machine"

echo '-9 mode-train:--beside 30' >"$work/fault"
start_far
until_status '2 machines, 2 GPUs'
await_said 'train/.* failed \(other, .*process 1 of the 2 .* \(on far\) was killed by signal 9' "$log"
echo '-9 mode-train:--compute 30' >"$work/fault"
await_said 'train/.* failed \(crash, .*killed by signal 9' "$log"
until_begun "$(had_begun)"
before=$(begun)
kill -9 $companion
await_said 'train/.* failed \(store, .*machine far, which has process 1 .* is gone' "$log"
until_status '2 machines, 1 missing'
start_far
until_begun "$before"
before=$(begun)
kill -9 "$(pgrep -f "mode-train --workspace=$work/team ")"
await_said 'leader_gone .*processes_ended=1' "$far"
until_begun "$before"
kill -TERM $companion
code=0
wait $companion || code=$?
[ $code = 143 ] || fail "the companion that was stopped ended with $code"
await_said 'task_stopped' "$work/team/logs/train.log"
start_far
await_said 'task_done .*label=train/dense' "$work/team/logs/train.log"
grep -q 'task_start .* processes=1..1 of=2 checkpoint=1' "$far" || fail "nobody went on from a checkpoint"
"$bin/mode-train" healthcheck --health-file "$work/far.health" >/dev/null || fail "the companion's health"
cp "$work/allow" "$work/keys/allow"
read_keys
code=0
wait $companion || code=$?
[ $code = 77 ] && grep -q 'its key was taken out of the allow list' "$far" || fail "a companion whose key was taken away ended with $code"
models calm >"$work/sums"
[ "$(wc -l <"$work/sums")" = 4 ] || fail "the models and their moments are not four files"
models team | cmp -s - "$work/sums" || fail "two machines make other bytes than one with two GPUs"
"$bin/mode" down --workspace "$work/team" >/dev/null
none_left "mode-train .*$work/"
echo "machines.sh: two machines a model: the bytes of one with two GPUs, whatever is killed"
