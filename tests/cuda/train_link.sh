#!/bin/sh
# train_link.sh MODE CORPUS - `mode train` by two processes with an emulated GPU each, whose link fails: one reports
# NCCL's error (70), the other the peer that quit (69), and a resumed training is bit-identical to one without a
# failure. A process that is stopped is waited for, and named after a minute.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
train() { # out rank options...
    out=$1 rank=$2
    shift 2
    exec "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 --steps 12 \
        --checkpoint-steps 1 --backend cuda --out "$out" --ranks 2 --rank "$rank" --rendezvous "./$out.sock" "$@"
}
start() { # out options...: both processes, $zero and $one
    out=$1
    shift
    (train "$out" 0 "$@") >"$out-0.log" 2>&1 &
    zero=$!
    (train "$out" 1 "$@") >"$out-1.log" 2>&1 &
    one=$!
}
both() { # how they end: $codes
    code0=0 code1=0
    wait $zero || code0=$?
    wait $one || code1=$?
    codes="$code0 $code1"
}

# meanwhile, a process that is stopped, in a collective that the other is in or enters
export MODE_EMULATOR_LINK="$dir/stop"
echo "0 1 stop 40" >stop
start slow
slow_zero=$zero slow_one=$one

export MODE_EMULATOR_LINK="$dir/link"
start calm
both
[ "$codes" = "0 0" ] || fail "without a failure: codes $codes"

for rank in 0 1; do
    for call in $((33 + rank)) $((78 - rank)); do # of some 100, 8 a step
        rm -rf hit
        echo "2 $rank ask $call" >link
        start hit
        both
        ! [ -e link ] || fail "the link of process $rank did not fail"
        [ "$codes" = "$([ $rank = 0 ] && echo 70 69 || echo 69 70)" ] || fail "the link of process $rank fails: codes $codes"
        [ "$(grep -c "failed in process $rank of 2; NCCL says: unhandled system error" "hit-$rank.log")" = 1 ] ||
            fail "process $rank does not say what failed"
        [ "$(grep -c "process $rank of 2 has broken off" "hit-$((1 - rank)).log")" = 1 ] ||
            fail "process $((1 - rank)) does not say who has broken off"
        ! [ -e hit/open_clip_model.safetensors ] || fail "a model was written"
        start hit --resume
        both
        [ "$codes" = "0 0" ] || fail "gone on with: codes $codes"
        cmp hit/open_clip_model.safetensors calm/open_clip_model.safetensors || fail "a failure changed bytes"
    done
done

n=0
until grep -q 'process 1 of 2 has begun no exchange for 60 s, and process 0 is ahead' slow-0.log; do
    n=$((n + 1))
    [ $n -lt 2000 ] || fail "the process that was stopped is not named"
    sleep 0.1
done
! [ -e stop ] || fail "nobody was stopped"
kill -CONT $slow_one
zero=$slow_zero one=$slow_one
both
[ "$codes" = "0 0" ] || fail "stopped and gone on: codes $codes"
! grep -q 'has begun no exchange' slow-1.log || fail "process 0, which waited, is taken for the late one"
cmp slow/open_clip_model.safetensors calm/open_clip_model.safetensors || fail "a process that was stopped changed bytes"
echo "train_link.sh: links that fail: said, and nothing of them stays; a process that is stopped is named"
