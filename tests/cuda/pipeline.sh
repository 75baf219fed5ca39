#!/bin/sh
# pipeline.sh BIN CORPUS - the services on an emulated GPU, in bf16: a run from shards to report; and the same with
# workers that are killed during embedding and training, and with a GPU that fails: bit-identical experts and results.
# Where a GPU has failed before, or computes wrong results, no worker starts.
set -eu
bin=$1 corpus=$2
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
export MODE_BACKEND=cuda MODE_THREADS=1 SEED_STEPS=8 TOTAL_STEPS=14

"$corpus" "$work/calm" 100 50 >"$work/corpus.log"
rm -r "$work/calm/eval/retrieval_shapes"
spec "$work/calm"
sed -i "1i precision: bf16" "$work/calm/run.yaml"
cp -r "$work/calm" "$work/killed"

up_refused() { # pattern, what it shows, environment
    pattern=$1 what=$2 code=0
    shift 2
    env "$@" "$bin/mode" up --workspace "$work/refused" >"$work/refused.log" 2>&1 || code=$?
    [ $code = 70 ] && grep -q "nothing runs: .* cannot be started like this: $pattern" "$work/refused.log" ||
        fail "$what: code $code, $(cat "$work/refused.log")"
}
echo 214 >"$work/fault"
up_refused '.*cudaErrorECCUncorrectable' "a GPU that has failed" "MODE_EMULATOR_FAULT=$work/fault" MODE_BACKEND=auto
rm -f "$work/fault"
up_refused 'emulated GPU, .* GiB: a GEMM and a kernel differ' "a GPU that computes wrong" MODE_EMULATOR_PRODUCTS=off

run() { # workspace trainers
    "$bin/mode" up --workspace "$work/$1" --workers "captions=1,embed=1,cluster=1,assign=1,train=$2,evaluate=1,ensemble=1" \
        >>"$work/run.log"
    "$bin/mode" run "$work/$1/run.yaml" --workspace "$work/$1" --no-progress >>"$work/run.log" 2>&1
}
kill_in() { # task, worker: which starts another process, which does the task again
    await_said "$1 *started" "$work/run.log"
    kill_compute "$work/killed" "$2" $pid
}

run calm 1 || fail "the run"
grep -q '"backends": "cuda-bf16"' "$work/calm/report/summary.json" || fail "summary.json does not say what computed"
grep -q '"backends": "c[^u]' "$work/calm/report/summary.json" && fail "a stage was computed by a processor"
"$bin/mode" status --workspace "$work/calm" | grep -q 'train@.*\[emulated GPU, .* GiB\]' || fail "mode status does not say what a worker computes with"
"$bin/mode" down --workspace "$work/calm" >/dev/null
: >"$work/run.log"
export MODE_EMULATOR_FAULT="$work/fault"
run killed 2 &
pid=$!
kill_in embed embed
kill_in train-seed train
kill_in train-dense train
echo 214 mode-train:--compute 30 >"$work/fault"
wait $pid || fail "the run whose workers were killed"
log=$work/killed/logs/coordinator.log
[ "$(hits "$work/killed")" -ge 3 ] || fail "three processes were to be killed"
[ "$(grep -c 'failed (device, .*the GPU failed: cudaErrorECCUncorrectable' "$log")" = 1 ] || fail "one GPU was to fail"
(cd "$work/calm" && sha256sum report/result.csv experts/*/*) >"$work/sums"
(cd "$work/killed" && sha256sum --quiet -c "$work/sums") || fail "killed workers changed bytes"
[ "$(grep -c 'experts/expert' "$work/sums")" -ge 4 ] || fail "there are no experts"
echo "pipeline.sh: on emulated GPUs, killed, failed and not, the same bytes"
