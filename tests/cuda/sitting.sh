#!/bin/sh
# sitting.sh BUILD OUT [SECONDS [STEP...]] - everything of BUILD (tests/cuda) that waits for a GPU, on one that is borrowed: the
# tests, the speeds, the sanitizer, then the speeds of the other backends, each with its own limit and all of them
# within SECONDS (default 780); or the STEPs alone, in the same order. What is printed goes to OUT/<step>.log, tables to
# OUT, what there is of GPU and libraries to OUT/machine.log; one line of each step to stdout. Goes on whatever fails.
# Ends with 1 when something is off, with 77 when there is no GPU.
set -u
build=$1 out=$2 end=$(($(date +%s) + ${3:-780}))
shift $(($# > 3 ? 3 : $#))
only=" $* " here=$(dirname "$0") failed=
mkdir -p "$out" || exit 1

# CUDA's libraries that the loader does not find by itself may lie in Python's packages, as PyTorch brings them.
known() { ldconfig -p 2>/dev/null | grep -q "$1"; }
if ! known 'libcublasLt\.so\.1[23]' || ! known 'libcudnn\.so\.9'; then
    for dir in $(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)/nvidia/*/lib /usr/local/cuda/lib64; do
        [ ! -d "$dir" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir
    done
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
fi
{
    echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
    ldconfig -p 2>/dev/null | grep -E 'libcu(blas|blasLt|dnn|da)\.so|libnvrtc\.so'
    IFS=:
    for dir in ${LD_LIBRARY_PATH:-}; do ls -d "$dir"/libcu*.so* "$dir"/libnvrtc.so* 2>/dev/null; done
    unset IFS
    uname -r
    nproc
    nvidia-smi
} >"$out/machine.log" 2>&1 || { echo "no GPU: nvidia-smi says: $(tail -1 "$out/machine.log")"; exit 77; }

step() { # NAME LIMIT COMMAND...
    name=$1 limit=$2 begun=$(date +%s)
    shift 2
    case $only in "  " | *" $name "*) ;; *) return ;; esac
    [ $((end - begun)) -ge "$limit" ] || limit=$((end - begun))
    [ "$limit" -gt 0 ] || { echo "$name: no time was left"; failed="$failed $name"; return; }
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    rc=$?
    case $rc in
    0) verdict=passed ;;
    124 | 137) verdict="was stopped" failed="$failed $name" ;;
    *) verdict="exit code $rc" failed="$failed $name" ;;
    esac
    echo "$name: $verdict, $(($(date +%s) - begun)) s: $(tail -1 "$out/$name.log")"
}

step cuda-test 150 "$build/cuda-test" "$out"
step attention-test 90 "$build/attention-test" "$out"
step towers-test 120 "$build/towers-test" "$out"
step bench-bf16 200 "$build/cuda-bench" "$out" cuda-bf16
step sanitize 150 "$here/sanitize.sh" "$build" "$out"
step bench-rest 200 "$build/cuda-bench" "$out/rest" cuda-fp8 cuda-tf32 cuda
[ -z "$failed" ] || { echo "OFF:$failed"; exit 1; }
echo "all of it passed"
