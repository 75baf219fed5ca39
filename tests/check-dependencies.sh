#!/bin/sh
# check-dependencies.sh - the rule of docs/ARCHITECTURE.md about which folder may include which, read off the
# #include lines. Exit 1 and a line per offence when it is broken.
set -eu
cd "$(dirname "$0")/.."

allowed() { # folder -> folders of common/ it may include from (besides itself)
    case $1 in
    base) echo "" ;;
    tensor) echo "base" ;;
    dist) echo "base tensor" ;;
    nn) echo "base tensor dist" ;;
    data) echo "base tensor" ;;
    models | optim | cluster) echo "base tensor dist nn data" ;;
    ensemble) echo "base tensor nn data cluster" ;;
    pipeline) echo "base tensor dist nn data models optim cluster ensemble" ;;
    msg) echo "base tensor store proto" ;;
    store) echo "base tensor proto" ;;
    *) echo "unknown-folder" ;;
    esac
}

bad=0
offence() { echo "$1"; bad=1; }

for dir in common/*/; do
    folder=$(basename "$dir")
    ok=" $folder $(allowed "$folder") "
    for f in $(find "$dir" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'); do
        for inc in $(sed -n 's/^#include "\([a-z_]*\)\/.*/\1/p' "$f"); do
            case $ok in
            *" $inc "*) ;;
            *) offence "$f includes $inc/...: common/$folder may include only:$ok" ;;
            esac
        done
    done
done
for f in $(find services -name '*.[ch]'); do
    word=$(echo "$f" | cut -d/ -f2)
    for o in captions embed cluster assign train evaluate ensemble coordinator mode; do
        [ "$o" = "$word" ] && continue
        if grep -q "^#include \".*\(services/\|\.\./\)$o/" "$f"; then offence "$f includes services/$o: services meet only in proto/"; fi
    done
    if [ "$word" != coordinator ] && grep -q 'hiredis' "$f"; then offence "$f: only the coordinator talks to Redis"; fi
done
for f in $(find common -name '*.[ch]'); do
    if grep -q 'hiredis' "$f"; then offence "$f: only services/coordinator talks to Redis"; fi
    case $f in
    common/nn/cuda/* | common/nn/backend.c) ;;
    *) if grep -Eq '#include <(cuda|cublas|cudnn)|#ifdef MODE_CUDA' "$f"; then offence "$f: CUDA lives in common/nn/cuda only"; fi ;;
    esac
done
# protobuf-c's unpacker has no depth limit: no message may contain itself, directly or through others
for f in proto/*.proto; do
    awk -v file="$f" '
        /^message /{m=$2; order[++n]=m; seen[m]=n}
        /^  (required|optional|repeated) [A-Z]/{if (m != "" && ($2 in seen) && seen[$2] >= seen[m]) {print file ": " m " contains " $2 " which is not defined before it: recursion is not allowed"; bad=1}}
        END{exit bad}' "$f" || bad=1
done
[ $bad = 0 ] && echo "dependency rule: kept"
exit $bad
