#!/bin/sh
# sanitize.sh BUILD [OUT [SECONDS]] - the small cases of BUILD's tests under compute-sanitizer: accesses outside of memory,
# races in shared memory, barriers that not all threads reach, memory that is read before it is written; what looks at
# most kernels in the shortest time comes first, all of it within SECONDS (default 600). Reports go to the folder OUT.
# Ends with 1 when it finds something or time was too short, with 77 when there is no GPU or no compute-sanitizer.
#
# What initcheck finds in kernels of libraries is counted and does not fail: they may read what they do not use. Our own
# kernel for nearest centres has a run of its own, the problem with known answers and the cases of clustering. Its
# barriers give up after so many tries (PATIENCE in nn/cuda/nearest_proof.c): should a tool slow it down that much, it
# "has not proven itself" (exit code 1), which is no finding of the tool. initcheck sees bulk copies since 2025.4.
# memcheck is not asked for calls that return an error: every one of ours is looked at where it is made, some may fail (memory
# that is not to be had or not pinned), and libraries ask the driver for what it need not have.
set -u
build=$1 out=${2:-$1} end=$(($(date +%s) + ${3:-600}))
mkdir -p "$out" || exit 1
command -v compute-sanitizer >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed; it comes with CUDA's toolkit"; exit 77; }
compute-sanitizer --version | tail -1
failed=

look() { # TOOL TEST OPTIONS...
    tool=$1 test=$2 how= left=$((end - $(date +%s)))
    shift 2
    [ "$tool" != memcheck ] || how="--report-api-errors no"
    report=$out/$tool-$test$(printf '%s' "$*" | tr -d ' ').txt
    [ "$left" -gt 0 ] || { echo "$tool $test $*: no time was left"; failed="$failed $report"; return; }
    timeout -k 5 "$left" compute-sanitizer --tool "$tool" $how --print-limit 10000 --error-exitcode 99 "$build/$test" "$@" >"$report" 2>&1
    rc=$?
    [ $rc -ne 77 ] || { tail -1 "$report"; exit 77; }
    echo "$tool $test $*: $(grep 'ERROR SUMMARY\|RACECHECK SUMMARY' "$report" | tail -1 | sed 's/^=* *//') (exit code $rc)"
    if [ $rc = 99 ] && [ "$tool" = initcheck ]; then
        places=$(grep -c '^=* *at ' "$report")
        ours=$(grep '^=* *at ' "$report" | grep -civ 'cublas\|cudnn\|cutlass\|xmma\|gemm\|gemv\|splitk\|nvjet')
        echo "  of $places places $ours are in kernels of ours"
        [ "$places" -eq 0 ] || [ "$ours" -gt 0 ] || rc=0
    fi
    [ $rc -eq 0 ] || failed="$failed $report"
}

all() { for tool in memcheck synccheck racecheck initcheck; do look "$tool" "$@"; done; }
export MODE_CUDA_NEAREST=library
all attention-test --small
all cuda-test --small
unset MODE_CUDA_NEAREST
all cuda-test --nearest
all towers-test --small
[ -z "$failed" ] || { echo "findings:$failed"; exit 1; }
echo "compute-sanitizer found nothing"
