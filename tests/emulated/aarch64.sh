#!/bin/sh
# aarch64.sh BUILD [TEST...] - cross-compile MoDE for aarch64 and run tests on such a CPU, emulated by qemu.
#
# A cross compiler builds the programs and tests with Debian's libraries for arm64, in BUILD. Debian's kernel for arm64 is
# booted with them in an initramfs: a full system, because qemu's user-mode emulation lacks seccomp filters. TEST: names of
# BUILD/tests; by default those that compare bits (pictures, texts, GEMMs, clusters, other libraries' files) and the
# filter's. The verdict comes over the serial port and is kept, with the tests' output, in BUILD/aarch64.txt. Takes some
# minutes, the first time 15. Nothing is installed: libraries and kernel are fetched with apt, and unpacked in BUILD/root.
# $MODE_AARCH64_CPU: the CPU model (`qemu-system-aarch64 -cpu help`).
set -eu
build=$1 here=$(cd "$(dirname "$0")" && pwd) cpu=${MODE_AARCH64_CPU:-neoverse-n1}
top=$(cd "$here/../.." && pwd)
shift
tests=${*:-unit-decoder unit-torch-file unit-verify unit-image golden-image unit-text-clean unit-rng unit-half unit-exact unit-sigv4
    unit-safetensors unit-envelope unit-tar unit-face-boxes unit-parallel ops-attention-graph golden-logistic-minima}
missing=
for p in qemu-system-aarch64:qemu-system-arm aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu protoc-c:protobuf-c-compiler cpio:cpio \
    pkg-config:pkg-config cmake:cmake; do
    command -v "${p%%:*}" >/dev/null || missing="$missing ${p##*:}"
done
if [ -n "$missing" ]; then
    echo "aarch64.sh: missing; as root run: apt-get install --no-install-recommends$missing" >&2
    exit 69
fi
mkdir -p "$build"
build=$(cd "$build" && pwd)
root=$build/root lib=$build/root/usr/lib/aarch64-linux-gnu

# ---- Debian's packages for arm64: apt with a separate state directory, in which nothing is installed ----

apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$build/apt" \
        -o Dir::State::status="$build/apt/status" -o Dir::Cache="$build/apt" -o APT::Sandbox::User= "$@"
}

fetch_root() {
    rm -rf "$root" "$build/apt"
    mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib"
    : >"$build/apt/status"
    apt update
    kernel=$(apt-cache -o APT::Architecture=arm64 -o Dir::State="$build/apt" -o Dir::State::status="$build/apt/status" -o Dir::Cache="$build/apt" \
        depends linux-image-cloud-arm64 | sed -n 's/^ *Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1)
    libraries=$(sed -n '/^build="/,/"$/p' "$top/deploy/install-deps.sh" | tr -d '"' | sed 's/^build=//' | tr -s ' \n' '\n\n' | grep -- '-dev$')
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends --download-only $libraries libcmocka-dev dash coreutils mount
    (cd "$build/apt" && apt download "$kernel")
    ln -s usr/bin usr/sbin usr/lib "$root"
    for package in "$build"/apt/archives/*.deb "$build"/apt/linux-image-*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$root" --exclude './usr/share/doc/*'
    done
    mv "$root"/boot/vmlinuz-* "$build/vmlinuz"
    ln -sf openblas-pthread/libopenblas.so.0 "$lib/libopenblas.so.0" # as update-alternatives would
    ln -sf ../openblas-pthread/pkgconfig/openblas.pc "$lib/pkgconfig/openblas.pc"
    # absolute links between libraries: relative to this root
    find "$lib" -type l -lname '/*' | while read -r link; do ln -sf "$root$(readlink "$link")" "$link"; done
    rm -rf "$build/apt" "${root:?}/boot" "$root/usr/lib/modules"
    : >"$build/root-is-whole"
}
[ -e "$build/root-is-whole" ] || { echo "fetching Debian's libraries and kernel for arm64; they are unpacked, not installed" && fetch_root; }

# ---- programs and tests ----

cat >"$build/toolchain.cmake" <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_SYSROOT $root)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER NOTFOUND) # the emulated GPU is left out
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} $root)
set(ENV{PKG_CONFIG_LIBDIR} $lib/pkgconfig:$root/usr/share/pkgconfig)
END
cmake -S "$top" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$build/toolchain.cmake" -DMODE_DEMO_DATA=OFF >"$build/cmake.txt" ||
    { cat "$build/cmake.txt" >&2; exit 1; }
cmake --build "$build" -j"${JOBS:-$(nproc)}" >"$build/compile.txt" 2>&1 || { grep -A5 -i 'error' "$build/compile.txt" >&2; exit 1; }

# ---- the machine ----

work=$build/machine
rm -rf "$work"
mkdir -p "$work/tests"
for t in $tests; do
    [ -x "$build/tests/$t" ] || { echo "aarch64.sh: there is no test \"$t\" in $build/tests" >&2; exit 2; }
    aarch64-linux-gnu-strip -o "$work/tests/$t" "$build/tests/$t"
done
cat >"$work/init" <<END
#!/bin/sh
export PATH=/usr/bin:/usr/sbin HOME=/tmp
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
exec >/dev/ttyAMA0 2>&1 </dev/null
uname -srvm
cd $build
for t in $(echo $tests); do
    echo "--- \$t"
    timeout 900 /tests/\$t
    echo "aarch64 test: \$t exits with \$?"
done
echo "aarch64 verdict: the end"
echo o >/proc/sysrq-trigger
sleep 60
END
chmod +x "$work/init"
pack() { cpio -o -H newc -R 0:0 2>/dev/null; }
{
    (cd "$root" && find . ! -path './usr/share/*' ! -path './usr/include/*' ! -name '*.a' ! -path './usr/lib/aarch64-linux-gnu/cmake/*' | pack)
    (cd "$work" && mkdir -p proc sys dev tmp ".$build" ".$top" && chmod 1777 tmp && cp -r "$top/tests" "$top/proto" "$top/docs" ".$top/" &&
        mkdir -p ".$top/common/pipeline" && cp "$top"/common/pipeline/*.safetensors ".$top/common/pipeline/" && find . | pack)
} | gzip -1 >"$build/initrd.gz"
rm -f "$build/aarch64.txt"
timeout "${MODE_AARCH64_SECONDS:-3600}" qemu-system-aarch64 -machine virt -cpu "$cpu" -smp 2 -m 3072 -nodefaults -nographic -no-reboot \
    -kernel "$build/vmlinuz" -initrd "$build/initrd.gz" -append "console=ttyAMA0 quiet panic=-1 rdinit=/init" \
    -serial "file:$build/aarch64.txt" || true
rm -rf "$work" "$build/initrd.gz"
tr -d '\r' <"$build/aarch64.txt" | grep '^aarch64 test: ' || true
if ! grep -q '^aarch64 verdict: the end' "$build/aarch64.txt" ||
    tr -d '\r' <"$build/aarch64.txt" | grep '^aarch64 test: ' | grep -vqE ' exits with (0|77)$'; then
    echo "aarch64.sh: a test failed, or the system did not finish: $build/aarch64.txt" >&2
    exit 1
fi
echo "$cpu in qemu: everything compiles for aarch64, and these tests pass"
