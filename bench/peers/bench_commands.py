"""Ours against the peers: same machine, same cores, same data, alternating runs, medians.

    $(tests/golden/venv.sh) bench/peers/bench_commands.py build/bin/mode demo-run [captions embed encode train] [--runs 3]

demo-run: the folder of a finished `make demo`. Our figure is the whole process (startup, loading, writing), for training
the difference of a long and a short run; the peer's is its work alone (bench/peers/commands_peer.py). Wall time is what a
user waits for; on a shared machine trust CPU time. Prints a table; a ratio over 1 means ours is faster.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import commands_peer as peers

HERE = os.path.dirname(os.path.abspath(__file__))
# the peer at its best: malloc keeps PyTorch's large buffers instead of returning them to the system at each step
PEER_ENV = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def ours(cmd, n):
    """(wall, cpu) seconds per item of the whole process."""
    before, t = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall, after = time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(cmd)}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall / n, cpu / n


def peer(*args):
    done = subprocess.run([sys.executable, os.path.join(HERE, "commands_peer.py"), *map(str, args)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env={**os.environ, **PEER_ENV})
    if done.returncode:
        sys.exit(f"commands_peer.py {' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    row = json.loads(done.stdout.splitlines()[-1])
    return row["seconds"] / row["n"], row["cpu"] / row["n"]


def median(rows):
    return [statistics.median(r[k] for r in rows) for k in (0, 1)]


class Table:
    def __init__(self, runs):
        self.runs, self.lines = runs, []

    def group(self, what, our_run, peer_runs):
        """our_run and each of peer_runs {name: function}, alternating."""
        our_rows, peer_rows = [], {name: [] for name in peer_runs}
        for _ in range(self.runs):
            our_rows.append(our_run())
            for name, run in peer_runs.items():
                peer_rows[name].append(run())
        wall, cpu = median(our_rows)
        for name, rows in peer_rows.items():
            peer_wall, peer_cpu = median(rows)
            self.lines.append(f"| {what} | {name} | {1e3 * cpu:.3f} | {1e3 * peer_cpu:.3f} | **{peer_cpu / cpu:.2f}** | "
                              f"{1 / wall:.1f} | {1 / peer_wall:.1f} | {peer_wall / wall:.2f} |")
            print(self.lines[-1], flush=True)

    def show(self):
        print("\n| what | peer | ours, CPU ms/item | peer, CPU ms/item | **CPU ratio** | ours, items/s | peer, items/s | wall ratio |"
              "\n|---|---|---|---|---|---|---|---|\n" + "\n".join(self.lines))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode")
    p.add_argument("demo")
    p.add_argument("what", nargs="*", default=["captions", "embed", "encode", "train"])
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--texts", type=int, default=4000)
    p.add_argument("--images", type=int, default=4000)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--shards", type=int, default=4, help="use only the first N shards")
    p.add_argument("--workers", type=int, default=2, help="DataLoader workers of the peer's training")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each side")
    a = p.parse_args()
    data, dense = os.path.join(a.demo, "data"), os.path.join(a.demo, "experts", "dense")
    encoder = os.path.join(a.demo, "models", "encoder")
    merges = os.path.join(a.demo, "models", "bpe_simple_vocab_16e6.txt.gz")
    shards = peers.shards(data, a.shards)
    os.environ.update(MODE_THREADS=str(a.threads), PEER_THREADS=str(a.threads), PEER_SHARDS=str(a.shards))
    table = Table(a.runs)
    with tempfile.TemporaryDirectory() as tmp:
        if "captions" in a.what:
            n = sum(m.name.endswith(".jpg") for s in shards for m in peers.tarfile.open(s))
            cmd = [a.mode, "captions", "::".join(shards), "--text-keys", "json:texts[]", "--out", tmp + "/captions"]
            table.group("captions; ours decodes every picture", lambda: ours(cmd, n),
                        {"tarfile + json + Pillow, every picture decoded": lambda: peer("captions", data, "decode"),
                         "tarfile + json, no picture decoded": lambda: peer("captions", data)})
        if "embed" in a.what:
            texts = [t for t, _ in peers.pairs(shards, a.texts)]
            with open(tmp + "/texts", "w") as f:
                f.writelines(t.replace("\n", " ") + "\n" for t in texts)
            cmd = [a.mode, "embed", "--encoder", encoder, "--pooling", "mean", "--max-tokens", "128",
                   "--texts", tmp + "/texts", "--out", tmp + "/feat.npy"]
            table.group("embedding", lambda: ours(cmd, len(texts)),
                        {"transformers, chunks of 400 padded": lambda: peer("embed", data, encoder, a.texts),
                         "transformers, sorted by length": lambda: peer("embed", data, encoder, a.texts, "sorted")})
        if "encode" in a.what:
            os.makedirs(tmp + "/img")
            names = []
            for i, (_, jpg) in enumerate(peers.pairs(shards, a.images)):
                names.append(f"{tmp}/img/{i}.jpg")
                with open(names[-1], "wb") as f:
                    f.write(jpg)
            with open(tmp + "/images", "w") as f:
                f.write("\n".join(names) + "\n")
            cmd = [a.mode, "encode", "--model", dense, "--images", tmp + "/images", "--out", tmp + "/enc"]
            table.group("encoding pictures from JPEG", lambda: ours(cmd, len(names)),
                        {"open_clip, eager": lambda: peer("encode", data, dense, a.images),
                         "open_clip, compiled": lambda: peer("encode", data, dense, a.images, "compiled")})
        if "train" in a.what:
            with open(dense + "/open_clip_config.json") as f, open(tmp + "/model.json", "w") as to:
                json.dump(json.load(f)["model_cfg"], to)

            def train(steps):
                shutil.rmtree(tmp + "/trained", ignore_errors=True)  # a finished model is not overwritten
                return ours([a.mode, "train", "--config", tmp + "/model.json", "--data", "::".join(shards),
                             "--text-keys", "json:texts[]", "--batch", "256", "--steps", str(steps), "--lr", "1e-3",
                             "--warmup", "100", "--total-steps", "1000", "--seed", "1", "--clip-merges", merges,
                             "--out", tmp + "/trained"], 1)

            def our_train():  # caption extraction and startup cancel out
                long, short = train(a.steps + 2), train(2)
                return tuple((x - y) / (256 * a.steps) for x, y in zip(long, short))

            def open_clip(*how):
                return lambda: peer("train", data, dense, a.steps, a.workers, *how)
            table.group("training from JPEG, batch 256", our_train,
                        {"open_clip, eager": open_clip("eager"), "open_clip, compiled": open_clip("compiled"),
                         "open_clip, compiled, context cut to the longest caption": open_clip("compiled", "cut")})
    table.show()


if __name__ == "__main__":
    main()
