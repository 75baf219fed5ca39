"""make_verify_goldens.py - writes common/pipeline/verify_goldens.safetensors, what `mode verify` compares with.

    $(tests/golden/venv.sh) tests/golden/make_verify_goldens.py ~/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz

- tokens of texts, by open_clip's tokenizer;
- small pictures in several formats, and their pixels by open_clip's transform with Pillow;
- of tiny CLIPs of every kind: each stage of both towers, the loss and all gradients by PyTorch in float64. Their
  weights, pictures and texts come from a counter-based generator (common/base/rng.h), the same in Python and C.
"""
import io
import json
import pathlib
import sys

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parents[2] / "common/pipeline/verify_goldens.safetensors"
PURPOSE, SEED = 99, 2024
N_IDS = [3, 9, 1, 6, 2]

VARIANTS = [
    ("class token, QuickGELU", {"quick_gelu": True}, {}, {}),
    ("class token, GELU (erf)", {}, {}, {}),
    ("average pooling, layer scale, first token", {}, {"pool_type": "avg", "ls_init_value": 0.4},
     {"pool_type": "first", "ls_init_value": 0.3}),
    ("norm after average pooling, last token, linear projection", {"nonscalar_logit_scale": True},
     {"pool_type": "avg", "final_ln_after_pool": True}, {"pool_type": "last", "proj_bias": True}),
    ("GELU (tanh), no first norm, text without mask", {"custom_text": True},
     {"no_ln_pre": True, "act_kwargs": {"approximate": "tanh"}},
     {"no_causal_mask": True, "proj_type": "none", "norm_kwargs": {"eps": 1e-6}}),
    ("fixed positions, end token by id", {"init_logit_scale": 1.5}, {"pos_embed_type": "sin_cos_2d", "mlp_ratio": 0.7},
     {"pool_type": "eos", "eos_id": 22}),
]

TEXTS = [
    "a photo of a cat", "", "   spaces   everywhere   ", "A Photo Of A CAT", "don't can't we'll they're",
    "numbers 1234567890 and 3.14", "!!! ??? ... --- ___", "naïve café façade", "ÄÖÜ ß ẞ", "Привет, мир", "日本語のテキスト",
    "한국어 텍스트", "العربية", "עברית", "हिन्दी", "emoji 😀👍🏽👨‍👩‍👧", "&lt;b&gt;bold &amp;amp; more&lt;/b&gt;",
    "donâ€™t worry", "tabs\tand\u00a0no-break spaces", "supercalifragilisticexpialidocious" * 8, "x" * 300, "the " * 100,
    "C++ & C# vs. F#: 100% \"quoted\"", "https://example.org/a?b=c&d=e#f", "ﬁ ligature ½ ² ™", "I\u0307stanbul ıI",
    "<|startoftext|> a cat <|endoftext|>", "snow\u200bman \u2603", "a\u0301 e\u0301 decomposed", "MiXeD CaSe W0RD5",
]


def philox(key, ctr):
    """ctr uint32 [n, 4] -> [n, 4]"""
    c = [ctr[:, i].astype(np.uint64) for i in range(4)]
    k0, k1, mask = key & 0xFFFFFFFF, key >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
             p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).astype(np.uint32)


def uniform(name, n):
    """n numbers in [0, 1) of the item called name."""
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    blocks = (n + 1) // 2
    ctr = np.zeros((blocks, 4), np.uint32)
    ctr[:, 0], ctr[:, 1], ctr[:, 3] = np.arange(blocks), h, PURPOSE << 16
    out = philox(SEED, ctr).astype(np.uint64).reshape(-1, 2)
    return ((out[:, 0] << np.uint64(32) | out[:, 1]) >> np.uint64(11)).astype(np.float64)[:n] * 2.0**-53


def draw(name, shape):
    """A parameter: as in common/pipeline/verify.c."""
    n = int(np.prod(shape))
    gain = (name.endswith(".weight") and len(shape) == 1) or name.endswith(".gamma")
    if name == "logit_scale":
        return torch.tensor(np.float32(1.25)).reshape(shape)
    span = 0.3 if len(shape) < 2 else 2.0 / np.sqrt(n // shape[0] if len(shape) == 2 else n // shape[0])
    return torch.tensor(((1.0 if gain else 0.0) + span * (2 * uniform(name, n) - 1)).astype(np.float32)).reshape(shape)


def tiny(k, out, meta):
    name, root, vision, text = VARIANTS[k]
    cfg = {"embed_dim": 12, **root,
           "vision_cfg": {"image_size": 12, "patch_size": 4, "width": 16, "layers": 2, "head_width": 8, **vision},
           "text_cfg": {"context_length": 9, "vocab_size": 23, "width": 12, "heads": 3, "layers": 2, **text}}
    kind = CustomTextCLIP if cfg.get("custom_text") else CLIP
    rest = {a: b for a, b in root.items() if a != "custom_text"}
    model = kind(cfg["embed_dim"], CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"]), **rest)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(draw(n, tuple(p.shape)))
    model = model.double()
    for module in model.modules():
        if getattr(module, "attn_mask", None) is not None:
            module.attn_mask = module.attn_mask.double()
    b = len(N_IDS)
    pixels = torch.tensor((4 * uniform("pixels", b * 3 * 144) - 2).astype(np.float32)).reshape(b, 3, 12, 12).double()
    words = (1 + np.floor(uniform("ids", b * 9) * 21)).astype(np.int64).reshape(b, 9)
    ids = torch.zeros(b, 9, dtype=torch.long)
    for i, n in enumerate(N_IDS):
        ids[i, :n] = torch.tensor(words[i, :n])
        ids[i, n - 1] = 22
    tower = {"image": model.visual.transformer, "text": (model.text if "custom_text" in cfg else model).transformer}
    seen = {}
    for t, blocks in tower.items():
        blocks.resblocks[0].register_forward_pre_hook(lambda m, x, t=t: seen.__setitem__(f"{t}.x", x[0]))
        for i, block in enumerate(blocks.resblocks):
            block.register_forward_hook(lambda m, x, y, t=t, i=i: seen.__setitem__(f"{t}.block.{i}", y))
    with torch.no_grad():
        seen["image.features"], seen["text.features"] = model.encode_image(pixels), model.encode_text(ids)
    image, words_, scale = model(pixels, ids)[:3]
    loss = ClipLoss()(image, words_, scale)
    loss.backward()
    seen |= {"image.unit": image, "text.unit": words_, "loss": loss.reshape(1)}
    seen |= {"grad." + n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for key, v in seen.items():
        out[f"{k}.{key}"] = v.detach().float().contiguous()
    meta[f"config.{k}"] = json.dumps({"name": name, "model_cfg": cfg})


def pictures(out, meta):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:47, 0:61]
    base = np.stack([x * 4, y * 5, 255 - x * 2 - y], -1) + rng.integers(-25, 25, (47, 61, 3))
    rgb = Image.fromarray(base.clip(0, 255).astype(np.uint8))
    alpha = Image.fromarray(np.dstack([np.asarray(rgb), (x * 4).astype(np.uint8)]), "RGBA")
    made = [("png, colour", rgb, "PNG", {}), ("png, grey", rgb.convert("L"), "PNG", {}),
            ("png, palette", rgb.quantize(32), "PNG", {}), ("png, alpha", alpha, "PNG", {}),
            ("webp, lossless", rgb, "WEBP", {"lossless": True}),
            ("jpeg, 4:2:0", rgb, "JPEG", {"quality": 90, "subsampling": 2}),
            ("jpeg, progressive", rgb, "JPEG", {"quality": 85, "progressive": True, "subsampling": 0}),
            ("jpeg, grey", rgb.convert("L"), "JPEG", {"quality": 90})]
    for i, (name, image, kind, how) in enumerate(made):
        file = io.BytesIO()
        image.save(file, kind, **how)
        mode = ("shortest", "longest", "squash")[i % 3]
        cfg = open_clip.transform.PreprocessCfg(size=(24, 24), resize_mode=mode)
        transform = open_clip.transform.image_transform_v2(cfg, is_train=False)
        out[f"picture.{i}"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        out[f"picture.{i}.pixels"] = transform(Image.open(io.BytesIO(file.getvalue())).convert("RGB")).contiguous()
        meta[f"picture.{i}"] = f"{name}; {mode}"


def main(merges):
    out, meta = {}, {"texts": json.dumps(TEXTS), "torch": torch.__version__, "open_clip": open_clip.__version__}
    ids = open_clip.tokenizer.SimpleTokenizer(merges)(TEXTS).to(torch.int32)
    out["text.ids"], out["text.n"] = ids, (ids.argmax(1) + 1).to(torch.int32)
    pictures(out, meta)
    for k in range(len(VARIANTS)):
        tiny(k, out, meta)
    save_file(out, OUT, meta)
    print(OUT, OUT.stat().st_size, "bytes")


main(sys.argv[1])
