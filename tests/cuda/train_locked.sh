#!/bin/sh
# train_locked.sh MODE CORPUS - `mode train --lock-image` and `--lock-text` on an emulated GPU: bit-identical as graphs and
# op by op, on several streams and on one, with pictures that the device resizes and with pixels of the host; a locked
# tower's weights stay; in f32 the losses of the CPU; two processes have those of one.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
sed -i 's/"layers": 1/"layers": 2/g' model.json
"$mode" train --config model.json --data "$shards" --batch 16 --steps 1 --seed 3 --backend cpu --out init >init.log 2>&1 ||
    fail "no model to start from"
train() { # out options...
    out=$1
    shift
    "$mode" train --init init --fresh-optimizer --data "$shards" --batch 16 --warmup 1 --seed 3 --steps 4 --grad-clip-norm 1 \
        --out "$out" "$@" >"$out.log" 2>&1 || fail "$out: exit $?"
}
loss() { sed 's/.*"loss": //; s/,.*//' "$1/steps.jsonl"; }
near() { # a's and b's losses
    loss "$2" >b.txt
    loss "$1" | paste b.txt - | awk '{ d = ($1 - $2) / $1; if (d > 1e-5 || d < -1e-5) exit 1 }' || fail "$1: other losses than $2"
}

for lock in image text part; do
    case $lock in
    image) set -- --lock-image ;;
    text) set -- --lock-text --patch-dropout 0.5 ;;
    part) set -- --lock-image --lock-image-unlocked-groups 2 --lock-text --lock-text-unlocked-layers 1 --patch-dropout 0.5 ;;
    esac
    train $lock-cpu --backend cpu "$@"
    for backend in cuda cuda-bf16; do
        run=$lock-$backend
        train $run --backend $backend "$@"
        grep -q '^locked: ' $run.log || fail "$run: what is locked is not said"
        grep -q '^pictures were resized by the device' $run.log || fail "$run: the device did not resize the pictures"
        ! grep -q 'not as CUDA graphs' $run.log || fail "$run: steps were not graphs"
        train $run-plain --backend $backend --no-graphs --no-streams "$@"
        MODE_CUDA_PIXELS=host train $run-pixels --backend $backend "$@"
        train $run-again --backend $backend --checkpoint-activations --threads 3 "$@"
        for way in plain pixels again; do
            for file in open_clip_model.safetensors optimizer.safetensors steps.jsonl; do
                cmp $run/$file $run-$way/$file || fail "$run, $way: other bytes in $file"
            done
        done
    done
    near $lock-cuda $lock-cpu
done
# features of a locked tower do not change, those of the other one do
mkdir pictures
tar -C pictures -xf corpus/train/0/0.tar
find "$PWD/pictures" -name '*.jpg' -o -name '*.png' | sort | head -3 >pictures.txt
printf 'a red square\na blue circle\n' >texts.txt
for run in init image-cuda image-cuda-bf16 text-cuda; do
    "$mode" encode --model $run --images pictures.txt --texts texts.txt --out $run.features --backend cpu \
        >encode.log 2>&1 || fail "mode encode --model $run"
done
for run in image-cuda image-cuda-bf16; do
    cmp init.features/image_features.npy $run.features/image_features.npy || fail "$run: the image tower has changed"
    ! cmp -s init.features/text_features.npy $run.features/text_features.npy || fail "$run: the text tower has not changed"
done
cmp init.features/text_features.npy text-cuda.features/text_features.npy || fail "the locked text tower has changed"
! cmp -s init.features/image_features.npy text-cuda.features/image_features.npy || fail "the image tower has not changed"
# two processes
(train pair --ranks 2 --rank 1 --rendezvous ./meet.sock --backend cuda --lock-image) &
peer=$!
train pair --ranks 2 --rank 0 --rendezvous ./meet.sock --backend cuda --lock-image
wait $peer || fail "process 1 of 2"
near pair image-cuda
echo "train_locked.sh: the same bytes in every way, the losses of the CPU and of one process; locked weights stay"
