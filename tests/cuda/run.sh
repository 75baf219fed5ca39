#!/bin/sh
# run.sh BUILD [OUT] - every test of BUILD (tests/cuda) on this machine's GPU, also after failures. Tables go to the
# folder OUT. Exits with 1 when something is off, with 77 when there is no GPU.
set -u
build=$1 out=${2:-}
[ -z "$out" ] || mkdir -p "$out" || exit 1
failed=
for name in cuda-test attention-test towers-test; do
    case $name in
    towers-test) "$build/$name" "${out:-$build}" "$build/towers.truth" ;; # optional
    *) "$build/$name" ${out:+"$out"} ;;
    esac
    case $? in
    0) ;;
    77) exit 77 ;;
    *) failed="$failed $name" ;;
    esac
done
[ -z "$failed" ] || { echo "OFF:$failed"; exit 1; }
echo "every test of the cuda backend passed"
