"""`mode bench tokenize` against Hugging Face's fast tokenizers: the same texts, one thread each, alternating, medians.

    $(tests/golden/venv.sh) bench/peers/bench_tokenize.py build/bin/mode CACHE_DIR SHARD... [--rounds 9] [--texts FILE]

CACHE_DIR of deploy/fetch-models.sh; the texts are the captions of the tar shards, or the lines of --texts. The peer is
the tokenizers library itself, a batch per call (encode_batch_fast, no Python per text). Loading is not counted on either
side. A ratio over 1 means ours is faster.
"""
import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def captions(shards):
    out = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            for m in tar:
                if m.name.endswith(".json"):
                    out += json.loads(tar.extractfile(m).read()).get("texts", [])
                elif m.name.endswith(".txt"):
                    out.append(tar.extractfile(m).read().decode())
    return [" ".join(t.split()) for t in out]


def clip(cache):
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizerFast
    with gzip.open(os.path.join(cache, "bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as f:
        merges = [tuple(line.split()) for line in f.read().split("\n")[1:48895]]
    symbols = list(bytes_to_unicode().values())
    symbols += [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizerFast(vocab={s: i for i, s in enumerate(symbols)}, merges=merges).backend_tokenizer


def bert(cache):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(os.path.join(cache, "encoder", "tokenizer.json"))
    t.no_padding()
    return t


def peer(tokenizer, texts):
    before = time.process_time()
    for i in range(0, len(texts), 1000):
        tokenizer.encode_batch_fast(texts[i:i + 1000])
    return (time.process_time() - before) / len(texts)


def ours(cmd):
    row = json.loads(subprocess.run(cmd, stdout=subprocess.PIPE, check=True, env={**os.environ, "MODE_THREADS": "1"}).stdout)
    return row["cpu"] / row["items"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode")
    p.add_argument("cache")
    p.add_argument("shards", nargs="*")
    p.add_argument("--texts")
    p.add_argument("--rounds", type=int, default=9)
    a = p.parse_args()
    if a.texts:
        with open(a.texts, encoding="utf-8", newline="\n") as f:
            texts = f.read().split("\n")[:-1]
    else:
        texts = captions(a.shards)
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/texts", "w", encoding="utf-8", newline="\n") as f:
            f.writelines(t + "\n" for t in texts)
        base = [a.mode, "bench", "tokenize", "--texts", tmp + "/texts", "--rounds", "1", "--clip-merges", os.path.join(a.cache, "bpe_simple_vocab_16e6.txt.gz")]
        print(f"{len(texts)} texts of {sum(map(len, texts)) / len(texts):.1f} characters; CPU time of one thread, median of {a.rounds} rounds\n\n"
              "| ours | peer | ours, ns/text | peer, ns/text | ours, texts/s | **ratio** | lowest and highest of the rounds |\n|---|---|---|---|---|---|---|")
        for name, options, tokenizer, length in (("CLIP, openai cleaning", ["--clean", "openai"], clip, 77), ("CLIP, hf cleaning", ["--clean", "hf"], clip, 77),
                                                 ("WordPiece", ["--tokenizer", "bert:" + os.path.join(a.cache, "encoder"), "--context", "128"], bert, 128)):
            t = tokenizer(a.cache)
            t.enable_truncation(length)
            peer(t, texts)  # its cache of words is warm, as ours is
            rows = [(ours(base + options), peer(t, texts)) for _ in range(a.rounds)]
            o, q = (statistics.median(r[k] for r in rows) for k in (0, 1))
            ratios = sorted(y / x for x, y in rows)
            print(f"| {name} | {'CLIPTokenizerFast' if tokenizer is clip else 'BertTokenizerFast'} | {1e9 * o:.0f} | {1e9 * q:.0f} | {1 / o:,.0f} | "
                  f"**{statistics.median(ratios):.1f}** | {ratios[0]:.1f}, {ratios[-1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
