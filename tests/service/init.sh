#!/bin/sh
# init.sh BIN - runs that start from a given model, with steps for the seed and without: the same bytes when training is
# killed midway, a folder that names its architecture, a report that says where the seed came from, added data. The model is
# moved, changes before it is imported, is another one, has optimizer moments.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
SEED_STEPS=150 TOTAL_STEPS=200

w=$work/w storm=$work/storm
merges=$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz
corpus "$w" 240 60
corpus "$work/more" 80 40
mv "$work/more/train" "$w/later"
spec "$w"
printf '%s' '{"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2,
 "head_width": 16}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}' \
    >"$work/model.json"
"$bin/mode" train --config "$work/model.json" --data "$w/train" --text-keys 'json:texts[]' --steps 4 --batch 32 \
    --warmup 2 --clip-merges "$merges" --out "$work/given" 2>"$work/run.log" || fail "mode train"
"$bin/mode" convert "$work/given" "$work/hf" --to hf --clip-merges "$merges" || fail "mode convert"

with() { # name, the model, what else sed is told: a spec that leaves it to the folder to say which model it is
    sed -e "s/^name: .*/name: $1/" -e "s#^  {batch: 32,#  {init: $2, batch: 32,#" -e '/^model:/d' -e '/^  embed_dim:/d' \
        -e '/^  vision_cfg:/d' -e '/^  text_cfg:/d' -e "${3:-}" "$w/run.yaml" >"$w/$1.yaml"
}
go() { "$bin/mode" run "$1/$2.yaml" --workspace "$1" --no-progress 2>>"$work/run.log"; }
commits() { ls "$w/commits" | wc -l; }
train_of() { pgrep -P "$(head -n 1 "$1/run/train.pid")" 2>/dev/null | head -n 1; }

with steps "$work/hf"
with fork "$work/hf" "s/seed_steps: 150/seed_steps: 0/"
cp -r "$w" "$storm"
"$bin/mode" doctor --workspace "$w" --spec "$w/steps.yaml" | grep -q '^ok *inputs' || fail "mode doctor --spec"
"$bin/mode" up --workspace "$w"
"$bin/mode" up --workspace "$storm"
for r in steps fork; do
    go "$w" $r || fail "the run $r"
    (cd "$w/experts" && sha256sum seed/* dense/* expert-0/* expert-1/*) >"$work/$r.sums"
    cp "$w/report/result.csv" "$work/$r.csv"
    cp "$w/report/report.html" "$work/$r.html"
    "$bin/mode" reconcile --workspace "$w" >/dev/null || fail "reconcile of $r"
    "$bin/mode" experts list --workspace "$w" | grep -q '^seed ' || fail "no seed among the experts of $r"
    head -n 1 "$work/$r.csv" | grep -q ',seed' || fail "the seed of $r was not evaluated"
done
grep -q 'from step 0 to 150' "$work/steps.html" || fail "the report does not say that the seed began with a model"
grep -q 'as it was given' "$work/fork.html" || fail "the report does not say that the seed is the given model"
cmp "$w/experts/seed/open_clip_model.safetensors" "$work/given/open_clip_model.safetensors" ||
    fail "the seed of 0 steps is not the given model"
# the dense model of a fork at 0 sees the same data as the seed and its continuation: it must be the same model, and the
# only one that the two runs share
same=$(cat "$work/steps.sums" "$work/fork.sums" | grep 'model.safetensors$' | sort | uniq -d | cut -c67-)
[ "$same" = dense/open_clip_model.safetensors ] || fail "models that two runs have in common: $same, expected the dense one"

# the same with a fault: the compute process is killed after a checkpoint
checkpoints() { find "$storm/ckpt" -name '*.manifest' -newer "$work/mark" 2>/dev/null | wc -l; }
for r in steps fork; do
    touch "$work/mark"
    go "$storm" $r &
    run=$!
    for _ in $(seq 1 6000); do
        [ "$(checkpoints)" = 0 ] || break
        kill -0 $run 2>/dev/null || fail "$r ended before its first checkpoint"
        sleep 0.02
    done
    kill_compute "$storm" train $run
    wait $run || fail "the run $r under fire"
    (cd "$storm/experts" && sha256sum --quiet -c "$work/$r.sums") || fail "$r: other bytes after a crash"
    cmp "$work/$r.csv" "$storm/report/result.csv" || fail "$r: result.csv differs after a crash"
done
"$bin/mode" down --workspace "$storm"

# experts of added data fork from the given model, too
before=$(commits)
with later "$work/hf" "s/seed_steps: 150/seed_steps: 0/; s/^data: .*/data: {train: train, added: [later]}/"
go "$w" later || fail "the run with added data"
(cd "$w/experts" && sha256sum --quiet -c "$work/fork.sums") || fail "added data changed an expert that was there"
[ -s "$w/experts/expert-2/open_clip_model.safetensors" ] || fail "added data made no expert-2"
# captions, embed and assign of 2 shards, growing the centres, training, 3 tasks to evaluate, the router
[ $(($(commits) - before)) -le 12 ] || fail "added data made $(($(commits) - before)) new commits"

# a folder with optimizer moments: the fork is at its step
with moments "$work/given" "s/seed_steps: 150/seed_steps: 4/"
go "$w" moments || fail "the run with moments"
"$bin/mode" experts list --workspace "$w" --json | tr -d ' \n' >"$work/index"
grep -q '"name":"seed"[^}]*"note":{"init":"[0-9a-f]*","step":4}' "$work/index" ||
    { cat "$work/index"; fail "the seed is not at step 4"; }
tr -d ' \n' <"$w/report/summary.json" | grep -q '"start_step":4,"end_step":200' || fail "dense does not begin at step 4"

# moved: it is imported again, and the report, which shows the spec, is rebuilt; nothing is trained
mv "$work/hf" "$work/moved"
before=$(commits)
with steps "$work/moved"
go "$w" steps || fail "the run with a model that was moved"
[ $(($(commits) - before)) = 2 ] || fail "a model that was moved made $(($(commits) - before)) new commits, expected 2"
(cd "$w/experts" && sha256sum --quiet -c "$work/steps.sums") || fail "a model that was moved makes other bytes"

# it must not change between planning and its task
refuse() { # exit, words, spec
    code=0
    "$bin/mode" run "$3" --workspace "$w" --no-progress 2>"$work/refused" || code=$?
    [ $code = "$1" ] && grep -q "$2" "$work/refused" || { cat "$work/refused"; fail "exit $code, expected $1 with: $2"; }
}
other=$work/other/model.safetensors
cp -r "$work/moved" "$work/other"
touch_weights() { printf "$1" | dd of="$other" bs=1 seek=$(($(stat -c %s "$other") - 4)) conv=notrunc 2>/dev/null; }
touch_weights '\001'
held=$(train_of "$w")
kill -STOP "$held"
with changes "$work/other"
"$bin/mode" run "$w/changes.yaml" --workspace "$w" --detach >/dev/null || fail "submitting a model that will change"
touch_weights '\002'
kill -CONT "$held"
await says 'run_ended run=changes' "$w/logs/coordinator.log" || fail "the run of a model that changed does not end"
grep -q 'run_ended run=changes .*train/init: .*has changed since' "$w/logs/coordinator.log" ||
    fail "a model that changed was taken in"

# another model, no model, one that is trained beyond the fork point
named() { # name, the model: a spec that says itself which model it is, and a wider one
    sed "s/^name: .*/name: $1/; s#^  {batch: 32,#  {init: $2, batch: 32,#; s/width: 32, layers: 2/width: 48, layers: 2/" \
        "$w/run.yaml" >"$w/$1.yaml"
}
named width "$work/moved"
refuse 78 'train.init: .*moved/config.json: vision_cfg.width is 32, expected 48' "$w/width.yaml"
named file "$work/moved/model.safetensors"
refuse 78 'train.init: .*moved/model.safetensors: tensor .*the config makes it' "$w/file.yaml"
with nowhere "$work/nowhere"
refuse 66 'train.init: .*nowhere' "$w/nowhere.yaml"
with beyond "$work/given" "s/seed_steps: 150/seed_steps: 3/"
refuse 78 'train.init: .*given is at step 4' "$w/beyond.yaml"
("$bin/mode" doctor --workspace "$w" --spec "$w/width.yaml" || true) | grep -q '^BAD *inputs *train.init' ||
    fail "mode doctor does not see another model"
"$bin/mode" down --workspace "$w"
none_left "$work"
echo "init: ok"
