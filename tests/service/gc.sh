#!/bin/sh
# gc.sh BIN - `mode gc` frees what no kept run needs, never while others use the workspace, and nothing that is kept is
# recomputed; what was freed is recomputed to the same bytes; a corrupted blob is recomputed by the task that made it.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
SEED_STEPS=10 TOTAL_STEPS=16
w=$work/a
corpus "$w" 120 60
corpus "$work/more" 80 40
mv "$work/more/train" "$w/later"
spec "$w"
sed 's/lr: 1e-3/lr: 2e-3/; s/^name: test/name: other/' "$w/run.yaml" >"$w/other.yaml"
sed 's/^data: .*/data: {train: train, added: [later]}/' "$w/run.yaml" >"$w/added.yaml"

run() { # spec
    mode run "$w/$1.yaml" --workspace "$w" --no-progress 2>>"$work/run.log" >/dev/null || fail "run of $1"
}
commits() {
    find "$w/commits" -type f | wc -l
}
done_of() { # run: its commit records
    sed -n 's/.*"key": "\([0-9a-f]\{64\}\)".*/\1/p' "$w/runs/$1/plan.json" | while read -r key; do
        if [ -e "$w/commits/$key" ]; then echo "$key"; fi
    done | wc -l
}
models() { # digests of all models of the last run
    sed -n 's/.*"digest": //p' "$w/experts/index.json"
}
expect() { # exit code, words, options of mode gc
    want=$1 words=$2 rc=0
    shift 2
    mode gc --workspace "$w" "$@" >"$work/gc" 2>&1 || rc=$?
    [ $rc = "$want" ] || { cat "$work/gc" >&2; fail "mode gc $* ended with $rc, expected $want"; }
    grep -q "$words" "$work/gc" || { cat "$work/gc" >&2; fail "mode gc $* does not say \"$words\""; }
}
moments() { # existing blob files with optimizer moments
    for f in "$w"/blobs/*/*; do
        if head -c 200 "$f" | grep -qa 'exp_avg\.'; then echo "$f"; fi
    done
}

mode up --workspace "$w" >/dev/null
run run
models >"$work/models"
alone=$(commits)
run other
models >"$work/other-models"
both=$(commits)
expect 0 '^run test (done): stays'
expect 0 '^run other (done): would go' --drop other
expect 0 '^nothing was changed' --keep test
expect 66 'has no run "nobody"' --drop nobody
expect 2 'name one or more runs' --drop
expect 2 'give --drop or --keep for' other
expect 75 'is in use' --drop other --yes
[ "$(commits)" = "$both" ] || fail "something was freed beside a coordinator"
mode down --workspace "$w" >/dev/null

expect 0 '"own_bytes": [1-9]' --drop other --json
expect 0 '^run other (done): gone' --drop other --yes
[ "$(commits)" = "$alone" ] || fail "$(commits) commit records are there, $alone are needed"
[ ! -e "$w/runs/other" ] || fail "the record of a dropped run is there"
expect 0 '^freed 0 files' --yes
mode reconcile test --workspace "$w" >/dev/null || fail "reconcile of what was kept"
mode up --workspace "$w" >/dev/null
run run
[ "$(commits)" = "$alone" ] || fail "what was kept is done again"
models | cmp -s - "$work/models" || fail "what was kept has other models"
run other
models | cmp -s - "$work/other-models" || fail "a dropped run came back with other models"
[ "$(commits)" = "$both" ] || fail "a dropped run came back with $(commits) records, not $both"

# in mid-run nothing of the run may be freed: the coordinator records what it needs when it stops
sed 's/lr: 1e-3/lr: 3e-3/; s/^name: test/name: open/; s/total_steps: 16/total_steps: 400/' "$w/run.yaml" >"$w/open.yaml"
mode run "$w/open.yaml" --workspace "$w" --detach >/dev/null
has_more() { [ "$(commits)" -gt "$both" ]; }
await has_more || fail "the run does nothing"
supervisor=$(head -1 "$w/run/supervisor.pid") coordinator=$(cat "$w/run/coordinator.pid")
kill -STOP "$supervisor" # it restarts nothing; if it ends before the coordinator, that one shuts down cleanly
kill -9 "$coordinator"
kill -9 "$supervisor"
mode down --workspace "$w" >/dev/null 2>&1 || true
await flock -n "$w/lock" true || fail "somebody holds the workspace"
expect 75 'the run open needs is not known for certain' --drop other --yes
flock -s "$w/run/supervisor.pid" sleep 0.5 & # a process that checks whether a supervisor runs
mode up --workspace "$w" >/dev/null
mode down --workspace "$w" >/dev/null
before=$(done_of open)
expect 0 '^run other (done): gone' --drop other --yes
after=$(done_of open)
[ "$before" = "$after" ] || fail "$after of $before records of an unfinished run are left"
expect 0 '^run open (running): gone' --drop open --yes

# moments: only the seed's are needed, by experts of data that is added later; and a corrupted byte of what those fork from
[ "$(moments | wc -l)" = 4 ] || fail "there are $(moments | wc -l) files of moments, 4 models were trained"
expect 0 '^  optimizer  *3 ' --optimizer --yes
[ "$(moments | wc -l)" = 1 ] || fail "not the seed's moments alone are left"
seed=$(moments)
chmod u+w "$seed"
printf X | dd of="$seed" bs=1 seek=$(($(stat -c %s "$seed") - 1)) conv=notrunc 2>/dev/null
mode up --workspace "$w" >/dev/null
run added
[ -s "$w/experts/expert-2/open_clip_model.safetensors" ] || fail "added data made no expert-2"
grep -q ' of train/seed is damaged or missing: it is recomputed; its commit record was moved to ' "$w/logs/coordinator.log" ||
    fail "the coordinator does not say that the seed is trained again"
models | grep -v -x -F -f "$work/models" >"$work/new" || true
[ "$(wc -l <"$work/new")" = 1 ] || fail "more than the added expert has another model"
[ "$(sha256sum <"$seed" | cut -c1-64)" = "$(basename "$seed")" ] || fail "the spoilt blob is spoilt"
run run
mode down --workspace "$w" >/dev/null
mode reconcile --all --workspace "$w" >/dev/null || fail "reconcile after all"
echo "gc: ok"
