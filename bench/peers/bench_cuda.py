"""`cuda-bench train|encode` (make cuda-bench builds it) against open_clip on the same GPU, in turns.

    PYTHON bench/peers/bench_cuda.py build-cuda/cuda-bench [train] [encode] [--config ViT-B-32] [--batch 1024]
        [--tokens 22] [--fixed] [--backend cuda-bf16] [--peers bf16,bf16+compiled,bf16+compiled+cut] [--device cuda]

PYTHON has torch for CUDA and open_clip. Both sides have random pixels and texts of the same lengths in memory: no
loader, no decoding. Peers: bf16 or tf32 products (autocast, as open_clip's --precision amp_bf16), compiled by
torch.compile (autotuned), cut: the context cut to the longest text of the batch, as its length buckets do; fused AdamW.
Ours chooses its algorithms by the clock in the first step too (--measure); --fixed: by rule, as runs without
train.algorithms do. A round is one step on either side; wall time, the device waited for. Clocks and power are logged
with each round.
"""
import random
import statistics
import tempfile

import turns

SPREAD = 14  # of text lengths around --tokens, as in bench/cuda/cuda_bench.c


def peer(torch, open_clip, a, subject, how, config, pixels, ids):
    """A function that does one round and waits for the device."""
    from open_clip.loss import ClipLoss
    device, wait = turns.device(torch, a), turns.waiting(torch, a)
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
    opt = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=True)
    loss_of = ClipLoss()

    def step():
        with amp:
            loss = loss_of(*net(x, y)[:3])
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        wait()
    return step


def main():
    p = turns.arguments(__doc__)
    p.add_argument("subjects", nargs="*", default=["train", "encode"])
    p.add_argument("--config", default="ViT-B-32")
    p.add_argument("--batch", type=int, default=1024)
    p.add_argument("--tokens", type=int, default=22, help="mean length of texts; 77: no padding")
    p.add_argument("--fixed", action="store_true", help="ours with algorithms that do not depend on the clock")
    p.add_argument("--backend", default="cuda-bf16")
    p.add_argument("--peers", default="bf16,bf16+compiled,bf16+compiled+cut")
    turns.device_argument(p, "cuda")
    p.set_defaults(threads=turns.processors())
    a = p.parse_args()
    torch = turns.begin(a)
    turns.device(torch, a)
    import open_clip
    config = open_clip.get_model_config(a.config)
    size, draw = config["vision_cfg"]["image_size"], random.Random(1)
    pixels = 4 * torch.rand(a.batch, 3, size, size) - 2
    lengths = [77 if a.tokens == 77 else a.tokens + draw.randint(-SPREAD, SPREAD) for _ in range(a.batch)]
    ids = torch.zeros(a.batch, 77, dtype=torch.long)
    for row, n in zip(ids, lengths):
        row[:n] = torch.tensor([49406] + [draw.randrange(1, 49406) for _ in range(n - 2)] + [49407])
    clocks = turns.Clocks()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.writelines(f"{n}\n" for n in lengths)
        f.flush()
        for subject in a.subjects:
            cmd = [a.mode, subject, "--config", a.config, "--backend", a.backend, "--batch", str(a.batch), "--tokens",
                   str(a.tokens)] + (["--lengths", f.name] if a.tokens != 77 else []) + ([] if a.fixed else ["--measure"])
            what = f"{subject} {a.config}, batch {a.batch}, {statistics.mean(lengths):.1f} tokens a text, {a.backend}"
            for how in a.peers.split(","):  # one at a time: each holds weights, gradients and moments
                if subject == "encode" and "cut" in how:
                    continue
                turns.compare(what, cmd, {f"open_clip, {how}": peer(torch, open_clip, a, subject, how.split("+"), config,
                                                                     pixels, ids)}, a.batch, a.rounds, a.threads, clocks)
                torch.cuda.empty_cache()
    clocks.close()


if __name__ == "__main__":
    main()
