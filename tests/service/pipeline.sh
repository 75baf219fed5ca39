#!/bin/sh
# pipeline.sh BIN - the real services on a small synthetic corpus: a run from shards to report; the same bytes with other
# numbers of workers; a second run recomputes nothing; a changed parameter recomputes only what depends on it; planted faults
# end in their named fates; added data makes one more expert and changes no other; no process is left running.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models

corpus "$work/a" 240 60 fault
EVALUATE_STEPS=8 spec "$work/a"
"$bin/mode" up --workspace "$work/a"
"$bin/mode" run "$work/a/run.yaml" --workspace "$work/a" --no-progress >"$work/table" 2>"$work/run.log" || fail "the run"
cat "$work/table"
grep -q 'captions .*rows, [0-9]* left out' "$work/run.log" || fail "the run does not say how many samples were left out"
grep -q 'train-experts .*left out' "$work/run.log" && fail "pairs of other experts are called left out"
grep -q '^[0-9]* *retrieval_shapes image_retrieval_recall@1 ' "$work/table" || fail "the name of a row is cut"
for f in report/result.csv report/report.html report/summary.json experts/dense/open_clip_model.safetensors \
    experts/dense/open_clip_config.json experts/expert-0/open_clip_model.safetensors experts/expert-1/open_clip_config.json; do
    [ -s "$work/a/$f" ] || fail "$f is missing after the run"
done
cat "$work/a/report/result.csv"
head -1 "$work/a/report/result.csv" | grep -q '^,dataset,num_classes,expert-0,expert-1,expert-max,all_unit,ensemble' || fail "columns of result.csv"
head -1 "$work/a/report/result.csv" | grep -q ',dense' || fail "result.csv has no dense"

# time of every stage, memory of every process
for p in coordinator redis supervisor "agent of captions" "agent of ensemble"; do
    grep -q "\"name\": \"$p\"" "$work/a/report/summary.json" || fail "summary.json does not say the memory of: $p"
done
for s in captions train-seed train-experts ensemble; do
    grep -q "\"stage\": \"$s\"" "$work/a/report/summary.json" || fail "summary.json does not say the time of: $s"
    grep -q "<td>$s</td>" "$work/a/report/report.html" || fail "report.html does not say the time of: $s"
done
grep -q '"backends": "c' "$work/a/report/summary.json" || fail "summary.json does not say what computed a stage"

# curves: for every model one file of its steps and one of its results
curves() { # model kind
    find "$work/a/runs/test/tensorboard/$1" -name "events.out.tfevents.*.$2" | sort
}
for m in seed dense expert-0 expert-1; do
    for kind in train val; do
        [ "$(curves $m $kind | wc -l)" = 1 ] || fail "$m has no curve ($kind), or several"
    done
done
[ "$(curves '' train | wc -l)" = 4 ] || fail "curves of no model: $(curves '' train)"
grep -qa train/samples_per_second "$(curves dense train)" || fail "the curve of dense has no pace: it was not written while it trained"
curves '' train >"$work/curves"
curves '' val >>"$work/curves"

# evaluated during training: at the start and every 8 steps; the last point is the run's own evaluation
points() { sed 's/.*"step": //; s/,.*//' "$work/a/runs/test/validation/$1.jsonl" | uniq | tr '\n' ' '; }
[ "$(points seed)" = "0 8 16 24 " ] || fail "seed was evaluated after steps $(points seed)"
[ "$(points dense)" = "30 32 40 48 " ] || fail "dense was evaluated after steps $(points dense)"
tasks=$(find "$work/a/eval" -name nshards.txt | wc -l)
[ "$(wc -l <"$work/a/runs/test/validation/dense.jsonl")" = $((4 * tasks)) ] || fail "dense was not evaluated on every task"
for m in seed dense expert-0 expert-1; do
    grep -q "<title>$m, step [0-9]*: [0-9.]*%</title>" "$work/a/report/report.html" || fail "the report does not show how $m did while it trained"
done
# dense starts from the final seed model
[ "$(grep '"step": 30, "dataset": "colour"' "$work/a/runs/test/validation/dense.jsonl" | sed 's/.*"acc1": //; s/,.*//')" = \
    "$("$bin/mode" evaluate --model "$work/a/experts/seed" "$work/a/eval/colour" --json 2>/dev/null | sed 's/.*"acc1"://; s/,.*//')" ] ||
    fail "dense begins with other results than seed ends with"

# the ledger: 240 pairs + 10 planted samples, every fate named
"$bin/mode" reconcile --workspace "$work/a" >"$work/ledger" || fail "reconcile"
cat "$work/ledger"
for fate in no_caption empty_caption not_an_image bad_image image_too_large bad_json duplicate_key no_image; do
    grep -q "$fate" "$work/ledger" || fail "no fate $fate in the ledger"
done

# the list of pairs: as many as the ledger says, each once, with its sample's caption
"$bin/mode" pairs --workspace "$work/a" >"$work/pairs" || fail "pairs"
for k in 0 1; do
    [ "$("$bin/mode" pairs --workspace "$work/a" --expert $k --json | grep -c "\"expert\": $k")" = \
        "$(awk -v e="expert-$k" '$1 == e { print $2 }' "$work/ledger")" ] || fail "pairs of expert-$k"
done
[ "$(cut -f2,3 "$work/pairs" | sort -u | wc -l)" = "$(awk '$1 == "kept" { print $2 }' "$work/ledger")" ] || fail "pairs lists a pair twice, or not"
last=$(tail -1 "$work/pairs")
tar -xOf "$(echo "$last" | cut -f2)" --wildcards "$(echo "$last" | cut -f3).*" | grep -aqF "$(echo "$last" | cut -f6)" ||
    fail "the last pair's caption is not its sample's: $last"

# a task of training pictures: each is found, and is the pair of the expert that mode pairs says
mkdir -p "$work/copies/x"
tar -xf "$work/a/train/1/1.tar" -C "$work/copies/x" --wildcards '*.jpg'
"$bin/mode" pack --task "$work/copies" --out "$work/copied" >/dev/null || fail "pack of copies"
"$bin/mode" overlap "$work/copied" --workspace "$work/a" --out "$work/overlap" >"$work/overlaps" || fail "overlap"
awk -F '\t' '$6 == "exact" { print $9, $4, $5 }' "$work/overlap" | sort >"$work/found"
awk -F '\t' '$2 ~ /\/1\/1.tar$/ { print $1, $2, $3 }' "$work/pairs" | sort >"$work/whose"
[ -s "$work/found" ] && diff "$work/found" "$work/whose" || fail "overlap finds other pairs than were copied"
grep -q '^copied *expert-[01] *[0-9]' "$work/overlaps" || fail "overlap counts no pairs of experts: $(cat "$work/overlaps")"
[ "$("$bin/mode" overlap --workspace "$work/a" --json | grep -c '"task"')" = 3 ] || fail "overlap without tasks is not of the run's"

# again: nothing to do, in seconds; up to a minute on a busy machine
before=$(ls "$work/a/commits" | wc -l)
t=$(date +%s)
"$bin/mode" run "$work/a/run.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "second run"
[ $(($(date +%s) - t)) -lt 60 ] || fail "a finished run took $(($(date +%s) - t)) s the second time"
[ "$(ls "$work/a/commits" | wc -l)" = "$before" ] || fail "a finished run made new commits"
cp "$work/a/report/result.csv" "$work/one.csv"
{ curves '' train; curves '' val; } | cmp -s - "$work/curves" || fail "a finished run wrote its curves anew"

# the experts on one's own pictures: those of a task, by its words alone, score what the report says of the ensemble
mkdir "$work/own"
tar -xf "$work/a/eval/colour/test/0.tar" -C "$work/own"
find "$work/own" -name '*.jpg' | sort >"$work/own.txt"
"$bin/mode" predict --workspace "$work/a" --classes "$work/a/eval/colour/classnames.txt" --top 1 --images "$work/own.txt" \
    --templates "$work/a/eval/colour/zeroshot_classification_templates.txt" >"$work/own.tsv" 2>"$work/own.weights" || fail "predict"
grep -q 'expert-[01] [01]\.' "$work/own.weights" || fail "predict does not say how the experts are weighted"
right=0
while IFS="$(printf '\t')" read -r picture _ class; do
    label=$(cat "${picture%.jpg}.cls")
    if [ "$(sed -n "$((label + 1))p" "$work/a/eval/colour/classnames.txt")" = "$class" ]; then right=$((right + 1)); fi
done <"$work/own.tsv"
awk -F, -v right="$right" -v all="$(wc -l <"$work/own.txt")" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "ensemble") at = i }
    $2 == "colour" { d = $at - 100 * right / all; found = d < 0.01 && d > -0.01 } END { exit !found }' "$work/a/report/result.csv" ||
    fail "predict finds $right classes, which is not what the ensemble's row of colour says"
sed 3q "$work/a/eval/colour/classnames.txt" >"$work/queries.txt"
"$bin/mode" predict --experts "$work/a/experts" --queries "$work/queries.txt" --top-experts 1 --json --images "$work/own.txt" \
    >"$work/own.json" 2>/dev/null || fail "predict of queries"
[ "$(grep -c '"weights": \[\(1.0, 0.0\|0.0, 1.0\)\]' "$work/own.json")" = 3 ] || fail "one expert of two has not all the weight"
[ "$(grep -c '"best": \[{"picture"' "$work/own.json")" = 3 ] || fail "three queries have not three answers"
# the same scores as dot products of vectors: pictures without words, words that carry the weights, for queries and classes
rows() { od -An -v -t f4 -w$((4 * $(sed -n "s|.*/$2 \[[0-9]*, \([0-9]*\)\]|\1|p" "$1.said"))) -j$(($(od -An -t u2 -j8 -N2 "$1/$2") + 10)) "$1/$2"; }
for kind in texts classes; do
    rm -rf "$work/rows"
    "$bin/mode" encode --experts "$work/a/experts" --images "$work/own.txt" --$kind "$work/queries.txt" --out "$work/rows" \
        >"$work/rows.said" 2>/dev/null || fail "encode --$kind"
    [ $kind = texts ] && asked=queries || asked=classes
    "$bin/mode" predict --experts "$work/a/experts" --images "$work/own.txt" --$asked "$work/queries.txt" --top 1000 2>/dev/null |
        awk -F'\t' -v kind=$kind '{ print kind == "classes" ? $3 "\t" $2 "\t" $1 : $0 }' >"$work/scores" || fail "predict --$asked"
    { sed 's/^/P\t/' "$work/own.txt"; sed 's/^/W\t/' "$work/queries.txt"; rows "$work/rows" image_features.npy | sed 's/^/I\t/'
      rows "$work/rows" text_features.npy | sed 's/^/T\t/'; sed 's/^/S\t/' "$work/scores"; } |
        awk -F'\t' '$1 == "P" { at[$2] = ++m } $1 == "W" { word[$2] = ++k } $1 == "I" { i[++r] = $2 } $1 == "T" { t[++c] = $2 }
            $1 == "S" { n = split(i[at[$4]], a, " "); split(t[word[$2]], b, " "); dot = 0
                for (j = 1; j <= n; j++) dot += a[j] * b[j]; d = dot - $3; if (d > 6e-5 || d < -6e-5) wrong++; seen++ }
            END { exit !(r == m && c == k && seen == m * k && !wrong) }' || fail "products of rows are not the scores: --$kind"
done
"$bin/mode" encode --experts "$work/a/experts" --images "$work/own.txt" --out "$work/pictures" >/dev/null || fail "encode pictures alone"
cmp "$work/pictures/image_features.npy" "$work/rows/image_features.npy" || fail "vectors of pictures depend on words"
encoder=$(sed -n 's/.*"encoder": "\(.*\)".*/\1/p' "$work/a/experts/index.json")
MODE_WORKSPACE="$work/none" "$bin/mode" weights --centres "$work/a/experts/centres.safetensors" --encoder "$encoder" \
    --classes "$work/queries.txt" --router share --per-word >"$work/words.txt" || fail "weights --per-word"
"$bin/mode" weights --workspace "$work/a" --classes "$work/queries.txt" --per-word | cmp - "$work/words.txt" || fail "weights of a workspace"
[ "$(grep -c '^share .*entropy' "$work/words.txt")" = 3 ] || fail "three words have not three rows of weights"
"$bin/mode" weights --centres "$work/a/experts/centres.safetensors" --encoder "$encoder" --classes "$work/queries.txt" --router share \
    --per-word --top-experts 1 --router-params tau=0.5 | grep '^share' | grep -qv ' 1.0000 .* entropy 0.0000' && fail "one expert of two has not all the weight of a word"

# another router, and evaluations at other steps: only the ensemble is recomputed; under another name: its models have their
# curves there, too
sed 's/router: .*/router: uniform}/; s/^name: .*/name: twin/; s/evaluate_steps: 8/evaluate_steps: 4/' "$work/a/run.yaml" >"$work/a/run2.yaml"
"$bin/mode" run "$work/a/run2.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "run with another router"
[ "$(ls "$work/a/commits" | wc -l)" = $((before + 1)) ] || fail "another router made $(($(ls "$work/a/commits" | wc -l) - before)) new commits, 1 expected"
for m in seed dense expert-0 expert-1; do
    set -- "$work/a/runs/twin/tensorboard/$m"/events.out.tfevents.*
    [ $# = 2 ] || fail "$m has no curve in the run that found it trained: $*"
done
"$bin/mode" weights --workspace "$work/a" --classes "$work/queries.txt" | grep -q '^uniform .*0.5000' || fail "weights of a workspace: not the run's router"
[ "$("$bin/mode" weights --workspace "$work/a" --classes "$work/queries.txt" --router all | grep -c entropy)" = 5 ] || fail "weights of a workspace: not all routers"
"$bin/mode" status --workspace "$work/a" --json >/dev/null || fail "status --json"
# under its own name: the models are the same, and so are their scores during training
cp -r "$work/a/runs/test/validation" "$work/validation"
sed 's/^name: .*/name: test/' "$work/a/run2.yaml" >"$work/a/run7.yaml"
"$bin/mode" run "$work/a/run7.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "another router under the same name"
diff -r "$work/validation" "$work/a/runs/test/validation" || fail "another router took away what the models scored while they trained"
grep -q "<title>dense, step 40: [0-9.]*%</title>" "$work/a/report/report.html" || fail "another router's report has no charts of them"

# added data: one more expert; the others keep every byte, nothing of theirs is recomputed
corpus "$work/more" 80 40
mv "$work/more/train" "$work/a/later"
before=$(ls "$work/a/commits" | wc -l)
(cd "$work/a/experts" && sha256sum dense/* expert-0/* expert-1/*) >"$work/old-experts"
# queries to the experts meanwhile: one more expert disturbs none, replaced experts are reported
mkfifo "$work/words"
ask() { # returns once it has read the index and waits for its words
    "$bin/mode" predict --experts "$work/a/experts" --queries "$work/words" --images "$work/own.txt" >"$work/meanwhile" 2>&1 &
    asking=$!
    exec 9>"$work/words"
}
answer() { # exit code
    cat "$work/queries.txt" >&9
    exec 9>&-
    code=0
    wait $asking || code=$?
    [ $code = "$1" ] || fail "who asks while experts change gets $code, expected $1: $(cat "$work/meanwhile")"
}
ask
sed 's/^data: .*/data: {train: train, added: [later]}/' "$work/a/run.yaml" >"$work/a/run3.yaml"
"$bin/mode" run "$work/a/run3.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "run with added data"
answer 0
ask
"$bin/mode" run "$work/a/run.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "the run without them again"
[ ! -e "$work/a/experts/expert-2" ] || fail "expert-2 is still there"
answer 75
"$bin/mode" run "$work/a/run3.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" || fail "the run with added data again"
(cd "$work/a/experts" && sha256sum --quiet -c "$work/old-experts") || fail "added data changed an expert that was there"
[ -s "$work/a/experts/expert-2/open_clip_model.safetensors" ] || fail "added data made no expert-2"
head -1 "$work/a/report/result.csv" | grep -q ',expert-2,expert-max' || fail "result.csv has no expert-2"
grep -q '"experts_added": 1' "$work/a/report/summary.json" || fail "summary.json does not say that an expert was added"
[ "$(curves expert-2 train | wc -l)$(curves expert-2 val | wc -l)" = 11 ] || fail "added data made no curve of expert-2"
# captions, embed and assign of 2 shards, growing the centres, training, 3 tasks to evaluate, the router
[ $(($(ls "$work/a/commits" | wc -l) - before)) -le 12 ] || fail "added data made $(($(ls "$work/a/commits" | wc -l) - before)) new commits"
"$bin/mode" reconcile --workspace "$work/a" >"$work/ledger3" || { cat "$work/ledger3"; fail "reconcile with added data"; }

# no evaluation task: the same models, already done, and a report without evaluations
rm -r "$work/a/experts" "$work/a/report"
before=$(ls "$work/a/commits" | wc -l)
sed '/^evaluate:/d; s/, evaluate_steps: 8//' "$work/a/run.yaml" >"$work/a/run4.yaml"
"$bin/mode" run "$work/a/run4.yaml" --workspace "$work/a" --no-progress 2>>"$work/run.log" >"$work/no-tasks" || fail "run without evaluate.tasks"
[ "$(ls "$work/a/commits" | wc -l)" = $((before + 1)) ] || fail "no evaluation task made $(($(ls "$work/a/commits" | wc -l) - before)) new commits, 1 expected"
(cd "$work/a/experts" && sha256sum --quiet -c "$work/old-experts") || fail "the experts of a run without tasks"
grep -q 'nothing is measured' "$work/a/report/report.html" || fail "the report does not say that nothing is measured"
grep -q '<h2>Training</h2>' "$work/a/report/report.html" || fail "the report of a run without tasks has no curves"
grep -q '<h2>Ledger of samples</h2>' "$work/a/report/report.html" || fail "the report of a run without tasks has no ledger"
grep -q '"reconciles": true' "$work/a/report/summary.json" || fail "summary.json of a run without tasks has no ledger"
grep -q 'report: ' "$work/no-tasks" || fail "mode run did not say where the report is"
"$bin/mode" reconcile --workspace "$work/a" >/dev/null || fail "reconcile of a run without tasks"

# an evaluation that is given up: the models are trained, and published
rm -r "$work/a/experts"
mkdir "$work/a/broken" && cp -r "$work/a/eval/"* "$work/a/broken/"
shard=$work/a/broken/colour/test/0.tar
block=$(tar -tRf "$shard" | sed -n 's/^block \([0-9]*\): .*\.jpg$/\1/p' | head -1)
dd if=/dev/zero of="$shard" bs=512 seek=$((block + 1)) count=1 conv=notrunc 2>/dev/null # of its first picture
sed 's/^evaluate: .*/evaluate: {tasks: broken}/' "$work/a/run.yaml" >"$work/a/run5.yaml"
rc=0
"$bin/mode" run "$work/a/run5.yaml" --workspace "$work/a" --no-progress 2>"$work/given-up" || rc=$?
[ $rc = 65 ] || { cat "$work/given-up"; fail "a run with a broken evaluation task ended with $rc"; }
grep -q 'All models are trained; they are in experts/' "$work/given-up" || { cat "$work/given-up"; fail "the message does not name the experts"; }
(cd "$work/a/experts" && sha256sum --quiet -c "$work/old-experts") || fail "the experts of a run whose evaluation was given up"
grep -q 'nothing is measured' "$work/a/report/report.html" || fail "a run that failed replaced the report"

# errors that training would find too late: an expert with less than a batch of pairs, a warm-up as long as the schedule
refuse() { # exit code, words, sed script
    sed "$3" "$work/a/run.yaml" >"$work/a/run6.yaml"
    rc=0
    "$bin/mode" run "$work/a/run6.yaml" --workspace "$work/a" --no-progress 2>"$work/refused" || rc=$?
    if [ $rc != "$1" ] || ! grep -q "$2" "$work/refused"; then cat "$work/refused"; fail "$3 ended with $rc, expected $1 and: $2"; fi
}
refuse 65 'expert [01] gets [0-9]* of the 242 pairs, .*too few for train.batch = 230' 's/batch: 32/batch: 230/'
refuse 78 'train.warmup_steps is 50 and the schedule has 50 steps' 's/warmup_steps: 5/warmup_steps: 50/'
refuse 78 'train.warmup_steps is 30 and the schedule has 30 steps' \
    's/warmup_steps: 5, seed_steps: 30, total_steps: 50/warmup_steps: 30, seed_epochs: 2, epochs: 4/'

# a worker of another workspace connects and is refused
"$bin/mode-captions" --workspace "$work/a" --name extra 2>"$work/extra.log" &
extra=$!
is_in() { "$bin/mode" status --workspace "$work/a" | grep -q '  extra '; }
await is_in || fail "a worker from elsewhere does not come"
"$bin/mode" drain extra --workspace "$work/a" || fail "mode drain"
wait $extra || fail "a drained worker ended with $?"
"$bin/mode" down --workspace "$work/a"
none_left "$work/a"

# other numbers of workers: the same bytes
corpus "$work/b" 240 60 fault
spec "$work/b"
"$bin/mode" up --workspace "$work/b" --workers captions=2,embed=2,cluster=1,assign=2,train=2,evaluate=2,ensemble=1
"$bin/mode" run "$work/b/run.yaml" --workspace "$work/b" --no-progress 2>>"$work/run.log" || fail "run with more workers"
"$bin/mode" down --workspace "$work/b"
cmp "$work/one.csv" "$work/b/report/result.csv" || fail "result.csv depends on the number of workers"
echo "pipeline: ok"
