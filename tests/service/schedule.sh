#!/bin/sh
# schedule.sh BIN - a run whose learning rate is constant up to the fork and cools down in the experts: the rates of every
# model's steps, the same bytes after kills in the seed and in the cooldown, an expert that is added later, a longer
# schedule on the same seed, and a seed that `mode train` trains in two parts.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
SEED_STEPS=60 TOTAL_STEPS=200
w=$work/w storm=$work/storm
corpus "$w" 240 60
corpus "$work/more" 80 40
mv "$work/more/train" "$w/later"
spec "$w"
sed -i 's/expert_steps: share/schedule: constant_cooldown, cooldown_steps: 100/' "$w/run.yaml"
printf 'experts_for: [{name: hues, tasks: [colour]}]\n' >>"$w/run.yaml"
cp -r "$w" "$storm"

go() { mode run "$1/run.yaml" --workspace "$1" --no-progress >/dev/null 2>>"$work/run.log"; }
key() { sed -n "s#.*\"label\": \"$2\".*\"key\": \"\([^\"]*\)\".*#\1#p" "$1/runs/test/plan.json" | head -n 1; } # workspace, task
rates() { # task: step and learning rate of each step
    for d in $(grep -aoE '[0-9a-f]{64}' "$w/commits/$(key "$w" "$1")"); do
        f=$w/blobs/$(echo "$d" | cut -c 1-2)/$d
        if [ -e "$f" ] && head -c 9 "$f" | grep -q '^{"step": '; then sed 's/^{"step": \([0-9]*\),.*"lr": \([^,]*\),.*/\1 \2/' "$f"; fi
    done
}
expect() { # task, first and last step, total: warm-up of 5 steps to 1e-3, cooldown after step 100
    rates "$1" >"$work/rates"
    [ "$(wc -l <"$work/rates")" = $(($3 - $2 + 1)) ] || { cat "$work/rates"; fail "$1 has not the steps $2 to $3"; }
    awk -v first="$2" -v total="$4" '
        { i = $1 - 1; want = i < 5 ? (i + 1) / 5 : i < 100 ? 1 : (total - i) / (total - 100); d = $2 - want * 1e-3 }
        $1 != first + NR - 1 || d * d > 1e-24 { print "step " $1 ": " $2; bad = 1 }
        END { exit bad }' "$work/rates" || fail "$1: not the learning rates of its schedule"
}
sums() { (cd "$w/experts" && for m in "$@"; do sha256sum "$m"/*; done); } # of models

mode doctor --workspace "$w" --spec "$w/run.yaml" | grep -q '^ok *inputs' || fail "mode doctor --spec"
mode up --workspace "$w" >/dev/null
go "$w" || fail "the run"
expect train/seed 1 60 200
for m in dense expert-0 expert-1 hues; do expect train/$m 61 200 200; done
grep -q '"schedule": "constant_cooldown"' "$w/report/summary.json" || fail "summary.json does not say the schedule"
sums seed dense expert-0 expert-1 hues >"$work/sums"
seed=$(key "$w" train/seed)

# killed in the seed and in an expert's cooldown: the same bytes
mode up --workspace "$storm" >/dev/null
go "$storm" &
run=$!
started() { sed -n "s#.* task_start key=\([0-9a-f]*\) label=train/$1 .*#\1#p" "$storm/logs/train.log" | tail -n 1; } # model
checkpointed() { # model, step
    k=$(started "$1") && [ -n "$k" ] && [ -n "$(find "$storm/ckpt" -path "*/ckpt/$k*" -name "step-*$2" 2>/dev/null)" ]
}
for at in "seed 00[1-5]?" "expert-0 01[1-8]?"; do
    until checkpointed "${at% *}" "${at#* }"; do
        kill -0 $run 2>/dev/null || fail "the run ended before a checkpoint of ${at% *}"
        sleep 0.02
    done
    kill_compute "$storm" train $run
done
wait $run || fail "the run under fire"
(cd "$storm/experts" && sha256sum --quiet -c "$work/sums") || fail "other bytes after kills"
mode down --workspace "$storm"

# added data: an expert of the same steps, and nothing else
sed -i 's/^data: .*/data: {train: train, added: [later]}/' "$w/run.yaml"
go "$w" || fail "the run with added data"
expect train/expert-2 61 200 200
(cd "$w/experts" && sha256sum --quiet -c "$work/sums") || fail "added data changed a model that was there"

# a longer schedule: the models after the fork are trained again, the seed is not
sed -i 's/total_steps: 200/total_steps: 220/; s/cooldown_steps: 100/cooldown_steps: 120/' "$w/run.yaml"
go "$w" || fail "the run with a longer cooldown"
expect train/expert-0 61 220 220
[ "$(key "$w" train/seed)" = "$seed" ] || fail "another cooldown is another seed"
grep seed "$work/sums" | (cd "$w/experts" && sha256sum --quiet -c) || fail "another cooldown changed the seed"

# the same seed by mode train, which goes on at the same rate without knowing how far
printf '%s' '{"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2,
 "head_width": 16}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}' \
    >"$work/model.json"
train() { # options
    mode train --data "$w/train" --text-keys 'json:texts[]' --batch 32 --lr 1e-3 --warmup 5 --seed 3 --schedule constant \
        --clip-merges "$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz" "$@" >/dev/null 2>>"$work/run.log" || fail "mode train $*"
}
train --config "$work/model.json" --steps 40 --out "$work/part"
train --init "$work/part" --steps 20 --out "$work/seed"
cmp "$work/seed/open_clip_model.safetensors" "$w/experts/seed/open_clip_model.safetensors" ||
    fail "mode train in two parts makes another seed"
mode down --workspace "$w"
none_left "$work"
echo "schedule: ok"
