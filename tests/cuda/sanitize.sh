#!/bin/sh
# sanitize.sh BUILD [OUT] - the small cases of BUILD's tests under compute-sanitizer: accesses outside of memory, races
# in shared memory, barriers that not all threads reach; what looks at most kernels in the shortest time comes first.
# Reports go to the folder OUT. Ends with 1 when it finds something, with 77 when there is no GPU or no
# compute-sanitizer.
set -u
build=$1 out=${2:-$1}
mkdir -p "$out" || exit 1
command -v compute-sanitizer >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed; it comes with CUDA's toolkit"; exit 77; }
failed=
export MODE_CUDA_NEAREST=library # our own kernel's copies and barriers are beyond these tools
for test in "attention-test --small" "cuda-test --small" "towers-test --small"; do
    for tool in memcheck racecheck synccheck; do
        report=$out/$tool-${test%% *}.txt
        # shellcheck disable=SC2086
        compute-sanitizer --tool "$tool" --error-exitcode 99 "$build/"$test >"$report" 2>&1
        rc=$?
        [ $rc -ne 77 ] || { tail -1 "$report"; exit 77; }
        echo "$tool $test: $(grep 'ERROR SUMMARY\|RACECHECK SUMMARY' "$report" | tail -1 | sed 's/^=* *//') (exit code $rc)"
        [ $rc -eq 0 ] || failed="$failed $report"
    done
done
[ -z "$failed" ] || { echo "findings:$failed"; exit 1; }
echo "compute-sanitizer found nothing"
