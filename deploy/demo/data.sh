#!/bin/sh
# data.sh CACHE_DIR OUT_DIR full|smoke - the demo's training shards and evaluation sets in OUT_DIR (train/, eval/,
# SOURCES.md), built from Debian packages that are cached in CACHE_DIR/demo-packages. When OUT_DIR holds the same version
# of the data, from the same packages and options, nothing is done. Prints sources, licences and counts.
#
# OUT_DIR is always complete: the data are built next to it and renamed into place once they are synced to disk.
#
# The builder is mode-demo-data: on PATH, else in the build folder of this source tree.
set -eu
if [ $# != 3 ] || { [ "$3" != full ] && [ "$3" != smoke ]; }; then
    echo "usage: data.sh CACHE_DIR OUT_DIR full|smoke" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
packages=$1/demo-packages out=$2 profile=$3

builder=$(command -v mode-demo-data || echo "$here/../../build/bin/mode-demo-data")
if [ ! -x "$builder" ]; then
    echo "data.sh: mode-demo-data is neither on PATH nor in build/bin. HINT: make deps-demo programs (it needs librsvg, cairo, HarfBuzz, libxml2)" >&2
    exit 69
fi

"$here/packages.sh" "$packages" "$profile"
without=
[ "$profile" = full ] || without=--without-tuxpaint
version=$("$builder" --version)
stamp=$({ echo "$profile $without"; echo "$version"; cat "$packages/packages.tsv"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "The data in $out are up to date: see $out/SOURCES.md"
    exit 0
fi
rm -rf "$out.new" "$out.old"
mkdir -p "$out.new"
"$builder" --packages "$packages" --out "$out.new" --profile "$profile" $without
echo "$stamp" >"$out.new/.stamp"
sync -f "$out.new" # after a power loss a stamp must not be there without its files
if [ -e "$out" ]; then mv "$out" "$out.old"; fi
mv "$out.new" "$out"
rm -rf "$out.old"
