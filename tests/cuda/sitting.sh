#!/bin/sh
# sitting.sh BUILD OUT [SECONDS [STEP...]] - everything of BUILD (tests/cuda) that needs a GPU, on a borrowed one: the
# tests, the benchmarks, the sanitizer, then the benchmarks of the other backends, each with its own limit and all of
# them within SECONDS (default 780); or only the STEPs, in the same order. Output goes to OUT/<step>.log, tables to OUT,
# a description of GPU and libraries to OUT/machine.log; one line per step to stdout. Continues after failures.
# BUILD/towers.truth has the reference's results of the models of full size (`cmake --build BUILD --target
# towers-truth`, on any machine); without it towers-test computes them, for a minute or more of 16 processors. Exits
# with 1 when something is off, with 77 when there is no GPU.
set -u
build=$1 out=$2 end=$(($(date +%s) + ${3:-780}))
shift $(($# > 3 ? 3 : $#))
only=" $* " here=$(dirname "$0")
. "$here/sitting-lib.sh"

step cuda-test 150 "$build/cuda-test" "$out"
step attention-test 90 "$build/attention-test" "$out"
towers=150
[ -e "$build/towers.truth" ] || towers=400
step towers-test $towers "$build/towers-test" "$out" "$build/towers.truth"
step bench-bf16 200 "$build/cuda-bench" "$out" cuda-bf16
step sanitize 240 "$here/sanitize.sh" "$build" "$out" 230
step bench-rest 200 "$build/cuda-bench" "$out/rest" cuda-fp8 cuda-tf32 cuda
finish
