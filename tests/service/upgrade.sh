#!/bin/sh
# upgrade.sh BIN - another version of the package, with the same protocol and output versions, takes over a workspace
# during a training: nothing is recomputed, the training resumes at its checkpoint, a worker of the older version works
# together with the newer ones, added data add an expert and change nothing else. Then back to the older version. The
# other programs are built with tests/tools/other_version.c.
set -eu
bin=$1
other=$(dirname "$bin")/other-version
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
worker=
bye() {
    kill ${worker:+"$worker"} 2>/dev/null || true
    cleanup
}
trap bye EXIT
SEED_STEPS=300 TOTAL_STEPS=320
w=$work/a
corpus "$w" 120 60
corpus "$work/more" 80 40
mv "$work/more/train" "$w/later"
spec "$w"
sed 's/^data: .*/data: {train: train, added: [later]}/' "$w/run.yaml" >"$w/added.yaml"

run() { # programs, spec
    "$1/mode" run "$w/$2.yaml" --workspace "$w" --no-progress 2>>"$work/run.log" >/dev/null || fail "run of $2"
}
records() { # of finished tasks; a record is never rewritten
    (cd "$w/commits" && ls -i)
}
models() {
    sed -n 's/.*"digest": //p' "$w/experts/index.json"
}
status() { # programs
    "$1/mode" status --workspace "$w" >"$work/status"
}
same() { # earlier records, message
    records | cmp -s - "$work/$1" || fail "$2: something was done again"
}

[ "$("$bin/mode" --version)" != "$("$other/mode" --version)" ] || fail "both programs are $("$bin/mode" --version)"

# the older version, until a model has a checkpoint
"$bin/mode" up --workspace "$w" >/dev/null
"$bin/mode" run "$w/run.yaml" --workspace "$w" --detach >/dev/null 2>>"$work/run.log"
has_checkpoint() { ls "$w"/ckpt/*/*/*.manifest >/dev/null 2>&1; }
await has_checkpoint || fail "no training has a checkpoint"
"$bin/mode" down --workspace "$w" >/dev/null
has_checkpoint || fail "no training was stopped in its midst"
records >"$work/before"
[ ! -e "$w/experts/index.json" ] || fail "the run was done before the upgrade"

# the newer one: its workers for everything but assignments, which a worker of the older version makes
"$other/mode" up --workspace "$w" --workers captions=1,embed=1,cluster=1,train=1,evaluate=1,ensemble=1 >/dev/null
"$bin/mode-assign" --workspace "$w" 2>"$work/worker.log" &
worker=$!
run "$other" run
records >"$work/done"
while read -r line; do
    grep -qxF "$line" "$work/done" || fail "the record $line is gone or another one"
done <"$work/before"
grep -o 'resumed_at[^,]*' "$w/experts/index.json" | grep -Evq ' (0|300)$' || fail "no training went on at its checkpoint"
models >"$work/models"
status "$other"
said '^coordinator 9\.9\.9' "$work/status"
said 'assign.* version 0' "$work/status"
run "$other" run
same done "a finished run beside the newer version"
run "$other" added
[ -s "$w/experts/expert-2/open_clip_model.safetensors" ] || fail "added data made no expert-2"
[ "$(models | grep -c -x -F -f "$work/models")" = "$(wc -l <"$work/models")" ] || fail "added data changed a model"
[ "$(models | wc -l)" = $(($(wc -l <"$work/models") + 1)) ] || fail "added data made more than one model"
kill $worker
wait $worker || true
worker=
records >"$work/all"
"$other/mode" down --workspace "$w" >/dev/null

# and back
"$bin/mode" up --workspace "$w" >/dev/null
run "$bin" run
run "$bin" added
same all "back to the older version"
status "$bin"
if grep -q ' version ' "$work/status"; then fail "workers are said to be of another version"; fi
"$bin/mode" down --workspace "$w" >/dev/null
"$bin/mode" reconcile --all --workspace "$w" >/dev/null || fail "reconcile after all"
echo "upgrade: ok"
