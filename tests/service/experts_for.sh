#!/bin/sh
# experts_for.sh BIN - experts for the words of tasks: they are added to the others and change none, are a column of the
# tables, a folder and a curve, and use pairs that the ledger counts once; killed midway they continue to the same bytes;
# what words select is shown beforehand, and the plain commands on the same clusters train the same model.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
w=$work/a
corpus "$w" 240 60
spec "$w"
printf 'a red circle\na blue square\tan azure box\n' >"$w/names.txt"
cp "$w/run.yaml" "$w/plain.yaml"
cat >>"$w/run.yaml" <<END
experts_for:
  - {name: hues, tasks: [colour]}
  - {name: mine, classes: names.txt, nearest: 2}
  - {name: whole, tasks: all, nearest: 8}
END
submit() { # spec, more options
    s=$1
    shift
    mode run "$w/$s.yaml" --workspace "$w" --no-progress "$@" 2>>"$work/run.log" || fail "run of $s"
}
commits() { find "$w/commits" -type f | wc -l; }
sums() { (cd "$w/experts" && for m in "$@"; do sha256sum "$m"/*; done); } # of models

mode up --workspace "$w" >/dev/null
submit plain >/dev/null
sums seed dense expert-0 expert-1 >"$work/before"
n_before=$(commits)

# before a GPU is spent: which clusters, how many pairs
mode select --workspace "$w" --task "$w/eval/colour" >"$work/chosen" 2>/dev/null || fail "select of a task"
mode select --workspace "$w" --classes "$w/names.txt" --nearest 2 --json >"$work/mine.json" 2>/dev/null || fail "select of names"
cat "$work/chosen"
grep -q '^[0-9]* words select [1-8] of 8 fine clusters: [0-9]* of 240 pairs' "$work/chosen" || fail "select has no sum"
[ "$(grep -c '"word":' "$work/mine.json")" = 3 ] || fail "two names of a line are not two words"
[ "$(commits)" = "$n_before" ] || fail "looking made something"

# the names, three selections, three trainings, an evaluation of each on three tasks, the report
submit run >"$work/table"
tasks=$(find "$w/eval" -name nshards.txt | wc -l)
[ $(($(commits) - n_before)) = $((1 + 3 + 3 + 3 * tasks + 1)) ] || fail "three more models made $(($(commits) - n_before)) commits"
(cd "$w/experts" && sha256sum --quiet -c "$work/before") || fail "an expert for tasks changed another model"
head -1 "$w/report/result.csv" | grep -q ',dense,seed,hues,mine,whole,metric$' || fail "columns: $(head -1 "$w/report/result.csv")"
cmp "$w/experts/whole/open_clip_model.safetensors" "$w/experts/dense/open_clip_model.safetensors" ||
    fail "what is trained on all clusters is not the dense model"
for m in hues mine whole; do
    [ -s "$w/experts/$m/open_clip_model.safetensors" ] || fail "experts/$m is not there"
    [ "$(find "$w/runs/test/tensorboard/$m" -name 'events.out.tfevents.*' | wc -l)" = 2 ] || fail "$m has no curve"
    grep -q "$m trained on all pairs of its clusters" "$w/report/report.html" || fail "the report's ledger does not say $m"
    grep -q "\"name\": \"$m\"" "$w/experts/index.json" || fail "the index does not name $m"
done
grep -q '<h2>Experts for tasks</h2>' "$w/report/report.html" || fail "the report has no section of them"
grep -q 'On these tasks it .* the dense model' "$w/report/report.html" || fail "the report does not compare hues with dense"
grep -q '"than": "the ensemble"' "$w/report/summary.json" || fail "summary.json does not compare them with the ensemble"
if grep -q '&#10007;' "$w/report/report.html"; then fail "the report's ledger does not add up"; fi
mode reconcile --workspace "$w" >"$work/ledger" || { cat "$work/ledger"; fail "reconcile"; }
mode reconcile --workspace "$w" --json | grep -q '"selected": {"hues": [0-9]*, "mine": [0-9]*, "whole": 240}' || fail "reconcile --json"
pairs=$(sed -n 's/.*fine clusters: \([0-9]*\) of.*/\1/p' "$work/chosen")
[ "$(awk '$1 == "hues" { print $2 }' "$work/ledger")" = "$pairs" ] || fail "the ledger has other pairs of hues than select: $pairs"
[ "$(mode pairs --workspace "$w" --expert hues | wc -l)" = "$pairs" ] || fail "pairs lists others than select counts: $pairs"
mode pairs --workspace "$w" | sort >"$work/all"
mode pairs --workspace "$w" --expert hues | sort | comm -23 - "$work/all" | grep -q . && fail "pairs of hues that are nobody's"
rc=0
mode pairs --workspace "$w" --expert nobody 2>"$work/nobody" || rc=$?
[ $rc = 2 ] && grep -q 'expert-0 to expert-1, hues, mine, whole' "$work/nobody" || fail "pairs of nobody: $(cat "$work/nobody")"
mode status --workspace "$w" | grep -q 'train-selected' || fail "status does not name the stage"
sums hues mine whole >"$work/models"
cp "$w/report/result.csv" "$work/result.csv"

# again: nothing to do. Without the key and with it again: everything is found, their folders go and come back
n=$(commits)
submit run >/dev/null
[ "$(commits)" = "$n" ] || fail "a finished run made $(($(commits) - n)) commits"
submit plain >/dev/null
[ "$(commits)" = "$n" ] || fail "without experts_for something is done again"
if [ -e "$w/experts/hues" ] || [ -e "$w/experts/mine" ]; then fail "models that the run has no more are still there"; fi
submit run >/dev/null
(cd "$w/experts" && sha256sum --quiet -c "$work/models") || fail "they came back as others"

# selections that cannot be trained on, unknown names
refuse() { # exit code, words, sed script
    sed "s/^name: test/name: wrong/; $3" "$w/run.yaml" >"$w/wrong.yaml"
    rc=0
    mode run "$w/wrong.yaml" --workspace "$w" --no-progress >"$work/refused" 2>&1 || rc=$?
    [ $rc = "$1" ] && grep -q "$2" "$work/refused" || { cat "$work/refused"; fail "$3 ended with $rc, expected $1 and: $2"; }
}
refuse 78 'experts_for, line [0-9]*: hues is for the task "color", which is not among the 3 of evaluate.tasks; the nearest is colour' 's/\[colour\]/[color]/'
refuse 78 'wrong.yaml:[0-9]*: "dense" is not a valid name for an expert of experts_for' 's/name: hues/name: dense/'
refuse 66 'none.txt' 's/names.txt/none.txt/'
: >"$w/empty.txt"
refuse 78 'the classes of mine: .*empty.txt: no lines' 's/names.txt/empty.txt/'
refuse 65 'words of [a-z]* select clusters with [0-9]* of the 240 pairs, and [0-9]* of the others per epoch: too few for train.batch = 239' \
    's/batch: 32/batch: 239/; s/expert_steps: share/out_ratio: 0/; s/coarse: 2/coarse: 1/'

# what is needed stays; of the AdamW moments only the seed's, on request
mode down --workspace "$w" >/dev/null
mode gc --workspace "$w" --optimizer --yes >"$work/gc" || { cat "$work/gc"; fail "gc"; }
grep -q '^  optimizer  *5 ' "$work/gc" || { cat "$work/gc"; fail "gc does not free the moments of six models, two of them one file"; }
mode reconcile test --workspace "$w" >/dev/null || fail "reconcile after gc"

# plain files: the same clusters and pairs, the same model
mkdir "$work/plain"
p=$work/plain
mode select --centres "$w/experts/centres.safetensors" --encoder "$MODE_TEST_MODELS/encoder" --task "$w/eval/colour" \
    --out "$p/selection.safetensors" >"$p/chosen" 2>/dev/null || fail "select by plain files"
cmp "$p/selection.safetensors" "$(find "$w/blobs" -type f -exec cmp -s {} "$p/selection.safetensors" \; -print | head -1)" ||
    fail "plain files choose other clusters than the run"
mode captions "$w/train" --text-keys 'json:texts[]' --seed 3 --out "$p/captions" >/dev/null 2>&1 || fail "captions"
for f in "$p/captions"/*.bin; do
    mode assign --captions "$f" --encoder "$MODE_TEST_MODELS/encoder" --centres "$w/experts/centres.safetensors" \
        --out "$p/assign-$(basename "$f" .captions.bin).safetensors" >/dev/null 2>&1 || fail "assign of $f"
done
mode select --centres "$w/experts/centres.safetensors" --encoder "$MODE_TEST_MODELS/encoder" --task "$w/eval/colour" \
    --assign "$p/assign-*.safetensors" 2>/dev/null | tail -1 >"$p/sum" || fail "select with pairs"
mode train --init "$w/experts/seed" --data "$w/train" --text-keys 'json:texts[]' --seed 3 --batch 32 --warmup 0 --steps 3 \
    --selection "$p/selection.safetensors" --assign "$p/assign-*.safetensors" --out "$p/model" >"$p/trained" 2>"$p/log" ||
    { cat "$p/log"; fail "train of a selection"; }
grep -q '"selection": "[0-9a-f]*"' "$p/model/train.json" || fail "train.json does not name the selection"
echo "$(grep -o '"in_cluster": [0-9]*' "$p/model/train.json")" | grep -q " $(sed 's/.*: \([0-9]*\) of.*/\1/' "$p/sum")$" ||
    fail "the model was trained on others than select counts: $(cat "$p/sum")"

# killed midway through its training, with the coordinator: the same bytes
b=$work/b
corpus "$b" 240 60
cp "$w/run.yaml" "$w/names.txt" "$b/"
mode up --workspace "$b" >/dev/null
mode run "$b/run.yaml" --workspace "$b" --no-progress >"$work/table.b" 2>"$work/run.b" &
run=$!
is_trained() { grep -q 'task_start .*train/\(hues\|mine\)' "$b"/logs/train*.log 2>/dev/null; }
await is_trained || fail "no expert for tasks is trained"
for f in "$b"/run/train*.pid; do kill -9 "$(head -n 1 "$f")" 2>/dev/null || true; done
kill -9 "$(head -n 1 "$b/run/coordinator.pid")" 2>/dev/null || true
wait $run || { cat "$work/run.b"; fail "the run that was killed in the midst"; }
(cd "$b/experts" && sha256sum --quiet -c "$work/models") || fail "killed in the midst it came to other bytes"
cmp "$work/result.csv" "$b/report/result.csv" || fail "killed in the midst it has another result.csv"
mode down --workspace "$b" >/dev/null
none_left "$b"
echo "experts_for: ok"
