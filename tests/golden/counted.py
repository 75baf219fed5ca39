"""counted.py - models whose weights and inputs are not stored but generated: entry i of the tensor called NAME comes from
number i of the counter-based generator of common/base/rng.h for (SEED, test, FNV-1a of NAME), the same float on both
sides; tests/counted.h is the other side. step() is open_clip's step on such a model, in double precision.
"""
import numpy as np
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

SEED, PURPOSE = 20, 99


def numbers(name, n):
    """The first n of mode_rng_u32: Philox 4x32-10, key SEED, counter (block, FNV-1a of name, 0, purpose)."""
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    low = np.uint64(0xFFFFFFFF)
    block = np.arange((n + 3) // 4, dtype=np.uint64)
    c = [block, np.full_like(block, h), np.zeros_like(block), np.full_like(block, PURPOSE << 16)]
    k = [SEED, 0]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), p1 & low,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, 1).reshape(-1)[:n]


def uniform(name, n, scale):
    """Floats in [-scale, scale), exact, since scale is a power of two."""
    return ((numbers(name, n) >> np.uint64(8)).astype(np.float64) - 2.0**23) * 2.0**-23 * scale


def weight(name, shape):
    """Matrices roughly preserve the scale of their inputs, norm weights are about 1."""
    n = int(np.prod(shape))
    if name == "logit_scale":
        return torch.full(shape, 2.625, dtype=torch.float64)
    if len(shape) == 1:
        x = uniform(name, n, 0.25) + (1.0 if name.endswith(".weight") else 0.0)
    else:
        scale = 1.0
        while scale * scale * (n // shape[0]) > 4:
            scale /= 2
        x = uniform(name, n, scale)
    return torch.tensor(x.reshape(shape))


def fill(model):
    model = model.double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(weight(name, tuple(p.shape)))
    return model


def made(cfg):
    """open_clip's model of a model_cfg."""
    kind = CustomTextCLIP if cfg.get("custom_text") else CLIP
    rest = {k: v for k, v in cfg.items() if k not in ("custom_text", "vision_cfg", "text_cfg")}
    return kind(vision_cfg=CLIPVisionCfg(**cfg["vision_cfg"]), text_cfg=CLIPTextCfg(**cfg["text_cfg"]), **rest)


def exact_of(model):
    model = model.double()
    for module in model.modules():
        if getattr(module, "attn_mask", None) is not None:
            module.attn_mask = module.attn_mask.double()
    return model


def texts(cfg, lengths, odd):
    """The last token of each text is the highest id; odd: others may be, too."""
    context, vocab = cfg["text_cfg"]["context_length"], cfg["text_cfg"]["vocab_size"]
    ids = torch.tensor((numbers("ids", len(lengths) * context) % np.uint64(vocab - 1 if odd else vocab - 2)
                        + np.uint64(1)).astype(np.int64).reshape(len(lengths), context))
    for row, k in zip(ids, lengths):
        row[k - 1] = vocab - 1
        row[k:] = 0
    return ids


def step(cfg, lengths, odd=False):
    """The step's two features, loss, and gradients by name."""
    model = exact_of(fill(made(cfg))).train()
    n, side = len(lengths), np.max(cfg["vision_cfg"]["image_size"])
    pixels = torch.tensor(uniform("pixels", n * 3 * side * side, 2.0).reshape(n, 3, side, side))
    image, text, scale = model(pixels, texts(cfg, lengths, odd))[:3]
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    return image.detach(), text.detach(), loss.detach(), {k: p.grad.reshape(-1) for k, p in model.named_parameters()
                                                          if p.requires_grad}
