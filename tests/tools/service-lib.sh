# service-lib.sh - what the service scripts share: a private folder, a corpus, a small spec. Sourced with $bin set.
work=$(mktemp -d /tmp/mode-test-XXXXXX)
cleanup() {
    for d in "$work"/*/; do
        if [ -d "$d/logs" ]; then "$bin/mode" down --workspace "$d" >/dev/null 2>&1 || true; fi
    done
    if [ "${KEEP:-0}" = 1 ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $*" >&2
    for f in "$work"/run.log "$work"/*/logs/*.log; do
        if [ -f "$f" ]; then { echo "--- $f"; tail -n 15 "$f"; } >&2; fi
    done
    exit 1
}

until_said() { # words, logs...
    words=$1 n=0
    shift
    until cat "$@" 2>/dev/null | grep -q "$words"; do
        n=$((n + 1))
        [ $n -lt 1200 ] || fail "nobody says \"$words\""
        sleep 0.1
    done
}

need_models() {
    if [ ! -e "${MODE_TEST_MODELS:-/nonexistent}/encoder/model.safetensors" ]; then
        echo "SKIPPED: the text encoder is needed: make models, MODE_TEST_MODELS=<its folder>" >&2
        exit 77
    fi
    command -v redis-server >/dev/null || { echo "SKIPPED: redis-server is not installed" >&2; exit 77; }
}

corpus() { # folder pairs per_shard [fault]
    "$bin/mode-test-corpus" "$@"
}

spec() { # folder
    cat >"$1/run.yaml" <<EOF
name: test
seed: 3
data: {train: train}
captions: {text_keys: ["json:texts[]"]}
encoder: {dir: $MODE_TEST_MODELS/encoder, pooling: mean, max_tokens: 32}
cluster: {fine: 8, coarse: 2, sample_per_centre: 0}
model:
  embed_dim: 32
  vision_cfg: {image_size: 32, patch_size: 8, width: 32, layers: 2, head_width: 16}
  text_cfg: {context_length: 77, vocab_size: 49408, width: 32, heads: 2, layers: 1}
tokenizer: {merges: $MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz}
train:
  {batch: 32, lr: 1e-3, warmup_steps: 5, seed_steps: ${SEED_STEPS:-30}, total_steps: ${TOTAL_STEPS:-50},
   expert_steps: share, checkpoint_steps: 5, evaluate_steps: ${EVALUATE_STEPS:-0}}
evaluate: {tasks: eval}
ensemble: {router: share}
EOF
}
