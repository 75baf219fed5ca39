#!/bin/sh
# train_algorithms.sh MODE CORPUS - `mode train --algorithms` on an emulated GPU: the first step's autotuned choices are
# kept, and trainings with them are bit-identical, also when stopped and resumed; other algorithms are another training.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
train() { # out backend options...
    out=$1 backend=$2
    shift 2
    "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 \
        --backend "$backend" --out "$out" "$@" >"$out.log" 2>&1
}
same() { cmp -s "$1/open_clip_model.safetensors" "$2/open_clip_model.safetensors"; }
number() { # sets the algorithm of every GEMM
    awk -v n="$1" 'NR > 2 && $16 == 0 {$18 = "000000000000000" n} {print}' kept.txt
}

train rule cuda --steps 4 || fail "by rule"
train first cuda --steps 4 --algorithms kept.txt || fail "no training that chooses"
[ "$(wc -l <kept.txt)" -gt 5 ] || fail "few algorithms were kept"
train again cuda --steps 4 --algorithms kept.txt || fail "no training by what was kept"
same first again || fail "by what was kept, other bytes"
# evaluation between the steps, and before the first one, autotunes nothing
tasks="--tasks corpus/eval --evaluate-steps 2"
train seen cuda --steps 4 --algorithms kept.txt $tasks || fail "evaluated, by what was kept"
same seen first || fail "evaluated in between, other bytes"
train chose cuda --steps 4 --algorithms seen.txt $tasks || fail "evaluated, no training that chooses"
awk '{NF = 15} {print}' kept.txt >shapes.txt
awk '{NF = 15} {print}' seen.txt | cmp - shapes.txt || fail "algorithms of what was evaluated were kept"
number 0 >zero.txt
number 1 >one.txt
train zero cuda --steps 4 --algorithms zero.txt || fail "by number 0"
train one cuda --steps 4 --algorithms one.txt || fail "by number 1"
same zero rule || fail "number 0 is the rule's, and comes to other bytes"
! same one rule || fail "what the file says makes no difference"

# stopped and resumed
train stopped cuda --steps 400 --algorithms one.txt --checkpoint-steps 1 &
pid=$!
n=0
until [ -e stopped/checkpoints/latest ]; do
    n=$((n + 1))
    [ $n -lt 1800 ] || fail "no checkpoint"
    sleep 0.1
done
pkill -KILL -P $pid || true
wait $pid || true
code=0
train stopped cuda --steps 400 --algorithms zero.txt --resume || code=$?
[ $code != 0 ] || fail "a training goes on with other algorithms"
grep -q 'a training with other parameters' stopped.log || fail "it does not say why it cannot go on"

train cpu cpu --steps 3 --algorithms one.txt || fail "on a processor"
grep -q 'the stored algorithms are not used: they are for a GPU' cpu.log || fail "a processor does not say so"
train none cpu --steps 3 --algorithms none.txt || fail "a processor that is to choose"
grep -q 'no algorithms were stored' none.log && [ ! -e none.txt ] || fail "a processor does not say that it has none"
echo nonsense >one.txt
code=0
train bad cuda --steps 3 --algorithms one.txt || code=$?
[ $code = 65 ] && grep -q 'the first line is "nonsense"' bad.log || fail "nonsense is taken (code $code)"
code=0
train both cuda --steps 3 --algorithms kept.txt --measure || code=$?
[ $code = 2 ] || fail "--measure beside --algorithms: code $code"
echo "train_algorithms.sh: kept, used again, refused"
