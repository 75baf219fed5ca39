#!/bin/sh
# toolkits.sh - what cuda.cmake does where CUDA's toolkit or cuDNN's header is older than ours, or has no header. Neither is
# needed: both are said to be there.
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "toolkits.sh: $1" >&2; cat "$work/log" >&2; exit 1; }
cat >"$work/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(toolkits NONE)
include("$source/../../common/nn/cuda/cuda.cmake")
mode_cuda_toolkit()
file(GLOB files "\${MODE_CUDA_DIR}/cudnn*.c")
mode_cudnn_sources(files)
message(STATUS "[\${files}]")
END
configure() { # TOOLKIT CUDNN
    mkdir -p "$work/include"
    rm -rf "$work/build" "$work/include/"*
    if [ "$2" != none ]; then
        : >"$work/include/cudnn_graph.h"
        echo "$2" | sed 's/\(.*\)\.\(.*\)\.\(.*\)/#define CUDNN_MAJOR \1\n#define CUDNN_MINOR \2\n#define CUDNN_PATCHLEVEL \3\n#define CUDNN_VERSION (CUDNN_MAJOR * 10000)/' >"$work/include/cudnn_version.h"
        set -- "$1" "-DMODE_CUDNN_INCLUDE=$work/include"
    else
        set -- "$1" -DMODE_CUDNN_INCLUDE=MODE_CUDNN_INCLUDE-NOTFOUND -DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF
    fi
    code=0
    cmake -S "$work" -B "$work/build" -DCUDAToolkit_VERSION="$1" "$2" "${3:--DX=1}" >"$work/log" 2>&1 || code=$?
}
says() { tr '\n' ' ' <"$work/log" | tr -s ' ' | grep -q "$1" || fail "it does not say: $1"; }

configure 11.8.89 9.19.0
[ $code != 0 ] || fail "a toolkit of 11.8 is taken"
says 'found CUDA 11.8.89 .*; expected 12.0 or newer. HINT: '
for toolkit in 12.0.140 12.4.131 13.0.88; do
    configure $toolkit 9.15.1
    [ $code = 0 ] || fail "a toolkit of $toolkit is refused"
    says '\[[^;]*/cudnn_attention.c;[^;]*/cudnn.c\]\|\[[^;]*/cudnn.c;[^;]*/cudnn_attention.c\]'
done
configure 13.0.88 9.9.0
[ $code = 0 ] && says 'cudnn_graph.h is of version 90900; expected 91501 or newer' && says '/cudnn_absent.c' || fail "a header of cuDNN 9.9: code $code"
! grep -q '/cudnn\.c' "$work/log" || fail "cudnn.c is compiled with a header of cuDNN 9.9"
configure 13.0.88 none
[ $code = 0 ] && says 'cudnn_graph.h was not found' && says '/cudnn_absent.c' || fail "no header of cuDNN: code $code"
echo "toolkits.sh: ok"
