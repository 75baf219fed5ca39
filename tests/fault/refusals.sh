#!/bin/sh
# refusals.sh BIN - what a person may get wrong, and what the world may do: each ends with one clear sentence and the
# right exit code (docs/FORMATS.md), and nothing hangs, is lost or stays behind.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
bye() { # what this script started beside the workspaces, also when it fails half-way
    kill ${coordinator:+"$coordinator"} ${worker:+"$worker"} $(cat "$work/redis.pid" 2>/dev/null) 2>/dev/null || true
    cleanup
    rm -rf "$work" 2>/dev/null || { umount -l "$work/disk" "$work/small" 2>/dev/null || true; rm -rf "$work"; }
}
trap bye EXIT

expect() { # exit-code, words that the message must hold, command...
    code=$1 words=$2
    shift 2
    rc=0
    timeout 60 "$@" >"$work/out" 2>&1 || rc=$?
    echo "[$rc] $(echo "$*" | sed "s#$work/##g"): $(grep -v ' info ' "$work/out" | tail -n 1 | sed "s#$work/##g")"
    [ "$rc" = "$code" ] || { cat "$work/out" >&2; fail "exit $rc instead of $code: $*"; }
    grep -Eqi -e "$words" "$work/out" || { cat "$work/out" >&2; fail "the message does not say \"$words\": $*"; }
}
gone() { # workspace: nothing of it may run
    if pgrep -f "$1" >/dev/null; then fail "left behind: $(pgrep -af "$1")"; fi
}

w=$work/a
corpus "$w" 120 60
spec "$w"

# the command line, without services
expect 69 'mode up' mode run "$w/run.yaml" --workspace "$w"
expect 2 'unknown option' mode captions --nonsense
expect 2 'unknown verb' mode nonsense
expect 2 'no-such.*unknown; expected auto' mode embed --encoder e --texts t --backend no-such
expect 2 'no-such.*unknown; expected auto' mode-embed --workspace "$w" --backend no-such
expect 78 'MODE_THREADS' env MODE_THREADS=abc mode experts --workspace "$w"
expect 74 'writing stdout failed' sh -c 'mode --version >/dev/full'
mkfifo "$work/pipe" && ln -s "$work/linked" "$work/link" && echo before >"$work/linked" && echo "a cat" >"$work/cat"
expect 73 'is a device or a pipe' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/cat" --out "$work/pipe"
expect 0 'vectors' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/cat" --out "$work/link"
[ -p "$work/pipe" ] && [ -L "$work/link" ] && [ "$(wc -c <"$work/linked")" -gt 1000 ] || fail "a pipe or a link was replaced"
expect 2 'router' mode ensemble --results x --words y --router no-such
expect 2 'metric' mode cluster --features x --metric no-such
expect 2 'total-steps 3: is less' mode train --config ViT-B-32 --data x.tar --steps 5 --total-steps 3 --out y
expect 2 'text-key: caption selector "json:" is not understood' mode captions x.tar --out y --text-key json:
expect 2 'batch 9 cannot be shared by 2' mode train --config ViT-B-32 --data x.tar --steps 1 --out y --batch 9 --ranks 2 --rank 0
expect 66 'nowhere.tar' mode captions "$work/nowhere.tar" --out "$work/c"

# an encoder folder with a file missing
mkdir "$work/enc"
cp "$MODE_TEST_MODELS/encoder/config.json" "$MODE_TEST_MODELS/encoder/vocab.txt" "$work/enc/"
echo "a red square" >"$work/texts"
expect 66 'model.safetensors' mode embed --encoder "$work/enc" --texts "$work/texts" --out "$work/f.npy"

# vectors of one encoder and centres of another
mode captions "$w/train" --text-key 'json:texts[]' --out "$work/captions" >/dev/null 2>&1
for pooling in mean cls; do
    mode embed --encoder "$MODE_TEST_MODELS/encoder" --pooling $pooling --captions "$work/captions/00000.captions.bin" \
        --out "$work/$pooling.safetensors" >/dev/null 2>&1
done
mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 2 --out "$work/centres.safetensors" >/dev/null 2>&1
expect 65 'encoder' mode assign --features "$work/cls.safetensors" --centres "$work/centres.safetensors" --out "$work/assign"

# tars: not one, empty, without pictures, cut
echo "not a tar" >"$work/text.tar"
expect 65 'text.tar' mode captions "$work/text.tar" --out "$work/c1"
tar cf "$work/empty.tar" -T /dev/null
expect 0 'samples *0' mode captions "$work/empty.tar" --out "$work/c2"
(cd "$work" && echo hello >only.txt && tar cf no-pictures.tar only.txt)
expect 0 'no_image *1' mode captions "$work/no-pictures.tar" --out "$work/c3"
head -c 30000 "$w/train/0/0.tar" >"$work/cut.tar"
expect 0 'truncated *1' mode captions "$work/cut.tar" --text-key 'json:texts[]' --out "$work/c4"

# a full disk: nothing half-written stays, and with room it works
if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=64k tmpfs "$work/small" 2>/dev/null; then
    head -c 60000 /dev/zero >"$work/small/filler"
    expect 74 'No space left' mode embed --encoder "$MODE_TEST_MODELS/encoder" --captions "$work/captions/00000.captions.bin" \
        --out "$work/small/g.safetensors"
    [ "$(ls -A "$work/small")" = filler ] || fail "left on the full disk: $(ls -A "$work/small")"
    umount "$work/small"
    full=1
else
    full=
    echo "SKIPPED: a full disk (mounting a tmpfs is not permitted here)"
fi

# numbers and names out of range, before anything is made
expect 2 'timeout-s -1: expected 0' mode up --workspace "$work/b" --timeout-s -1
expect 2 'patience-s -3: expected 0' mode run "$w/run.yaml" --workspace "$w" --patience-s -3
expect 2 'grace-s -1: expected 0' mode drain x --workspace "$w" --grace-s -1
expect 2 '"a b" is not a name for a key' mode keys "$work/no-keys" --worker 'a b'
expect 73 'is not a folder' mode keys "$work/no-keys" --worker w --out "$work/texts"
[ ! -e "$work/no-keys" ] || fail "a refused mode keys made keys"

# services that cannot start: no Redis, a port in use, a TCP port without keys
expect 69 'Redis at 127.0.0.1.*cannot be reached' mode up --workspace "$work/b" --redis redis://127.0.0.1:1 --timeout-s 8
gone "$work/b"
expect 2 'Redis URL is "foo://x"' mode-coordinator --workspace "$w" --redis foo://x
expect 78 'Redis URL is "foo://x"' env REDIS_URL=foo://x mode-coordinator --workspace "$w"
expect 2 'Redis URL is "foo://x"' mode up --workspace "$work/b" --redis foo://x
expect 2 'lease-ms is 100' mode-coordinator --workspace "$w" --lease-ms 100
expect 73 "gpu-locks $work/no-locks: No such file" mode-train --workspace "$w" --gpu-locks "$work/no-locks"
expect 73 "gpu-locks $work/texts: is not a folder" mode-train --workspace "$w" --gpu-locks "$work/texts"
expect 78 'key' mode-coordinator --workspace "$w" --worker-endpoint 'tcp://127.0.0.1:0' --admin-endpoint 'tcp://127.0.0.1:0'
mode up --workspace "$w" --http 127.0.0.1:18097 >/dev/null
expect 0 'runs already.*captions=1,embed=1.*127.0.0.1:18097' mode up --workspace "$w"
expect 0 'runs already' mode up --workspace "$w" --workers ensemble,train,embed,cluster,assign,evaluate,captions=1
expect 75 'runs already, with --workers captions=1,.*, not captions=1,train=2; nothing was changed.*mode down' \
    mode up --workspace "$w" --workers captions=1,train=2
expect 75 'with a Redis of its own, not this --redis and with --http 127.0.0.1:18097, not 127.0.0.1:1;' \
    mode up --workspace "$w" --redis redis://127.0.0.1:1 --http 127.0.0.1:1
expect 2 'is no kind of worker' mode up --workspace "$w" --workers trian=1
expect 78 '18097.*taken' mode up --workspace "$work/second" --http 127.0.0.1:18097
gone "$work/second"
expect 78 'taken' mode-coordinator --workspace "$w" --redis redis://127.0.0.1:1

# the spec: what the command sees at once, and what only the coordinator can see
sed 's/^seed: 3/sede: 3/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'sede.*nearest known key is "seed"' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's/batch: 32/batch: many/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'train.batch' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's#encoder: {dir: [^,]*#encoder: {dir: '"$work"'/no-encoder#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'no-encoder' mode run "$w/bad.yaml" --workspace "$w"
sed 's#encoder: {dir: [^,]*#encoder: {dir: '"$work"'/enc#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'enc/model.safetensors' mode run "$w/bad.yaml" --workspace "$w"
sed 's#train: train}#train: nothing-here}#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'nothing-here' mode run "$w/bad.yaml" --workspace "$w"
expect 0 'are fine' mode run "$w/run.yaml" --workspace "$w" --dry-run

# keys that do not fit what they name are refused before anything runs
sed 's/vocab_size: 49408/vocab_size: 49000/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'model: text_cfg.vocab_size is 49000, expected at least 49408' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed "s#merges: [^}]*#merges: $work/texts#" "$w/run.yaml" >"$w/bad.yaml"
expect 78 'tokenizer.merges: .*texts: line 2' mode run "$w/bad.yaml" --workspace "$w" --dry-run
head -c 1000 "$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz" >"$work/cut.gz"
sed "s#merges: [^}]*#merges: $work/cut.gz#" "$w/run.yaml" >"$w/bad.yaml"
expect 78 'tokenizer.merges: .*cut.gz: unpacking fails' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's/max_tokens: 32/max_tokens: 4000/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'encoder.max_tokens: .*max_tokens is 4000, expected 3 to 512' mode run "$w/bad.yaml" --workspace "$w" --dry-run

# a shard that is no tar ends the run with its name; without it the run goes through
sed "s#train: train}#train: [train, $work/text.tar]}#; s/name: test/name: torn/" "$w/run.yaml" >"$w/bad.yaml"
expect 65 'text.tar' mode run "$w/bad.yaml" --workspace "$w" --no-progress
mode down --workspace "$w" >/dev/null
gone "$w"

# a worker without its key, with a key that is not there, with a key nobody let in, with one that was taken back
mode keys "$work/keys" --worker good --out "$work/good" >/dev/null
mode keys "$work/other" --worker stranger --out "$work/stranger" >/dev/null
cp "$work/keys/server.pub" "$work/stranger/server.pub"
tcp="--workspace $w --coordinator tcp://127.0.0.1:18098"
expect 78 'key' mode-captions $tcp
expect 66 'nobody.key' mode-captions $tcp --key-dir "$work/keys" --key-name nobody
start_redis() {
    redis-server --port 0 --unixsocket "$work/redis.sock" --save '' --daemonize yes --dir "$work" --pidfile "$work/redis.pid" >/dev/null
    for _ in $(seq 1 100); do
        if [ -s "$work/redis.pid" ]; then break; fi
        sleep 0.05
    done
}
start_redis
mode-coordinator --workspace "$w" --redis "unix://$work/redis.sock" --worker-endpoint tcp://127.0.0.1:18098 \
    --admin-endpoint tcp://127.0.0.1:18099 --key-dir "$work/keys" --allow-list "$work/keys/allow" >"$work/run.log" 2>&1 &
coordinator=$!
for _ in $(seq 1 100); do
    if grep -q ' ready ' "$work/run.log"; then break; fi
    sleep 0.1
done
expect 77 'refused this key' mode-captions $tcp --key-dir "$work/stranger" --key-name stranger
mode-captions $tcp --key-dir "$work/good" --key-name good >"$work/good.log" 2>&1 &
worker=$!
for _ in $(seq 1 100); do
    if grep -q ' welcome ' "$work/good.log"; then break; fi
    sleep 0.1
done
grep -q ' welcome ' "$work/good.log" || { cat "$work/good.log"; fail "a worker with a good key is not let in"; }
grep -v good "$work/keys/allow" >"$work/allow" || true
cp "$work/allow" "$work/keys/allow"
kill -HUP $coordinator
rc=0
wait $worker || rc=$?
echo "[$rc] a key that was taken back: $(tail -n 2 "$work/good.log" | head -n 1)"
[ $rc = 77 ] || fail "a worker whose key was taken back ended with $rc"
kill $coordinator
wait $coordinator || true
coordinator= worker=

# Redis is lost in mid-run and does not come back: a sentence and 69; when it is back the same run goes on to its end
mode up --workspace "$w" --redis "unix://$work/redis.sock" >/dev/null
mode run "$w/run.yaml" --workspace "$w" --no-progress >"$work/out" 2>&1 &
run=$!
for _ in $(seq 1 300); do
    if grep -q started "$work/out"; then break; fi
    sleep 0.05
done
kill -INT $run # Ctrl-C ends the command, not the run
rc=0
wait $run || rc=$?
[ $rc = 130 ] || { cat "$work/out"; fail "an interrupted mode run ended with $rc"; }
grep -q 'goes on without this terminal' "$work/out" || { cat "$work/out"; fail "nobody says that the run goes on"; }
mode run "$w/run.yaml" --workspace "$w" --no-progress --patience-s 5 >"$work/out" 2>&1 &
run=$!
for _ in $(seq 1 300); do
    if grep -q started "$work/out"; then break; fi
    sleep 0.05
done
kill -9 "$(cat "$work/redis.pid")"
rm "$work/redis.pid"
expect 0 'run test .running.' mode reconcile --workspace "$w" # what is done so far adds up
rc=0
wait $run || rc=$?
echo "[$rc] Redis lost in mid-run: $(tail -n 1 "$work/out" | sed "s#$work/##g")"
[ $rc = 69 ] || { cat "$work/out"; fail "a run without Redis ended with $rc"; }
grep -q 'Redis has been away' "$work/out" || { cat "$work/out"; fail "nobody says that Redis is away"; }
start_redis
expect 0 'ensemble' mode run "$w/run.yaml" --workspace "$w" --no-progress
mode reconcile test --workspace "$w" >/dev/null || fail "reconcile"
expect 65 "do not add up" mode reconcile torn --workspace "$w"
expect 0 'run test .done.' mode reconcile --workspace "$w" # the latest, not the one that failed
expect 65 "do not add up" mode reconcile --all --workspace "$w"
expect 66 'no run "nobody"' mode reconcile nobody --workspace "$w"
expect 66 'is no workspace.*HINT: --workspace' mode reconcile --workspace "$work/keys"
expect 2 'is a workspace, a run.s name is wanted' mode reconcile "$w"
commit=$w/commits/$(grep -A 1 '"label": "words/' "$w/runs/test/plan.json" | sed -n 's/.*"key": "\(.*\)".*/\1/p' | head -n 1)
cp "$commit" "$work/commit"
chmod u+w "$commit"
byte=$(od -An -tu1 -j 100 -N 1 "$commit")
printf "\\$(printf %o $((byte ^ 16)))" | dd of="$commit" bs=1 seek=100 conv=notrunc 2>/dev/null
cmp -s "$commit" "$work/commit" && fail "no bit was flipped"
expect 65 'words/.*damaged: ' mode reconcile test --workspace "$w" # one bit
cp "$work/commit" "$commit"
expect 0 'adds up' mode reconcile test --workspace "$w"
expect 66 'no worker and no machine has that name' mode drain nobody --workspace "$w"
mode down --workspace "$w" >/dev/null
kill "$(cat "$work/redis.pid")"
gone "$w"

# the disk gets full in mid-run: it says so, tries again, and ends well when there is room
if [ "$full" ]; then
    d=$work/disk
    mkdir "$d"
    mount -t tmpfs -o size=256m tmpfs "$d"
    cp -r "$w/train" "$w/eval" "$w/run.yaml" "$d/"
    mode up --workspace "$d" >/dev/null
    head -c $(($(df --output=avail -B1 "$d" | tail -n 1) - 4000000)) /dev/zero >"$d/filler"
    mode run "$d/run.yaml" --workspace "$d" --no-progress >"$work/out" 2>&1 &
    run=$!
    for _ in $(seq 1 600); do
        if grep -Eq 'disk is full|No space left' "$work/out"; then break; fi
        kill -0 $run 2>/dev/null || break
        sleep 0.05
    done
    grep -Eq 'disk is full|No space left' "$work/out" || { cat "$work/out"; fail "nobody says that the disk is full"; }
    sed -n "s#$work/##g; /No space left\\|disk is full/p" "$work/out"
    rm "$d/filler"
    rc=0
    wait $run || rc=$?
    [ $rc = 0 ] || { cat "$work/out"; fail "with room again the run ended with $rc"; }
    mode reconcile --workspace "$d" >/dev/null || fail "reconcile after a full disk"
    cmp "$w/report/result.csv" "$d/report/result.csv" || fail "a full disk changed the result"
    mode down --workspace "$d" >/dev/null
    gone "$d"
    umount "$d"
fi
echo "refusals: ok"
