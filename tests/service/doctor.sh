#!/bin/sh
# `mode doctor` on machines with NVIDIA's driver and libraries in every state: stand-ins, which this script compiles.
set -u
bin=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
expect() { # pattern, what it shows
    grep -Eq "$1" "$dir/out" || { echo "doctor: no line \"$1\" ($2)"; cat "$dir/out"; bad=1; }
}
library() { # file name, source on stdin
    cc -shared -fPIC -o "$dir/lib/$1" -x c - || exit 1
}
doctor() { # environment of the stand-ins, expected exit code
    env "$1" LD_LIBRARY_PATH="$dir/lib" "$bin/mode" doctor --workspace "$dir/ws" --coordinator-admin "" >"$dir/out" 2>&1
    code=$?
    [ $code -eq "$2" ] || { echo "doctor: exit $code, expected $2 ($1)"; cat "$dir/out"; bad=1; }
}
command -v redis-server >/dev/null || exit 77
mkdir "$dir/lib" "$dir/ws"

if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    doctor A=1 0
    expect '^none +gpu +no NVIDIA driver here' "no driver"
    [ "$(grep -c -i 'gpu\|cublas\|cudnn\|nccl' "$dir/out")" -eq 1 ] || { echo "doctor: more than one line"; bad=1; }
fi

doctor A=1 0
overcommit=$(cat /proc/sys/vm/overcommit_memory)
expect "^(ok|warn) +overcommit +vm\.overcommit_memory is $overcommit" "what Redis warns of"
[ "$overcommit" != 0 ] || expect '^ok +overcommit .*nothing needs to be set' "the usual value is no reason to do anything"

# a folder that is not a workspace is left as it was, a missing one is not created
"$bin/mode" doctor --workspace "$dir/ws" >"$dir/out" 2>&1
expect '^ok +workspace +.*/ws: not created yet .*writable' "no workspace yet"
"$bin/mode" doctor --workspace "$dir/no/where" >"$dir/out" 2>&1
expect '^ok +workspace +.*/no/where: not created yet' "no folder yet"
[ -z "$(ls -A "$dir/ws")" ] && [ ! -e "$dir/no" ] || { echo "doctor: something was left: $(ls -A "$dir/ws" "$dir")"; bad=1; }
"$bin/mode" doctor --workspace "$dir/out" >"$dir/out2" 2>&1
grep -q '^BAD   workspace .*nothing can be created in' "$dir/out2" || { echo "doctor: a file as workspace"; cat "$dir/out2"; bad=1; }

library libcuda.so.1 <<'C'
#include <stdlib.h>
#include <stdio.h>
static int is(const char *s) { return getenv(s) != NULL; }
int cuInit(unsigned f) { return is("FAKE_NONE") ? 100 : 0; }
int cuDriverGetVersion(int *v) { *v = 13020; return 0; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "Stand-in %c", 'A' + d); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? (d && is("FAKE_OLD") ? 7 : 9) : 0; return 0; }
int cuDeviceTotalMem_v2(size_t *v, int d) { *v = 80000000000; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &cuInit; return d && is("FAKE_BUSY") ? 46 : 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 79000000000; *t = 80000000000; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuGetErrorString(int e, const char **s) { *s = e == 100 ? "no CUDA-capable device is detected" : "device is busy"; return 0; }
C
library libcublas.so.13 <<'C'
int cublasGetProperty(int type, int *v) { *v = (int[]){13, 1, 0}[type]; return 0; }
C
library libcublas.so.12 <<'C'
int cublasGetProperty(int type, int *v) { *v = (int[]){12, 6, 4}[type]; return 0; }
C
library libcudnn.so.9 <<'C'
#include <stdlib.h>
size_t cudnnGetVersion(void) { return getenv("FAKE_CUDNN") ? 91000 : 91900; }
C
library libnccl.so.2 <<'C'
int ncclGetVersion(int *v) { *v = 22809; return 0; }
C

doctor FAKE_NONE=1 0
expect '^none +gpu +the driver shows no GPU \(no CUDA-capable device' "a driver without a GPU"
doctor A=1 0
expect '^ok +driver .*CUDA up to 13\.2' "the driver's version"
expect '^ok +gpu 1 +Stand-in B, compute capability 9\.0, 79\.0 GB of 80\.0 GB free' "a device"
expect '^ok +cublas +1[23]\.' "cuBLAS"
expect '^ok +cudnn +9\.19\.0' "cuDNN"
expect '^ok +nccl +2\.28\.9' "NCCL"
expect '^warn +computing +' "a stand-in computes nothing, which is said"
env MODE_GPUS=4 LD_LIBRARY_PATH="$dir/lib" "$bin/mode" doctor --gpus >"$dir/out" 2>&1 || bad=1
expect '^ok +cublas' "GPUs alone, also where the environment says with how many a worker trains"
grep -q redis "$dir/out" && { echo "doctor --gpus: looked at Redis"; bad=1; }
doctor FAKE_OLD=1 0
expect '^warn +gpu 1 .*7\.0: the kernels here need 8\.0' "an old device"
doctor FAKE_BUSY=1 78
expect '^BAD +gpu 1 .*cannot be opened: device is busy' "a device that is taken"
doctor FAKE_CUDNN=1 78
expect '^BAD +cudnn +9\.10\.0 is too old' "an old cuDNN"
for major in 12 13; do
    LD_LIBRARY_PATH="$dir/lib" "$bin/mode-test-doctor" $major >"$dir/out" 2>&1
    expect "^ok +cublas +$major\." "a build with CUDA $major loads that cuBLAS first"
done
rm "$dir"/lib/libcudnn.so.9 "$dir"/lib/libcublas.so.*
ldconfig -p | grep -q 'libcublas\.so\.1[23]' || {
    doctor A=1 78
    expect '^BAD +cublas +libcublas\.so\.1[23] or \.1[23] cannot be loaded' "no cuBLAS"
    LD_LIBRARY_PATH="$dir/lib" "$bin/mode-test-doctor" 12 >"$dir/out" 2>&1
    expect '^BAD +cublas +libcublas\.so\.12 or \.13 cannot be loaded' "no cuBLAS, built with CUDA 12"
    expect '^none +cudnn' "no cuDNN is fine"
}
exit $bad
