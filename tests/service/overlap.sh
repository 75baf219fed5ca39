#!/bin/sh
# overlap.sh BIN - mode overlap on plain files: planted exact and near duplicates are found, none else, in the order of the
# shards; the same bytes whatever the number of threads; a truncated shard and pictures that do not decode are counted; what
# is wrong is refused in one sentence; Ctrl-C leaves nothing behind. Needs python3.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
command -v python3 >/dev/null || { echo "overlap.sh: python3 is not here: skipped" >&2; exit 77; }
mode() { "$bin/mode" "$@"; }

# a function of its seed; the near-duplicate has the pixels of another with its chroma subsampled
picture() { # path seed h v
    printf 'jpeg %s 64 48 3 %s %s 0 0 0 %s\n' "$1" "$3" "$4" "$2" | "$bin/mode-test-pictures" >/dev/null
}
mkdir -p "$work/made" "$work/train" "$work/task/test"
for seed in 1 2 3 4 5; do picture "$work/made/$seed.jpg" $seed 1 1; done
picture "$work/made/near.jpg" 2 2 2
python3 - "$work" <<'EOF'
import io, pathlib, sys, tarfile
work = pathlib.Path(sys.argv[1])
made = {p.stem: p.read_bytes() for p in (work / "made").iterdir()}
bad = b"no picture"

def tar(path, members):
    with tarfile.open(work / path, "w", format=tarfile.USTAR_FORMAT) as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))

for name, text in (("classnames.txt", "a\n"), ("zeroshot_classification_templates.txt", "{c}\n"), ("test/nshards.txt", "1\n")):
    (work / "task" / name).write_text(text)
tar("task/test/0.tar", [m for i, d in enumerate((made["1"], made["2"], made["3"], bad)) for m in ((f"s{i}.cls", b"0"), (f"s{i}.jpg", d))])
tar("train/0.tar", [("a\tb.jpg", made["1"]), ("a\tb.txt", b"x"), ("other.jpg", made["4"]), ("none.txt", b"x"), ("bad.jpg", b"no picture either")])
tar("train/1.tar", [("near.jpg", made["near"]), ("same.jpg", made["1"]), ("cut.jpg", made["5"])])
data = (work / "train/1.tar").read_bytes()
(work / "train/1.tar").write_bytes(data[:data.index(b"cut.jpg") + 512 + 100])
EOF

for threads in 1 2 5; do
    mode overlap "$work/task" --shards "$work/train" --threads $threads --out "$work/$threads.tsv" >"$work/$threads.txt" 2>"$work/$threads.log" ||
        fail "overlap: $(cat "$work/$threads.log")"
    cmp "$work/1.tsv" "$work/$threads.tsv" && cmp "$work/1.txt" "$work/$threads.txt" || fail "$threads threads find something else"
done
cut -f 1-6,9 "$work/1.tsv" >"$work/columns"
{
    printf 'task\timage\timage_key\tshard\tkey\tkind\texperts\n'
    printf 'task\t0\ts0\t%s\ta b\texact\t-\n' "$work/train/0.tar"
    printf 'task\t1\ts1\t%s\tnear\tnear\t-\n' "$work/train/1.tar"
    printf 'task\t0\ts0\t%s\tsame\texact\t-\n' "$work/train/1.tar"
} >"$work/expected"
diff "$work/expected" "$work/columns" || fail "other matches than were planted"
grep -Eq '^task +4 +1 +1 +1 +50\.00% +3$' "$work/1.txt" || fail "the row: $(cat "$work/1.txt")"
grep -qx 'training: 5 images in 2 shards; unreadable: 1; samples without an image: 1; truncated images: 1; truncated shards: 1' "$work/1.txt" ||
    fail "the training images: $(cat "$work/1.txt")"
mode overlap "$work/task" --shards "$work/train/0.tar" --shards "$work/train/1.tar" --verbose --json >"$work/json" 2>"$work/log"
for words in '"exact": 1' '"near": 1' '"share": 0.5' '"training_images": 3' '"truncated_shards": 1' '"shards": 2'; do
    grep -q -e "$words" "$work/json" || fail "JSON without $words: $(cat "$work/json")"
done
grep -q 'task, sample s3: not a JPEG, PNG or WebP picture' "$work/log" && grep -q '0.tar, sample bad: not a JPEG' "$work/log" ||
    fail "--verbose: $(cat "$work/log")"
mode overlap "$work/task" --shards "$work/train" --correlation 1 --json | grep -q '"near": 0' || fail "--correlation 1 finds a near-duplicate"

refuse() { # exit code, words, arguments
    code=$1 words=$2
    shift 2
    rc=0
    mode overlap "$@" >"$work/refused" 2>&1 || rc=$?
    [ $rc = "$code" ] && grep -q -e "$words" "$work/refused" && [ "$(wc -l <"$work/refused")" = 1 ] ||
        fail "overlap $*: exit $rc, $(cat "$work/refused")"
}
refuse 2 'which training images? Give --shards SHARDS, or --workspace DIR' "$work/task"
refuse 2 "a task's folder is needed" --shards "$work/train"
refuse 2 '--distance: 65 is out of range' "$work/task" --shards "$work/train" --distance 65
refuse 2 '--correlation: 2 is out of range' "$work/task" --shards "$work/train" --correlation 2
refuse 66 'made: is not an evaluation task' "$work/made" --shards "$work/train"
refuse 66 'none' "$work/task" --shards "$work/none"
refuse 66 'none' "$work/task" --workspace "$work/none"
mkdir -p "$work/workspace/runs"
refuse 66 'workspace has no run "other" that was planned' "$work/task" --workspace "$work/workspace" --run other
refuse 73 'none' "$work/task" --shards "$work/train" --out "$work/none/list"
refuse 73 '0.tar' "$work/task" --shards "$work/train" --out "$work/train/0.tar"
head -c 5000 /dev/urandom >"$work/no.tar"
refuse 65 'no.tar' "$work/task" --shards "$work/no.tar" --out "$work/no.tsv"
[ ! -e "$work/no.tsv" ] || fail "a list is left behind"

# corrupt shards
refuse 65 'no.tar: is not a tar .*HINT: --skip-bad-shards skips' "$work/task" --shards "$work/no.tar" --shards "$work/train"
refuse 66 'none.tar' "$work/task" --shards "$work/none.tar" --shards "$work/train" --skip-bad-shards
mode overlap "$work/task" --shards "$work/train/0.tar" --shards "$work/no.tar" --shards "$work/train/1.tar" --skip-bad-shards \
    --out "$work/skipped.tsv" >"$work/skipped.txt" 2>"$work/log" || fail "--skip-bad-shards: $(cat "$work/log")"
grep -q '/no.tar is skipped: is not a tar' "$work/log" || fail "the skipped shard is not named: $(cat "$work/log")"
grep -q 'in 2 shards; .*; truncated shards: 1; skipped shards: 1$' "$work/skipped.txt" || fail "counts: $(cat "$work/skipped.txt")"
cmp "$work/1.tsv" "$work/skipped.tsv" || fail "the other shards have other matches"
rc=0
mode overlap "$work/task" --shards "$work/no.tar" --skip-bad-shards >"$work/said" 2>&1 || rc=$?
[ $rc = 65 ] && grep -q 'the sources: 1 of 1 shard is not a tar' "$work/said" || fail "only corrupt shards: exit $rc, $(cat "$work/said")"

# Ctrl-C: dies of it, and leaves no list
python3 - "$work" <<'EOF'
import pathlib, sys, tarfile
work = pathlib.Path(sys.argv[1])
with tarfile.open(work / "long.tar", "w", format=tarfile.USTAR_FORMAT) as t:
    for i in range(20000):
        t.add(work / "made/4.jpg", f"{i}.jpg")
EOF
python3 - "$bin/mode" "$work" <<'EOF' || fail "an interrupt"
import pathlib, signal, subprocess, sys, time
work = sys.argv[2]
p = subprocess.Popen([sys.argv[1], "overlap", f"{work}/task", "--shards", f"{work}/long.tar", "--threads", "1", "--out", f"{work}/long.tsv"],
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
deadline = time.time() + 60
while not list(pathlib.Path(work).glob("long.tsv*")) and time.time() < deadline:
    time.sleep(0.05)
time.sleep(0.3)
p.send_signal(signal.SIGINT)
sys.exit(p.wait(60) != -signal.SIGINT or bool(list(pathlib.Path(work).glob("long.tsv*"))))
EOF
echo "overlap: ok"
