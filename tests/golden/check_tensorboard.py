"""Does TensorBoard read our curves, while they are written and after a training was killed?

    $(tests/golden/venv.sh tensorboard) tests/golden/check_tensorboard.py build/bin [RUN_FOLDER...]

A small model is trained by `mode train --tensorboard`: once without interruption, once killed (SIGKILL) between two
checkpoints and resumed. While the second one trains, an EventAccumulator of TensorBoard follows its folder, and the data
server of a TensorBoard process is queried over HTTP. In the end every reader must have each step once, in order, with
the loss, learning rate and scale of steps.jsonl (as f32), and a throughput.

RUN_FOLDER: runs/<name> of a workspace whose run is done: every model's curve must be that of its steps, its results those
of report/summary.json. Exit 1 when anything differs."""
import glob
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 2000
MODEL = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
         "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
TAGS = {"train/loss": "loss", "train/lr": "lr", "train/scale": "logit_scale"}
PACE = ["train/samples_per_second", "train/samples_per_second_per_gpu", "train/data_time", "train/batch_time"]
failures = []


def say(good, text):
    print(("ok    " if good else "FAIL  ") + text, flush=True)
    if not good:
        failures.append(text)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def accumulator(folder):
    return EventAccumulator(folder, size_guidance={"scalars": 0})


def series(acc, tag):
    return [(e.step, f32(e.value)) for e in acc.Scalars(tag)]


def rows_of(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def same_as_rows(acc, rows, what, pace):
    for tag, key in TAGS.items():
        say(series(acc, tag) == [(r["step"], f32(r[key])) for r in rows], f"{what}: {tag} is that of {len(rows)} steps")
    for tag in PACE if pace else []:
        got = series(acc, tag)
        say([s for s, _ in got] == [r["step"] for r in rows] and all(v > 0 for _, v in got[1:]), f"{what}: {tag}")


class Server:
    """TensorBoard itself, with its data server."""

    def __init__(self, folder):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(self.port),
                                         "--reload_interval", "1", "--samples_per_plugin", "scalars=100000"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def scalars(self, run, tag):
        url = f"http://127.0.0.1:{self.port}/data/plugin/scalars/scalars?run={run}&tag={tag.replace('/', '%2F')}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return [(int(step), f32(value)) for _, step, value in json.load(answer)]
        except OSError:
            return []

    def wait(self, run, tag, want, seconds=60):
        """The series, as soon as want(series)."""
        end = time.time() + seconds
        while time.time() < end:
            got = self.scalars(run, tag)
            if want(got):
                return got
            time.sleep(0.2)
        return got

    def close(self):
        self.process.terminate()
        self.process.wait()


def check_training(bin_dir, work):
    corpus = os.path.join(work, "corpus")
    subprocess.run([f"{bin_dir}/mode-test-corpus", corpus, "240", "60"], check=True)
    config = os.path.join(work, "model.json")
    with open(config, "w") as f:
        json.dump(MODEL, f)
    curves = os.path.join(work, "curves")

    def train(name, *more):
        return subprocess.Popen([f"{bin_dir}/mode", "train", "--config", config, "--data", f"{corpus}/train", "--steps", str(STEPS),
                                 "--text-keys", "json:texts[]", "--batch", "32", "--warmup", "5", "--seed", "3",
                                 "--checkpoint-steps", "300", "--out", f"{work}/{name}", "--tensorboard", f"{curves}/{name}", *more],
                                stdout=subprocess.DEVNULL, stderr=open(f"{work}/{name}.log", "a"))

    if train("straight").wait():
        sys.exit(open(f"{work}/straight.log").read())
    rows = rows_of(f"{work}/straight/steps.jsonl")
    acc = accumulator(f"{curves}/straight")
    acc.Reload()
    same_as_rows(acc, rows, "straight", True)

    server = Server(curves)
    try:
        process, latest = train("killed"), f"{work}/killed/checkpoints/latest"
        while not os.path.exists(latest) and process.poll() is None:
            time.sleep(0.01)
        live = accumulator(f"{curves}/killed")
        live.Reload()
        say(len(series(live, "train/loss")) >= 300, "killed: the steps are there while it trains")
        seen = server.wait("killed", "train/loss", lambda got: len(got) >= 300)
        say(len(seen) >= 300 and process.poll() is None, f"killed: TensorBoard showed {len(seen)} steps while it trained")
        process.send_signal(signal.SIGKILL)
        process.wait()
        live.Reload()
        at_kill = len(series(live, "train/loss"))
        with open(latest) as f:
            kept = int(f.read().split("-")[1])
        say(at_kill > kept, f"killed: after step {at_kill}, its checkpoint is of step {kept}")
        server.wait("killed", "train/loss", lambda got: len(got) >= at_kill)
        if train("killed", "--resume").wait():
            sys.exit(open(f"{work}/killed.log").read())
        acc = accumulator(f"{curves}/killed")
        acc.Reload()
        same_as_rows(acc, rows, "killed and resumed", True)
        live.Reload()
        same_as_rows(live, rows, "killed and resumed, by the reader that followed it", True)
        for tag, key in TAGS.items():
            want = [(r["step"], f32(r[key])) for r in rows]
            say(server.wait("killed", tag, lambda got: got == want) == want, f"killed and resumed: TensorBoard shows {tag}")
    finally:
        server.close()
    sizes = sorted(map(os.path.getsize, glob.glob(f"{curves}/killed/*tfevents*")))
    say(len(sizes) == 2 and sizes[0] == 0, "killed: one file, and an empty one")


def check_run(folder):
    workspace = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    with open(f"{folder}/plan.json") as f:
        nodes = json.load(f)["nodes"]
    with open(f"{workspace}/report/summary.json") as f:
        summary = json.load(f)
    names = sorted(n["label"][6:] for n in nodes if n["label"].startswith("train/"))
    say(sorted(os.listdir(f"{folder}/tensorboard")) == names, f"{folder}: curves of {', '.join(names)}")
    for name in names:
        acc = accumulator(f"{folder}/tensorboard/{name}")
        acc.Reload()
        loss = series(acc, "train/loss")
        steps = [s for s, _ in loss]
        say(len(steps) > 1 and steps == list(range(steps[0], steps[-1] + 1)), f"{name}: steps {steps[0]} to {steps[-1]}, each once")
        trained = summary["train"][name]
        say(steps[0] == trained["start_step"] + 1 and steps[-1] == trained["end_step"], f"{name}: those of its training")
        mean = [v for _, v in loss[-50:]]
        say(abs(sum(mean) / len(mean) - trained["final_loss"]) < 1e-5, f"{name}: final loss {trained['final_loss']:.4f}")
        val = [t for t in acc.Tags()["scalars"] if t.startswith("val/")]
        points = [[s for s, _ in series(acc, t)] for t in val]  # more than one where it was evaluated while it trained
        say(any(t.endswith("-zeroshot-val-top1") for t in val) and all(p == sorted(set(p)) and p[-1] == steps[-1] for p in points),
            f"{name}: {len(val)} results, the last ones at its last step")


if len(sys.argv) < 2:
    sys.exit(__doc__)
with tempfile.TemporaryDirectory(prefix="mode-tensorboard-") as work_dir:
    check_training(os.path.abspath(sys.argv[1]), work_dir)
for run_folder in sys.argv[2:]:
    check_run(run_folder)
sys.exit(1 if failures else 0)
