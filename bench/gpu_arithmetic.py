"""A roofline estimate of a training step on an H200: the table of docs/GPU.md. Nothing is measured.

    python3 bench/gpu_arithmetic.py build/bin/mode [--configs ViT-B-32,...] [--patch-dropout X]

FLOPs and bytes are those that `mode bench train --profile` derives from the shapes of a step of 8 pairs on the CPU in f32,
scaled to the batch; bytes are halved where bf16 is stored. GEMMs run at PRODUCT FLOP/s, attention at ATTENTION FLOP/s or
MEMORY bytes/s, whichever takes longer, everything else at MEMORY; nothing overlaps. Passes that the CPU fuses into its
GEMMs are counted here: over the hidden layer for the activation, and over dy for the bias gradients.
"""
import argparse
import array
import os
import re
import subprocess
import tempfile

PRODUCT, ATTENTION, MEMORY, PEAK = 650e12, 200e12, 4.3e12, 989e12  # FLOP/s, bytes/s; PEAK: dense bf16
HIDDEN_PASSES = 5  # forward: z read, act(z) written; backward: dy and z read, dz written
BIAS_WIDTHS = 9    # dy of attention's projections (3 + 1), of fc1 (4) and of fc2 (1), read once
PAIRS, WORDS = 8, 23  # texts of 25 tokens, including start and end
# batch, image size, then tokens, width, blocks of the image tower and width, blocks of the text tower
CONFIGS = {"ViT-B-32": (1024, 224, 50, 768, 12, 512, 12), "ViT-B-16": (512, 224, 197, 768, 12, 512, 12),
           "ViT-L-14": (128, 224, 257, 1024, 24, 768, 12)}
COLUMNS = ("model, batch", "tokens per text", "FLOPs per pair", "GEMMs", "attention", "activations, bias gradients",
           "layer norms", "AdamW and the rest", "step", "pairs/s", "MFU")


def profile(mode, config, size, dense, dropout):
    """{op: (FLOPs, bytes)} of a step, and tokens per text"""
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/pixels", "wb") as f:
            array.array("f", [0.5] * (PAIRS * 3 * size * size)).tofile(f)
        with open(tmp + "/texts", "w") as f:
            f.writelines(f"{' '.join(['a'] * WORDS)}\n" for _ in range(PAIRS))
        run = subprocess.run([mode, "bench", "train", "--config", config, "--pixels", tmp + "/pixels", "--texts",
                              tmp + "/texts", "--rounds", "1", "--profile", "--backend", "cpu", "--patch-dropout",
                              str(dropout)] + (["--no-savings"] if dense else []), stderr=subprocess.PIPE, check=True, text=True,
                             stdout=subprocess.DEVNULL)
    ops = {m[1]: (float(m[3]) * float(m[2]) * 1e9, float(m[4]) * float(m[2]) * 1e9) for m in
           re.finditer(r"^(\w+) +\d+ +([\d.]+) +[\d.]+% +([\d.]+) +([\d.]+)$", run.stderr, re.M)}
    return ops, float(re.search(r"([\d.]+) tokens per text", run.stderr)[1])


def is_product(op):
    return op.startswith(("linear", "project"))


def row(mode, config, dense, dropout):
    batch, size, image_tokens, width, blocks, text_width, text_blocks = CONFIGS[config]
    image_tokens = 1 + max(1, int((image_tokens - 1) * (1 - dropout)))
    ops, tokens = profile(mode, config, size, dense, dropout)
    tokens = 77 if dense else tokens
    scale = batch / PAIRS
    attention_ops = [op for op in ops if op.startswith("attention")]
    norms = [op for op in ops if op.startswith("layernorm")]
    whole_model = ["adamw", "zero", "clamp"]  # over parameters in f32, independent of the batch
    others = [op for op in ops if not is_product(op) and op not in attention_ops + norms + whole_model]
    product = sum(n for op, (n, _) in ops.items() if is_product(op)) * scale
    attention = sum(max(ops[op][0] * scale / ATTENTION, ops[op][1] * scale / 2 / MEMORY) for op in attention_ops)
    last = 0 if dense else 1  # the last block computes only the pooled rows
    hidden = 4 * batch * (image_tokens * width * (blocks - last) + tokens * text_width * (text_blocks - last))
    passes = hidden * 2 * (HIDDEN_PASSES + BIAS_WIDTHS / 4) / MEMORY
    norm = sum(ops[op][1] for op in norms) * scale / 2 / MEMORY
    rest = (sum(ops[op][1] for op in whole_model) + ops["adamw"][1] / 14) / MEMORY  # its 28 bytes and a copy in bf16
    rest += sum(ops[op][1] for op in others) * scale / 2 / MEMORY
    step = product / PRODUCT + attention + passes + norm + rest
    done = product + sum(ops[op][0] for op in attention_ops) * scale
    ms = [f"{t * 1e3:.1f}" for t in (product / PRODUCT, attention, passes, norm, rest)]
    return (f"{config}, {batch}", f"{tokens:.0f}", f"{done / batch / 1e9:.1f} GFLOP", ms[0] + " ms", *ms[1:],
            f"{step * 1e3:.0f} ms", f"{batch / step:,.0f}", f"{done / step / PEAK * 100:.0f} %")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", help="the mode command")
    p.add_argument("--configs", default=",".join(CONFIGS))
    p.add_argument("--patch-dropout", type=float, default=0)
    a = p.parse_args()
    os.environ.setdefault("MODE_CLIP_MERGES", os.path.expanduser("~/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz"))
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for config in a.configs.split(","):
        for dense in (False, True):
            print("| " + " | ".join(row(a.mode, config, dense, a.patch_dropout)) + " |", flush=True)


if __name__ == "__main__":
    main()
