"""make_width_goldens.py - writes tests/golden/widths/*.safetensors: features, loss and gradients, in double precision by
open_clip and PyTorch, of CLIP towers of published widths, and the vectors of a BERT of base width by transformers.

    $(tests/golden/venv.sh) tests/golden/make_width_goldens.py

Models of this width do not fit into the repository, so their weights and inputs are not stored but counted out: entry i
of the tensor called NAME comes from number i of the generator of common/base/rng.h for (SEED, test, FNV-1a of NAME), the
same float on both sides. Of the gradients the norm and PROBES entries at places drawn in the same way are kept.
tests/golden/test_widths.c compares.
"""
import json
import pathlib

import numpy as np
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

HERE = pathlib.Path(__file__).parent / "widths"
SEED, PURPOSE, PROBES = 20, 99, 256


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
    """Floats in [-scale, scale), scale a power of two: exact."""
    return ((numbers(name, n) >> np.uint64(8)).astype(np.float64) - 2.0**23) * 2.0**-23 * scale


def weight(name, shape):
    """Matrices keep the size of what goes through them, norms are about 1."""
    n = int(np.prod(shape))
    if len(shape) == 0:
        return torch.tensor(2.625, dtype=torch.float64)
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
            p.copy_(weight(name, tuple(p.shape)))
    return model


def clip(name, cfg, lengths):
    quick = cfg.get("quick_gelu", False)
    model = fill(CLIP(cfg["embed_dim"], CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"]), quick_gelu=quick))
    model.train()
    model.attn_mask = model.attn_mask.double()
    n, side = len(lengths), cfg["vision_cfg"]["image_size"]
    context, vocab = cfg["text_cfg"]["context_length"], cfg["text_cfg"]["vocab_size"]
    pixels = torch.tensor(uniform("pixels", n * 3 * side * side, 2.0).reshape(n, 3, side, side))
    ids = torch.tensor((numbers("ids", n * context) % np.uint64(vocab - 2) + np.uint64(1)).astype(np.int64).reshape(n, context))
    for row, k in zip(ids, lengths):
        row[k - 1] = vocab - 1
        row[k:] = 0
    image, text, scale = model(pixels, ids)
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    out = {"n_ids": torch.tensor(lengths, dtype=torch.int32), "loss": loss.detach().reshape(1),
           "image": image.detach().float(), "text": text.detach().float()}
    for key, p in model.named_parameters():
        g = p.grad.reshape(-1)
        places = (numbers("probe." + key, PROBES) % np.uint64(g.numel())).astype(np.int64)
        out["probes." + key] = g[torch.tensor(places)].float()
        out["norm." + key] = g.norm().reshape(1)
    save_file(out, HERE / f"{name}.safetensors", {"model_cfg": json.dumps(cfg), "torch": torch.__version__})
    print(name, loss.item(), sum(p.numel() for p in model.parameters()), "parameters")


def bert(name, lengths):
    cfg = {"model_type": "bert", "vocab_size": 31, "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 2,
           "intermediate_size": 3072, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
           "hidden_act": "gelu"}
    kept = {k: v for k, v in cfg.items() if k != "model_type"}
    model = fill(BertModel(BertConfig(attn_implementation="eager", **kept))).eval()
    letters = numbers("letters", 64 * len(lengths)).reshape(len(lengths), 64) % np.uint64(26) + np.uint64(5)
    rows = {"pooler": [], "cls": [], "mean": []}
    for i, k in enumerate(lengths):  # [CLS], letters, [SEP]
        with torch.no_grad():
            o = model(input_ids=torch.tensor([[2, *letters[i, :k - 2].astype(np.int64).tolist(), 3]]))
        rows["pooler"].append(o.pooler_output[0])
        rows["cls"].append(o.last_hidden_state[0, 0])
        rows["mean"].append(o.last_hidden_state[0].mean(0))
    out = {k: torch.nn.functional.normalize(torch.stack(v), dim=1).float() for k, v in rows.items()}
    out["n_ids"] = torch.tensor(lengths, dtype=torch.int32)
    shapes = "".join(f"{key} {p.ndim} {p.shape[0]} {p.shape[1] if p.ndim > 1 else 1}\n" for key, p in model.named_parameters())
    save_file(out, HERE / f"{name}.safetensors", {"config": json.dumps(cfg), "shapes": shapes})
    print(name, sum(p.numel() for p in model.parameters()), "parameters")


HERE.mkdir(exist_ok=True)
clip("ViT-B-32", {"embed_dim": 512,
                  "vision_cfg": {"image_size": 224, "layers": 2, "width": 768, "patch_size": 32},
                  "text_cfg": {"context_length": 77, "vocab_size": 400, "width": 512, "heads": 8, "layers": 2}}, [77, 9, 31, 2])
clip("ViT-L-14", {"embed_dim": 768, "quick_gelu": True,
                  "vision_cfg": {"image_size": 224, "layers": 1, "width": 1024, "patch_size": 14},
                  "text_cfg": {"context_length": 77, "vocab_size": 400, "width": 768, "heads": 12, "layers": 1}}, [12, 77])
bert("bert-base", [64, 3, 17, 40, 9])
