#!/bin/sh
# refusals.sh BIN - user errors and external failures: each ends with one clear sentence and the right exit code
# (docs/FORMATS.md), and nothing hangs, is lost or is left behind.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
PATH=$bin:$PATH
bye() { # ends what this script started outside the workspaces, also when it fails halfway
    kill ${coordinator:+"$coordinator"} ${worker:+"$worker"} $(cat "$work/redis.pid" 2>/dev/null) 2>/dev/null || true
    cleanup 2>/dev/null || true # what is mounted there is busy
    rm -rf "$work" 2>/dev/null || { umount -l "$work/disk" "$work/small" "$work/models/disk" 2>/dev/null || true; rm -rf "$work"; }
}
trap bye EXIT

expect() { # exit-code, words that the message must contain, command...
    code=$1 words=$2
    shift 2
    rc=0
    timeout 300 "$@" >"$work/out" 2>&1 || rc=$?
    echo "[$rc] $(echo "$*" | sed "s#$work/##g"): $(grep -v ' info ' "$work/out" | tail -n 1 | sed "s#$work/##g")"
    [ "$rc" = "$code" ] || { cat "$work/out" >&2; fail "exit $rc instead of $code: $*"; }
    grep -Eqi -e "$words" "$work/out" || { cat "$work/out" >&2; fail "the message does not say \"$words\": $*"; }
}

w=$work/a
corpus "$w" 120 60
spec "$w"

# the command line, without services
expect 69 'mode up' mode run "$w/run.yaml" --workspace "$w"
expect 2 'unknown option' mode captions --nonsense
expect 2 'unknown option --text-key; is --text-keys meant' mode captions x.tar --text-key txt --out y
expect 0 'which of them this is, from 0 .MODE_RANK.$' mode train --help
expect 2 'csv-separator: ",,", expected one character' mode pack --pairs x --out y --csv-separator ,,
expect 2 'unknown verb' mode nonsense
expect 2 'unknown verb "-v"; .mode --help' mode -v
for verb in status watch experts reconcile gc pairs 'run '"$w"'/run.yaml' 'cancel a' 'select --classes x'; do
    expect 66 'the workspace .*/none does not exist. HINT: .mode up --workspace .*/none. creates one' mode $verb --workspace "$work/none"
done
expect 0 'inputs +[0-9]+ shards? .*the encoder, the merges and the evaluation tasks of test are there' mode doctor --workspace "$w" --spec "$w/run.yaml"
sed 's#train: train}#train: "train/{0..99}/0.tar"}#' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'BAD +inputs +data: .*/[0-9]+/0.tar: cannot be opened' mode doctor --workspace "$w" --spec "$w/bad.yaml"
sed 's/{batch: 32,/{init: laion2b, batch: 32,/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'train.init: .*/laion2b: no such file or folder. HINT: open_clip.s tags .*hf-hub:' mode doctor --workspace "$w" --spec "$w/bad.yaml"
{ cat "$w/run.yaml"; echo 'experts_for: [{name: hues, tasks: [shape, color]}]'; } >"$w/bad.yaml"
expect 78 'BAD +inputs +experts_for, line [0-9]+: hues is for the task "color", .* the nearest is colour' mode doctor --workspace "$w" --spec "$w/bad.yaml"
{ cat "$w/run.yaml"; echo 'experts_for: [{name: mine, classes: none.txt}]'; } >"$w/bad.yaml"
expect 78 'BAD +inputs +experts_for, line [0-9]+: the classes of mine: .*/none.txt: ' mode doctor --workspace "$w" --spec "$w/bad.yaml"
# one argument too many, and a missing one, give the same sentence in every verb
for verb in init up down embed assign select train encode tokenize ensemble weights pack doctor experts 'bench embed' 'bench train' \
    'run a.yaml' 'status a' 'watch a' 'cancel a' 'drain a' 'verify a' 'reconcile a' 'convert a b' 'keys a'; do
    expect 2 '^mode [a-z]*: unexpected argument "stray"; ' mode $verb stray
done
for missing in 'captions|SHARDS' 'captions a|--out DIR' 'preprocess|FILE' 'preprocess a|--out FILE' 'inspect|FILE' 'convert a b|--to hf' \
    'convert|IN' 'convert a|OUT' 'embed|--encoder DIR' 'init|--data SHARDS or --from-open-clip' 'pack|--pairs DIR or --task DIR' 'pack --pairs a|--out DIR' 'run|SPEC.yaml' \
    'probe --model a|a task' 'cancel|RUN' 'drain|WORKER' 'keys|a folder'; do
    expect 2 "^mode [a-z]*: ${missing#*|}.* is needed; --help lists all options" mode ${missing%|*}
done
expect 2 'no-such.*unknown; expected auto' mode embed --encoder e --texts t --backend no-such
expect 2 'no-such.*unknown; expected auto' mode-embed --workspace "$w" --backend no-such
for wrong in 'MODE_THREADS|abc' 'OMP_NUM_THREADS|many' 'MODE_CUDA_ATTENTION|cudn' 'MODE_CUDA_ACTIVATIONS|yes' 'MODE_CUDA_NEAREST|cublas' \
    'MODE_CUDA_PIXELS|device' 'MODE_SHARD_CACHE_BYTES|lots'; do
    for program in 'mode experts' mode-embed mode-coordinator; do
        expect 78 "${wrong%|*}: \"${wrong#*|}" env "${wrong%|*}=${wrong#*|}" $program --workspace "$w"
    done
done
expect 78 'MODE_LOG_LEVEL: "loud" is unknown' env MODE_LOG_LEVEL=loud mode experts --workspace "$w"
expect 78 'MODE_LOG_LEVEL: "loud" is unknown' env MODE_LOG_LEVEL=loud mode-embed --workspace "$w"
expect 78 'MODE_LOG_LEVEL: "loud" is unknown' env MODE_LOG_LEVEL=loud mode-coordinator --workspace "$w"
expect 74 'writing stdout failed' sh -c 'mode --version >/dev/full'
mkfifo "$work/pipe" && ln -s "$work/linked" "$work/link" && echo before >"$work/linked" && echo "a cat" >"$work/cat"
expect 73 'is a device or a pipe' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/cat" --out "$work/pipe"
expect 0 ': 1 vector of' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/cat" --out "$work/link"
[ -p "$work/pipe" ] && [ -L "$work/link" ] && [ "$(wc -c <"$work/linked")" -gt 1000 ] || fail "a pipe or a link was replaced"
expect 2 'router' mode ensemble --results x --words y --router no-such
expect 2 'metric' mode cluster --features x --metric no-such
expect 2 'total-steps 3: is less' mode train --config ViT-B-32 --data x.tar --steps 5 --total-steps 3 --out y
expect 2 'text-keys: caption selector "json:" is not understood' mode captions x.tar --out y --text-keys json:
expect 2 'text-keys: caption selector "json:a, txt" has a comma. HINT: several are separated by ";": "json:a;txt"' mode captions x.tar --out y --text-keys 'json:a, txt'
expect 2 'batch 9 cannot be shared by 2' mode train --config ViT-B-32 --data x.tar --steps 1 --out y --batch 9 --ranks 2 --rank 0
expect 2 'rendezvous: "host:x" is neither' mode train --config ViT-B-32 --data x.tar --steps 1 --out y --batch 8 --ranks 2 --rank 0 --rendezvous host:x
expect 66 'nowhere.tar' mode captions "$work/nowhere.tar" --out "$work/c"

# an encoder folder with a file missing
mkdir "$work/enc"
cp "$MODE_TEST_MODELS/encoder/config.json" "$MODE_TEST_MODELS/encoder/vocab.txt" "$work/enc/"
echo "a red square" >"$work/texts"
expect 66 'model.safetensors' mode embed --encoder "$work/enc" --texts "$work/texts" --out "$work/f.npy"

# vectors of one encoder and centres of another
mode captions "$w/train" --text-keys 'json:texts[]' --out "$work/captions" >/dev/null 2>&1
for pooling in mean cls; do
    mode embed --encoder "$MODE_TEST_MODELS/encoder" --pooling $pooling --captions "$work/captions/00000.captions.bin" \
        --out "$work/$pooling.safetensors" >/dev/null 2>&1
done
mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 2 --out "$work/centres.safetensors" >/dev/null 2>&1
expect 65 'encoder' mode assign --features "$work/cls.safetensors" --centres "$work/centres.safetensors" --out "$work/assign"
# captions are assigned as their vectors are
captions="--captions $work/captions/00000.captions.bin --encoder $MODE_TEST_MODELS/encoder"
expect 0 'rows assigned' mode assign --features "$work/mean.safetensors" --centres "$work/centres.safetensors" --out "$work/ids-1"
expect 0 'rows assigned' mode assign $captions --centres "$work/centres.safetensors" --out "$work/ids-2"
cmp "$work/ids-1" "$work/ids-2" || fail "captions and their vectors are assigned differently"
expect 2 'either --features, or --captions' mode assign $captions --features "$work/mean.safetensors"
expect 2 '--encoder DIR is needed' mode assign --captions "$work/captions/00000.captions.bin"
expect 2 '--features FILE or --captions FILE is needed' mode assign
expect 66 'nothing.bin: ' mode assign --captions "$work/nothing.bin" --encoder "$MODE_TEST_MODELS/encoder" --centres "$work/centres.safetensors"

# tars: not a tar, empty, without pictures, truncated
echo "not a tar" >"$work/text.tar"
expect 65 'text.tar' mode captions "$work/text.tar" --out "$work/c1"
tar cf "$work/empty.tar" -T /dev/null
expect 0 'samples *0' mode captions "$work/empty.tar" --out "$work/c2"
(cd "$work" && echo hello >only.txt && tar cf no-pictures.tar only.txt)
expect 0 'no_image *1' mode captions "$work/no-pictures.tar" --out "$work/c3"
head -c 30000 "$w/train/0/0.tar" >"$work/cut.tar"
expect 0 'truncated *1' mode captions "$work/cut.tar" --text-keys 'json:texts[]' --out "$work/c4"

# file errors have the same exit codes in every verb: an input that is missing or of the wrong kind 66, no permission 77 (for
# inputs and outputs), a place that cannot be written 73; no partial output is left
f=$work/files enc=$MODE_TEST_MODELS/encoder centres=$work/centres.safetensors
mkdir -p "$f/folder" "$f/pairs"
(cd "$f/pairs" && tar xf "$w/train/0/0.tar")
cp "$w/train/0/0.tar" "$f/shard.tar"
cp "$f/pairs/000000.jpg" "$f/picture.jpg"
printf 'dog\ncat\n' >"$f/words"
: >"$f/empty"
cat >"$f/config.json" <<EOF
{"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
 "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
EOF
sed 's/embed_dim/nonsense/' "$f/config.json" >"$f/odd.json"
export MODE_CLIP_MERGES="$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz"
mode train --config "$f/config.json" --data "$f/shard.tar" --text-keys 'json:texts[]' --steps 1 --batch 8 --warmup 0 \
    --out "$f/model" >/dev/null 2>&1
for input in nothing folder; do
    expect 66 "$input" mode captions "$f/$input" --out "$f/out"
    expect 66 "$input" mode pack --pairs "$f/$input" --out "$f/out/deep"
    expect 66 "$input" mode convert "$f/$input" "$f/out" --to open_clip
    expect 66 "$input" mode weights --centres "$f/$input" --encoder "$enc" --classes "$f/words"
    expect 66 "$input" mode weights --centres "$centres" --encoder "$enc" --classes "$f/$input"
    expect 66 "$input" mode weights --centres "$centres" --encoder "$enc" --task "$f/$input"
    expect 66 "$input" mode select --centres "$f/$input" --encoder "$enc" --classes "$f/words"
    expect 66 "$input" mode select --centres "$centres" --encoder "$enc" --task "$f/$input"
    expect 66 "$input" mode inspect "$f/$input"
    expect 66 "$input" mode init --data "$f/$input"
    expect 66 "$input" mode tokenize --clip-merges "$f/$input"
    expect 66 "$input" mode tokenize --tokenizer "bert:$f/$input"
    expect 66 "$input" mode preprocess "$f/$input" --out "$f/out"
    expect 66 "$input" mode preprocess "$f/picture.jpg" --model "$f/$input" --out "$f/out"
    expect 66 "$input" mode verify "$f/$input"
done
mkdir "$f/config-alone" # preprocessing needs no weights, a model does
cp "$f/model/open_clip_config.json" "$f/config-alone/"
expect 66 'there is no open_clip_model.safetensors' mode verify "$f/config-alone"
for model in model config-alone; do mode preprocess "$f/picture.jpg" --model "$f/$model" --out "$f/$model.npy"; done
cmp "$f/model.npy" "$f/config-alone.npy" || fail "without weights a picture is prepared in another way"
expect 66 'empty: is a file, expected the folder of a CLIP model.*mode convert' mode verify "$f/empty"
expect 66 'empty: is a file, a folder is needed' mode tokenize --tokenizer "bert:$f/empty"
expect 66 'stdin: cannot be read' sh -c "mode tokenize <'$f/folder'"
expect 66 'is a device or a pipe, a file is needed' mode inspect "$work/pipe"
# a pipe that somebody writes to is read to its end, one that nobody writes to does not hold anybody up
pipe='pipe: is a pipe without a writer'
expect 66 "$pipe" mode embed --encoder "$enc" --texts "$work/pipe" --out "$f/out"
expect 66 "$pipe" mode pack --pairs "$work/pipe" --out "$f/out"
expect 66 "$pipe" mode tokenize --clip-merges "$work/pipe"
expect 66 "$pipe" mode captions "@$work/pipe" --out "$f/out"
expect 66 "$pipe" mode weights --centres "$centres" --encoder "$enc" --classes "$work/pipe"
expect 66 "$pipe" mode run "$work/pipe" --workspace "$w"
expect 66 'pipe: is a device or a pipe' mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 1 --grow "$work/pipe" --out "$f/out"
expect 0 'out: 2 vectors' sh -c "(sleep 0.5; echo a cat; sleep 0.5; echo a dog) | mode embed --encoder '$enc' --texts /dev/stdin --out '$f/out'"
rm "$f/out"
expect 0 'packed *1$' sh -c "printf '%s\ta cat\n' '$f/picture.jpg' | mode pack --pairs /dev/stdin --out '$f/out'"
rm -r "$f/out"
expect 66 'folder: is not an evaluation task: .*HINT: .mode pack' mode select --centres "$centres" --encoder "$enc" --task "$f/folder"
for option in results words tasks train; do
    expect 66 "^mode ensemble: --$option: .*empty: is a file, a folder is needed" mode ensemble --centres "$centres" --results "$f/folder" \
        --words "$f/folder" --$option "$f/empty" --out "$f/out"
done
for verb in status watch down experts reconcile; do expect 66 'empty: is a file, a folder is needed' mode $verb --workspace "$f/empty"; done
expect 78 "empty: expected a CURVE key" mode status --coordinator-admin tcp://127.0.0.1:1 --key-dir "$f" --server-key "$f/empty"
expect 78 "$f/empty: a run spec is a list of keys" mode run "$f/empty" --workspace "$w"
expect 73 'empty/out: cannot be made' mode captions "$f/shard.tar" --out "$f/empty/out"
expect 73 'empty: is not a folder' mode pack --pairs "$f/pairs" --out "$f/empty"
expect 73 'there is no folder .*none' mode convert "$f/model" "$f/none/out" --to open_clip
expect 73 'folder: exists already' mode convert "$f/model" "$f/folder" --to open_clip
expect 73 'folder: is a folder' mode preprocess "$f/picture.jpg" --out "$f/folder"
expect 73 'x.npy: cannot be created.*none' mode preprocess "$f/picture.jpg" --out "$f/none/x.npy"
expect 73 'TMPDIR' env TMPDIR="$f/none" mode inspect "$f/shard.tar"
expect 73 'TMPDIR' env TMPDIR="$f/none" mode weights --centres "$centres" --encoder "$enc" --classes "$f/words"
[ ! -e "$f/out" ] && [ ! -e "$f/none" ] || fail "left behind: $(ls -d "$f/out" "$f/none" 2>/dev/null)"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    n=$work/nobody # what an unprivileged user can access: the program and its inputs
    mkdir -p "$n/locked" "$n/open" "$n/secret/enc"
    cp "$bin/mode" "$f/shard.tar" "$f/picture.jpg" "$f/words" "$centres" "$n/"
    cp "$MODE_CLIP_MERGES" "$n/merges"
    cp -r "$enc" "$n/enc"
    cp -r "$f/model" "$f/pairs" "$n/"
    cp -r "$f/model" "$n/secret.model"
    cp "$n/shard.tar" "$n/secret.tar"
    chmod -R a+rX "$n"
    chmod 711 "$work"
    chmod 777 "$n/open"
    chmod 0 "$n/secret" "$n/secret.model" "$n/secret.tar"
    denied() { # the path that the message must name, the command's arguments
        words="$1.*Permission denied"
        shift
        expect 77 "$words" env MODE_CLIP_MERGES="$n/merges" \
            setpriv --reuid 65534 --regid 65534 --clear-groups "$n/mode" "$@"
    }
    for input in secret secret.tar; do
        denied $input captions "$n/$input" --out "$n/open/out"
        denied $input pack --pairs "$n/$input" --out "$n/open/out"
        denied $input inspect "$n/$input"
        denied $input preprocess "$n/$input" --out "$n/open/out"
        denied $input weights --centres "$n/$input" --encoder "$n/enc" --classes "$n/words"
        denied $input weights --centres "$n/centres.safetensors" --encoder "$n/enc" --classes "$n/$input"
        denied $input tokenize --clip-merges "$n/$input"
    done
    denied secret captions "$n/secret/*.tar" --out "$n/open/out"
    denied secret tokenize --tokenizer "bert:$n/secret"
    denied secret weights --centres "$n/centres.safetensors" --encoder "$n/enc" --task "$n/secret"
    denied secret/enc weights --centres "$n/centres.safetensors" --encoder "$n/secret/enc" --classes "$n/words"
    denied secret.model convert "$n/secret.model" "$n/open/out" --to hf
    denied secret.model preprocess "$n/picture.jpg" --model "$n/secret.model" --out "$n/open/out"
    denied secret.model verify "$n/secret.model"
    for verb in status experts reconcile down; do denied secret $verb --workspace "$n/secret"; done
    denied secret ensemble --centres "$n/centres.safetensors" --results "$n/open" --words "$n/open" --train "$n/secret" --out "$n/open/out"
    denied secret train --config ViT-B-32 --data "$n/shard.tar" --steps 1 --batch 8 --resume --out "$n/secret" --backend cpu
    for output in locked locked/a/b; do
        denied $output captions "$n/shard.tar" --text-keys 'json:texts[]' --out "$n/$output"
        denied $output pack --pairs "$n/pairs" --out "$n/$output"
    done
    denied locked/out convert "$n/model" "$n/locked/out" --to hf
    denied locked/x preprocess "$n/picture.jpg" --out "$n/locked/x"
    [ -z "$(ls -A "$n/open" "$n/locked" | grep -v :)" ] || fail "left behind: $(ls -A "$n/open" "$n/locked")"
else
    echo "SKIPPED: files without permission (only root can become another user)"
fi

# invalid configs, words, sources and options
echo '{' >"$f/damaged.json"
weights=$f/model/open_clip_model.safetensors
expect 0 'out/: open_clip folder' mode convert "$weights" "$f/out/" --config "$f/config.json" --to open_clip
rm -r "$f/out"
expect 78 'damaged.json' mode convert "$weights" "$f/out" --config "$f/damaged.json" --to hf
expect 78 'odd.json.*nonsense' mode convert "$weights" "$f/out" --config "$f/odd.json" --to hf
expect 2 'ViT-Z.*is not a known model' mode convert "$weights" "$f/out" --config ViT-Z --to hf
expect 2 'to hf .*or --to open_clip.* is needed' mode convert "$f/model" "$f/out"
expect 2 'OUT is needed' mode convert "$f/model" --to hf
expect 65 'empty: is empty; expected the task' mode weights --centres "$centres" --encoder "$enc" --classes "$f/empty"
expect 2 'give --workspace or --encoder with either --classes or --task' mode weights --centres "$centres" --classes "$f/words"
expect 2 'give --workspace or --encoder with either --classes or --task' mode weights --workspace "$w"
expect 66 'the workspace .*none does not exist. HINT' mode weights --workspace "$f/none" --classes "$f/words"
expect 66 'experts/index.json does not exist; expected the experts/ of a finished run' mode weights --workspace "$f" --classes "$f/words"
printf 'dog\n\ncat\n' >"$f/gap"
expect 65 'gap: line 2 is blank' mode weights --centres "$centres" --encoder "$enc" --classes "$f/gap"
expect 65 'empty: no lines' mode select --centres "$centres" --encoder "$enc" --classes "$f/empty"
expect 65 'gap: line 2 is blank' mode select --centres "$centres" --encoder "$enc" --classes "$f/gap"
expect 2 'either --workspace, of a run, or --centres FILE' mode select --encoder "$enc" --classes "$f/words"
expect 2 'either --classes FILE or --task DIR' mode select --centres "$centres" --encoder "$enc"
(export MODE_WORKSPACE="$work/none" && expect 2 'encoder DIR is needed' mode select --centres "$centres" --classes "$f/words")
expect 2 'nearest: 0 is out of range, expected 1 to 1024' mode select --centres "$centres" --encoder "$enc" --classes "$f/words" --nearest 0
expect 66 'assign: no file matches' mode select --centres "$centres" --encoder "$enc" --classes "$f/words" --assign "$f/none*"
expect 73 'words: is an input' mode select --centres "$centres" --encoder "$enc" --classes "$f/words" --out "$f/words"
expect 0 '2 words select [12] of [0-9]* fine clusters$' mode select --centres "$centres" --encoder "$enc" --classes "$f/words"
route="weights --centres $centres --encoder $enc --classes $f/words"
expect 2 'pooling "sum" is unknown' mode $route --pooling sum
expect 2 '--router-params: "lamda=1" is not a constant of a router; expected NAME=NUMBER' mode $route --router-params lamda=1
expect 2 '--router-params: tau is 0, it must be between' mode ensemble --results x --words x --router-params tau=0
expect 2 'top-experts: -2 is out of range' mode predict --classes x --top-experts -2 x.jpg
expect 2 'max-tokens: -1 is out of range' mode $route --max-tokens -1
picture="preprocess $f/picture.jpg --out $f/out"
expect 2 'size: 0 is out of range, expected 1 to 4096' mode $picture --size 0
expect 2 'fill-color: 300 is out of range, expected 0 to 255' mode $picture --fill-color 300
expect 2 'resize-mode: "foo" is unknown; expected shortest, longest or squash' mode $picture --resize-mode foo
expect 2 'context: 1 is out of range, expected 2 to .*start and the end' mode tokenize --clean hf --context 1
expect 2 'lengths counts ids, --pad makes all results equally long' mode tokenize --lengths --pad
[ "$(printf 'a\n\n' | mode tokenize --lengths | tr '\n' ' ')" = "3 2 " ] || fail "mode tokenize --lengths: not the number of ids"
expect 2 'threads: -1 is out of range' mode verify --threads -1
expect 2 'seed: -1 is out of range, expected 0 or more' mode captions "$f/shard.tar" --out "$f/out" --seed -1
expect 66 'no-task: cannot be opened' env MODE_TASK=x mode evaluate --model "$f/model" "$f/no-task" # not its --task
expect 2 'per-shard: 0 is out of range' mode pack --pairs "$f/pairs" --out "$f/out" --per-shard 0
expect 2 'a brace is not closed' mode captions "$f/{0..1.tar" --out "$f/out"
expect 2 'this shard twice' mode captions "$f/shard.tar" "$f/shard.tar" --out "$f/out"

# pack: a truncated picture is named or counted, a failure halfway leaves nothing, and the same command succeeds later
head -c 700 "$f/picture.jpg" >"$f/pairs/000003.jpg"
expect 65 '000003.jpg: the picture is cut' mode pack --pairs "$f/pairs" --out "$f/out" --per-shard 1
[ ! -e "$f/out" ] || fail "left behind: $(ls -A "$f/out")"
expect 0 '"cut_image": 1,' mode pack --pairs "$f/pairs" --out "$f/out" --skip-bad --json
expect 73 'out: holds 00000.tar already' mode pack --pairs "$f/pairs" --out "$f/out" --skip-bad
rm -r "$f/out"
mkdir -p "$f/classes/red"
expect 2 'pairs and --task do not go together' mode pack --pairs "$f/pairs" --task "$f/pairs" --out "$f/out"
expect 2 'pairs DIR or --task DIR is needed' mode pack --out "$f/out"
expect 2 'pictures goes with --task FILE only' mode pack --task "$f/pairs" --pictures "$f/pairs" --out "$f/out"
expect 2 'class-names goes with --task DIR only' mode pack --task "$f/damaged.json" --class-names "$f/words" --out "$f/out"
expect 66 'no-file: cannot be opened' mode pack --task "$f/no-file" --out "$f/out"
expect 65 'damaged.json: not JSON, line' mode pack --task "$f/damaged.json" --out "$f/out"
printf 'filepath\ttitle\nnone.jpg\ta dog\n' >"$f/val.csv"
expect 66 'val.csv, line 2: .*none.jpg: cannot be opened: .* HINT: --skip-bad' mode pack --task "$f/val.csv" --out "$f/out"
expect 65 'val.csv, line 1: expected a header with .*"text" .caption.*HINT: --csv-img-key' mode pack --task "$f/val.csv" --csv-caption-key text --out "$f/out"
expect 2 'class-names goes with --task DIR only' mode pack --task "$f/val.csv" --class-names "$f/words" --out "$f/out"
expect 65 'is a picture beside the classes' mode pack --task "$f/pairs" --out "$f/out"
expect 73 'classes: is an input' mode pack --task "$f/classes" --out "$f/classes"
expect 73 'colour: holds .* already' mode pack --task "$f/damaged.json" --out "$w/eval/colour"
[ ! -e "$f/out" ] || fail "left behind: $(ls -A "$f/out")"

# captions: the file that marks a folder as complete is written last and removed first
captions="--text-keys json:texts[] --out $f/out"
expect 0 'rows *60' mode captions "$f/shard.tar" $captions
expect 65 'text.tar' mode captions "$f/shard.tar" "$work/text.tar" $captions
[ ! -e "$f/out/captions.json" ] || fail "captions.json of an earlier run was left"
expect 0 'rows *120' mode captions "$f/shard.tar" "$w/train/1/1.tar" $captions
expect 73 '00001.captions.bin: exists already' mode captions "$f/shard.tar" $captions
[ -e "$f/out/captions.json" ] || fail "captions.json of the run that was not touched is gone"

# a full disk: no partial file is left, and with free space it works
if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=64k tmpfs "$work/small" 2>/dev/null; then
    head -c 60000 /dev/zero >"$work/small/filler"
    expect 74 'No space left' mode embed --encoder "$MODE_TEST_MODELS/encoder" --captions "$work/captions/00000.captions.bin" \
        --out "$work/small/g.safetensors"
    expect 74 'shards/00000.tar: .*No space left' mode pack --pairs "$f/pairs" --skip-bad --out "$work/small/shards"
    expect 74 'small/out/.*No space left' mode convert "$f/model" "$work/small/out" --to hf
    expect 74 'x.npy: .*No space left' mode preprocess "$f/picture.jpg" --out "$work/small/x.npy"
    expect 74 '00000.captions.bin: .*No space left' mode captions "$f/shard.tar" $captions --out "$work/small/out"
    [ "$(ls -A "$work/small")" = filler ] || fail "left on the full disk: $(ls -A "$work/small")"
    umount "$work/small"
    full=1
else
    full=
    echo "SKIPPED: a full disk (mounting a tmpfs is not permitted here)"
fi

# train, encode, embed, cluster, assign, evaluate, ensemble, bench: outputs and options are checked before the work, and
# nothing is left
o=$work/models
mkdir "$o"
cat >"$o/model.json" <<'END'
{"embed_dim": 16, "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
 "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
END
export MODE_CLIP_MERGES="$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz"
nothing() { [ ! -e "$o/new" ] || fail "left behind: $(find "$o/new")"; }
early() { # as expect; it must fail before any work is done
    expect "$@"
    if grep -Eq 'captions of shard|round 1|texts$' "$work/out"; then fail "found only after the work: $*"; fi
    nothing
}
training="mode train --config $o/model.json --data $w/train/0/0.tar --batch 8 --warmup 0 --text-keys json:texts[]"
early 2 '--steps: 0 is out of range, expected 1 to' $training --steps 0 --out "$o/new"
early 2 '--steps N is needed' $training --out "$o/new"
early 2 '--threads: -1 is out of range, expected 0 to 1024' $training --steps 1 --out "$o/new" --threads -1
early 2 '--warmup 8: the schedule has 8 steps' $training --steps 8 --out "$o/new" --warmup 8
early 2 '--warmup: -1 is out of range' $training --steps 8 --out "$o/new" --warmup -1
early 2 '--beta1: 1 is out of range' $training --steps 1 --out "$o/new" --beta1 1
early 2 '--selection FILE says which .* both are needed' $training --steps 1 --out "$o/new" --selection "$o/none"
early 2 '--out-ratio goes with --selection' $training --steps 1 --out "$o/new" --out-ratio 0.1
early 2 '--out-ratio: 2 is out of range' $training --steps 1 --out "$o/new" --out-ratio 2 --selection "$o/none" --assign "$o/none"
early 66 'none: cannot be opened' $training --steps 1 --out "$o/new" --selection "$o/none" --assign "$o/none"
early 65 'mean.safetensors: tensor chosen|mean.safetensors: .*"chosen"' $training --steps 1 --out "$o/new" --selection "$work/mean.safetensors" --assign "$o/none"
early 78 'MODE_BATCH: 1 is out of range' env MODE_BATCH=1 mode train --config "$o/model.json" --data x.tar --steps 1 --out "$o/new"
early 2 '--config: "no-such" is not known; known are ViT' $training --steps 1 --out "$o/new" --config no-such
early 2 '--config: "no-such" is not known' mode bench encode --config no-such --texts "$work/texts"
echo '{' >"$o/cut.json"
early 78 "^mode train: --config: $o/cut.json:[0-9]+: not JSON" $training --steps 1 --out "$o/new" --config "$o/cut.json"
early 66 "^mode train: --config: $o/none.json: cannot be opened" $training --steps 1 --out "$o/new" --config "$o/none.json"
early 73 'no/log: cannot be created: there is no folder .*no' $training --steps 1 --out "$o/new" --log "$o/no/log"
early 73 'is not a folder' $training --steps 1 --out "$work/texts"
early 66 'nowhere: cannot be opened' $training --steps 1 --out "$o/new" --clip-merges "$o/nowhere"
expect 70 'takes [0-9.]+ MiB .*; 1.0 MiB are free .--memory.. HINT: --memory [0-9]+m' $training --steps 1 --out "$o/new/deep" --memory 1m
nothing
mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/cat" --backend cuda --out "$o/gpu" >/dev/null 2>&1 || # no GPU here
    expect 70 'backend "cuda"' timeout 200 $training --steps 1 --out "$o/new" --ranks 2 --rank 0 --rendezvous "$o/meet" --backend cuda
nothing
expect 0 'step 2, final loss' $training --steps 2 --out "$o/model"
cp -r "$o/model" "$o/damaged" && truncate -s 5000 "$o/damaged/open_clip_model.safetensors"
going_on="mode train --data $w/train/0/0.tar --batch 8 --warmup 1 --steps 2 --out $o/new"
early 65 'open_clip_model.safetensors.*truncated' $going_on --init "$o/damaged"
early 66 'nowhere: cannot be opened' $going_on --init "$o/nowhere"
early 2 '--total-steps 3: --init .*model is at step 2, 2 more end at 4' $going_on --init "$o/model" --total-steps 3

early 2 '--batch: 0 is out of range, expected 1 to' mode encode --model "$o/model" --texts "$work/texts" --out "$o/new" --batch 0
early 65 'byte 3 is NUL' sh -c "printf 'a c\\0t' >$o/zero; mode encode --model $o/model --texts $o/zero --out $o/new"
early 2 'whose vectors' mode encode --texts "$work/texts" --out "$o/new"
early 2 'for --experts: one model has no weight' mode encode --model "$o/model" --texts "$work/texts" --router paper --out "$o/new"
early 2 'either --texts or --classes' mode encode --model "$o/model" --texts "$work/texts" --classes "$work/texts" --out "$o/new"
early 2 '--raw: what --experts makes' mode encode --experts "$o" --images "$work/texts" --raw --out "$o/new"
early 2 'unexpected argument "a.jpg"; HINT: list the pictures in a file, one per line: --images FILE' mode encode --model "$o/model" --out "$o/new" a.jpg
early 66 '--classes, a file of names, one per line: cat,dog: cannot be opened' mode encode --model "$o/model" --classes cat,dog --out "$o/new"
early 66 'index.json does not exist; expected the experts/ of .* HINT: it is in the workspace' mode encode --experts "$o" --images "$work/texts" --out "$o/new"
echo "$o/no.jpg" >"$o/pictures"
expect 66 'pictures, line 1: .*no.jpg: cannot be opened' mode encode --model "$o/model" --images "$o/pictures" --texts "$work/texts" --out "$o/new/a"
nothing
mkdir -p "$o/taken/text_features.npy" "$o/taken/summary.json" "$o/taken/colour/metrics.json"
early 73 'text_features.npy: is a folder' mode encode --model "$o/model" --texts "$work/texts" --out "$o/taken"

early 2 '--pooling: "foo" is unknown' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/texts" --out "$o/new" --pooling foo
early 2 'max_tokens is 9999, expected 3 to' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/texts" --out "$o/new" --max-tokens 9999
early 73 'no/f.npy: cannot be created' mode embed --encoder "$MODE_TEST_MODELS/encoder" --texts "$work/texts" --out "$o/no/f.npy"
early 2 '--fine: 0 is out of range, expected 1 to 1048576$' mode cluster --features "$work/mean.safetensors" --fine 0 --out "$o/new"
early 2 '--coarse 5: more groups than fine centres, --fine 4' mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 5
early 73 'no/c: cannot be created' mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 2 --out "$o/no/c"
early 66 'nowhere: cannot be opened' mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 1 --out "$o/new" --grow "$o/nowhere"
early 73 'no/a: cannot be created' mode assign --features "$work/mean.safetensors" --centres "$work/centres.safetensors" --out "$o/no/a"
early 2 '--only: 2 is out of range.*0 to 1' mode assign --features "$work/mean.safetensors" --centres "$work/centres.safetensors" --out "$o/new" --only 2

evaluation="mode evaluate --model $o/model $w/eval/colour"
early 73 'metrics.json: is a folder' $evaluation --out "$o/taken"
early 66 'nowhere' $evaluation "$o/nowhere" --out "$o/new/a"
early 2 'two tasks called "colour"' $evaluation "$w/eval/colour/" --out "$o/new/a"
expect 0 'colour' $evaluation --out "$o/results/expert-0"
mkdir "$o/words"
mode embed --encoder "$MODE_TEST_MODELS/encoder" --pooling mean --task "$w/eval/colour" --out "$o/words/colour.safetensors" >/dev/null 2>&1
ensembling="mode ensemble --centres $work/centres.safetensors --results $o/results --words $o/words"
mode cluster --features "$work/mean.safetensors" --fine 4 --coarse 1 --out "$work/centres.safetensors" >/dev/null 2>&1
expect 73 'summary.json: is a folder' $ensembling --out "$o/taken"
[ ! -e "$o/taken/result.csv" ] || fail "result.csv without summary.json"
expect 66 'assign: no file matches' $ensembling --captions "$work/captions/*.bin" --assign "$o/none*" --out "$o/new"
nothing
expect 66 'train: is a folder, a file is needed' $ensembling --captions "$work/captions/00000.captions.bin" --assign "$work/mean.safetensors" --shards "$w/train" --out "$o/new"
nothing
expect 66 'train .*words: has no expert-0/steps.jsonl' $ensembling --train "$o/words" --out "$o/new"
nothing
expect 66 'models: .*results has no folder "none"' $ensembling --models none --out "$o/new"
expect 2 'models: uniform is taken' $ensembling --models uniform --out "$o/new"
expect 2 'models: expert-0 is in the list already' $ensembling --models expert-0 --out "$o/new"
nothing
cp -r "$o/results/expert-0" "$o/results/mine"
expect 0 'report.html' $ensembling --models mine --out "$o/with-mine"
head -1 "$o/with-mine/result.csv" | grep -q ',ensemble,mine,metric$' || fail "columns: $(head -1 "$o/with-mine/result.csv")"
grep -q 'On all tasks it equals the ensemble' "$o/with-mine/report.html" || fail "the report does not compare a further model"
rm -r "$o/results/mine"
expect 0 'report.html' $ensembling --out "$o/report/a"
[ "$(ls "$o/report/a" | wc -l)" = 4 ] || fail "files of an ensemble: $(ls -A "$o/report/a")"
mkdir -p "$o/ws/experts" && echo '{"models": 3}' >"$o/ws/experts/index.json"
expect 65 'index.json: has no list "models"' mode experts --workspace "$o/ws" --json

# an output that is one of the command's own inputs, by whatever path, or that would be mixed with them: nothing is touched
i=$work/inputs
mkdir -p "$i/shards" "$i/tasks"
cp "$work/texts" "$work/mean.safetensors" "$work/centres.safetensors" "$work/captions/00000.captions.bin" "$f/picture.jpg" "$i/"
cp -r "$o/model" "$i/model" && cp -r "$w/eval/colour" "$i/tasks/" && cp "$f/shard.tar" "$i/shards/"
ln "$i/texts" "$i/hard" && ln -s texts "$i/soft" && ln -s model "$i/model-link"
(cd "$i" && find . -type f -exec sha256sum {} + | sort) >"$work/before"
enc=$MODE_TEST_MODELS/encoder
for out in texts hard soft ./shards/../texts; do
    early 73 "$out: is an input of this command .*texts" mode embed --encoder "$enc" --texts "$i/texts" --out "$i/$out"
done
task=$(ls "$i/tasks/colour"/*.txt | head -n 1)
early 73 'is a file of the input folder .*colour' mode embed --encoder "$enc" --task "$i/tasks/colour" --out "$task"
early 73 'captions.bin: is an input' mode embed --encoder "$enc" --captions "$i/00000.captions.bin" --out "$i/00000.captions.bin"
early 73 'mean.safetensors: is an input' mode cluster --features "$i/mean*" --fine 4 --coarse 2 --out "$i/mean.safetensors"
early 73 'centres.safetensors: is an input' mode cluster --features "$i/mean*" --fine 4 --coarse 1 --grow "$i/centres.safetensors" --out "$i/centres.safetensors"
early 73 'mean.safetensors: is an input' mode assign --features "$i/mean.safetensors" --centres "$i/centres.safetensors" --out "$i/mean.safetensors"
early 73 'centres.safetensors: is an input' mode assign --features "$i/mean.safetensors" --centres "$i/centres.safetensors" --out "$i/centres.safetensors"
early 73 'picture.jpg: is an input' mode preprocess "$i/picture.jpg" --out "$i/picture.jpg"
early 73 'open_clip_config.json: is a file of the input folder' mode preprocess "$i/picture.jpg" --model "$i/model" --out "$i/model/open_clip_config.json"
early 73 'shards: is an input' mode captions "$i/shards" --out "$i/shards"
early 73 'shards: is an input' mode pack --pairs "$i/shards" --out "$i/shards"
early 73 'model: is an input' mode encode --model "$i/model-link" --texts "$i/texts" --out "$i/model"
early 73 'colour: is an input' mode evaluate --model "$i/model" "$i/tasks/colour" --out "$i/tasks"
early 73 'model: is an input' mode evaluate --model "$i/model" "$i/tasks/colour" --out "$i/model"
early 73 'model-link: is an input' $going_on --init "$i/model" --out "$i/model-link"
early 73 'open_clip_config.json: is a file of the input folder' $going_on --init "$i/model" --log "$i/model/open_clip_config.json"
ln -sf "$work/centres.safetensors" "$o/report/a/result.csv"
early 73 'result.csv: is an input' $ensembling --out "$o/report/a"
early 73 'tasks: is an input' mode keys "$i/tasks" --worker w --out "$i/tasks"
(cd "$i" && find . -type f -exec sha256sum {} + | sort) | cmp - "$work/before" || fail "an input was touched"
early 2 '--rounds: 0 is out of range' mode bench tokenize --texts "$work/texts" --rounds 0
early 2 '--memory "1x"' mode bench train --config ViT-B-32 --pixels x --texts x --memory 1x
early 2 '--seconds: -1 is out of range, expected 0 to 3600' mode bench train --config ViT-B-32 --pixels x --texts x --seconds -1

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then # missing write permission is reported before anything is done
    mkdir "$o/closed"
    chmod 755 "$work" "$o" "$o/closed"
    cp "$bin/mode" "$MODE_CLIP_MERGES" "$w/train/0/0.tar" "$o/"
    nobody="setpriv --reuid 65534 --regid 65534 --clear-groups env MODE_CLIP_MERGES=$o/bpe_simple_vocab_16e6.txt.gz $o/mode"
    early 77 'closed.*Permission denied .as uid 65534' $nobody train --config "$o/model.json" --data "$o/0.tar" --steps 1 --out "$o/closed"
    early 77 'closed/a.*Permission denied' $nobody train --config "$o/model.json" --data "$o/0.tar" --steps 1 --out "$o/closed/a"
    early 77 'closed/f.*Permission denied' $nobody cluster --features "$work/mean.safetensors" --fine 4 --coarse 2 --out "$o/closed/f"
    early 77 'closed.*Permission denied' $nobody encode --model "$o/model" --texts "$work/texts" --out "$o/closed"
fi
if [ "$full" ]; then # a full disk, with and without a checkpoint before; and an interrupted training
    d=$o/disk
    mkdir "$d" && mount -t tmpfs -o size=64m tmpfs "$d"
    head -c $(($(df --output=avail -B1 "$d" | tail -n 1) - 5000000)) /dev/zero >"$d/filler"
    expect 74 'open_clip_model.safetensors|optimizer.safetensors.*No space left' $training --steps 4 --out "$d/deep/m"
    expect 74 'No space left' $training --steps 4 --checkpoint-steps 2 --out "$d/deep/m"
    [ "$(ls -A "$d")" = filler ] || fail "left on the full disk: $(find "$d")"
    head -c $(($(stat -c %s "$d/filler") - 25000000)) "$d/filler" >"$o/filler" && rm "$d/filler" && mv "$o/filler" "$d/filler"
    expect 74 'No space left.*HINT: --resume goes on from its checkpoint step-0000000002' $training --steps 8 --checkpoint-steps 2 --out "$d/m"
    [ "$(ls "$d/m" | tr '\n' ' ')" = "captions checkpoints " ] || fail "left of a training: $(find "$d/m")"
    [ "$(ls "$d/m/checkpoints" | tr '\n' ' ')" = "latest step-0000000002 " ] || fail "left of checkpoints: $(find "$d/m")"
    rm "$d/filler"
    expect 0 'step 8, final loss' $training --steps 8 --checkpoint-steps 2 --out "$d/m" --resume
    $training --steps 8 --out "$o/straight" >/dev/null 2>&1
    cmp "$d/m/open_clip_model.safetensors" "$o/straight/open_clip_model.safetensors" || fail "a full disk changed a training"
    umount "$d"
fi

# numbers out of range and invalid names, before anything is created
for n in 99 0; do
    expect 2 "^mode up: --gpus: $n is out of range, expected 1 to 64" mode up --workspace "$work/b" --gpus $n
done
expect 2 '^mode up: --gpus: "x" is not a whole number' mode up --workspace "$work/b" --gpus x
expect 2 'gpus: 0 is out of range, expected 1 to 64' "$bin/mode-train" --workspace "$work/b" --gpus 0
expect 2 'gpus 2: --backend cpu does not run on a GPU' "$bin/mode-train" --workspace "$work/b" --gpus 2 --backend cpu
expect 2 'timeout-s: -1 is out of range, expected 0' mode up --workspace "$work/b" --timeout-s -1
expect 2 'timeout-s: -1 is out of range, expected 0' mode down --workspace "$work/b" --timeout-s -1
expect 2 'patience-s: -3 is out of range, expected 0' mode run "$w/run.yaml" --workspace "$w" --patience-s -3
expect 2 'grace-s: -1 is out of range, expected 0' mode drain x --workspace "$w" --grace-s -1
expect 2 '"a b" is not a name for a key' mode keys "$work/no-keys" --worker 'a b'
expect 73 'is not a folder' mode keys "$work/no-keys" --worker w --out "$work/texts"
[ ! -e "$work/no-keys" ] || fail "a refused mode keys made keys"

# services that cannot start: an invalid address or option, no Redis, a port in use, a TCP port without keys
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    expect 70 'nothing runs: .* cannot be started like this: backend "cuda"' env MODE_BACKEND=cuda mode up --workspace "$work/no-gpu"
    expect 70 'backend "cuda"' mode-embed --workspace "$work/no-gpu" --backend cuda
fi
expect 2 'Redis URL is "foo://x"' mode-coordinator --workspace "$w" --redis foo://x
expect 78 'Redis URL is "foo://x"' env REDIS_URL=foo://x mode-coordinator --workspace "$w"
expect 2 'Redis URL is "foo://x"' mode up --workspace "$work/b" --redis foo://x
expect 78 'REDIS_URL: the Redis URL is "foo://x"' env REDIS_URL=foo://x mode up --workspace "$work/b"
for bad in foo 127.0.0.1 127.0.0.1:0 127.0.0.1:8080x nowhere:8080; do # reported by mode up itself: nothing is started or created
    expect 2 "^mode up: --http: \"$bad\" is not an IPv4 address" mode up --workspace "$work/b" --http $bad
done
expect 2 '^mode-coordinator: --http: "foo" is not' mode-coordinator --workspace "$w" --http foo
expect 78 '^mode up: MODE_HTTP: "foo" is not' env MODE_HTTP=foo mode up --workspace "$work/b"
expect 78 '^mode up: MODE_BACKEND: "gpu" is unknown; expected auto' env MODE_BACKEND=gpu mode up --workspace "$work/b"
expect 78 '^mode up: MODE_SLOTS: 99 is out of range, expected 1 to' env MODE_SLOTS=99 mode up --workspace "$work/b"
expect 2 '^mode up: --gpus 2: --backend cpu does not run on a GPU' env MODE_BACKEND=cpu mode up --workspace "$work/b" --gpus 2
expect 2 '^mode up: --workers: "x" is not a whole number' mode up --workspace "$work/b" --workers train=x
for bad in foo tcp://host tcp://:1 tcp://host:x tcp://host:70000; do
    expect 2 "^mode-coordinator: --worker-endpoint: \"$bad\" is not an endpoint; expected ipc:///path or tcp://host:port" \
        mode-coordinator --workspace "$w" --worker-endpoint $bad
    expect 2 "^mode-captions: --coordinator: \"$bad\" is not an endpoint" mode-captions --workspace "$w" --coordinator $bad
    expect 2 "^mode status: --coordinator-admin: \"$bad\" is not an endpoint" mode status --coordinator-admin $bad
    expect 2 "^mode doctor: --coordinator-admin: \"$bad\" is not an endpoint" mode doctor --coordinator-admin $bad
    expect 2 "^mode run: --coordinator-admin: \"$bad\" is not an endpoint" mode run no.yaml --coordinator-admin $bad
done
expect 2 '^mode-coordinator: --admin-endpoint: ipc://x: an ipc endpoint is' mode-coordinator --workspace "$w" --admin-endpoint ipc://x
expect 78 '^mode-coordinator: MODE_ADMIN_ENDPOINT: "foo" is not an endpoint' env MODE_ADMIN_ENDPOINT=foo mode-coordinator --workspace "$w"
expect 78 '^mode-captions: MODE_COORDINATOR: "foo" is not' env MODE_COORDINATOR=foo mode-captions --workspace "$w"
expect 78 '^mode watch: MODE_COORDINATOR_ADMIN: "foo" is not' env MODE_COORDINATOR_ADMIN=foo mode watch
expect 78 '^mode embed: MODE_POOLING: "foo" is unknown' env MODE_POOLING=foo mode embed --encoder e --texts t --out o
[ ! -e "$work/b" ] || fail "a refused mode up made $work/b"
expect 69 'Redis at 127.0.0.1.*cannot be reached' mode up --workspace "$work/b" --redis redis://127.0.0.1:1 --timeout-s 8
none_left "$work/b"
expect 2 'lease-ms is 100' mode-coordinator --workspace "$w" --lease-ms 100
expect 73 "gpu-locks $work/no-locks: No such file" mode-train --workspace "$w" --gpu-locks "$work/no-locks"
expect 73 "gpu-locks $work/texts: is not a folder" mode-train --workspace "$w" --gpu-locks "$work/texts"
expect 78 'key' mode-coordinator --workspace "$w" --worker-endpoint 'tcp://127.0.0.1:0' --admin-endpoint 'tcp://127.0.0.1:0'
http=127.0.0.1:$(free_port)
mode up --workspace "$w" --http "$http" >/dev/null
expect 0 "is already running.*captions=1,embed=1.*$http" mode up --workspace "$w"
expect 0 'is already running' mode up --workspace "$w" --workers ensemble,train,embed,cluster,assign,evaluate,captions=1
expect 75 'is already running, with --gpus 1, not 2; nothing was changed' mode up --workspace "$w" --gpus 2
expect 75 'is already running, with --workers captions=1,.*, not captions=1,train=2; nothing was changed.*mode down' \
    mode up --workspace "$w" --workers captions=1,train=2
expect 75 "with a Redis of its own, not this --redis and with --http $http, not 127.0.0.1:1;" \
    mode up --workspace "$w" --redis redis://127.0.0.1:1 --http 127.0.0.1:1
expect 66 'there is no run "nobody" here' timeout 60 mode watch nobody --workspace "$w"
expect 2 'train is given twice' mode up --workspace "$w" --workers train=1,embed=1,train=2
expect 2 'is not a kind of worker' mode up --workspace "$w" --workers trian=1
expect 78 "${http#*:}.*taken" mode up --workspace "$work/second" --http "$http"
none_left "$work/second"
expect 78 'in use' mode-coordinator --workspace "$w" --redis redis://127.0.0.1:1

# the spec: errors that the command finds at once, and those that only the coordinator can find
sed 's/^seed: 3/sede: 3/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'sede.*nearest known key is "seed"' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's/batch: 32/batch: many/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'train.batch' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's#encoder: {dir: [^,]*#encoder: {dir: '"$work"'/no-encoder#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'no-encoder' mode run "$w/bad.yaml" --workspace "$w"
sed 's#encoder: {dir: [^,]*#encoder: {dir: '"$work"'/enc#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'enc/model.safetensors' mode run "$w/bad.yaml" --workspace "$w"
sed 's#train: train}#train: nothing-here}#' "$w/run.yaml" >"$w/bad.yaml"
expect 66 'mode run: data: .*nothing-here' mode run "$w/bad.yaml" --workspace "$w"
expect 0 'are fine' mode run "$w/run.yaml" --workspace "$w" --dry-run
expect 0 '^."run": "test", "submitted": false.$' mode run "$w/run.yaml" --workspace "$w" --dry-run --json

# keys that do not fit what they name are refused before anything runs
sed 's/vocab_size: 49408/vocab_size: 49000/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'model: text_cfg.vocab_size is 49000, expected at least 49408' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed "s#merges: [^}]*#merges: $work/texts#" "$w/run.yaml" >"$w/bad.yaml"
expect 78 'tokenizer.merges: .*texts: line 2' mode run "$w/bad.yaml" --workspace "$w" --dry-run
head -c 1000 "$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz" >"$work/cut.gz"
sed "s#merges: [^}]*#merges: $work/cut.gz#" "$w/run.yaml" >"$w/bad.yaml"
expect 78 'tokenizer.merges: .*cut.gz: unpacking failed' mode run "$w/bad.yaml" --workspace "$w" --dry-run
sed 's/max_tokens: 32/max_tokens: 4000/' "$w/run.yaml" >"$w/bad.yaml"
expect 78 'encoder.max_tokens: .*max_tokens is 4000, expected 3 to 512' mode run "$w/bad.yaml" --workspace "$w" --dry-run

# a truncated shard loses the samples after the cut, and that is reported, now and later
sed "s#train: train}#train: [train, $work/cut.tar]}#; s/name: test/name: cut/" "$w/run.yaml" >"$w/bad.yaml"
expect 0 '^."run": "cut", "submitted": true.$' mode run "$w/bad.yaml" --workspace "$w" --detach --json
is_said() { mode status --workspace "$w" | grep -q 'run cut: 1 of [0-9]* shards is truncated (.*/cut.tar at byte'; }
await is_said || fail "nobody says that a shard is cut short"
grep -q 'warn captions shard_cut ' "$w/logs/captions.log" || fail "the worker does not say that a shard is cut short"
mode cancel cut --workspace "$w" >/dev/null
expect 65 'shards truncated *1  cut.tar at byte' mode reconcile cut --workspace "$w"
expect 65 '"cut_shards": 1,' mode reconcile cut --workspace "$w" --json

# a shard that is not a tar ends the run, which names it; without it the run succeeds
sed "s#train: train}#train: [train, $work/text.tar]}#; s/name: test/name: torn/" "$w/run.yaml" >"$w/bad.yaml"
expect 65 'text.tar' mode run "$w/bad.yaml" --workspace "$w" --no-progress
mode down --workspace "$w" >/dev/null
none_left "$w"

# a worker without its key, with a missing key file, with a key that is not in the allow list, with a revoked key
mode keys "$work/keys" --worker good --out "$work/good" >/dev/null
mode keys "$work/other" --worker stranger --out "$work/stranger" >/dev/null
cp "$work/keys/server.pub" "$work/stranger/server.pub"
at=tcp://127.0.0.1:$(free_port)
tcp="--workspace $w --coordinator $at"
expect 78 'key' mode-captions $tcp
expect 66 'nobody.key: no such file. HINT: .mode keys. makes key pairs; --key-name' mode-captions $tcp --key-dir "$work/keys" --key-name nobody
start_redis() {
    redis-server --port 0 --unixsocket "$work/redis.sock" --save '' --daemonize yes --dir "$work" --pidfile "$work/redis.pid" >/dev/null
    await test -s "$work/redis.pid" || fail "Redis does not begin"
}
start_redis
mode-coordinator --workspace "$w" --redis "unix://$work/redis.sock" --worker-endpoint "$at" \
    --admin-endpoint "tcp://127.0.0.1:*" --key-dir "$work/keys" --allow-list "$work/keys/allow" >"$work/run.log" 2>&1 &
coordinator=$!
await says ' ready ' "$work/run.log" || fail "the coordinator is not ready"
expect 77 'refused this key' mode-captions $tcp --key-dir "$work/stranger" --key-name stranger
mode-captions $tcp --key-dir "$work/good" --key-name good >"$work/good.log" 2>&1 &
worker=$!
await says ' welcome ' "$work/good.log" || { cat "$work/good.log"; fail "a worker with a good key is not let in"; }
grep -v good "$work/keys/allow" >"$work/allow" || true
cp "$work/allow" "$work/keys/allow"
kill -HUP $coordinator
rc=0
wait $worker || rc=$?
echo "[$rc] a revoked key: $(tail -n 2 "$work/good.log" | head -n 1)"
[ $rc = 77 ] || fail "a worker whose key was taken back ended with $rc"
kill $coordinator
wait $coordinator || true
coordinator= worker=

# Redis is lost in mid-run and does not come back: a sentence and 69; when it is back the same run continues to its end
mode up --workspace "$w" --redis "unix://$work/redis.sock" >/dev/null
mode run "$w/run.yaml" --workspace "$w" --no-progress >"$work/out" 2>&1 &
run=$!
await says started "$work/out" || { cat "$work/out"; fail "the run does not begin"; }
kill -INT $run # Ctrl-C ends the command, not the run
rc=0
wait $run || rc=$?
[ $rc = 130 ] || { cat "$work/out"; fail "an interrupted mode run ended with $rc"; }
grep -q "continues without this terminal; .mode watch --workspace $w. shows it, .mode cancel test --workspace $w. ends it" "$work/out" || { cat "$work/out"; fail "nobody says that the run goes on"; }
mode run "$w/run.yaml" --workspace "$w" --no-progress --patience-s 5 >"$work/watched" 2>&1 &
run=$!
await says started "$work/watched" || { cat "$work/watched"; fail "the run does not begin"; }
kill -9 "$(cat "$work/redis.pid")"
rm "$work/redis.pid"
expect 0 'run test .running.' mode reconcile --workspace "$w" # the finished part adds up
rc=0
wait $run || rc=$?
echo "[$rc] Redis lost in mid-run: $(tail -n 1 "$work/watched" | sed "s#$work/##g")"
[ $rc = 69 ] || { cat "$work/watched"; fail "a run without Redis ended with $rc"; }
grep -q 'Redis has not answered for' "$work/watched" || { cat "$work/watched"; fail "nobody says that Redis is away"; }
start_redis
expect 0 'ensemble' mode run "$w/run.yaml" --workspace "$w" --no-progress
mode reconcile test --workspace "$w" >/dev/null || fail "reconcile"
expect 65 "do not add up" mode reconcile torn --workspace "$w"
expect 0 'run test .done.' mode reconcile --workspace "$w" # the latest, not the one that failed
expect 65 "do not add up" mode reconcile --all --workspace "$w"
expect 66 'no run "nobody"' mode reconcile nobody --workspace "$w"
expect 66 'is not a workspace.*HINT: --workspace' mode reconcile --workspace "$work/keys"
expect 2 'is a workspace; expected the name of a run' mode reconcile "$w"
commit=$w/commits/$(sed -n 's/.*"label": "words\/.*"key": "\([^"]*\)".*/\1/p' "$w/runs/test/plan.json" | head -n 1)
cp "$commit" "$work/commit"
chmod u+w "$commit"
byte=$(od -An -tu1 -j 100 -N 1 "$commit")
printf "\\$(printf %o $((byte ^ 16)))" | dd of="$commit" bs=1 seek=100 conv=notrunc 2>/dev/null
cmp -s "$commit" "$work/commit" && fail "no bit was flipped"
expect 65 'words/.*damaged: ' mode reconcile test --workspace "$w" # one bit
cp "$work/commit" "$commit"
expect 0 'adds up' mode reconcile test --workspace "$w"
if [ -x "$work/nobody/mode" ]; then # who may only read it
    chmod -R a+rX "$w"
    for verb in 'reconcile test' 'pairs --run test' gc experts; do
        expect 0 . setpriv --reuid 65534 --regid 65534 --clear-groups "$work/nobody/mode" $verb --workspace "$w"
    done
fi
expect 66 'no worker and no machine has that name' mode drain nobody --workspace "$w"
mode down --workspace "$w" >/dev/null
kill "$(cat "$work/redis.pid")"
none_left "$w"

# the disk fills up in mid-run: the writer or the coordinator says so, whichever notices first; the run ends well when there
# is space
if [ "$full" ]; then
    said='disk is full|No space left|no task is handed out until there is room'
    d=$work/disk
    mkdir "$d"
    mount -t tmpfs -o size=256m tmpfs "$d"
    cp -r "$w/train" "$w/eval" "$w/run.yaml" "$d/"
    mode up --workspace "$d" >/dev/null
    head -c $(($(df --output=avail -B1 "$d" | tail -n 1) - 4000000)) /dev/zero >"$d/filler"
    mode run "$d/run.yaml" --workspace "$d" --no-progress >"$work/out" 2>&1 &
    run=$!
    for _ in $(seq 1 6000); do
        if grep -Eq "$said" "$work/out"; then break; fi
        kill -0 $run 2>/dev/null || break
        sleep 0.05
    done
    grep -Eq "$said" "$work/out" || { cat "$work/out"; fail "nobody says that the disk is full"; }
    sed "s#$work/##g" "$work/out" | grep -E "$said"
    rm "$d/filler"
    rc=0
    wait $run || rc=$?
    [ $rc = 0 ] || { cat "$work/out"; fail "with room again the run ended with $rc"; }
    mode reconcile --workspace "$d" >/dev/null || fail "reconcile after a full disk"
    cmp "$w/report/result.csv" "$d/report/result.csv" || fail "a full disk changed the result"
    mode down --workspace "$d" >/dev/null
    none_left "$d"
    umount "$d"
fi
echo "refusals: ok"
