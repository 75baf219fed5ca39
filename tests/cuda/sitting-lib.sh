# sitting-lib.sh - shared by the scripts for a GPU that is borrowed by the minute. Sourced with $out (a folder), $end
# (the deadline in seconds since 1970) and $only (" STEP STEP " or "  ": all) set. $rows: a pattern of lines that go to
# stdout as they are printed.
failed= rows=
mkdir -p "$out" || exit 1

# CUDA's libraries that the loader does not find by itself may be in Python packages, as PyTorch installs them.
known() { ldconfig -p 2>/dev/null | grep -q "$1"; }
if ! known 'libcublasLt\.so\.1[23]' || ! known 'libcudnn\.so\.9'; then
    for dir in $("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)/nvidia/*/lib /usr/local/cuda/lib64; do
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
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 &
    pid=$!
    [ -z "$rows" ] || tail -n +1 -s 0.2 -F --pid=$pid "$out/$name.log" 2>/dev/null | grep --line-buffered -e "$rows"
    wait $pid
    rc=$?
    case $rc in
    0) verdict=passed ;;
    124 | 137) verdict="was stopped" failed="$failed $name" ;;
    *) verdict="exit code $rc" failed="$failed $name" ;;
    esac
    echo "$name: $verdict, $(($(date +%s) - begun)) s: $(tail -1 "$out/$name.log")"
}

finish() {
    [ -z "$failed" ] || { echo "OFF:$failed"; exit 1; }
    echo "all of it passed"
}
