#!/bin/sh
# alone.sh - what `make cuda-test` and docs/GPU.md build on a machine that has CUDA, CMake and a compiler, and nothing of
# ours: it builds from its own list of sources, here with the emulator in CUDA's place.
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# with little optimization: it is the linker that is asked
cmake -S "$source" -B "$work" -DMODE_EMULATE=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS=-O0 >"$work/log" 2>&1 &&
    cmake --build "$work" -j2 >>"$work/log" 2>&1 || { tail -40 "$work/log" >&2; exit 1; }
for program in cuda-test attention-test towers-test cuda-bench; do
    [ -x "$work/$program" ] || { echo "alone.sh: $program is not built" >&2; exit 1; }
done
echo "alone.sh: ok"
