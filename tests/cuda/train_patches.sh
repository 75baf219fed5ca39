#!/bin/sh
# train_patches.sh MODE CORPUS - `mode train --patch-dropout` on an emulated GPU: bit-identical as graphs and op by op, on
# several streams and on one, with pictures that the device resizes and with pixels of the host; in f32 the losses of the
# CPU.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
train() { # out options...
    out=$1
    shift
    "$mode" train --config model.json --data "$shards" --batch 16 --warmup 1 --seed 3 --steps 6 --patch-dropout 0.5 \
        --out "$out" "$@" >"$out.log" 2>&1 || fail "$out: exit $?"
}
loss() { sed 's/.*"loss": //; s/,.*//' "$1/steps.jsonl"; }

train cpu --backend cpu
for backend in cuda cuda-bf16; do
    train $backend --backend $backend
    grep -q '^pictures were resized by the device' $backend.log || fail "the device did not resize the pictures"
    ! grep -q 'not as CUDA graphs' $backend.log || fail "steps were not graphs"
    train $backend-plain --backend $backend --no-graphs --no-streams
    MODE_CUDA_PIXELS=host train $backend-pixels --backend $backend
    train $backend-again --backend $backend --checkpoint-activations --threads 3
    for way in plain pixels again; do
        for file in open_clip_model.safetensors optimizer.safetensors steps.jsonl; do
            cmp $backend/$file $backend-$way/$file || fail "$backend, $way: other bytes in $file"
        done
    done
done
loss cpu >cpu.txt
loss cuda | paste cpu.txt - | awk '{ d = ($1 - $2) / $1; if (d > 1e-5 || d < -1e-5) exit 1 }' || fail "cuda: other losses than cpu"
