#!/bin/sh
# avx512.sh BUILD - run the AVX-512 kernels on a machine without AVX-512: in bochs, a full-system emulator.
#
# A CD with Debian's kernel and one program, BUILD/bin/mode-test-avx512, is booted twice on the emulated CPU
# $MODE_AVX512_CPU (corei7_skylake_x; `bochs -help cpu`): once normally, and once with a kernel that does not save the
# 512-bit registers, though the CPU reports them. The verdict comes over the serial port; all files are in BUILD/avx512.
# Takes some minutes. Nothing is installed; the kernel's package is fetched and unpacked there, or $MODE_AVX512_KERNEL is a
# vmlinuz. While it runs, bochs serves its screen by VNC on a port from 5900 on.
set -eu
build=$(cd "$1" && pwd)
work=$build/avx512 cpu=${MODE_AVX512_CPU:-corei7_skylake_x}
boot=/usr/lib/ISOLINUX/isolinux.bin loader=/usr/lib/syslinux/modules/bios/ldlinux.c32
missing=
command -v bochs >/dev/null || missing="$missing bochs"
[ -e /usr/share/bochs/BIOS-bochs-latest ] || missing="$missing bochsbios"
command -v xorriso >/dev/null || missing="$missing xorriso"
command -v cpio >/dev/null || missing="$missing cpio"
[ -e $boot ] || missing="$missing isolinux"
[ -e $loader ] || missing="$missing syslinux-common"
if [ -n "$missing" ]; then
    echo "avx512.sh: missing; as root run: apt-get install --no-install-recommends$missing" >&2
    exit 69
fi
mkdir -p "$work"
kernel=${MODE_AVX512_KERNEL:-$work/vmlinuz}
if [ ! -e "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "avx512.sh: apt knows no linux-image-cloud-amd64; set MODE_AVX512_KERNEL" >&2; exit 69; }
    echo "fetching $package; it is unpacked, not installed"
    (cd "$work" && apt-get download "$package" >/dev/null 2>&1 && dpkg-deb -x "$package"_*.deb unpacked &&
        mv unpacked/boot/vmlinuz-* vmlinuz && rm -r unpacked "$package"_*.deb) ||
        { echo "avx512.sh: $package could not be fetched; set MODE_AVX512_KERNEL" >&2; exit 69; }
fi

# run WORD OPTIONS: boot once; the program gets WORD, the kernel OPTIONS. The serial port's lines are $work/WORD.txt
run() {
    dir=$work/$1
    rm -rf "$dir" "$work/$1.txt"
    mkdir -p "$dir/root" "$dir/cd/isolinux"
    cp "$build/bin/mode-test-avx512" "$dir/root/init"
    strip "$dir/root/init"
    (cd "$dir/root" && echo init | cpio -o -H newc 2>/dev/null | gzip) >"$dir/cd/initrd.gz"
    cp "$kernel" "$dir/cd/vmlinuz"
    cp "$boot" "$loader" "$dir/cd/isolinux/"
    # 321, 323: bochs reports a wrong size for compacted XSAVE, upon which Linux would disable AVX altogether
    cat >"$dir/cd/isolinux/isolinux.cfg" <<END
DEFAULT linux
LABEL linux
KERNEL /vmlinuz
INITRD /initrd.gz
APPEND console=ttyS0,115200 nokaslr mitigations=off panic=-1 quiet clearcpuid=321,323$2 -- $1
END
    xorriso -as mkisofs -quiet -o "$dir/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
        -boot-load-size 4 -boot-info-table "$dir/cd" >/dev/null 2>&1
    cat >"$dir/bochsrc" <<END
config_interface: textconfig
display_library: rfb, options="timeout=0"
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=$cpu, count=1, ips=50000000
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=../$1.txt
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
plugin_ctrl: speaker=0, parallel=0, gameport=0
clock: sync=none
log: bochs.log
panic: action=fatal
END
    # "c": Debian's bochs starts in its debugger
    (cd "$dir" && echo c | timeout 1800 bochs -q -f bochsrc >bochs.txt 2>&1) || true # powering off exits with 1
    if tr -d '\r' <"$work/$1.txt" | grep '^avx512 verdict: passed'; then
        rm -r "$dir"
    else
        tr -d '\r' <"$work/$1.txt" | grep -a 'FAIL\|AVX-512\|opens as\|verdict' || true
        echo "avx512.sh: $1: no verdict, or a bad one: $work/$1.txt, $dir/bochs.txt, $dir/bochs.log" >&2
        exit 1
    fi
}

run zmm ""
run no-zmm ",304"
echo "$cpu in bochs: cpu-avx512 agrees with ref; it is not chosen if the OS does not save its registers"
