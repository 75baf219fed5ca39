#!/bin/sh
# fault.sh MODE CORPUS - an emulated GPU that fails during `mode train`: one sentence, exit code 70, and nothing
# computed after the fault is in a checkpoint: the resumed training is bit-identical to one without a fault. A kernel's
# mistake is not reported as a fault of the GPU, and a GPU that failed before the start is not reported as missing.
set -eu
mode=$1 corpus=$2
. "$(dirname "$0")/small-training.sh"
export MODE_EMULATOR_FAULT="$dir/fault"
train() { # out options...
    out=$1
    shift
    code=0
    "$mode" train --config model.json --data "$shards" --batch 8 --warmup 2 --seed 3 --steps 12 --checkpoint-steps 1 \
        --out "$out" "$@" >"$out.log" 2>&1 || code=$?
}
# The GPU of a training into `hit` fails this many pieces of work after its first checkpoint.
train_until() { # error pieces
    rm -rf hit
    echo "$1 * $2 hit/checkpoints/latest" >fault
    train hit --backend cuda
    [ ! -e fault ] || fail "the training ended before the fault"
    ! [ -e hit/open_clip_model.safetensors ] || fail "a model was written by a GPU that had failed"
}

train calm --backend cuda
[ $code = 0 ] || fail "without a fault: code $code"

hits=0
for work in 1 40 200 1000; do
    train_until 214 $work
    hits=$((hits + 1))
    [ $code = 70 ] || fail "a GPU that fails: code $code, not 70"
    [ "$(grep -c 'the GPU failed: cudaErrorECCUncorrectable' hit.log)" = 1 ] || fail "the fault is not said"
    train hit --backend cuda --resume
    [ $code = 0 ] || fail "gone on with: code $code"
    cmp hit/open_clip_model.safetensors calm/open_clip_model.safetensors || fail "a fault changed bytes"
done

train_until 700 1
[ $code = 134 ] && grep -q 'bug: .*: cudaErrorIllegalAddress' hit.log || fail "a kernel that reads elsewhere: code $code"

echo 214 >fault
train begin --backend auto
[ $code = 70 ] || fail "a GPU that has failed before, and \"auto\": code $code, not 70"
grep -q 'cudaErrorECCUncorrectable' begin.log || fail "it does not say what is wrong with the GPU"
rm -f fault

# a driver that is too old, or none, is reported and is no GPU failure; within CUDA 12 an older driver will do
for driver in "11080 is for CUDA up to 11.8, and this program was built with 12.8" "0 no NVIDIA driver answers here"; do
    export MODE_EMULATOR_DRIVER=${driver%% *}
    train old --backend cuda
    [ $code = 70 ] && grep -q "${driver#* }.* HINT: install" old.log || fail "driver $driver: code $code"
    train old --backend auto
    [ $code = 0 ] || fail "driver $driver, and \"auto\": code $code"
    rm -rf old
done
export MODE_EMULATOR_DRIVER=12040
train old --backend cuda
[ $code = 0 ] || fail "a driver of another minor version: code $code"
rm -rf old
unset MODE_EMULATOR_DRIVER
export MODE_EMULATOR_BLAS=refuses
train old --backend cuda
unset MODE_EMULATOR_BLAS
[ $code = 70 ] && grep -q 'cuBLAS cannot be started: status 1. HINT: .* newer driver' old.log || fail "a cuBLAS for a newer driver: code $code"

# a GPU that this program has no kernels for has not failed
export MODE_EMULATOR_CAPABILITY=75
train old --backend cuda
[ $code = 70 ] && grep -q 'no kernels for emulated GPU, compute capability 7.5; expected 8.0 or newer' old.log || fail "an old GPU: code $code"
train old --backend auto
[ $code = 0 ] || fail "an old GPU, and \"auto\": code $code"
echo "fault.sh: $hits faults: said, and nothing of them stays"
