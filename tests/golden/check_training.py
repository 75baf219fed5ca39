"""Does training go as in open_clip's own trainer on the same batches?

    $(tests/golden/venv.sh) tests/golden/check_training.py build/bin DEMO [ten] [curve]

DEMO: the folder of a finished `make demo`, or any folder with data/train/*.tar and models/bpe_simple_vocab_16e6.txt.gz.
Pictures and captions of its first shards are preprocessed once; both sides get the same tensors, the same initial
weights, the same order. Their side is open_clip_train.train.train_one_epoch with its cosine schedule and AdamW groups,
ours `mode-test-clip-steps`, which runs the steps of `mode train`.

ten    ten steps at a high learning rate, plain, with gradient clipping, and with gradient accumulation over two pieces
       (open_clip's own, with its gradient of the logit scale corrected, which it counts once per piece): every loss
       within 1e-4 relative, and no further from open_clip's trainer in float64 than twice open_clip in float32 (+ 1e-6).
curve  1000 steps, open_clip with three seeds (initial weights and order), losses averaged over windows of 50 steps:
       ours, with the weights and order of seed 0, stays as close to that run as the three seeds are to one another
       (their range, window by window); ours with our own initial weights stays within three standard deviations of
       the three seeds' mean.
"""
import glob
import io
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import types

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch
from PIL import Image
from safetensors.torch import load_file, save_file

CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PAIRS, BATCH = 4096, 64
BETAS, EPS, WD = (0.9, 0.98), 1e-6, 0.2


def pairs(demo, context, size):
    """The first PAIRS pictures and captions, preprocessed with open_clip's evaluation transform."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=context)
    transform = open_clip.image_transform(size, is_train=False)
    pixels, texts, entry = [], [], {}
    tars = sorted(glob.glob(os.path.join(demo, "data", "train", "**", "*.tar"), recursive=True))
    for path in tars:
        with tarfile.open(path) as tar:
            for m in tar:
                key, ext = os.path.splitext(m.name)
                if entry.get("key") != key:
                    entry = {"key": key}
                entry[ext] = tar.extractfile(m).read()
                if ".txt" not in entry and ".json" in entry:
                    j = json.loads(entry[".json"])
                    caption = j.get("caption") or (j.get("texts") or [None])[0]
                    if caption:
                        entry[".txt"] = caption.encode()
                image = next((entry[e] for e in (".jpg", ".png", ".webp") if e in entry), None)
                if image and ".txt" in entry and not entry.get("done"):
                    entry["done"] = True
                    pixels.append(transform(Image.open(io.BytesIO(image)).convert("RGB")))
                    texts.append(entry[".txt"].decode("utf-8", "replace"))
                    if len(texts) == PAIRS:
                        break
        if len(texts) == PAIRS:
            break
    ids = tokenizer(texts).to(torch.int32)
    return torch.stack(pixels), ids, (ids.argmax(dim=1) + 1).to(torch.int32)


def model_of(seed):
    torch.manual_seed(seed)
    return CLIP(CONFIG["embed_dim"], CLIPVisionCfg(**CONFIG["vision_cfg"]), CLIPTextCfg(**CONFIG["text_cfg"]),
                output_dict=True)


def order_of(n, steps, seed):
    g = torch.Generator().manual_seed(1000 + seed)
    rows = torch.cat([torch.randperm(n, generator=g)[: n // BATCH * BATCH] for _ in range(steps * BATCH // n + 1)])
    return rows[: steps * BATCH].reshape(steps, BATCH).to(torch.int32)


class Loader(list):
    """Batches, as open_clip's trainer expects them."""

    def __init__(self, pixels, ids, order, pieces):
        super().__init__((pixels[o.long()], ids[o.long()].long()) for row in order for o in row.chunk(pieces))
        self.num_batches, self.num_samples = len(self), order.numel()


def theirs(model, pixels, ids, order, lr, warmup, clip=None, pieces=1, dtype=torch.float32):
    """Losses of open_clip's trainer."""
    losses = []
    if dtype == torch.float64:
        model, pixels = model.double(), pixels.double()
        model.attn_mask = model.attn_mask.double()
    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if exclude(n, p)], "weight_decay": 0.0},
                                   {"params": [p for n, p in named if not exclude(n, p)], "weight_decay": WD}],
                                  lr=lr, betas=BETAS, eps=EPS)
    args = types.SimpleNamespace(
        device="cpu", precision="fp32" if dtype == torch.float32 else "fp64", distill=False, accum_freq=pieces,
        skip_scheduler=False, horovod=False, grad_clip_norm=clip, rank=0, local_rank=0, world_size=1,
        batch_size=BATCH // pieces, log_every_n_steps=1, log_local=False, wandb=False)
    if pieces > 1:  # its accumulation adds the gradient of the logit scale once per piece: too large by that factor
        model.logit_scale.register_hook(lambda g: g / pieces)
    loader = Loader(pixels, ids, order, pieces)
    if dtype == torch.float64:
        loader[:] = [(a.double(), b) for a, b in loader]
    data = {"train": types.SimpleNamespace(set_epoch=lambda e: None, dataloader=loader)}
    writer = types.SimpleNamespace(add_scalar=lambda k, v, step: losses.append(v) if k == "train/loss" else None)
    import open_clip_train.train as trainer
    trainer.get_input_dtype = lambda precision: dtype
    train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None,
                    cosine_lr(optimizer, lr, warmup, len(order)), None, args, writer)
    assert len(losses) == len(order)
    return np.array(losses)


def ours(bins, tmp, model, pixels, ids, n_ids, order, lr, warmup, **options):
    folder = os.path.join(tmp, "model")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "open_clip_config.json"), "w") as f:
        json.dump({"model_cfg": CONFIG, "preprocess_cfg": {}}, f)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              os.path.join(folder, "open_clip_model.safetensors"))
    inputs, outputs = os.path.join(tmp, "in.safetensors"), os.path.join(tmp, "out.safetensors")
    save_file({"pixels": pixels, "ids": ids, "n_ids": n_ids, "order": order}, inputs)
    words = dict(lr=lr, warmup=warmup, wd=WD, beta1=BETAS[0], beta2=BETAS[1], eps=EPS, weights=0,
                 threads=torch.get_num_threads(), **options)
    subprocess.run([os.path.join(bins, "mode-test-clip-steps"), folder, inputs, outputs,
                    *(f"{k}={v!r}" for k, v in words.items())], check=True)
    return load_file(outputs)["losses"].numpy()


def ten(bins, data, tmp):
    pixels, ids, n_ids = data
    order, good = order_of(len(pixels), 10, 5), True
    for what, lr, clip, pieces in (("plain", 1e-3, None, 1), ("clipped", 1e-3, 0.5, 1), ("accumulated", 1e-3, 0.5, 2)):
        a = theirs(model_of(5), pixels, ids, order, lr, 2, clip, pieces)
        exact = theirs(model_of(5), pixels, ids, order, lr, 2, clip, pieces, torch.float64)
        for name, more in (("", {}), (", in 4 pieces, checkpointed", {"pieces": 4, "checkpoint": 1}),
                           (", dense", {"dense": 1, "full": 1})):
            b = ours(bins, tmp, model_of(5), pixels, ids, n_ids, order, lr, 2, clip=clip or 0.0,
                     **({"pieces": pieces} | more))
            apart, e_a, e_b = (np.abs(x / y - 1).max() for x, y in ((b, a), (a, exact), (b, exact)))
            ok = apart <= 1e-4 and e_b <= 2 * e_a + 1e-6
            good &= bool(ok)
            print(f"ten steps, {what}{name}: loss {a[0]:.4f} to {a[-1]:.4f}, largest difference {apart:.1e}; from "
                  f"float64 ours {e_b:.1e}, open_clip {e_a:.1e}: {'agree' if ok else 'DISAGREE'}", flush=True)
    return good


def curve(bins, data, tmp, steps=1000, window=50):
    pixels, ids, n_ids = data
    lr, warmup, smooth = 1e-3, 100, lambda x: x.reshape(-1, window).mean(1)
    runs = []
    for seed in range(3):
        runs.append(smooth(theirs(model_of(seed), pixels, ids, order_of(len(pixels), steps, seed), lr, warmup)))
        print(f"open_clip, seed {seed}: {' '.join(f'{x:.3f}' for x in runs[-1])}", flush=True)
    same = smooth(ours(bins, tmp, model_of(0), pixels, ids, n_ids, order_of(len(pixels), steps, 0), lr, warmup))
    print(f"ours, seed 0's:    {' '.join(f'{x:.3f}' for x in same)}", flush=True)
    own = smooth(ours(bins, tmp, model_of(0), pixels, ids, n_ids, order_of(len(pixels), steps, 3), lr, warmup, init=3))
    print(f"ours, own weights: {' '.join(f'{x:.3f}' for x in own)}", flush=True)
    runs = np.array(runs)
    spread = runs.max(0) - runs.min(0)
    deviation = math.sqrt(float(runs.var(0, ddof=1).mean()))
    near, far = np.abs(same - runs[0]) / spread, np.abs(own - runs.mean(0)) / deviation
    good = bool((near <= 1).all() and (far <= 3).all())
    print(f"ours from seed 0: at most {near.max():.2f} of the seeds' range away from open_clip's run, mean "
          f"{near.mean():.2f}; own weights: at most {far.max():.2f} standard deviations from the seeds' mean: "
          f"{'inside' if good else 'OUTSIDE'}")
    return good


def main(bins, demo, *what):
    torch.set_num_threads(int(os.environ.get("MODE_THREADS", "1")))
    data = pairs(demo, CONFIG["text_cfg"]["context_length"], CONFIG["vision_cfg"]["image_size"])
    print(f"{len(data[0])} pairs, texts of {float(data[2].float().mean()):.1f} tokens")
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        if not what or "ten" in what:
            good &= ten(bins, data, tmp)
        if not what or "curve" in what:
            good &= curve(bins, data, tmp)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
