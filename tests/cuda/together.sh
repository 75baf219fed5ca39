#!/bin/sh
# together.sh BIN CORPUS - runs whose models are trained by two processes each, with an emulated GPU each (--gpus 2):
# the losses are those of one process; and results are bit-identical when a process of either rank is killed, its GPU
# fails or its links.
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
hit() { # fault | link, what befalls whom and when, what the coordinator is told of it
    echo "$2" >"$work/$1.new"
    mv "$work/$1.new" "$work/$1"
    await_said "$3" "$log"
}

sed -i 's/{batch: 32,/{batch: 32, accumulate: 17,/' "$work/alone/run.yaml" # 17 micro-batches, which two cannot share: one process trains, with all threads
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
log=$work/storm/logs/coordinator.log
hit fault '-9 mode-train:--beside 30' 'train/seed failed \(other, .*process 1 of the 2 that do this task together was killed by signal 9'
hit fault '-9 mode-train:--compute 30' 'train/seed failed \(crash, .*killed by signal 9'
hit link '2 0' 'train/seed failed \(device, .*failed in process 0 of 2; NCCL says: unhandled system error'
await_said 'memory_plan model=expert-0 ' "$work"/storm/logs/train*.log
hit fault '214 mode-train:--beside 30' 'failed \(device, .*process 1 of the 2 .* code 70' # rank 1's; pipeline.sh has rank 0's
wait $pid || fail "the run whose processes were killed"
grep -q 'the GPU failed: cudaErrorECCUncorrectable' "$work"/storm/logs/train*.log || fail "process 1 does not say what failed"
(cd "$work/calm" && sha256sum report/result.csv experts/*/*) >"$work/sums"
(cd "$work/storm" && sha256sum --quiet -c "$work/sums") || fail "killed processes changed bytes"
none_left "mode-train .*$work/"
echo "together.sh: two processes a model: the losses of one; killed and failed: the same bytes"
