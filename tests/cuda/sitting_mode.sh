#!/bin/sh
# sitting_mode.sh BIN OUT [SECONDS [STEP...]] - the product itself on a borrowed GPU: BIN has the programs of a build
# with -DMODE_CUDA=ON, including mode-test-corpus, MODE_TEST_MODELS is the folder of `make models`. As in sitting.sh:
# each step has a limit, all run within SECONDS (default 420), logs and machine.log go to OUT, one line per step to
# stdout.
#
#   doctor       what mode doctor says of GPU and libraries
#   embed        the vectors match the CPU's, in f32 and bf16
#   train        the losses match the CPU's; bit-identical with and without graphs and streams
#   algorithms   autotuned once; two trainings with the kept choices are bit-identical
#   resume       stopped on a GPU and resumed on the CPU, and the reverse: ten more losses match; stopped and resumed on
#                the same GPU: bit-identical
#   run          mode up and mode run, shards to report, in bf16 (where redis-server is)
set -u
here=$(cd "$(dirname "$0")" && pwd)
if [ "$1" != --step ]; then
    bin=$(cd "$1" && pwd) out=$2 end=$(($(date +%s) + ${3:-420}))
    shift $(($# > 3 ? 3 : $#))
    only=" $* "
    . "$here/sitting-lib.sh"
    step doctor 30 "$bin/mode" doctor --gpus
    for name in embed train algorithms resume run; do step $name 120 sh "$here/sitting_mode.sh" --step $name "$bin"; done
    finish
    exit
fi

set -e
what=$2 bin=$3
mode=$bin/mode corpus=$bin/mode-test-corpus
: "${MODE_TEST_MODELS:?the folder of make models}"
export MODE_CLIP_MERGES="${MODE_CLIP_MERGES:-$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz}"
[ "$what" = run ] || . "$here/small-training.sh"
unset MODE_THREADS

train() { # out backend options...
    to=$1 on=$2
    shift 2
    "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 --backend "$on" --out "$to" "$@" >"$to.log" 2>&1
}
same() { cmp -s "$1/open_clip_model.safetensors" "$2/open_clip_model.safetensors"; }
# Distance of two lists of numbers, line by line: the largest difference relative to the largest number. Prints it, and
# fails beyond the limit, for NaN and Inf, and when one list is longer.
near() { # what, limit, file, file
    paste "$3" "$4" | awk -v what="$1" -v limit="$2" '
        NF != 2 || $0 ~ /nan|inf/ {bad = 1}
        {d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d; a = $1 < 0 ? -$1 : $1; if (a > big) big = a}
        END {off = big > 0 ? most / big : 1; printf "%s: %d numbers, apart by %.2g, limit %g\n", what, NR, off, limit; exit bad || NR == 0 || off > limit}'
}

case $what in
embed)
    # an .npy without its header of 128 bytes
    floats() { tail -c +129 "$1" | od -An -v -t f4 -w4; }
    for i in 1 2 3 4 5 6 7 8; do
        printf 'a red square\na photograph of %s small dogs that run along a beach\n\nblue\n' $i
    done >texts
    for on in cpu cuda cuda-bf16; do
        "$mode" embed --encoder "$MODE_TEST_MODELS/encoder" --pooling mean --texts texts --backend $on --out $on.npy >$on.log 2>&1 || fail "embed on $on"
        floats $on.npy >$on.txt
    done
    # the largest 1 - cosine of corresponding vectors; both files have one number per line
    cosines() { # what, limit, file, file
        paste "$3" "$4" | awk -v what="$1" -v limit="$2" -v dim=$(($(wc -l <"$3") / $(wc -l <texts))) '
            NF != 2 || $0 ~ /nan|inf/ {bad = 1}
            {xy += $1 * $2; xx += $1 * $1; yy += $2 * $2}
            NR % dim == 0 {off = xx * yy > 0 ? 1 - xy / sqrt(xx * yy) : 1; if (off > worst) worst = off; n++; xy = xx = yy = 0}
            END {printf "%s: %d vectors, 1 - cosine at most %.2g, limit %g\n", what, n, worst, limit; exit bad || n == 0 || worst > limit}'
    }
    cosines "vectors, cuda and cpu" 1e-10 cuda.txt cpu.txt || fail "vectors of cuda"
    cosines "vectors, cuda-bf16 and cpu" 5e-4 cuda-bf16.txt cpu.txt || fail "vectors of cuda-bf16"
    ;;
train)
    losses() { sed 's/.*"loss": \([^,]*\).*/\1/' "$1/steps.jsonl"; }
    for on in cpu cuda cuda-bf16; do
        train $on $on --steps 8 || fail "train on $on"
        losses $on >$on.txt
    done
    near "losses, cuda and cpu" 1e-4 cuda.txt cpu.txt || fail "losses of cuda"
    near "losses, cuda-bf16 and cpu" 2e-2 cuda-bf16.txt cpu.txt || fail "losses of cuda-bf16"
    train plain cuda-bf16 --steps 8 --no-graphs --no-streams || fail "train without graphs and streams"
    same plain cuda-bf16 || fail "graphs and streams change bytes"
    echo "the same bytes with graphs and streams and without"
    ;;
algorithms)
    train first cuda-bf16 --steps 8 --algorithms kept.txt || fail "no training that chooses"
    echo "$(($(wc -l <kept.txt) - 2)) products have algorithms"
    for n in 1 2; do
        train again$n cuda-bf16 --steps 8 --algorithms kept.txt || fail "no training by what was kept"
        ! grep 'the stored algorithms are not used' again$n.log || fail "they are refused"
        same first again$n || fail "by what was kept, other bytes"
    done
    echo "the same bytes, twice"
    ;;
resume)
    # from, to, tolerance of ten losses: a training that is stopped after its first checkpoint; with more steps if it
    # finished too soon for that
    losses() { sed 's/.*"loss": \([^,]*\).*/\1/' "$1/steps.jsonl"; }
    for pair in "cuda cuda 0" "cuda-bf16 cuda-bf16 0" "cuda cpu 1e-4" "cpu cuda 1e-4" "cuda-bf16 cpu 2e-2" "cpu cuda-bf16 2e-2"; do
        set -- $pair
        for steps in 40 200 1000; do
            rm -rf stopped
            "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 --checkpoint-steps 10 --steps $steps \
                --out stopped --backend "$1" >stopped.log 2>&1 &
            pid=$! n=0
            until [ -e stopped/checkpoints/latest ] || grep -q ') Z' /proc/$pid/stat; do
                n=$((n + 1))
                [ $n -lt 6000 ] || fail "no checkpoint on $1"
                sleep 0.01
            done
            kill -TERM $pid 2>/dev/null || true
            code=0
            wait $pid || code=$?
            [ $code != 0 ] && break
        done
        [ $code = 143 ] || fail "stopped on $1: code $code"
        at=$(sed 's/^step-0*//' stopped/checkpoints/latest)
        train stopped "$2" --checkpoint-steps 10 --steps $steps --resume || fail "from $1 to $2"
        [ "$(wc -l <stopped/steps.jsonl)" = $steps ] || fail "from $1 to $2: not every step is there"
        train whole "$1" --checkpoint-steps 10 --steps $steps || fail "in one piece"
        losses whole | head -n "$at" >whole.txt
        losses stopped | head -n "$at" >parts.txt
        cmp -s whole.txt parts.txt || fail "on $1: another loss before step $at"
        losses whole | head -n $((at + 10)) | tail -n 10 >whole.txt
        losses stopped | head -n $((at + 10)) | tail -n 10 >parts.txt
        near "from $1 to $2 at step $at of $steps, ten losses and those of one piece" "$3" parts.txt whole.txt || fail "from $1 to $2: other losses"
        [ "$1" != "$2" ] || same stopped whole || fail "from $1 to $2: other bytes"
        rm -rf stopped whole
    done
    ;;
run)
    command -v redis-server >/dev/null || { echo "left out: there is no redis-server"; exit 0; }
    . "$here/../tools/service-lib.sh"
    need_models
    export MODE_BACKEND=cuda SEED_STEPS=8 TOTAL_STEPS=14
    corpus "$work/w" 100 50 >"$work/corpus.log"
    spec "$work/w"
    sed -i "1i precision: bf16" "$work/w/run.yaml"
    "$mode" up --workspace "$work/w" --workers "captions=1,embed=1,cluster=1,assign=1,train=1,evaluate=1,ensemble=1" >"$work/run.log" 2>&1 || fail "mode up"
    "$mode" run "$work/w/run.yaml" --workspace "$work/w" --no-progress >>"$work/run.log" 2>&1 || fail "the run"
    grep -q '"backends": "cuda-bf16"' "$work/w/report/summary.json" || fail "summary.json does not say what computed"
    ! grep '"backends": "c[^u]' "$work/w/report/summary.json" || fail "a stage was computed by a processor"
    "$mode" status --workspace "$work/w" | grep 'train@'
    echo "a run from shards to report, in bf16"
    ;;
*) echo "sitting_mode.sh: there is no step $what"; exit 2 ;;
esac
