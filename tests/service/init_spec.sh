#!/bin/sh
# init_spec.sh BIN - `mode init`: a spec for a data set, which is then run, and specs from commands of open_clip.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
docs=$(cd "$(dirname "$0")/../../docs" && pwd)
need_models
ln -s "$MODE_TEST_MODELS" "$work/models" # the cache, with CLIP's merges
export MODE_CACHE="$work"
cd "$work"
w=$work/w
corpus "$w" 240 60
cat >model.json <<'JSON'
{"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
 "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
JSON

init() { # options...: OUT and what is said go to files
    code=0
    "$bin/mode" init "$@" >out 2>log || code=$?
}
has() { # FILE LINE...: each is a pattern of a whole line, without its comment
    file=$1
    shift
    for line in "$@"; do
        sed 's/  *#.*//' "$file" | grep -Eqx -e "$line" || fail "no line \"$line\": $(cat "$file" log)"
    done
}
refused() { # CODE WORDS options...
    want=$1 words=$2
    shift 2
    init "$@"
    [ $code -eq "$want" ] && grep -q -e "$words" log || fail "mode init $*: exit $code, $(cat log); expected $want, \"$words\""
    [ ! -s out ] || fail "mode init $*: a spec was written"
}

# a data set: paths are absolute, as the spec is in another folder
init --data w/train --tasks w/eval --encoder models/encoder --model model.json --experts 2 --name small --out w/first.yaml
[ $code -eq 0 ] || fail "$(cat log)"
has w/first.yaml 'name: small' "model: $w/../model.json|model: $work/model.json" 'precision: f32' "  train: $w/train" \
    '  text_keys: \["json:texts\[\]"\]' "  dir: $work/models/encoder" '  fine: 8' '  coarse: 2' '  batch: 16' '  epochs: 32' \
    '  seed_epochs: 27' '  lr: 5e-4' "  tasks: $w/eval"
grep -q '4 shards: about 240 pairs, .*estimated from the first shard' log || fail "what was seen: $(cat log)"
grep -q '^w/first.yaml is written; next: mode doctor --spec w/first.yaml$' log || fail "what is next: $(cat log)"
"$bin/mode" doctor --workspace "$w" --spec w/first.yaml >doctor || { cat doctor; fail "doctor"; }
grep -q '^ok *inputs *4 shards .* of small are there' doctor || fail "inputs: $(cat doctor)"
# it is a run
sed 's/epochs: 32/epochs: 4/; s/epochs: 27/epochs: 2/' w/first.yaml >w/run.yaml
"$bin/mode" up --workspace "$w"
"$bin/mode" run w/run.yaml --workspace "$w" --no-progress >out 2>run.log || fail "the run"
[ -s w/experts/expert-1/open_clip_model.safetensors ] || fail "no expert"
"$bin/mode" reconcile --workspace "$w" >/dev/null || fail "reconcile"
"$bin/mode" down --workspace "$w"

# an existing file stays, unless it is to be replaced
cp w/first.yaml before
refused 73 'w/first.yaml: exists already; --force' --data w/train --out w/first.yaml
cmp before w/first.yaml || fail "a spec was replaced"
init --data w/train/0/0.tar --out w/first.yaml --force
[ $code -eq 0 ] && has w/first.yaml 'name: "0"' "  train: $w/train/0/0.tar" || fail "--force: $(cat log)"
grep -q '# 1 shard, 60 pairs$' w/first.yaml || fail "one shard is not counted: $(cat w/first.yaml)"
# without --out on stdout, with paths as they are given; defaults
init --data 'w/train/{0..1}/*.tar'
[ $code -eq 0 ] && has out 'name: train' 'model: ViT-B-32' '  train: "w/train/\{0..1\}/\*.tar"' \
    '  hub: princeton-nlp/sup-simcse-bert-base-uncased' '# evaluate:' || fail "stdout: $(cat log)"
# an encoder on the hub is downloaded by the run, and no problem before
init --data w/train --out hub.yaml
"$bin/mode" doctor --workspace "$w" --spec hub.yaml >doctor || { cat doctor; fail "doctor"; }
grep -q '^none *encoder *princeton-nlp/sup-simcse-bert-base-uncased is not in the cache yet' doctor || fail "encoder: $(cat doctor)"
grep -q '^ok *inputs *4 shards ([^)]*), the merges' doctor || fail "inputs: $(cat doctor)"
# where captions are: the usual places first, else the field that reads like one; others are named
mkdir members
pairs() { # TAR command...: 40 samples; the command makes the members of $i other than the picture
    rm -f members/*
    tar=$1
    shift
    for i in $(seq 10 49); do
        printf '\377\330\377' >members/$i.jpg
        "$@"
    done
    tar -cf "$tar" -C members $(ls members)
}
both() { echo "a red cat, number $i" | tee members/$i.txt >members/$i.cls
    echo "{\"caption\": \"a blue dog and $i\", \"url\": \"http://x/$i\", \"alt\": \"other words of $i\"}" >members/$i.json; }
alone() { echo "{\"url\": \"http://x/$i\", \"note\": \"this has many more words than\", \"alt_text\": \"a green bird $i\"}" >members/$i.json; }
none() { echo 3 >members/$i.cls; }
pairs both.tar both
init --data both.tar
has out '  text_keys: \[txt, "json:caption"\]'
grep -q 'also there: json:alt, cls' out || fail "other fields: $(cat out)"
pairs alone.tar alone
init --data alone.tar
has out '  text_keys: \["json:alt_text"\]'
pairs none.tar none
refused 65 'none.tar: no captions are found in its 40 samples (texts there: cls)' --data none.tar
refused 66 'nowhere' --data nowhere
echo no >text.tar
refused 65 'text.tar' --data text.tar
refused 2 'unexpected argument.*in quotes' --data w/train/0/0.tar w/train/1/1.tar
refused 2 '--name: "a b"' --data w/train --name 'a b'
refused 2 '--precision: "fp16" is unknown' --data w/train --precision fp16
refused 78 '--model: "RN50" is not known' --data w/train --model RN50
refused 66 'no/tasks' --data w/train --tasks no/tasks
refused 73 'no/folder' --data w/train --out no/folder/run.yaml
refused 2 'experts: 0 is out of range' --data w/train --experts 0

# open_clip's command of docs/FROM_OPEN_CLIP.md, as a whole and as words
command=$(sed -n '/^torchrun .*open_clip_train/,/[^\\]$/p' "$docs/FROM_OPEN_CLIP.md")
init --from-open-clip --out b32.yaml -- "$command"
[ $code -eq 0 ] || fail "$(cat log)"
has b32.yaml 'name: b32' 'precision: bf16' 'model: ViT-B-32' '  train: "/data/\{00000..00999\}.tar"' '  batch: 4096' \
    '  epochs: 32' '  seed_epochs: 27' '  lr: 5e-4' '  warmup_steps: 2000' '  weight_decay: 0.2' '  text_keys: \[txt\]'
grep -q '# not needed: --local-loss' b32.yaml || fail "an option is lost: $(cat b32.yaml)"
echo 'b32.yaml is written; next: mode doctor --spec b32.yaml' | cmp - log || fail "warnings: $(cat log)"
eval "init --from-open-clip -- $command"
sed s/SPEC.yaml/b32.yaml/ out | cmp - b32.yaml || fail "words: $(cat out)"
("$bin/mode" doctor --workspace "$w" --spec b32.yaml || true) >doctor
grep -q '^BAD *spec' doctor && fail "not a spec: $(cat doctor)"
# what has no equivalent is said, and is no error; options before the -- replace those of the command
init --from-open-clip --name other --experts 8 --data w/train --out o.yaml -- python -m training.main --train-data x.csv \
    --model ViT-B-16 --siglip --nonsense 1 --precision fp32 --val-data v.csv
[ $code -eq 0 ] || fail "$(cat log)"
for words in 'not supported: --siglip (' 'unknown: --nonsense 1'; do
    grep -qF "# $words" o.yaml && grep -qF "$words" log || fail "\"$words\" is not said: $(cat o.yaml log)"
done
has o.yaml 'name: other' '  coarse: 8' '  train: w/train' 'precision: tf32' '  tasks: tasks'
grep -q '^mode pack --task v.csv --out tasks/val$' log || fail "what is before the run: $(cat log)"
refused 2 'the command follows after .--.' --from-open-clip torchrun --nproc_per_node 2
refused 2 'a command of open_clip is needed' --from-open-clip --
refused 2 'calls no trainer of open_clip' --from-open-clip -- python train.py
refused 78 '"RN50" is not known' --from-open-clip -- main.py --train-data x.tar --model RN50
refused 78 'train.lr: "x" is not a number' --from-open-clip -- main.py --train-data x.tar --model ViT-B-32 --lr x
none_left "$work"
echo "init: ok"
