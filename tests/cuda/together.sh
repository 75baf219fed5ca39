#!/bin/sh
# together.sh BIN CORPUS - runs whose models are trained by two processes each, with an emulated GPU each (--gpus 2): the losses are
# those of one process; and it is the same bytes when a process of either rank is killed in the midst, its GPU fails or its links.
set -eu
bin=$1 corpus=$2
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
export MODE_BACKEND=cuda MODE_THREADS=2 CUDA_VISIBLE_DEVICES=0,1 SEED_STEPS=4 TOTAL_STEPS=8

"$corpus" "$work/alone" 100 50 >"$work/corpus.log"
rm -r "$work/alone/eval/retrieval_shapes"
spec "$work/alone"
for w in calm storm; do cp -r "$work/alone" "$work/$w"; done

run() { # workspace, trainers, GPUs of each
    "$bin/mode" up --workspace "$work/$1" --gpus "$3" \
        --workers "captions=1,embed=1,cluster=1,assign=1,train=$2,evaluate=1,ensemble=1" >>"$work/$1.log"
    "$bin/mode" run "$work/$1/run.yaml" --workspace "$work/$1" --no-progress >>"$work/$1.log" 2>&1
    "$bin/mode" down --workspace "$work/$1" >/dev/null
}
losses() { # workspace: to the fourth digit
    grep -o '"final_loss": [0-9]*\.[0-9]\{4\}' "$work/$1/report/summary.json"
}
until_steps() { # model: its training has begun once more
    n=0
    until [ "$(cat "$work"/storm/logs/train*.log 2>/dev/null | grep -c "memory_plan model=$1 ")" -gt "$begun" ]; do
        n=$((n + 1))
        [ $n -lt 1200 ] || fail "the training of $1 does not begin"
        sleep 0.1
    done
    begun=$((begun + 1))
    sleep 0.5
}

sed -i 's/{batch: 32,/{batch: 32, accumulate: 17,/' "$work/alone/run.yaml" # pieces that two cannot share: one trains, with all threads
run alone 1 2 || fail "the run by one process a model"
run calm 1 2 || fail "the run by two processes a model"
losses alone >"$work/losses"
losses calm | cmp -s - "$work/losses" && [ "$(wc -l <"$work/losses")" = 4 ] || fail "two processes have other losses than one"
[ "$(grep -c 'backend model=.* processes=2 threads=1 ' "$work"/calm/logs/train.log)" = 4 ] || fail "models were not trained by two"
[ "$(grep -c 'backend model=.* processes=1 threads=2 ' "$work"/alone/logs/train.log)" = 4 ] || fail "models were not trained by one"
[ "$(grep -c 'fewer_gpus .*1 of the 2 GPUs' "$work"/alone/logs/train.log)" = 4 ] || fail "nobody says that one trains"

export MODE_EMULATOR_FAULT="$work/fault" MODE_EMULATOR_LINK="$work/link"
run storm 2 2 &
pid=$!
begun=0
until_steps seed
pkill -KILL -f "mode-train --beside .*$work/storm " || fail "no process of rank 1"
until_steps seed
pkill -KILL -f "mode-train --compute .*$work/storm " || fail "no process of rank 0"
until_steps seed
echo "2 0" >"$work/link.new"
mv "$work/link.new" "$work/link"
begun=0
until_steps expert-0
echo 214 --beside >"$work/fault.new" # of rank 1; pipeline.sh has that of rank 0
mv "$work/fault.new" "$work/fault"
wait $pid || fail "the run whose processes were killed"
log=$work/storm/logs/coordinator.log
grep -q 'train/seed failed (other, .*process 1 of the 2 that do this task together was killed by signal 9' "$log" ||
    fail "the end of rank 1 is not told"
grep -q 'train/seed failed (crash, .*killed by signal 9' "$log" || fail "the end of rank 0 is not told"
grep -q 'train/seed failed (device, .*failed in process 0 of 2; NCCL says: unhandled system error' "$log" ||
    fail "the link that failed is not told"
grep -q 'failed (device, .*process 1 of the 2 .* code 70' "$log" || fail "the GPU that failed is not told"
grep -q 'the GPU failed: cudaErrorECCUncorrectable' "$work"/storm/logs/train*.log || fail "process 1 does not say what failed"
(cd "$work/calm" && sha256sum report/result.csv experts/*/*) >"$work/sums"
(cd "$work/storm" && sha256sum --quiet -c "$work/sums") || fail "killed processes changed bytes"
! pgrep -f "mode-train .*$work/" >/dev/null || fail "processes are left"
echo "together.sh: two processes a model: the losses of one; killed and failed: the same bytes"
