#!/bin/sh
# tasks.sh BIN - evaluation tasks of every kind: made by `mode pack --task` from class folders and from COCO's captions,
# they score as the original tasks; open_clip's lists give the same bytes as COCO's captions; several labels, against the
# definition computed in Python; each row names its metric; an unknown kind is left out of a folder of tasks, with a warning,
# and refused if named. Needs python3 and the encoder.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
command -v python3 >/dev/null || { echo "tasks.sh: python3 is not installed: skipped" >&2; exit 77; }
mode() { "$bin/mode" "$@"; }

corpus "$work/a" 120 60
eval=$work/a/eval
SEED_STEPS=120 TOTAL_STEPS=200 spec "$work/a"

# the pictures of two tasks as users have them: class folders; a JSON file, and, with two captions per picture, also lists,
# which name every picture twice; and multi-label pictures
python3 - "$eval" "$work" <<'END'
import csv, json, os, pathlib, struct, sys, tarfile
tasks, work = map(pathlib.Path, sys.argv[1:])

def members(task):
    samples = {}
    with tarfile.open(tasks / task / "test/0.tar") as tar:
        for m in tar:
            key, ext = m.name.split(".")
            samples.setdefault(key, {})[ext] = tar.extractfile(m).read()
    return [samples[k] for k in sorted(samples)]

names = (tasks / "colour/classnames.txt").read_text().split("\n")[:-1]
colours = members("colour")
for i, s in enumerate(colours):
    folder = work / "pictures" / names[int(s["cls"])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{i}.JPEG").write_bytes(s["jpg"])

(work / "val2014").mkdir()
coco = {"images": [], "annotations": []}
for i, s in enumerate(members("retrieval_shapes")):
    (work / "val2014" / f"{i}.jpg").write_bytes(s["jpg"])
    coco["images"].append({"id": 1000 - i, "file_name": f"{i}.jpg"})
    for text in reversed(s["txt"].decode().strip().split("\n")):
        coco["annotations"].insert(0, {"image_id": 1000 - i, "caption": text.replace("\\n", "\n")})
(work / "captions.json").write_text(json.dumps(coco))

seconds = [{"image_id": a["image_id"], "caption": f'number {a["image_id"]}, "again",\nand\tagain'} for a in coco["annotations"]]
coco["annotations"] += seconds
(work / "two.json").write_text(json.dumps(coco))
for name, between, path, title in (("val2014/two.tsv", "\t", "filepath", "title"), ("two.csv", ",", "image", "text")):
    with open(work / name, "w", newline="") as f:
        rows = csv.writer(f, delimiter=between)
        rows.writerow(["licence", title, path])
        file = {i["id"]: i["file_name"] for i in coco["images"]}
        first = sorted(coco["annotations"][:-len(seconds)], key=lambda a: -a["image_id"])
        rows.writerows(["CC0", a["caption"], file[a["image_id"]]] for a in first + seconds)

scenes = tasks / "scenes"
(scenes / "test").mkdir(parents=True)
(scenes / "dataset_type.txt").write_text("multilabel\n")
(scenes / "test/nshards.txt").write_text("1\n")
for f in ("classnames.txt", "zeroshot_classification_templates.txt"):
    (scenes / f).write_bytes((tasks / "colour" / f).read_bytes())
with tarfile.open(scenes / "test/0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
    for i, s in enumerate(colours):
        labels = [0] * len(names)
        labels[int(s["cls"])] = 1
        if i % 3 == 0:
            labels[(int(s["cls"]) + 1) % len(names)] = 1
        head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({len(names)},), }}".ljust(117) + "\n"
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + struct.pack(f"<{len(names)}q", *labels)
        for ext, data in (("jpg", s["jpg"]), ("npy", npy)):
            info = tarfile.TarInfo(f"s{i:07d}.{ext}")
            info.size = len(data)
            tar.addfile(info, __import__("io").BytesIO(data))
END
mode pack --task "$work/pictures" --templates "$eval/colour/zeroshot_classification_templates.txt" \
    --out "$eval/wds_vtab-pets" --per-shard 25 >"$work/packed" || fail "pack of class folders"
grep -q '^packed *60$' "$work/packed" || fail "packed: $(cat "$work/packed")"
mode pack --task "$work/captions.json" --pictures "$work/val2014" --out "$eval/wds_coco" >/dev/null || fail "pack of captions"
mode pack --task "$work/two.json" --pictures "$work/val2014" --out "$work/two" >/dev/null || fail "pack of two captions each"
mode pack --task "$work/val2014/two.tsv" --out "$work/of_tsv" >"$work/packed" || fail "pack of a list"
grep -q '^packed *40$' "$work/packed" || fail "packed of a list: $(cat "$work/packed")"
mode pack --task "$work/two.csv" --pictures "$work/val2014" --csv-separator , --csv-img-key image --csv-caption-key text \
    --out "$work/of_csv" >/dev/null || fail "pack of a list apart from its pictures"
for list in of_tsv of_csv; do diff -r "$work/two" "$work/$list" || fail "$list is not the task of COCO's JSON"; done
mkdir -p "$eval/films/test"
echo 1 >"$eval/films/test/nshards.txt"
echo captioning >"$eval/films/dataset_type.txt"
mode inspect "$eval/scenes" | grep -Eq '^  first +[^,]+, [^,]+' || fail "inspect does not separate the names of classes: $(mode inspect "$eval/scenes")"
mode inspect "$eval/scenes" --json | grep -q '"task": *"multilabel"' || fail "inspect of a multilabel task"

# a run: what is left out is reported at once and in the report; every row names its metric
mode up --workspace "$work/a"
left_out='films is left out: its dataset_type.txt says "captioning"'
mode run "$work/a/run.yaml" --workspace "$work/a" --dry-run 2>&1 | grep -q "$left_out" || fail "--dry-run is silent about films"
mode run "$work/a/run.yaml" --workspace "$work/a" --no-progress 2>"$work/run.log" >"$work/table" || fail "the run"
grep -q "$left_out" "$work/run.log" || fail "mode run is silent about films"
grep -q "Not evaluated: .*films is left out" \
    "$work/a/report/report.html" || fail "the report is silent about films"
csv=$work/a/report/result.csv
cat "$csv"
grep -q ',wds_vtab-pets,.*,mean_per_class_recall$' "$csv" || fail "pets are not judged by the mean per class"
grep -q ',colour,.*,acc1$' "$csv" || fail "colour is not judged by accuracy"
grep -q ',scenes,.*,mean_average_precision$' "$csv" || fail "scenes are not judged by average precision"
grep -q 'films' "$csv" && fail "films have a row"
grep -q 'mean_average_precision' "$work/table" || fail "the table does not say the metrics"
sed "s|^evaluate: .*|evaluate: {tasks: [eval/colour, eval/films]}|; s/^name: .*/name: named/" "$work/a/run.yaml" >"$work/a/named.yaml"
set +e
mode run "$work/a/named.yaml" --workspace "$work/a" --no-progress 2>"$work/named.log"
rc=$?
set -e
[ $rc = 65 ] || fail "a task of an unknown kind, by name: exit $rc"
grep -q 'films.*"captioning", expected classification, multilabel or retrieval' "$work/named.log" || fail "$(cat "$work/named.log")"
mode down --workspace "$work/a"

# a probe has no classes to learn there, and says so before it requires training pictures
set +e
mode probe --model "$work/a/experts/dense" "$eval/retrieval_shapes" 2>"$work/probe.log"
rc=$?
set -e
[ $rc = 65 ] || fail "a probe of a retrieval task: exit $rc"
grep -q 'retrieval_shapes is of the kind retrieval; a linear probe needs a classification task' "$work/probe.log" || fail "$(cat "$work/probe.log")"

# the packed tasks score as the original ones; the average precision is that of the definition
mode evaluate --model "$work/a/experts/dense" --clip-merges "$MODE_TEST_MODELS/bpe_simple_vocab_16e6.txt.gz" --out "$work/scores" \
    "$eval/colour" "$eval/wds_vtab-pets" "$eval/retrieval_shapes" "$eval/wds_coco" "$eval/scenes" || fail "mode evaluate"
python3 - "$work/scores" "$csv" <<'END'
import csv, json, pathlib, struct, sys
scores, table = pathlib.Path(sys.argv[1]), list(csv.DictReader(open(sys.argv[2])))

def result(task):
    return json.loads((scores / task / "metrics.json").read_text())

def near(a, b, what, most=1e-5):
    if abs(a - b) > most:
        sys.exit(f"{what}: {a} and {b}")

for ours, theirs in (("wds_vtab-pets", "colour"), ("wds_coco", "retrieval_shapes")):
    a, b = result(ours)["metrics"], result(theirs)["metrics"]
    for key in b:
        near(a[key], b[key], f"{key} of {ours} and {theirs}")
assert result("wds_vtab-pets")["main_metrics"] == ["mean_per_class_recall"]
assert result("colour")["main_metrics"] == ["acc1"]
assert len(result("wds_coco")["main_metrics"]) == 2
scenes = result("scenes")
assert scenes["task"] == "zeroshot_classification" and scenes["main_metrics"] == list(scenes["metrics"])

raw = (scores / "scenes/logits.safetensors").read_bytes()
n = struct.unpack("<Q", raw[:8])[0]
head = json.loads(raw[8:8 + n])
assert head["__metadata__"]["kind"] == "multilabel"

def tensor(name, code):
    begin, end = head[name]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}{code}", raw[8 + n + begin:8 + n + end]), head[name]["shape"]

(cosine, shape), (target, same) = tensor("cosine", "f"), tensor("target", "i")
assert shape == same
rows, classes = shape
total = 0
for k in range(classes):
    score, truth, recall = cosine[k::classes], target[k::classes], 0
    for threshold in sorted(set(score), reverse=True):
        chosen = [t for s, t in zip(score, truth) if s >= threshold]
        now = sum(chosen) / sum(truth)
        total += (now - recall) * sum(chosen) / len(chosen) / classes
        recall = now
near(scenes["metrics"]["mean_average_precision"], total, "average precision by its definition")
near(float(next(r for r in table if r["dataset"] == "scenes")["dense"]), 100 * total, "result.csv of scenes", 1e-4)
END
echo "tasks: ok"
