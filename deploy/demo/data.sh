#!/bin/sh
# data.sh CACHE_DIR OUT_DIR full|smoke - the demo's training shards and evaluation sets in OUT_DIR (train/, eval/,
# SOURCES.md), built from Debian packages that are kept in CACHE_DIR/demo-packages. When OUT_DIR was made by the same
# builder from the same packages, nothing is done. Prints sources, licences and counts.
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
stamp=$({ echo "$profile"; sha256sum <"$builder"; cat "$packages/packages.tsv"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "The data in $out are there already: see $out/SOURCES.md"
    exit 0
fi
mkdir -p "$out"
rm -f "$out/.stamp"
"$builder" --packages "$packages" --out "$out" --profile "$profile" $without
echo "$stamp" >"$out/.stamp"
