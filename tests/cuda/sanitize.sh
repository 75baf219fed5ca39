#!/bin/sh
# sanitize.sh BUILD [OUT [SECONDS]] - the small cases of BUILD's tests under compute-sanitizer: out-of-bounds accesses,
# races in shared memory, barriers that not all threads reach, uninitialised reads; what covers most kernels in the
# shortest time comes first, all of it within SECONDS (default 600). Reports go to the folder OUT. Exits with 1 when it
# finds something or time was too short, with 77 when there is no GPU or no compute-sanitizer.
#
# What initcheck finds in kernels of libraries is counted and does not fail: they may read what they do not use. Our own
# kernel for nearest centres has a run of its own, its self-test and the cases of clustering. Its barrier waits give up
# after a number of tries (SPIN_LIMIT in nn/cuda/nearest_proof.c): should a tool slow it down that much, it "has not
# proven itself" (exit code 1), which is no finding of the tool. initcheck sees bulk copies since 2025.4. memcheck does
# not report API errors: each of our calls checks its result, some may fail (memory that cannot be allocated or pinned),
# and libraries query the driver for optional features.
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
