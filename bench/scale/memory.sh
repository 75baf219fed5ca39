#!/bin/sh
# memory.sh BUILD OUT - memory and disk of every step on plain files, with 100,000 and with 1,000,000 captions (one shard of
# 10,000 synthetic pairs under 10 and under 100 names), a tiny encoder and a tiny CLIP. The last column is the growth per
# caption. `make scale-memory`.
set -eu
bin=$1/bin out=$2
merges=${MODE_CLIP_MERGES:-$HOME/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz}
[ -s "$merges" ] || { echo "SKIPPED: CLIP's merges are needed: make models" >&2; exit 77; }
rm -rf "$out" && mkdir -p "$out" && cd "$out"
case $bin in /*) ;; *) bin=$OLDPWD/$bin ;; esac
"$bin/mode-test-corpus" in 10000 10000
"$bin/mode-test-crowd" encoder encoder
for n in 10 100; do "$bin/mode-test-crowd" shards "$(find in/train -name '*.tar')" "shards-$n" $n; done
cat >tiny.json <<'JSON'
{"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
 "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
JSON
peak() { # command...: peak resident memory, KiB, all of it and the anonymous part (the kernel may drop file pages)
    python3 - "$@" <<'PY'
import os, subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], stdout=open("log", "a"), stderr=subprocess.STDOUT)
most = anon = 0
while p.poll() is None:
    try:
        for line in open(f"/proc/{p.pid}/status"):
            if line.startswith("VmHWM"): most = max(most, int(line.split()[1]))
            if line.startswith("RssAnon"): anon = max(anon, int(line.split()[1]))
    except OSError: pass
    time.sleep(0.01)
print(most, anon)
sys.exit(p.returncode)
PY
}
row() { # step, KiB with 10 shards, with 100
    set -- "$1" $2 $3
    echo "$@" | awk '{printf "%-10s %9.1f MiB (%7.1f)   %9.1f MiB (%7.1f)   %7.1f B (%.1f B)\n", $1, $2 / 1024, $3 / 1024, $4 / 1024, $5 / 1024,
        ($4 - $2) * 1024 / 9e5, ($5 - $3) * 1024 / 9e5}'
}
echo "step       100,000 (anonymous)          1,000,000 (anonymous)        per caption"
for n in 10 100; do
    eval "captions_$n='$(peak "$bin/mode" captions shards-$n --out captions-$n --text-keys 'json:texts[]')'"
    ls captions-$n/*.captions.bin | head -n $n >list-$n
done
row captions "$captions_10" "$captions_100"
mkdir -p feat-10 feat-100
embed_one=$(peak "$bin/mode" embed --encoder encoder --captions captions-10/00000.captions.bin --out one.safetensors)
for n in 10 100; do i=0; while [ $i -lt $n ]; do ln -f one.safetensors "feat-$n/$(printf %05d $i).safetensors"; i=$((i + 1)); done; done
echo "embed      one shard of 10,000: $embed_one KiB"
for n in 10 100; do
    eval "cluster_$n='$(peak "$bin/mode" cluster --features "feat-$n/*.safetensors" --fine 16 --coarse 4 --sample-per-centre 2000 --out centres-$n)'"
done
row cluster "$cluster_10" "$cluster_100"
assign_one=$(peak "$bin/mode" assign --features one.safetensors --centres centres-10 --out assign.safetensors)
echo "assign     one shard of 10,000: $assign_one KiB"
for n in 10 100; do
    eval "train_$n='$(peak "$bin/mode" train --config tiny.json --data shards-$n --text-keys 'json:texts[]' --steps 3 --batch 64 --warmup 1 --memory 1g --clip-merges "$merges" --out model-$n)'"
done
row train "$train_10" "$train_100"
size() { stat -c %s "$1"; }
echo "disk, bytes per caption: captions.bin $(($(size captions-10/00000.captions.bin) / 10000)), feat.safetensors $(($(size one.safetensors) / 10000)) (12 dimensions, 4 bytes each), assign.safetensors $(($(size assign.safetensors) / 10000))"
