#!/bin/sh
# train_ranks.sh MODE CORPUS - `mode train` by two processes with an emulated GPU each: the losses of one process; a
# signal to one stops both with a checkpoint, which one process resumes; killing one ends the other.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
train() { # out rank steps; rank "": alone
    out=$1 rank=$2 steps=$3
    shift 3
    [ -z "$rank" ] || set -- "$@" --ranks 2 --rank "$rank" --rendezvous ./meet.sock
    exec "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 \
        --accumulate 2 --steps "$steps" --backend cuda --out "$out" "$@"
}
same() { # a's and b's steps.jsonl, each number within 2e-5
    paste -d' ' "$1/steps.jsonl" "$2/steps.jsonl" | tr -d '{},"' | awk '
        {h = NF / 2; for (i = 2; i <= h; i += 2) {d = $i - $(i + h); if (d < 0) d = -d; if (d > 2e-5 * ($i < 0 ? -$i : $i)) bad = 1}}
        END {exit bad || NR == 0}'
}

(train one "" 3) >one.log 2>&1 || fail "one process"
# one of the two evaluates between the steps, the other one waits for it
tasks="--tasks corpus/eval --evaluate-steps 1"
(train two 1 3 $tasks) >two-1.log 2>&1 &
peer=$!
(train two 0 3 $tasks) >two-0.log 2>&1 || fail "process 0 of 2"
wait $peer || fail "process 1 of 2"
same one two || fail "two processes have other losses than one"
[ ! -s two-1.log ] || fail "process 1 has something to say"
[ "$(grep -c colour two/validation.jsonl)" = 4 ] && [ ! -e one/validation.jsonl ] || fail "not evaluated after every step"

end() { # signal: sent to 1 during a long training; sets the codes of 0 and 1
    : >long-0.log # so that no step of the previous training is taken for one of this
    (train long 0 500) >long-0.log 2>&1 &
    zero=$!
    (train long 1 500) >long-1.log 2>&1 &
    one=$!
    n=0
    until grep -q '^step' long-0.log; do
        n=$((n + 1))
        [ $n -lt 1800 ] || fail "no first step"
        sleep 0.1
    done
    kill -"$1" $one
    code0=0 code1=0
    wait $zero || code0=$?
    wait $one || code1=$?
}
end TERM
[ "$code0 $code1" = "143 143" ] || fail "after SIGTERM to one: codes $code0 and $code1"
[ -e long/checkpoints/latest ] || fail "no checkpoint after SIGTERM"
step=$(sed 's/^step-0*//' long/checkpoints/latest)
# the checkpoint of two processes is of a training of 500 steps: one process resumes it, until it is stopped too
(train long "" 500 --resume) >resumed.log 2>&1 &
zero=$!
n=0
until grep -q "^step $((step + 1)) of 500" resumed.log; do
    n=$((n + 1))
    [ $n -lt 1800 ] || fail "one process does not go on from the checkpoint of two"
    sleep 0.1
done
kill -TERM $zero
code0=0
wait $zero || code0=$?
[ $code0 = 143 ] || fail "the resumed training: code $code0"
rm -rf long
end KILL
[ "$code0 $code1" = "69 137" ] || fail "after SIGKILL to one: codes $code0 and $code1"
grep -q 'process 1 of 2 has ended' long-0.log || fail "process 0 does not say who has ended"

# a process without a peer, or whose peer may not begin, does not hang
code0=0
(train nobody 1 3 --rendezvous-timeout 0.3) >nobody.log 2>&1 || code0=$?
[ "$code0" = 69 ] && grep -q 'process 0 of 2 did not answer' nobody.log || fail "alone as process 1: code $code0"
code0=0
(train nobody 0 3 --rendezvous-timeout 0.3) >nobody.log 2>&1 || code0=$?
[ "$code0" = 69 ] && grep -q '1 of 2 processes connected' nobody.log && [ ! -e nobody ] || fail "alone as process 0: code $code0"
mkdir full
touch full/open_clip_model.safetensors
code0=0 code1=0
(train full 1 3) >full-1.log 2>&1 &
peer=$!
(train full 0 3) >full-0.log 2>&1 || code0=$?
wait $peer || code1=$?
[ "$code0 $code1" = "73 69" ] && grep -q 'exists already' full-0.log && grep -q 'process 0 of 2 has ended' full-1.log ||
    fail "a folder that is full: codes $code0 and $code1"
code0=0 code1=0 # process 0 has no GPU that can be used, and says so to 1 before it ends
(train blind 1 3) >blind-1.log 2>&1 &
peer=$!
(export MODE_EMULATOR_CAPABILITY=80; train blind 0 3 --backend cuda-fp8) >blind-0.log 2>&1 || code0=$?
wait $peer || code1=$?
[ "$code0 $code1" = "70 69" ] && grep -q 'process 0 of 2 has ended' blind-1.log && [ ! -e blind ] ||
    fail "process 0 has no GPU: codes $code0 and $code1"
echo "train_ranks.sh: as one process; stopped, resumed and killed; nobody waits for ever"
