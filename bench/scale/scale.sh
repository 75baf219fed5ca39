#!/bin/sh
# scale.sh BUILD OUT [SHARDS [WORKERS [SLOTS [TASK_MS]]]] - scalability of one coordinator: a run of SHARDS tiny shards with
# a real coordinator and a real Redis, done by simulated workers (tests/tools/crowd.c) that commit results without computing
# anything. Midway the coordinator is killed and restarted. Prints one line per figure. `make scale`.
set -eu
bin=$1/bin out=$2 shards=${3:-10000} workers=${4:-210} slots=${5:-2} task_ms=${6:-100}
port=18399
merges=${MODE_CLIP_MERGES:-$HOME/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz}
[ -s "$merges" ] || { echo "SKIPPED: CLIP's merges are needed: make models" >&2; exit 77; }
mkdir -p "$out" && out=$(cd "$out" && pwd) && w=$out/w
rm -rf "$w" "$out/in" && mkdir -p "$w/logs" "$out/in"
"$bin/mode-test-corpus" "$out/in" 2 2
"$bin/mode-test-crowd" encoder "$out/in/encoder"
"$bin/mode-test-crowd" shards "$(find "$out/in/train" -name '*.tar' | head -n 1)" "$out/in/shards" "$shards"
cat >"$out/in/run.yaml" <<YAML
name: scale
data: {train: shards}
captions: {text_keys: ["json:texts[]"]}
encoder: {dir: encoder}
cluster: {fine: 1024, coarse: 32}
model: ViT-B-32
tokenizer: {merges: $merges}
train: {batch: 1024, seed_steps: 50, total_steps: 100}
evaluate: {tasks: eval}
YAML

now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{printf "%.2f", $1 - $2}'; }
say() { printf '%-44s %s\n' "$1" "$2"; }
cpu() { awk '{print ($14 + $15) / 100}' "/proc/$1/stat"; }
rss() { awk '/VmRSS/ {printf "%.1f MiB", $2 / 1024}' "/proc/$1/status"; }
peak() { awk '/VmHWM/ {printf "%.1f MiB", $2 / 1024}' "/proc/$1/status"; }
redis() { redis-cli -s "$out/redis.sock" "$@"; }
info() { redis info | tr -d '\r' | sed -n "s/^$1://p"; }
status() { "$bin/mode" status --workspace "$w" --json 2>/dev/null; }
stage() { status | python3 -c 'import json, sys
for s in json.load(sys.stdin)["runs"][0]["stages"]: print(s["name"], s["done"], s["total"])'; }
of() { stage | awk -v s="$1" '$1 == s {print $2}'; }
coordinator() {
    "$bin/mode-coordinator" --workspace "$w" --redis "unix://$out/redis.sock" --http 127.0.0.1:$port >>"$w/logs/coordinator.log" 2>&1 &
    pid=$!
}
handouts() { python3 -c 'import sys, urllib.request as u
print([l.split()[1] for l in u.urlopen(sys.argv[1]).read().decode().split("\n") if l.startswith("mode_handouts_total ")][0])' http://127.0.0.1:$port/metrics 2>/dev/null || echo 0; }
answers() { # until the coordinator answers; prints seconds
    t=$(now)
    until "$bin/mode-coordinator" healthcheck --workspace "$w" 2>/dev/null; do
        kill -0 $pid 2>/dev/null || { tail -n 1 "$w/logs/coordinator.log" >&2; exit 1; }
        sleep 0.05
    done
    since "$t"
}
wait_done() { # stage, tasks
    until n=$(of "$1") && [ "${n:-0}" -ge "$2" ]; do
        kill -0 $crowd_pid || { echo "the workers are gone" >&2; exit 1; }
        sleep 0.5
    done
}

redis-server --port 0 --unixsocket "$out/redis.sock" --dir "$out" --save '' --appendonly no --daemonize no >/dev/null &
redis_pid=$!
crowd_pid=
trap 'kill $redis_pid $pid $crowd_pid 2>/dev/null || true' EXIT
sleep 0.3
coordinator
say "start without runs, s" "$(answers)"

t=$(now)
"$bin/mode" run "$out/in/run.yaml" --workspace "$w" --detach >/dev/null
say "submit $shards shards, s" "$(since "$t")"
"$bin/mode-test-crowd" work "$w" all "$workers" "$slots" "$task_ms" 100000 >"$out/crowd.json" &
crowd_pid=$!
t=$(now)
wait_done embed $((shards / 2))
say "half of the vectors after, s" "$(since "$t")"
say "coordinator: memory" "$(rss $pid), at most $(peak $pid)"
t2=$(now)
status >"$out/status.json"
say "mode status --json, s" "$(since "$t2")"
say "its size, bytes" "$(wc -c <"$out/status.json")"
say "Redis: memory" "$(info used_memory_human), at most $(info used_memory_peak_human)"
say "coordinator: CPU seconds so far" "$(cpu $pid)"
first_cpu=$(cpu $pid)
kill -9 $pid
wait $pid 2>/dev/null || true
t2=$(now)
coordinator
say "killed; answers after a restart, s" "$(answers)"
while [ "$(handouts)" = 0 ]; do sleep 0.05; done
say "killed; hands out tasks after a restart, s" "$(since "$t2")"
for s in embed assign; do
    wait_done $s "$shards"
    say "$s done after, s" "$(since "$t")"
done
while status | grep -q '"state": "running"'; do sleep 0.5; done
say "run ended after, s" "$(since "$t")"
status | grep -m 1 '"state"'
tasks=$(stage | awk '{n += $3} END {print n}')
say "tasks" "$tasks"
say "coordinator: memory" "$(rss $pid), at most $(peak $pid)"
say "coordinator: CPU ms per task" "$(echo "$(cpu $pid) $first_cpu $tasks" | awk '{printf "%.3f", 1000 * ($1 + $2) / $3}')"
say "Redis: commands per task" "$(echo "$(info total_commands_processed) $tasks" | awk '{printf "%.1f", $1 / $2}')"
say "Redis: memory" "$(info used_memory_human), at most $(info used_memory_peak_human)"
say "plan.json, bytes" "$(wc -c <"$w/runs/scale/plan.json")"
say "largest task record, bytes" "$(find "$w/tasks" -type f -printf '%s\n' | sort -n | tail -n 1)"
kill -TERM $crowd_pid
wait $crowd_pid || true
cat "$out/crowd.json"
t=$(now)
kill -TERM $pid
wait $pid || true
coordinator
say "start with the finished run, s" "$(answers)"
