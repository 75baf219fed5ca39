#!/bin/sh
# decoder.sh BIN - pictures that crash the decoder: each costs one sample, which is counted as bad_image and reported, and
# the run continues to its end; if only the fast path crashes, training gives the same bytes. An LD_PRELOAD library, which
# this script compiles, crashes for pictures of a certain width.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
if nm "$bin/mode" 2>/dev/null | grep -Eq '__(asan|tsan)_init'; then
    echo "decoder.sh: a sanitizer has to be loaded first: skipped" >&2
    exit 77
fi
crash() { # library, what its function gives, is called, and takes after the picture; width
    cat >"$work/$1.c" <<END
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <jpeglib.h>
$2 $3(j_decompress_ptr c, $4 n)
{
    static volatile long nowhere = 64;
    $2 (*real)(j_decompress_ptr, $4) = ($2 (*)(j_decompress_ptr, $4))dlsym(RTLD_NEXT, "$3");
    $2 got = real(c, n);
    if (c->image_width == $5) *(volatile int *)nowhere = 1;
    return got;
}
END
    cc -shared -fPIC -o "$work/$1.so" "$work/$1.c"
}
crash always int jpeg_read_header boolean 47
crash quick JDIMENSION jpeg_skip_scanlines JDIMENSION 46

corpus "$work/a" 120 60
add() { # width key
    printf 'jpeg %s %s 150 3 2 2 0 0 0 7\n' "$work/$2.jpg" "$1" | "$bin/mode-test-pictures" >/dev/null
    printf '{"texts": ["a picture of %s"]}' "$1" >"$work/$2.json"
    tar -C "$work" -rf "$work/a/train/0/0.tar" "$2.json" "$2.jpg"
}
add 47 poison
add 46 fragile
captions() { # folder, preloaded library or none
    LD_PRELOAD=$2 "$bin/mode" captions "$work/a/train" --text-keys 'json:texts[]' --out "$work/$1" --json >"$work/$1.json" 2>"$work/$1.log" ||
        fail "captions: $(cat "$work/$1.log")"
}
captions whole ''
captions poisoned "$work/always.so"
captions fragile "$work/quick.so"
grep -q '"bad_image": 0' "$work/whole.json" || fail "a picture is bad on its own: $(cat "$work/whole.json")"
grep -q '"bad_image": 1' "$work/poisoned.json" || fail "it is not counted: $(cat "$work/poisoned.json")"
grep -q '0\.tar sample 60: bad_image: the decoder was stopped by signal 11 (Segmentation fault) at the picture of [0-9]* bytes at byte [0-9]*$' "$work/poisoned.log" ||
    fail "it is not said: $(cat "$work/poisoned.log")"
[ "$(wc -l <"$work/poisoned.log")" = 1 ] || fail "more is said: $(cat "$work/poisoned.log")"
cmp "$work/whole.json" "$work/fragile.json" || fail "the whole of the fragile picture is good, and it is counted"

# training: the fast path crashes, the plain one gives the same bytes
cat >"$work/model.json" <<'END'
{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
 "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
END
for how in '' quick; do
    LD_PRELOAD=${how:+$work/$how.so} MODE_CLIP_MERGES=$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz "$bin/mode" train --config "$work/model.json" \
        --data "$work/a/train" --batch 61 --steps 4 --out "$work/clip$how" >"$work/train.log" 2>&1 || fail "training: $(cat "$work/train.log")"
done
cmp "$work/clip/open_clip_model.safetensors" "$work/clipquick/open_clip_model.safetensors" || fail "the second try gives other pixels"
LD_PRELOAD=$work/always.so "$bin/mode" preprocess "$work/poison.jpg" "$work/fragile.jpg" --out "$work/x.npy" >/dev/null 2>"$work/log" && fail "poison.jpg has pixels"
grep -q 'poison.jpg: the decoder was stopped by signal 11' "$work/log" || fail "$(cat "$work/log")"

# a system that allows no seccomp filter: reported, and pictures are decoded all the same; a crash still costs one sample
cat >"$work/nolock.c" <<'END'
#define _GNU_SOURCE
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int prctl(int what, ...)
{
    __builtin_va_list more;
    long a[4];
    __builtin_va_start(more, what);
    for (int i = 0; i < 4; i++) a[i] = __builtin_va_arg(more, long);
    __builtin_va_end(more);
    if (what != PR_SET_SECCOMP) return (int)syscall(SYS_prctl, what, a[0], a[1], a[2], a[3]);
    errno = EINVAL;
    return -1;
}
END
cc -shared -fPIC -o "$work/nolock.so" "$work/nolock.c"
captions unlocked "$work/always.so $work/nolock.so"
cmp "$work/poisoned.json" "$work/unlocked.json" || fail "without a lock other samples are counted"
"$bin/mode" doctor --workspace "$work/a" --coordinator-admin '' 2>&1 | grep -q '^ok    pictures ' || fail "mode doctor has no line of pictures"
LD_PRELOAD=$work/nolock.so "$bin/mode" doctor --workspace "$work/a" --coordinator-admin '' 2>&1 | grep -q '^warn  pictures .*not locked' || fail "mode doctor does not see that there is no lock"
LD_PRELOAD=$work/nolock.so "$bin/mode-captions" --coordinator "ipc://$work/nobody" --workspace "$work/a" >"$work/log" 2>&1 &
await_said ' no_lock ' "$work/log"
kill $! && wait $! || true

# the services, with both
spec "$work/a"
LD_PRELOAD="$work/always.so $work/quick.so" "$bin/mode" up --workspace "$work/a" >/dev/null
"$bin/mode" run "$work/a/run.yaml" --workspace "$work/a" --no-progress >"$work/table" 2>"$work/run.log" || fail "the run"
"$bin/mode" reconcile --workspace "$work/a" >"$work/ledger" || fail "reconcile"
grep -Eq '^ *bad_image +1( |$)' "$work/ledger" || fail "the ledger has not one bad picture: $(cat "$work/ledger")"
cat "$work/a/logs/"*captions*.log | grep -q 'decoder_failed shard=.*0.tar sample=60 fate=bad_image why=the decoder was stopped by signal 11' ||
    fail "the service says nothing of it"
cat "$work/a/logs/"*.log | grep -Eq 'compute_died|task_failed' && fail "a task failed of it"
"$bin/mode" down --workspace "$work/a" >/dev/null
for p in /proc/[0-9]*; do
    case $(readlink "$p/exe" 2>/dev/null || true) in
    "$bin"/*) if grep -q "$work" "$p/maps" 2>/dev/null; then fail "a process is left: $(cat "$p/stat")"; fi ;;
    esac
done
echo "decoder: good"
