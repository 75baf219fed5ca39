#!/bin/sh
# sanitize_test.sh - how sanitize.sh treats compute-sanitizer's exit codes, with a stand-in for it: like the real one
# its memcheck reports API errors as findings, unless it is told not to.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cat >"$work/bin/compute-sanitizer" <<'STUB'
#!/bin/sh
[ "$1" != --version ] || { echo "Version 0"; exit; }
tool=$2
case "$*" in *"--report-api-errors no"*) told=1 ;; *) told= ;; esac
[ "$tool" = memcheck ] || [ -z "$told" ] || { echo "an option of memcheck alone"; exit 2; }
[ "$tool" != memcheck ] || [ -n "$told" ] || finds=memcheck
[ "$tool" != "${finds:-}" ] || { printf '=========     at %s\n========= ERROR SUMMARY: 1 error\n' "$place"; exit 99; }
echo "========= ERROR SUMMARY: 0 errors"
STUB
chmod +x "$work/bin/compute-sanitizer"
export PATH="$work/bin:$PATH" place=ours

ends_with() { # CODE WORDS
    code=0
    sh "$here/sanitize.sh" "$work" "$work" 60 >"$work/said" 2>&1 || code=$?
    [ $code = "$1" ] || { echo "ended with $code, not $1:"; cat "$work/said"; exit 1; }
    grep -q "$2" "$work/said" || { echo "it does not say \"$2\":"; cat "$work/said"; exit 1; }
}

finds='' && export finds && ends_with 0 "compute-sanitizer found nothing"
for finds in memcheck racecheck synccheck initcheck; do ends_with 1 "findings: .*$finds-cuda-test--nearest.txt"; done
finds=initcheck place=sm90_xmma_gemm_bf16 && export place && ends_with 0 "compute-sanitizer found nothing"
