#!/bin/sh
# pictures.sh BIN - mode preprocess: pictures of several kinds in one call, their order, and its messages for bad ones.
set -eu
bin=$1
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
tar xf "$here/golden/images.tar"
fail() { echo "pictures: $*" >&2; exit 1; }
expect() { # exit-code, words on stderr, arguments...
    code=$1 words=$2
    shift 2
    rc=0
    rm -f x.npy
    "$bin/mode" preprocess "$@" --out x.npy >out 2>err || rc=$?
    [ "$rc" = "$code" ] || fail "exit $rc instead of $code: $*: $(cat err)"
    [ -z "$words" ] || grep -q -e "$words" err || fail "stderr does not say \"$words\": $*: $(cat err)"
    [ "$rc" = 0 ] || [ ! -e x.npy ] || fail "something was written: $*"
}
cp 00.jpg photo.png # the type is detected from the content
head -c 400 00.jpg >cut.jpg
printf '<html><body>404' >page.jpg
printf 'GIF89a\001\000\001\000' >anim.gif
: >empty.png

good="photo.png 09.png 14.png 00.jpg $(ls ./*.webp)"
expect 0 '' --size 32 $good
set -- $good
[ "$(wc -c <x.npy)" = $((128 + $# * 3 * 32 * 32 * 4)) ] || fail "x.npy has $(wc -c <x.npy) bytes for $# pictures"
cp x.npy many.npy
expect 0 '' --size 32 --threads 1 $good
cmp x.npy many.npy || fail "one thread gives other bytes"
expect 0 '' --size 32 00.jpg # the first and the fourth are the same picture
tail -c 12288 x.npy >one
for i in 0 3; do
    tail -c +$((129 + i * 12288)) many.npy | head -c 12288 | cmp - one || fail "row $i is another picture"
done

expect 65 'cut.jpg: JPEG: ' --size 32 00.jpg cut.jpg 09.png
expect 65 'page.jpg: .*a web page' page.jpg
expect 65 'anim.gif: .*a GIF' anim.gif
expect 65 'empty.png: .*empty' empty.png
expect 65 '3 of 4 pictures' cut.jpg 00.jpg page.jpg empty.png
for name in cut.jpg page.jpg empty.png; do grep -q "$name: " err || fail "$name is not named: $(cat err)"; done
expect 66 'nowhere.jpg: .*No such file' nowhere.jpg
expect 2 'size' --size 0 00.jpg
expect 2 'interpolation.*lanczos' --interpolation lanczos 00.jpg
expect 2 'FILE is needed' --size 32
echo "pictures: good"
