#!/bin/sh
# bad_shards.sh BIN - shards that are no tar among good ones. By default the run ends, with a sentence that says how it
# would not; with data.bad_shards: skip it comes to its end, killed in the midst or not, and everybody says what it is
# without. When the shards are whole again the run is as if they had never been broken. Too many of them are an error.
# By hand, too: mode captions and mode train.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
w=$work/a
corpus "$w" 200 40
SEED_STEPS=10 TOTAL_STEPS=20 spec "$w"
sed -i 's#^data: .*#data: {train: "train/{0/0,1/1,2/2}.tar", added: ["train/{3/3,4/4}.tar"]}#
    s/{batch: 32,/{order: windows, window_shards: 2, batch: 32,/' "$w/run.yaml"
sed 's/^data: {/&bad_shards: skip, /' "$w/run.yaml" >"$w/skip.yaml"
go() { mode run "$w/$1.yaml" --workspace "$w" --no-progress >"$work/said" 2>&1; }
commits() { find "$w/commits" -type f | wc -l; }
sums() { (cd "$w" && sha256sum experts/*/*.safetensors experts/centres.safetensors report/result.csv report/weights.json); }
ledger() { mode reconcile "$@" --workspace "$w" >"$work/ledger" || { cat "$work/ledger"; fail "reconcile"; }; }

http=127.0.0.1:$(free_port)
mode up --workspace "$w" --http "$http" >/dev/null
go run || fail "the run of whole shards: $(cat "$work/said")"
sums >"$work/whole"
for s in 2/2 4/4; do cp -p "$w/train/$s.tar" "$w/${s%/*}.kept"; done
echo '<html>404 - not found</html>' >"$w/train/2/2.tar"
: >"$w/train/4/4.tar"

# by default: the first of them ends the run
rc=0
go run || rc=$?
[ $rc = 65 ] || fail "a run with shards that are no tar ended with $rc: $(cat "$work/said")"
said 'captions/000[24]: .*/train/[24]/[24].tar: .*not a tar.*data.bad_shards: skip skips shards that cannot be read' "$work/said"

# left out; the coordinator dies once that is known of one
go skip &
run=$!
await says 'warn captions shard_skipped ' "$w"/logs/captions*.log || fail "no worker says that a shard is left out"
kill -9 "$(head -n 1 "$w/run/coordinator.pid")"
wait $run || fail "the run without them: $(cat "$work/said")"
sums >"$work/without"
cmp -s "$work/whole" "$work/without" && fail "the run without two shards is the run with them"
is_said() { mode status --workspace "$w" | grep -q "run test: 2 of 5 shards are skipped (.*/train/[24]/[24].tar: .*not a tar.*; and others): none of their samples is"; }
await is_said || { mode status --workspace "$w"; fail "status does not say that shards are left out"; }
ledger
grep -Eq '^  samples +120  in 3 shards' "$work/ledger" || { cat "$work/ledger"; fail "other samples than those of three shards"; }
grep -Eq 'shards skipped +2  2/2.tar: is not a tar .*[)], and others; none of their samples is counted' "$work/ledger" || { cat "$work/ledger"; fail "reconcile does not count them"; }
ledger --json
grep -q '"bad_shards": 2,' "$work/ledger" || fail "reconcile --json does not count them"
grep -q 'shards skipped because .*: 2 of 5<' "$w/report/report.html" || fail "the report does not count them"
grep -q '<small>in 3 shards, ' "$w/report/report.html" || fail "the report's tile of pairs counts other shards than those read"
grep -q '"bad_shards": 2,' "$w/report/summary.json" || fail "summary.json does not count them"
mode overlap --workspace "$w" >"$work/overlap" 2>"$work/said" || fail "overlap: $(cat "$work/said")"
said '[24].tar was skipped by the run: .*not a tar' "$work/said"
grep -q '^training: 120 images in 3 shards; skipped shards: 2$' "$work/overlap" || { cat "$work/overlap"; fail "overlap reads other shards"; }
mode pairs --workspace "$w" | wc -l | grep -qx 120 || fail "pairs of other shards"

# again: nothing is tried, nothing is made, and it is said again
n=$(commits)
go skip || fail "the same run again: $(cat "$work/said")"
[ "$(commits)" = "$n" ] || fail "the same run again made something"
[ "$(grep -c ' shard_skipped ' "$w"/logs/captions*.log)" = 2 ] || fail "a shard that is left out was tried again"

# the bytes are those of a run where the shards are tars that hold nothing
sed 's/^name: .*/name: hollow/' "$w/run.yaml" >"$w/hollow.yaml"
for s in 2/2 4/4; do head -c 10240 /dev/zero >"$w/train/$s.tar"; done
go hollow || fail "the run of empty tars: $(cat "$work/said")"
sums | grep -v 'report/' >"$work/hollow"
grep -v 'report/' "$work/without" | cmp - "$work/hollow" || fail "to leave out is not to have nothing"

# whole again: captions of the two shards, and the report, which shows the spec; the rest is found
for s in 2/2 4/4; do cp "$w/${s%/*}.kept" "$w/train/$s.tar"; done
n=$(commits)
go skip || fail "the run of shards that are whole again: $(cat "$work/said")"
[ "$(($(commits) - n))" = 3 ] || fail "two whole shards made $(($(commits) - n)) commits, not 3"
sums | cmp - "$work/whole" || fail "what was left out leaves a trace"
ledger
grep -q 'skipped' "$work/ledger" && fail "a whole shard is left out"
grep -q 'shards skipped\|bad_shards": [0-9]' "$w/report/report.html" "$w/report/summary.json" && fail "the report leaves out a whole shard"

# nobody is called at night: what a run does without is no task that was given up (ModeTaskGivenUp of alerts.yml)
echo 'not found' >"$w/train/4/4.tar"
mode run "$w/skip.yaml" --workspace "$w" --detach >/dev/null
is_said() { mode status --workspace "$w" | grep -q 'run test: 1 of 5 shards is skipped (.*/train/4/4.tar: is not a tar .*): none of its samples is'; }
await is_said || { mode status --workspace "$w"; fail "status does not say that a shard is left out"; }
curl -s "http://$http/metrics" >"$work/metrics"
grep -q '^mode_tasks{queue="captions",state="cancelled"} [1-9]' "$work/metrics" || { cat "$work/metrics"; fail "the first try is not in the metrics"; }
if grep '^mode_tasks{.*state="dead"}' "$work/metrics" | grep -v ' 0$'; then fail "somebody would be called at night"; fi
mode cancel test --workspace "$w" >/dev/null

# too many: the source is wrong
for s in 0/0 1/1; do echo 'not found' >"$w/train/$s.tar"; done
rc=0
go skip || rc=$?
[ $rc = 65 ] || fail "a run of a wrong source ended with $rc: $(cat "$work/said")"
said 'data.train: 2 of 3 shards are not tars or are corrupt; expected at most one, or a tenth of them' "$work/said"
mode down --workspace "$w" >/dev/null

# by hand
by_hand() { # exit code, words, command...
    rc=0 want=$1 words=$2
    shift 2
    mode "$@" >"$work/said" 2>&1 || rc=$?
    [ $rc = "$want" ] || fail "mode $1 ended with $rc: $(cat "$work/said")"
    said "$words" "$work/said"
}
cp "$w/2.kept" "$w/train/0/0.tar"
three="$w/train/{0/0,1/1,2/2}.tar"
by_hand 65 '1.tar: is not a tar .*HINT: --skip-bad-shards skips' captions "$three" --text-keys 'json:texts[]' --out "$work/c"
by_hand 0 'shards skipped +1' captions "$three" --text-keys 'json:texts[]' --out "$work/c" --idx --skip-bad-shards
grep -q '"bad": "is not a tar ' "$work/c/captions.json" || fail "captions.json does not say it"
[ -e "$work/c/00002.idx" ] && [ ! -e "$work/c/00001.idx" ] || fail "an index of what is not a tar"
by_hand 0 'skipped +is not a tar' inspect "$work/c/00001.captions.bin"
by_hand 65 'the sources: 1 of 1 shard is not a tar' captions "$w/train/1/1.tar" --out "$work/d" --skip-bad-shards
trained="--init $w/experts/seed --text-keys json:texts[] --batch 32 --warmup 0 --steps 2 --clip-merges $MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz"
by_hand 65 '1.tar: is not a tar .*--skip-bad-shards skips' train $trained --data "$three" --out "$work/m"
by_hand 0 '1.tar is skipped: is not a tar' train $trained --data "$three" --out "$work/n" --skip-bad-shards
said 'captions: 80 pairs of 80 samples' "$work/said"
by_hand 0 '' train $trained --order windows --window-shards 2 --data "$three" --out "$work/o" --skip-bad-shards
