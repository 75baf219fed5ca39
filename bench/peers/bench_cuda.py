"""`cuda-bench train|encode` (make cuda-bench builds it) against open_clip on the same GPU, alternating.

    PYTHON bench/peers/bench_cuda.py build-cuda/cuda-bench [train] [encode] [--config ViT-B-32] [--batch 1024]
        [--tokens 22 | --lengths FILE] [--algorithms products] [--no-savings] [--backend cuda-bf16] [--seconds 1]
        [--peers bf16,bf16+compiled,bf16+compiled+cut] [--device cuda]

PYTHON has torch for CUDA and open_clip. Both sides have random pixels and texts of the same lengths in memory: no
loader, no decoding. --lengths: one token count per line, as `mode tokenize --lengths` prints for real captions, from
which a batch is drawn. Peers: bf16: autocast, as open_clip's --precision amp_bf16, and TF32 for GEMMs that stay f32, as
in open_clip's training; tf32; f32: neither; compiled: torch.compile (autotuned); cut: the context cut to the longest
text of the batch. AdamW is fused.

Ours trains with GEMM algorithms autotuned in the first step, as runs with train.algorithms do; --algorithms rule: as
runs without it; all: attention is autotuned, too, which runs cannot use. Encoding is always by rule. --no-savings: ours
computes padding and full last blocks. A round is as many steps as fill --seconds; the peer is synchronised at its end,
ours once a step, as in training. Wall time; clocks and power are logged with each round.
"""
import random
import statistics
import sys
import tempfile

import turns

SPREAD = 14  # text lengths are --tokens +- this, as in bench/cuda/cuda_bench.c
CONTEXT = 77


def peer(torch, open_clip, a, subject, how, config, pixels, ids):
    """A function that launches one training step, or encodes the batch."""
    device = turns.device(torch, a)
    turns.tf32(torch, "f32" not in how)
    torch.backends.cudnn.benchmark = True
    context = int((ids != 0).sum(1).max()) if "cut" in how else config["text_cfg"]["context_length"]
    model = open_clip.CLIP(**{**config, "text_cfg": {**config["text_cfg"], "context_length": context}}).to(device)
    x, y = pixels.to(device), ids[:, :context].contiguous().to(device)
    amp = torch.autocast(device, torch.bfloat16, enabled="bf16" in how)
    net = torch.compile(model, mode="max-autotune-no-cudagraphs") if "compiled" in how else model
    if subject == "encode":
        net = torch.compile(model.encode_image, mode="max-autotune-no-cudagraphs") if "compiled" in how else model.encode_image
        model.eval()

        def step():
            with torch.inference_mode(), amp:
                net(x, normalize=True).float().cpu()
        return step
    step = turns.training(torch, model, net, amp)
    return lambda: step(x, y)


def lengths_of(a, draw):
    """The token count of each text of the batch."""
    if not a.lengths:
        return [CONTEXT if a.tokens == CONTEXT else a.tokens + draw.randint(-SPREAD, SPREAD) for _ in range(a.batch)]
    with open(a.lengths) as f:
        counts = [int(line) for line in f]
    if not counts or not all(2 <= n <= CONTEXT for n in counts):
        sys.exit(f"{a.lengths}: expected a token count from 2 to {CONTEXT} in each line, as `mode tokenize --lengths` prints")
    return [draw.choice(counts) for _ in range(a.batch)]


def main():
    p = turns.arguments(__doc__)
    p.add_argument("subjects", nargs="*", default=["train", "encode"])
    p.add_argument("--config", default="ViT-B-32")
    p.add_argument("--batch", type=int, default=1024)
    p.add_argument("--tokens", type=int, default=22, help="mean length of texts; 77: no padding")
    p.add_argument("--lengths", help="instead: a file with one token count per line")
    p.add_argument("--algorithms", default="products", choices=["products", "rule", "all"], help="what ours autotunes: GEMMs, nothing, or attention, too")
    p.add_argument("--no-savings", action="store_true", help="ours computes padding and full last blocks")
    p.add_argument("--backend", default="cuda-bf16")
    p.add_argument("--peers", default="bf16,bf16+compiled,bf16+compiled+cut")
    turns.device_argument(p, "cuda")
    a = p.parse_args()
    torch = turns.begin(a)
    wait = turns.waiting(torch, a)
    turns.device(torch, a)
    import open_clip
    config = open_clip.get_model_config(a.config)
    size, draw = config["vision_cfg"]["image_size"], random.Random(1)
    pixels = 4 * torch.rand(a.batch, 3, size, size) - 2
    lengths = lengths_of(a, draw)
    ids = torch.zeros(a.batch, CONTEXT, dtype=torch.long)
    for row, n in zip(ids, lengths):
        row[:n] = torch.tensor([49406] + [draw.randrange(1, 49406) for _ in range(n - 2)] + [49407])
    clocks = turns.Clocks()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.writelines(f"{n}\n" for n in lengths)
        f.flush()
        for subject in a.subjects:
            by = "rule" if subject == "encode" else a.algorithms
            cmd = [a.mode, subject, "--config", a.config, "--backend", a.backend, "--batch", str(a.batch), "--lengths", f.name]
            cmd += {"rule": [], "products": ["--measure-products"], "all": ["--measure"]}[by]
            cmd += ["--no-savings"] if a.no_savings else []
            tuned = {"rule": "by rule", "products": "GEMMs autotuned", "all": "GEMMs and attention autotuned"}[by]
            what = (f"{subject} {a.config}, batch {a.batch}, {statistics.mean(lengths):.1f} tokens per text, {a.backend}, "
                    f"ours: {tuned}{', nothing saved' if a.no_savings else ''}")
            for how in a.peers.split(","):  # one at a time: each holds weights, gradients and moments
                if subject == "encode" and "cut" in how:
                    continue
                turns.compare(what, cmd, {f"open_clip, {how}": peer(torch, open_clip, a, subject, how.split("+"), config,
                                                                     pixels, ids)}, a.batch, a.rounds, a.threads, clocks,
                              a.seconds, wait)
                torch.cuda.empty_cache()
    clocks.close()


if __name__ == "__main__":
    main()
