#!/bin/sh
# kill_slow.sh BIN - every kind of worker, the coordinator and Redis are each killed with -9 once while the run is
# under way, and the result is byte for byte that of an undisturbed run.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
SEED_STEPS=300 TOTAL_STEPS=400

for w in calm storm; do
    corpus "$work/$w" 600 60
    spec "$work/$w"
done
"$bin/mode" up --workspace "$work/calm"
"$bin/mode" run "$work/calm/run.yaml" --workspace "$work/calm" --no-progress 2>"$work/run.log" || fail "the calm run"
"$bin/mode" down --workspace "$work/calm"

"$bin/mode" up --workspace "$work/storm"
"$bin/mode" run "$work/storm/run.yaml" --workspace "$work/storm" --no-progress 2>"$work/run.log" &
run=$!
# stage by stage: kill a kind of process while commits of its stage are still to come
killed=
strike() { # pattern
    for pid in $(pgrep -f "$1" || true); do
        if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$work/storm" || readlink "/proc/$pid/cwd" 2>/dev/null | grep -q "$work/storm"; then
            kill -9 "$pid" 2>/dev/null && killed="$killed $1"
        fi
    done
}
for victim in mode-captions mode-embed mode-coordinator mode-cluster redis-server mode-assign mode-train mode-train \
    mode-coordinator redis-server mode-evaluate mode-ensemble; do
    kill -0 $run 2>/dev/null || break
    strike "$victim"
    sleep 3
done
wait $run || fail "the run under fire"
echo "killed:$killed"
for victim in mode-captions mode-embed mode-cluster mode-assign mode-train mode-evaluate mode-ensemble mode-coordinator redis-server; do
    case $killed in *"$victim"*) ;; *) fail "the run ended before $victim was killed" ;; esac
done
"$bin/mode" reconcile --workspace "$work/storm" >/dev/null || fail "reconcile after the storm"
"$bin/mode" down --workspace "$work/storm"
cmp "$work/calm/report/result.csv" "$work/storm/report/result.csv" || fail "result.csv differs"
for m in seed dense expert-0 expert-1; do
    cmp "$work/calm/experts/$m/open_clip_model.safetensors" "$work/storm/experts/$m/open_clip_model.safetensors" || fail "$m differs"
done
echo "kill: ok"
