#!/bin/sh
# kill_slow.sh BIN - while a run is under way, kill -9 hits the compute process and the agent of every kind of worker
# (each while it holds a task), the coordinator, Redis and the supervisor. The result is byte for byte that of an
# undisturbed run, the ledger adds up, and no process is left running.
#
# Tasks of a small corpus take milliseconds, so the compute process is stopped (SIGSTOP) before its task arrives: the
# process that is killed is certain to hold one. Training is killed midway, between two checkpoints.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
SEED_STEPS=150 TOTAL_STEPS=200 EVALUATE_STEPS=7
AGAIN_S=12 # a killed agent is back, and its task handed out again, long before its lease of 30 s expires

for w in calm storm; do
    corpus "$work/$w" 600 60
    spec "$work/$w"
done
"$bin/mode" up --workspace "$work/calm"
"$bin/mode" run "$work/calm/run.yaml" --workspace "$work/calm" --no-progress 2>"$work/run.log" || fail "the calm run"
"$bin/mode" down --workspace "$work/calm"

storm=$work/storm
place=$storm/run
n_hits=0

wait_for() { # what, command...
    what=$1
    shift
    for _ in $(seq 1 1200); do
        if "$@"; then return 0; fi
        kill -0 "$run" 2>/dev/null || fail "the run ended before $what"
        sleep 0.05
    done
    fail "waited 60 s in vain for $what"
}
pid_of() { head -n 1 "$place/$1.pid" 2>/dev/null || echo 0; }
child_of() { pgrep -P "$(pid_of "$1")" 2>/dev/null | head -n 1; }
starts() { grep -c task_start "$storm/logs/$1.log" 2>/dev/null || true; }
has_child() { # sets `child`: a process that was just killed may be gone at the next look
    child=$(child_of "$1")
    [ -n "$child" ] && [ "$child" != "$2" ]
}
has_started() { [ "$(starts "$1")" -gt "$2" ]; }
is_back() { [ "$(pid_of "$1")" != "$2" ] && kill -0 "$(pid_of "$1")" 2>/dev/null; }
n_checkpoints() { find "$storm/ckpt" -name '*.manifest' -newer "$work/mark" 2>/dev/null | wc -l; }
has_checkpoint() { [ "$(n_checkpoints)" -gt 0 ]; }

hit() { # name of a process with a pid file
    victim=$(pid_of "$1")
    kill -9 "$victim" || fail "$1 was not there to be killed"
    n_hits=$((n_hits + 1))
    echo "killed: $1"
}
hit_child() { # kind
    kill -9 "$(child_of "$1")" || fail "$1 had no compute process to be killed"
    n_hits=$((n_hits + 1))
    echo "killed: $1's compute process"
}
hold() { # kind, its former child: the next task will be held by a stopped process
    wait_for "a compute process of $1" has_child "$1" "$2"
    kill -STOP "$child"
}

"$bin/mode" up --workspace "$storm"
run=$$
for kind in captions embed cluster assign train evaluate ensemble; do hold $kind 0; done
touch "$work/mark"
"$bin/mode" run "$storm/run.yaml" --workspace "$storm" --no-progress 2>"$work/run.log" &
run=$!

both() { # kind: its compute process, then its agent, each while it holds a task
    wait_for "a task of $1" has_started "$1" 0
    before=$(starts "$1") former=$(child_of "$1")
    hit_child "$1"
    hold "$1" "$former"
    wait_for "the task of $1 to be tried again" has_started "$1" "$before"
    old=$(pid_of "$1")
    before=$(starts "$1") t=$(date +%s)
    hit "$1"
    wait_for "$1 to be started again" is_back "$1" "$old"
    wait_for "the task of $1 to be handed out again" has_started "$1" "$before"
    t=$(($(date +%s) - t))
    [ $t -le $AGAIN_S ] || fail "the task of $1 waited $t s after its agent was killed"
}
down_and_back() { # coordinator or redis
    old=$(pid_of "$1")
    hit "$1"
    wait_for "$1 to be started again" is_back "$1" "$old"
}

wait_for "a task of captions" has_started captions 0
down_and_back coordinator
both captions
both embed
down_and_back redis
both cluster

# training: midway through the seed model, and again after a checkpoint of the second attempt
wait_for "a task of train" has_started train 0
kill -CONT "$(child_of train)"
wait_for "a checkpoint" has_checkpoint
hit_child train
touch "$work/mark"
sleep 1
wait_for "a checkpoint of the second attempt" has_checkpoint
old=$(pid_of train)
hit train
wait_for "train to be started again" is_back train "$old"
down_and_back coordinator
down_and_back redis

both assign
both evaluate

# the supervisor: the kernel kills its children; mode up starts everything again and the run continues
wait_for "a task of ensemble" has_started ensemble 0
before=$(starts ensemble)
hit supervisor
"$bin/mode" up --workspace "$storm"
hold ensemble 0
wait_for "the task of ensemble to be tried again" has_started ensemble "$before"
both ensemble
wait $run || fail "the run under fire"
echo "hits: $n_hits"
cat "$work/run.log"

"$bin/mode" reconcile --workspace "$storm" >/dev/null || fail "reconcile after the storm"
"$bin/mode" down --workspace "$storm"
none_left "$storm"
cmp "$work/calm/report/result.csv" "$storm/report/result.csv" || fail "result.csv differs"
for m in seed dense expert-0 expert-1; do
    # a curve has one point per step: none twice, none missing or without its throughput
    [ "$(cat "$work/calm/runs/test/tensorboard/$m"/*.train | wc -c)" = "$(cat "$storm/runs/test/tensorboard/$m"/*.train | wc -c)" ] ||
        fail "the curve of $m differs"
    cmp "$work/calm/runs/test/validation/$m.jsonl" "$storm/runs/test/validation/$m.jsonl" || fail "results of $m while it trained differ"
    cmp "$work/calm/experts/$m/open_clip_model.safetensors" "$storm/experts/$m/open_clip_model.safetensors" || fail "$m differs"
done
echo "kill: ok"
