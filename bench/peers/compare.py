"""Ours against the named peer, side by side: same machine, same cores, same data, runs interleaved, medians.

    $(tests/golden/venv.sh) bench/peers/compare.py build/bin/mode demo-run [captions embed encode train] [--runs 3]

Our figure is the wall time of the whole process (start, model loading and reading included); the peer's is its work
alone (bench/peers/peer.py). Prints a table; ratio = peer seconds / our seconds per item, over 1 is ours being faster.
"""
import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def ours(cmd, n, env=None):
    t = time.perf_counter()
    subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    return (time.perf_counter() - t) / n


def peer(*args):
    out = subprocess.run([sys.executable, os.path.join(HERE, "peer.py"), *map(str, args)], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    row = json.loads(out.splitlines()[-1])
    return row["seconds"] / row["n"]


def count_pairs(data):
    import tarfile
    return sum(m.name.endswith(".jpg") for s in glob.glob(f"{data}/train/*/*.tar") for m in tarfile.open(s))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode")
    p.add_argument("demo")
    p.add_argument("what", nargs="*", default=["captions", "embed", "encode", "train"])
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--texts", type=int, default=2000)
    p.add_argument("--images", type=int, default=2000)
    p.add_argument("--steps", type=int, default=10)
    a = p.parse_args()
    data, dense = os.path.join(a.demo, "data"), os.path.join(a.demo, "experts", "dense")
    encoder = os.path.join(a.demo, "models", "encoder")
    merges = os.path.join(a.demo, "models", "bpe_simple_vocab_16e6.txt.gz")
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        sys.path.insert(0, HERE)
        import peer as peers

        def case(name, our_run, peer_run):
            o, q = [], []
            for _ in range(a.runs):
                o.append(our_run())
                q.append(peer_run())
            mo, mq = statistics.median(o), statistics.median(q)
            rows.append((name, 1 / mo, 1 / mq, mq / mo))
            print(f"{name:58s} ours {1 / mo:10.1f}/s   peer {1 / mq:10.1f}/s   ratio {mq / mo:6.2f}", flush=True)

        if "captions" in a.what:
            n = count_pairs(data)
            cmd = [a.mode, "captions", data + "/train", "--out", tmp + "/captions"]
            case("captions, no picture decoded: tarfile+json", lambda: ours(cmd + ["--check-images", "header"], n),
                 lambda: peer("captions", data, "nodecode"))
            case("captions, every picture decoded: tarfile+json+Pillow", lambda: ours(cmd, n),
                 lambda: peer("captions", data, "decode"))
        if "embed" in a.what:
            texts = [t for t, _ in peers.pairs(data, a.texts)]
            open(tmp + "/texts", "w").write("\n".join(t.replace("\n", " ") for t in texts) + "\n")
            cmd = [a.mode, "embed", "--encoder", encoder, "--texts", tmp + "/texts", "--out", tmp + "/feat.npy"]
            for kind in ("padded", "sorted"):
                case(f"embedding: transformers fp32, {kind}", lambda: ours(cmd, len(texts)),
                     lambda: peer("embed", data, encoder, a.texts, kind))
        if "encode" in a.what:
            os.makedirs(tmp + "/img")
            names = []
            for i, (_, jpg) in enumerate(peers.pairs(data, a.images)):
                names.append(f"{tmp}/img/{i}.jpg")
                open(names[-1], "wb").write(jpg)
            open(tmp + "/images", "w").write("\n".join(names) + "\n")
            cmd = [a.mode, "encode", "--model", dense, "--images", tmp + "/images", "--clip-merges", merges, "--out", tmp + "/enc"]
            case("encoding images from JPEG: open_clip fp32", lambda: ours(cmd, len(names)),
                 lambda: peer("encode", data, dense, a.images))
        if "train" in a.what:
            config = json.load(open(dense + "/open_clip_config.json"))
            json.dump(config["model_cfg"], open(tmp + "/model.json", "w"))

            def train(steps):
                shutil.rmtree(tmp + "/trained", ignore_errors=True)  # a finished model is not overwritten
                cmd = [a.mode, "train", "--config", tmp + "/model.json", "--data", data + "/train", "--batch", "256",
                       "--steps", str(steps), "--lr", "1e-3", "--warmup", "100", "--seed", "1", "--clip-merges", merges,
                       "--log", tmp + "/steps.jsonl", "--out", tmp + "/trained"]
                return ours(cmd, 1)

            def our_train():  # captions extraction and start-up cancel out
                return (train(a.steps + 2) - train(2)) / (256 * a.steps)
            for kind in ("eager", "compiled"):
                case(f"training from JPEG, batch 256: open_clip fp32, {kind}", our_train,
                     lambda: peer("train", data, dense, a.steps, kind))
    print("\n| what, and against whom | ours, items/s | peer, items/s | ratio |\n|---|---|---|---|")
    for name, o, q, r in rows:
        print(f"| {name} | {o:.1f} | {q:.1f} | {r:.2f} |")


if __name__ == "__main__":
    main()
