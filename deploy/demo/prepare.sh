#!/bin/sh
# prepare.sh DIR full|smoke [BIN] - everything the demo's run needs, into DIR: data/train and data/eval (built from
# Debian packages), models/ (text encoder, CLIP merges) and run.yaml. Downloads are cached in MODE_CACHE
# (default ~/.cache/mode); existing files are not made again. BIN: folder of mode-demo-data (default: PATH).
set -eu
dir=$1 profile=$2 bin=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
cache=${MODE_CACHE:-${HOME:-/tmp}/.cache/mode}
if [ -n "$bin" ]; then
    PATH=$(cd "$bin" && pwd):$PATH
    export PATH
fi

mkdir -p "$dir/models" "$cache"
"$here/../fetch-models.sh" "$cache/models"
for f in encoder bpe_simple_vocab_16e6.txt.gz; do
    if [ ! -e "$dir/models/$f" ]; then
        rm -rf "$dir/models/$f.part"
        cp -r "$cache/models/$f" "$dir/models/$f.part"
        mv "$dir/models/$f.part" "$dir/models/$f"
    fi
done
"$here/data.sh" "$cache" "$dir/data" "$profile"
cp "$here/$profile.yaml" "$dir/run.yaml"
