#!/usr/bin/env python3
"""soak.py BUILD OUT [SECONDS [SEED]] - runs of a small pipeline, serially, while Redis, the coordinator, agents, compute
processes and occasionally the supervisor are killed (-9), paused (SIGSTOP) or, Redis, wiped at random. Every run must end
with the bytes of an undisturbed one, a ledger that adds up, and no process left. Exit 1 at the first that does not. Leases
are 4 s here, so a worker paused for longer returns as a zombie. Needs `make models`."""
import glob, os, random, re, shutil, signal, subprocess, sys, time

BIN, OUT = os.path.join(os.path.abspath(sys.argv[1]), "bin"), os.path.abspath(sys.argv[2])
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 1200
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else int(time.time())
MODELS = os.environ.get("MODE_TEST_MODELS", os.path.expanduser("~/.cache/mode/models"))
WORKERS = "captions=2,embed=2,cluster=1,assign=2,train=2,evaluate=2,ensemble=1"
LIMIT_S = 240  # for one run
SAME = ["report/result.csv"] + [f"experts/{m}/open_clip_model.safetensors" for m in ("seed", "dense", "expert-0", "expert-1")]
ODD = re.compile(r" error (?!\S+ task_failed .*killed by signal 9)|nondeterministic|damaged|Assertion|assert|Sanitizer|result_missing")
os.environ.update(MODE_LEASE_MS="4000", MODE_HEARTBEAT_MS="500")
SPEC = f"""name: test
seed: 3
data: {{train: train}}
captions: {{text_keys: ["json:texts[]"]}}
encoder: {{dir: {MODELS}/encoder, pooling: mean, max_tokens: 32}}
cluster: {{fine: 8, coarse: 2, sample_per_centre: 0}}
model:
  embed_dim: 32
  vision_cfg: {{image_size: 32, patch_size: 8, width: 32, layers: 2, head_width: 16}}
  text_cfg: {{context_length: 77, vocab_size: 49408, width: 32, heads: 2, layers: 1}}
tokenizer: {{merges: {MODELS}/bpe_simple_vocab_16e6.txt.gz}}
train: {{batch: 32, lr: 1e-3, warmup_steps: 5, seed_steps: 60, total_steps: 90, expert_steps: share, checkpoint_steps: 5}}
evaluate: {{tasks: eval}}
ensemble: {{router: share}}
"""
rng = random.Random(SEED)


def mode(*args, **kw):
    return subprocess.run([f"{BIN}/mode", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)


def must(what, done):
    if done.returncode:
        sys.exit(f"FAILED: {what} (seed {SEED}): exit {done.returncode}\n{done.stdout}")


def prepare(ws):
    shutil.rmtree(ws, ignore_errors=True)
    subprocess.run([f"{BIN}/mode-test-corpus", ws, "600", "60"], check=True)
    with open(f"{ws}/run.yaml", "w") as f:
        f.write(SPEC)
    must("mode up", mode("up", "--workspace", ws, "--workers", WORKERS))


def pids(ws):
    """(name, pid) of every process that may be hit."""
    found = []
    for path in glob.glob(f"{ws}/run/*.pid"):
        name = os.path.basename(path)[:-4]
        try:
            pid = int(open(path).readline())
            children = open(f"/proc/{pid}/task/{pid}/children").read().split()
        except (OSError, ValueError):
            continue
        found.append((name, pid))
        if name not in ("supervisor", "redis", "coordinator"):
            found += [(f"compute of {name}", int(c)) for c in children]
    return [(name, pid) for name, pid in found if ours(ws, pid)]


def ours(ws, pid):
    """The pid of a stale pid file may belong to another process now."""
    try:
        return ws.encode() in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return False


def send(pid, sig):
    try:
        os.kill(pid, sig)
        return True
    except OSError:
        return False


def hit(ws, stopped, log):
    victims = [(n, p) for n, p in pids(ws) if p not in stopped]
    weight = [0.15 if n == "supervisor" else 3 if n in ("redis", "coordinator") else 0.5 if " of " in n else 1 for n, _ in victims]
    if not victims:
        return
    name, pid = rng.choices(victims, weight)[0]
    what = rng.choice(["kill", "kill", "stop", "wipe" if name == "redis" else "kill"])
    if what == "stop" and name != "supervisor":
        for_s = rng.choice([0.3, 1, 3, 7, 12, 0.3, 1, 3, 7, 12, 45])  # 45: until every connection has timed out
        if send(pid, signal.SIGSTOP):
            stopped[pid] = time.time() + for_s
            log.append(f"stop {name} for {for_s} s")
        return
    if send(pid, signal.SIGKILL):
        log.append(f"{what} {name}")
    if what == "wipe":
        shutil.rmtree(f"{ws}/redis", ignore_errors=True)
    if name == "supervisor":  # only a person restarts it
        time.sleep(0.5)
        must("mode up after the supervisor was killed", mode("up", "--workspace", ws, "--workers", WORKERS))


def start(ws):
    return subprocess.Popen([f"{BIN}/mode", "run", f"{ws}/run.yaml", "--workspace", ws, "--no-progress"],
                            stdout=open(f"{ws}/run.log", "a"), stderr=subprocess.STDOUT)


def given_up_for_kills(ws):
    return "killed by signal 9" in open(f"{ws}/run.log").read().splitlines()[-1]


def storm(ws, number):
    prepare(ws)
    log, stopped, began = [], {}, time.time()
    run, again = start(ws), 0
    calm_at = began + rng.uniform(10, 60)  # from then on it is left alone, or it might never end
    while True:
        if run.poll() == 65 and given_up_for_kills(ws):  # after three kills of its process a task is blamed and given up;
            run, again = start(ws), again + 1  # a person would run it again
        elif run.poll() is not None:
            break
        time.sleep(rng.uniform(0.05, 1.5))
        for pid in [p for p, until in stopped.items() if time.time() > until]:
            if ours(ws, pid):
                send(pid, signal.SIGCONT)
            del stopped[pid]
        if time.time() < calm_at:
            hit(ws, stopped, log)
        if time.time() - began > LIMIT_S:
            for pid in stopped:
                send(pid, signal.SIGCONT)
            sys.exit(f"FAILED: run {number} (seed {SEED}) does not end; {ws}\n" + "\n".join(log) + "\n"
                     + mode("status", "--workspace", ws).stdout + open(f"{ws}/run.log").read())
    for pid in stopped:
        send(pid, signal.SIGCONT)
    if run.returncode:
        sys.exit(f"FAILED: run {number} (seed {SEED}): exit {run.returncode}; {ws}\n" + "\n".join(log) + "\n"
                 + open(f"{ws}/run.log").read())
    must("reconcile", mode("reconcile", "--workspace", ws))
    must("mode down", mode("down", "--workspace", ws))
    left = subprocess.run(["pgrep", "-af", f"{ws}( |$|/)"], stdout=subprocess.PIPE, text=True).stdout
    if left:
        sys.exit(f"FAILED: run {number} (seed {SEED}) left processes:\n{left}")
    for name in SAME:
        if open(f"{ws}/{name}", "rb").read() != open(f"{OUT}/calm/{name}", "rb").read():
            sys.exit(f"FAILED: run {number} (seed {SEED}): {name} differs; {ws}\n" + "\n".join(log))
    odd = [line.rstrip() for path in glob.glob(f"{ws}/logs/*.log") for line in open(path, errors="replace") if ODD.search(line)]
    print(f"run {number}: {len(log)} hits, {time.time() - began:.0f} s, the same bytes"
          + (f"; run again {again} times" if again else ""), flush=True)
    for line in sorted(set(re.sub(r"^\S+ ", "", o)[:200] for o in odd)):
        print(f"    odd: {line}", flush=True)
    shutil.rmtree(ws)
    return len(log)


os.makedirs(OUT, exist_ok=True)
if not os.path.exists(f"{OUT}/calm/done"):
    prepare(f"{OUT}/calm")
    must("the calm run", mode("run", f"{OUT}/calm/run.yaml", "--workspace", f"{OUT}/calm", "--no-progress"))
    must("mode down", mode("down", "--workspace", f"{OUT}/calm"))
    open(f"{OUT}/calm/done", "w").close()
until, number, hits = time.time() + SECONDS, 0, 0
while time.time() < until:
    number += 1
    ws = f"{OUT}/storm-{SEED}-{number}"
    try:
        hits += storm(ws, number)
    finally:  # a failed workspace is kept, but stopped
        if os.path.exists(ws):
            mode("down", "--workspace", ws)
print(f"soak: ok, {number} runs, {hits} hits, seed {SEED}")
