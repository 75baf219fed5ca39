#!/bin/sh
# alone.sh - what `make cuda-test` and docs/GPU.md build on a machine with CUDA, CMake and a compiler only: it builds
# from its own list of sources, here with the emulator instead of CUDA.
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# little optimization: the test is whether it links
cmake -S "$source" -B "$work" -DMODE_EMULATE=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS=-O0 >"$work/log" 2>&1 &&
    cmake --build "$work" -j2 >>"$work/log" 2>&1 || { tail -40 "$work/log" >&2; exit 1; }
for program in cuda-test attention-test towers-test cuda-bench; do
    [ -x "$work/$program" ] || { echo "alone.sh: $program is not built" >&2; exit 1; }
done
echo "alone.sh: ok"
