"""Ours and a peer alternate: `mode bench SUBJECT --turns` waits for a line before each round, the peer computes in between.

Both keep their models loaded, both get the same inputs; CPU time and wall time of each round are taken. On a shared
machine, trust the ratio of CPU times with one thread. A ratio over 1 means ours is faster.

On a device a round repeats the work until --seconds are filled, so that the device's power and clocks settle, and a peer,
which is synchronised only at the round's end, launches ahead of its device as it does in use. Ours synchronises as often
as in use: once a training step.
"""
import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tarfile
import threading
import time

# the peer at its best: malloc keeps PyTorch's large buffers instead of returning them to the system at each step
PEER_ENV = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def arguments(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", help="the mode command")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, help="threads of each side (default: 1; with a GPU all cores)")
    p.set_defaults(seconds=0)
    return p


def device_argument(p, default):
    p.add_argument("--device", default=default, choices=["cuda", "cpu"], help="the peer's device; ours is --backend")
    p.add_argument("--seconds", type=float, default=1, help="minimum length of a round on a device")


def device(torch, a):
    """a.device; exits if it is missing, so that peers never run on the CPU by mistake."""
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no usable GPU here. HINT: --device cpu runs the peer on the CPU, which proves that this "
                 "script runs, and nothing else")
    if a.device == "cuda" and hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
        torch.backends.cuda.enable_cudnn_sdp(True)
    return a.device


def tf32(torch, on):
    """f32 GEMMs in TF32, or in f32, PyTorch's default. The setting is global to the process: each round sets it again."""
    torch.set_float32_matmul_precision("high" if on else "highest")


def waiting(torch, a):
    """A function that synchronises with the peer's device."""
    return torch.cuda.synchronize if a.device == "cuda" else lambda: None


def training(torch, model, net, amp=None):
    """A function of pixels and ids that launches one training step of open_clip's model (net: the same, perhaps compiled):
    forward, loss, backward, AdamW (fused)."""
    from open_clip.loss import ClipLoss
    opt = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=True)
    loss_of = ClipLoss()

    def step(x, y):
        with amp or contextlib.nullcontext():
            loss = loss_of(*net(x, y)[:3])
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
    return step


def begin(a):
    """Sets the environment of both sides, before torch is imported; malloc reads its settings at process start."""
    if any(os.environ.get(k) != v for k, v in PEER_ENV.items()):
        os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **PEER_ENV})
    a.threads = a.threads or (processors() if getattr(a, "device", "cpu") == "cuda" else 1)
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
    def __init__(self, cmd, rounds, seconds=0):
        self.p = subprocess.Popen(cmd + ["--turns", "--rounds", str(rounds)] + (["--seconds", str(seconds)] if seconds else []),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

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
    """Samples the first GPU by nvidia-smi, ten times a second. For each round: mean and lowest SM clock, mean and highest
    power, and the throttle reasons, if any."""
    SMI = ["nvidia-smi", "-i", os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0], "--format=csv,noheader,nounits"]
    # field names of newer drivers, then of older ones; without "instant" power is a one-second mean
    ASKED = ["clocks.sm,power.draw.instant,temperature.gpu,clocks_event_reasons.active",
             "clocks.sm,power.draw,temperature.gpu,clocks_throttle_reasons.active"]
    REASONS = {0x4: "power cap", 0x8: "HW slowdown", 0x20: "SW thermal slowdown", 0x40: "HW thermal slowdown",
               0x80: "HW power brake slowdown"}

    def __init__(self):
        self.rows, self.p = [], None
        asked = next((q for q in self.ASKED if self._once(q)), None)
        if not asked:
            print("(no nvidia-smi: clocks are not known)\n", flush=True)
            return
        print(self._once("name,driver_version,clocks.max.sm,power.limit") + "\n", flush=True)
        self.p = subprocess.Popen(self.SMI + ["--query-gpu=" + asked, "-lms", "100"], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _once(self, what):
        try:
            return subprocess.run(self.SMI + ["--query-gpu=" + what], capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    def _read(self):
        for line in self.p.stdout:
            try:
                sm, power, warm, why = line.split(", ")
                self.rows.append((time.perf_counter(), float(sm), float(power), float(warm), int(why, 16)))
            except ValueError:  # "[N/A]"
                continue

    def between(self, begun, ended):
        """A clause about the time between two values of time.perf_counter()."""
        rows = [r for r in list(self.rows) if begun <= r[0] <= ended]
        if not rows:
            return "clocks are not known"
        held = {name for r in rows for bit, name in self.REASONS.items() if r[4] & bit}
        return (f"SM {statistics.mean(r[1] for r in rows):.0f} MHz, lowest {min(r[1] for r in rows):.0f}, "
                f"{statistics.mean(r[2] for r in rows):.0f} W, highest {max(r[2] for r in rows):.0f}, "
                f"{max(r[3] for r in rows):.0f} C, throttle reasons: {', '.join(sorted(held)) or 'none'}")

    def close(self):
        if self.p:
            self.p.terminate()
            self.p.wait()


def peer_round(work, n, times=1, wait=lambda: None):
    """(CPU, wall) seconds per item of `times` times work, n items each, and one wait."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.process_time() - cpu) / (n * times), (time.perf_counter() - wall) / (n * times)


def times_of(work, n, seconds, wait):
    """How often work has to be repeated to fill the seconds."""
    return max(1, math.ceil(seconds / (n * peer_round(work, n, 2, wait)[1]))) if seconds else 1


def processors():
    return len(os.sched_getaffinity(0))


def compare(what, cmd, peers, n, rounds, threads, clocks=None, seconds=0, wait=lambda: None):
    """peers: {name: function that launches the work of n items}; each is warmed up, then rounds alternate; prints a table. A
    round is the work once or, with `seconds`, as often as fills them; `wait` ends it. The ratio is of CPU time or, on a
    device (`clocks` is given), of wall time; then every round is logged on stderr with the clocks. Returns
    {name: (ours, peer)}: median seconds per item."""
    k = 1 if clocks else 0
    head, other = ("wall", "CPU") if clocks else ("CPU", "wall")
    print(f"{what}; {threads} thread(s) each, {rounds} alternating rounds{f' of {seconds:g} s' if seconds else ''}, medians\n\n"
          f"| peer | ours, {head} ms/item | peer, {head} ms/item | **{head} ratio** | lowest, highest | {other} ratio |\n"
          "|---|---|---|---|---|---|", flush=True)
    ours, medians = Ours(cmd, 1 + rounds * len(peers), seconds), {}
    ours.round()  # not concurrently with the peer's warm-up: either side may be autotuning
    for name, work in peers.items():
        for _ in range(2):
            peer_round(work, n, 1, wait)
        times, rows = times_of(work, n, seconds, wait), []
        for i in range(rounds):
            begun = time.perf_counter()
            o = ours.round()
            between = time.perf_counter()
            p = peer_round(work, n, times, wait)
            rows.append((o, p))
            if clocks:
                print(f"{name}, round {i + 1}: ours {1e3 * o[1]:.4f} ms/item ({clocks.between(begun, between)}), "
                      f"peer {1e3 * p[1]:.4f} ({clocks.between(between, time.perf_counter())})", file=sys.stderr, flush=True)
        ratios = [sorted(p[c] / o[c] for o, p in rows) for c in (k, 1 - k)]
        o, p = medians[name] = [statistics.median(r[side][k] for r in rows) for side in (0, 1)]
        print(f"| {name} | {1e3 * o:.3f} | {1e3 * p:.3f} | **{statistics.median(ratios[0]):.2f}** | {ratios[0][0]:.2f}, "
              f"{ratios[0][-1]:.2f} | {statistics.median(ratios[1]):.2f} |", flush=True)
    ours.close()
    return medians
