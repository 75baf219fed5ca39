"""Ours and a peer in turns: `mode bench SUBJECT --turns` waits for a line before each round, the peer computes between.

Both keep their models loaded, both get the same inputs; of each round processor time and wall time are taken. On a
machine that others use, trust the ratio of processor times with one thread. A ratio over 1 is ours being faster.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import threading
import time

# the peer at its best: PyTorch's large buffers stay with the process instead of going back to the system at each step
PEER_ENV = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def arguments(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", help="the mode command")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=1, help="of either side")
    return p


def device_argument(p, default):
    p.add_argument("--device", default=default, choices=["cuda", "cpu"], help="of the peer; ours is told by --backend")


def device(torch, a):
    """a.device, or the end of it all: the peers of a GPU are measured on none but a GPU by mistake."""
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no usable GPU here. HINT: --device cpu puts the processor in its place, which proves that "
                 "this runs, and nothing else")
    if a.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
            torch.backends.cuda.enable_cudnn_sdp(True)
    return a.device


def waiting(torch, a):
    """What waits for the peer's device."""
    return torch.cuda.synchronize if a.device == "cuda" else lambda: None


def begin(a):
    """Before torch is imported: the environment of both sides. The malloc settings are read at a process's start."""
    if any(os.environ.get(k) != v for k, v in PEER_ENV.items()):
        os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **PEER_ENV})
    os.environ.update(MODE_THREADS=str(a.threads), OMP_NUM_THREADS=str(a.threads), RAYON_NUM_THREADS=str(a.threads),
                      TOKENIZERS_PARALLELISM="true" if a.threads > 1 else "false")
    import torch
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    return torch


def captions(shards, n):
    """n captions of some tar shards (.txt, or .json with texts[] or caption), drawn with a fixed seed."""
    out = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            for m in tar:
                if m.name.endswith(".json"):
                    j = json.loads(tar.extractfile(m).read())
                    out += j.get("texts") or [j.get("caption", "")]
                elif m.name.endswith(".txt"):
                    out.append(tar.extractfile(m).read().decode())
    out = [t for t in (" ".join(t.split()) for t in out) if t]
    random.Random(1).shuffle(out)
    return [out[i % len(out)] for i in range(n)]


def write_lines(path, texts):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.writelines(t + "\n" for t in texts)


class Ours:
    def __init__(self, cmd, rounds):
        self.p = subprocess.Popen(cmd + ["--turns", "--rounds", str(rounds)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)

    def round(self):
        self.p.stdin.write("\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            sys.exit(f"mode bench ended with {self.p.wait()}")
        row = json.loads(line)
        return row["cpu"] / row["items"], row["seconds"] / row["items"]

    def close(self):
        self.p.stdin.close()
        self.p.wait()


class Clocks:
    """What nvidia-smi says of the first GPU, ten times a second, by a process beside; the last of it is logged with each
    round, taken while or just after it ran."""
    SMI = ["nvidia-smi", "-i", os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0], "--format=csv,noheader"]

    def __init__(self):
        self.last, self.p = "clocks are not known", None
        try:
            print(subprocess.run(self.SMI + ["--query-gpu=name,driver_version,clocks.max.sm,power.limit"],
                                 capture_output=True, text=True, check=True).stdout.strip() + "\n", flush=True)
            self.p = subprocess.Popen(self.SMI + ["--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu", "-lms", "100"],
                                      stdout=subprocess.PIPE, text=True)
        except (OSError, subprocess.CalledProcessError):
            print("(no nvidia-smi: clocks are not known)\n", flush=True)
            return
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.p.stdout:
            self.last = line.strip()

    def close(self):
        if self.p:
            self.p.terminate()
            self.p.wait()


def peer_round(work, n):
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - cpu) / n, (time.perf_counter() - wall) / n


def processors():
    return len(os.sched_getaffinity(0))


def compare(what, cmd, peers, n, rounds, threads, clocks=None):
    """peers: {name: function that does n items once}; each is warmed up, then rounds in turns; prints a table. The ratio
    is of processor time or, where the work is a device's, which `clocks` says, of wall time; then every round is logged
    on stderr with the clocks. Returns {name: (ours, peer)}: medians of the seconds for one item."""
    k = 1 if clocks else 0
    head, other = ("wall", "CPU") if clocks else ("CPU", "wall")
    print(f"{what}; {threads} thread(s) each, {rounds} rounds in turns, medians\n\n"
          f"| peer | ours, {head} ms/item | peer, {head} ms/item | **{head} ratio** | lowest, highest | {other} ratio |\n"
          "|---|---|---|---|---|---|", flush=True)
    ours, medians = Ours(cmd, rounds * len(peers)), {}
    for name, work in peers.items():
        work()
        work()
        rows = []
        for i in range(rounds):
            o = ours.round()
            beside = clocks and clocks.last
            p = peer_round(work, n)
            rows.append((o, p))
            if clocks:
                print(f"{name}, round {i + 1}: ours {1e3 * o[1]:.4f} ms/item ({beside}), peer {1e3 * p[1]:.4f} "
                      f"({clocks.last})", file=sys.stderr, flush=True)
        ratios = [sorted(p[c] / o[c] for o, p in rows) for c in (k, 1 - k)]
        o, p = medians[name] = [statistics.median(r[side][k] for r in rows) for side in (0, 1)]
        print(f"| {name} | {1e3 * o:.3f} | {1e3 * p:.3f} | **{statistics.median(ratios[0]):.2f}** | {ratios[0][0]:.2f}, "
              f"{ratios[0][-1]:.2f} | {statistics.median(ratios[1]):.2f} |", flush=True)
    ours.close()
    return medians
