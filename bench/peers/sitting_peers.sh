#!/bin/sh
# sitting_peers.sh BUILD BIN OUT [SECONDS [STEP...]] - the peers on a borrowed GPU, those with a target first: BUILD has
# cuda-bench (tests/cuda), BIN the mode command of a build with -DMODE_CUDA=ON. As in tests/cuda/sitting.sh, each step has a
# time limit, all end within SECONDS (default 780), logs are in OUT; table rows are printed as they come. PYTHON (python3)
# has torch for CUDA; WHEELS, if set, is a folder made by wheels.sh, which is installed first. Temporary files (these
# packages, 3 GB of shards) are in SCRATCH (/tmp/mode-peers). MODE_TEST_MODELS: the folder of `make models`. LENGTHS: a file
# of `mode tokenize --lengths`, instead of 22 tokens.
#
#   train-b32 shards loader-500x375 loader-1024x768 embed kmeans train-l14 train-b16 dense-b32 nothing-saved encode fp8
set -u
build=$(cd "$1" && pwd) bin=$(cd "$2" && pwd) out=$3 end=$(($(date +%s) + ${4:-780}))
shift $(($# > 4 ? 4 : $#))
only=" $* " here=$(cd "$(dirname "$0")" && pwd) python=${PYTHON:-python3} scratch=${SCRATCH:-/tmp/mode-peers}
. "$here/../../tests/cuda/sitting-lib.sh"
: "${MODE_TEST_MODELS:?the folder of make models}"
export MODE_CLIP_MERGES="${MODE_CLIP_MERGES:-$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz}" PYTHONUNBUFFERED=1
rows='^| '
# another device and a small batch are only for trying this script
device=${DEVICE:-cuda} backend=${BACKEND:-cuda-bf16} batch=${BATCH:-1024}
mkdir -p "$scratch"

if [ -n "${WHEELS:-}" ]; then
    step wheels 60 "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$scratch/site" "$WHEELS"/*.whl
    export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
fi
lengths=${LENGTHS:+"--lengths $LENGTHS"}
train() { # name, limit, model, batch, options...
    at=$1 most=$2 config=$3 pairs=$4
    shift 4
    step "$at" "$most" "$python" "$here/bench_cuda.py" "$build/cuda-bench" train --config "$config" --batch "$pairs" \
        --backend "$backend" --device "$device" "$@"
}
best=bf16+compiled+cut,bf16+compiled

train train-b32 200 ViT-B-32 "$batch" $lengths --peers $best
step shards 90 "$python" "$here/pictures.py" "$scratch/shards"
for kind in 500x375 1024x768; do
    step loader-$kind 240 "$python" "$here/bench_cuda_loader.py" "$bin/mode" --batch "$batch" --backend "$backend" --device "$device" \
        --folder "$scratch/shards" --kinds $kind --seconds 8
done
step embed 150 "$python" "$here/bench_embed.py" "$bin/mode" "$MODE_TEST_MODELS/encoder" "$scratch"/shards/*/*.tar --texts 32768 \
    --device "$device" --backend "$backend" --batch 400 --batch-tokens 16384 --peers arrival,sorted+bf16+compiled,sorted+bf16+compiled+ids,sorted+bf16
step kmeans 90 "$python" "$here/bench_cuda_kmeans.py" "$bin/mode" --rows 1048576 --centres 1024 --width 768 --backend "$backend" --device "$device"
train train-l14 200 ViT-L-14 128 $lengths --peers $best
train train-b16 200 ViT-B-16 512 $lengths --peers $best
train dense-b32 150 ViT-B-32 "$batch" --tokens 77 --peers bf16+compiled
train nothing-saved 150 ViT-B-32 "$batch" --tokens 77 --no-savings --peers bf16+compiled
step encode 100 "$python" "$here/bench_cuda.py" "$build/cuda-bench" encode --batch "$batch" --backend "$backend" --device "$device" \
    --peers bf16+compiled
backend=cuda-fp8
train fp8 150 ViT-L-14 128 $lengths --peers bf16+compiled+cut
finish
