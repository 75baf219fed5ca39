# small-training.sh - shared by the scripts of `mode train` on an emulated GPU: makes and enters a private folder with a
# corpus of two shards and model.json. Sourced with $mode and $corpus set.
dir=$(mktemp -d /tmp/mode-train-XXXXXX)
bye() { # a script that fails leaves no processes
    jobs -p >"$dir/left"
    kill -KILL $(cat "$dir/left") 2>/dev/null || :
    rm -rf "$dir"
}
trap bye EXIT
trap 'exit 1' INT TERM
cd "$dir"
fail() { echo "$(basename "$0"): $1" >&2; tail -n 3 ./*.log >&2; exit 1; }

export MODE_THREADS=1 MODE_CLIP_MERGES="${MODE_CLIP_MERGES:-${MODE_CACHE:-$HOME/.cache/mode}/models/bpe_simple_vocab_16e6.txt.gz}"
[ -e "$MODE_CLIP_MERGES" ] || { echo "no merges file: set MODE_CLIP_MERGES (make models)"; exit 77; }
"$corpus" corpus 40 20 >corpus.log
cat >model.json <<'END'
{"embed_dim": 16, "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
 "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
END
shards="corpus/train/0/0.tar::corpus/train/1/1.tar"
