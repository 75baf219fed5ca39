#!/bin/sh
# run.sh BUILD [NAME...] - every fuzzer of BUILD/fuzz (or the named ones), FUZZ_SECONDS each (60), serially;
# FUZZ_SECONDS=0: replays the corpus, as a test.
# tests/fuzz/seeds/<name>/ are its seeds, tests/fuzz/<name>.dict its dictionary, if these exist; the corpus is kept in
# BUILD/corpus/<name>. A crash leaves its input in BUILD/crashes/ and ends the run with exit 1.
set -eu
build=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(cd "$build/fuzz" && ls)
mkdir -p "$build/crashes"
until="-max_total_time=${FUZZ_SECONDS:-60}"
if [ "${FUZZ_SECONDS:-60}" = 0 ]; then until=-runs=0; fi
for name in "$@"; do
    mkdir -p "$build/corpus/$name"
    set -- "$build/corpus/$name"
    if [ -d "seeds/$name" ]; then set -- "$@" "seeds/$name"; fi
    if [ -f "$name.dict" ]; then set -- "$@" "-dict=$name.dict"; fi
    echo "== fuzz $name: ${FUZZ_SECONDS:-60} s"
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 "$build/fuzz/$name" "$@" -artifact_prefix="$build/crashes/$name-" \
        "$until" -max_len="${FUZZ_MAX_LEN:-16384}" -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 || { echo "fuzz $name: FAILED; the input is in $build/crashes" >&2; exit 1; }
done
