# service-lib.sh - what the service scripts share: a private folder, a corpus, a small spec. Sourced with $bin set.
work=$(mktemp -d /tmp/mode-test-XXXXXX)
export MODE_TIMEOUT_S=180 # of mode up and mode down: enough for a slow, loaded machine
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

await() { # command...: until it succeeds, for two minutes at most, however slow the machine is
    for _ in $(seq 1200); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    return 1
}
says() { # words, files...
    said_words=$1
    shift
    cat "$@" 2>/dev/null | grep -Eq -e "$said_words"
}
said() { # words, files...
    says "$@" && return 0
    said_words=$1
    shift
    cat "$@" >&2
    fail "nobody says \"$said_words\""
}
await_said() { await says "$@" || said "$@"; } # words, files...
is_gone() { ! pgrep -f "$1" >/dev/null; }
none_left() { await is_gone "$1" || fail "processes are left: $(pgrep -af "$1")"; } # words of their command lines

hits() { grep -c 'killed by signal 9' "$1/logs/coordinator.log" || true; } # workspace
deaths() { cat "$1/logs/$2"*.log | grep -Ec ' compute_died | task_failed |before its process ended' || true; } # and worker
more_deaths() { [ "$(deaths "$1" "$2")" -gt "$3" ]; }
kill_compute() { # workspace, worker, pid of mode run: kills the compute process, again if it had no task just then
    hits_before=$(hits "$1")
    while [ "$(hits "$1")" = "$hits_before" ]; do
        kill -0 "$3" 2>/dev/null || fail "the run ended before a process of $2 was killed at its work"
        deaths_before=$(deaths "$1" "$2")
        for f in "$1/run/$2"*.pid; do
            if pkill -KILL -P "$(head -n 1 "$f")"; then await more_deaths "$1" "$2" "$deaths_before" || fail "$2 feels no kill"; fi
        done
        for _ in $(seq 20); do # until it is reported, or there was nothing to report
            [ "$(hits "$1")" = "$hits_before" ] || break
            sleep 0.1
        done
    done
}

free_port() { # a free port, below the ephemeral range
    while port=$(shuf -n 1 -i 20000-29999) && grep -qi ":$(printf %04x "$port") " /proc/net/tcp /proc/net/tcp6 2>/dev/null; do :; done
    echo "$port"
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
