#!/bin/sh
# ptx.sh BUILD [OUT] - runs the GPU's tests with the kernels as nvcc compiled them (BUILD/ptx), executed on the host
# (docs/decisions/0012-emulated-gpu.md), with warps in random order and in turn, and then with a check of what orders accesses to
# memory. With OUT: also what each kernel executed, for the shapes of the tests, OUT/counts.tsv. `make cuda-ptx` builds what it needs.
set -eu
build=$(cd "$1" && pwd)
out=${2:-}
[ -f "$build/ptx/nearest.ptx" ] || {
    echo "ptx.sh: $build/ptx has no kernels: is nvcc installed? (make cuda-ptx)" >&2
    exit 1
}
export MODE_EMULATOR_PTX="$build/ptx"
bad=0
one() { # order, name of the log, program and arguments
    log="$build/ptx/$2-$1.log" how=$1
    shift 2
    if "$build/$@" >"$log" 2>&1; then verdict=ok; else
        verdict=OFF
        bad=1
    fi
    printf '%-8s %-28s %-4s %s\n' "$how" "$1" "$verdict" "$(grep -E 'are off|^ptx:' "$log" | tail -n 1)"
}
for order in shuffled forward; do
    export MODE_EMULATOR_ORDER=$order
    one "$order" cuda-test cuda-test --small
    one "$order" attention-test attention-test
    one "$order" towers-test towers-test --smaller
done
# one order is enough: whether accesses are ordered does not depend on the one that happened
export MODE_EMULATOR_PTX_RACES=1
one races cuda-test cuda-test --small
one races attention-test attention-test --small
one races towers-test towers-test --smaller
unset MODE_EMULATOR_PTX_RACES
if [ -n "$out" ]; then
    mkdir -p "$out"
    rm -f "$out/counts.tsv"
    MODE_EMULATOR_ORDER=forward MODE_EMULATOR_PTX_COUNTS="$out/counts.tsv" "$build/cuda-test" --small >/dev/null 2>&1 || bad=1
    echo "$out/counts.tsv"
fi
exit $bad
