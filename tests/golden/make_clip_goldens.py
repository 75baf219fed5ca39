"""make_clip_goldens.py - writes tests/golden/clip_gradients/<variant>/: tiny CLIP models, and their features, loss
and gradients on one batch as open_clip and PyTorch compute them in double precision. Those with patch dropout have the
features of evaluation, and loss and gradients of training, where PatchDropout keeps the patches that ours keeps.

    $(tests/golden/venv.sh) tests/golden/make_clip_goldens.py

Weights are larger than open_clip's initial ones, so that every gradient is well above the noise.
tests/golden/test_clip_gradients.c compares.
"""
import json
import pathlib

import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "clip_gradients"
CONTEXT, VOCAB, SIDE, PAIRS = 9, 19, 8, 5
PATCH_SEED, PLACE = 77, 1000 * 256 + 3  # of the draws: the training's seed, the first pair's place


def config(quick, vision=None):
    cfg = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 8, "patch_size": 4, "head_width": 4},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCAB, "width": 12, "heads": 3, "layers": 2},
    }
    cfg["vision_cfg"] |= vision or {}
    return cfg | {"quick_gelu": True} if quick else cfg


def philox(seed, purpose, a, b):
    """The numbers of common/base/rng.c, 64 bits each."""
    low = 0xFFFFFFFF
    block = 0
    while True:
        c = [block, a & low, b & low, (b >> 32) & 0xFFFF | purpose << 16]
        k = [seed & low, seed >> 32]
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(q >> 32) ^ c[1] ^ k[0], q & low, (p >> 32) ^ c[3] ^ k[1], p & low]
            k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
        yield c[0] << 32 | c[1]
        yield c[2] << 32 | c[3]
        block += 1


def drawn(n, patches, place):
    """Which n patches are kept: common/models/patch_dropout.c."""
    numbers, kept = philox(PATCH_SEED, 9, 0, place), []
    for i in range(patches):
        if len(kept) < n and next(numbers) % (patches - i) < n - len(kept):
            kept.append(i)
    return kept


def forced(kept):
    """A stand-in for torch.randn: PatchDropout keeps the patches with the largest numbers."""
    def randn(pairs, patches, **_):
        rand = -1 - torch.rand(pairs, patches)
        for row, patch in zip(rand, kept):
            row[patch] = torch.rand(len(patch))
        return rand
    return randn


def make(variant, quick, seed, vision=None, kept=None):
    torch.manual_seed(seed)
    cfg = config(quick, vision)
    side = cfg["vision_cfg"]["image_size"]
    model = CLIP(cfg["embed_dim"], CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"]),
                 quick_gelu=quick)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    weights = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    pixels = torch.randn(PAIRS, 3, side, side)
    n_ids = torch.tensor([2, CONTEXT, 5, 1, 7], dtype=torch.int32)
    ids = torch.zeros(PAIRS, CONTEXT, dtype=torch.int32)
    for row, n in zip(ids, n_ids.tolist()):
        row[: n - 1] = torch.randint(1, VOCAB - 1, (n - 1,))
        row[n - 1] = VOCAB - 1
    model = model.double().eval()
    with torch.no_grad():
        image, text, _ = model(pixels.double(), ids.long())
    randn = torch.randn
    if kept:
        torch.randn = forced(kept)
    features = model.train()(pixels.double(), ids.long())
    torch.randn = randn
    loss = ClipLoss()(*features)
    loss.backward()
    out = {"pixels": pixels, "ids": ids, "n_ids": n_ids, "loss": loss.detach().reshape(1),
           "image": image.detach().float(), "text": text.detach().float()}
    if kept:
        out["kept"] = torch.tensor(kept, dtype=torch.int32)
    for name, p in model.named_parameters():
        out["grad." + name] = p.grad.float().contiguous()
    folder = HERE / variant
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {}}, indent=2) + "\n")
    save_file(weights, folder / "open_clip_model.safetensors", {"format": "pt"})
    save_file(out, folder / "step.safetensors", {"torch": torch.__version__})
    print(variant, loss.item(), sum(p.numel() for p in model.parameters()), "parameters")


make("gelu", False, 1)
make("quick_gelu", True, 2)
# 4 of 9 patches are kept, and 1 of 9
make("patch_dropout", False, 3, {"image_size": 12, "patch_dropout": 0.5},
     [drawn(4, 9, PLACE + i) for i in range(PAIRS)])
make("patch_dropout_mean", True, 4, {"image_size": 12, "patch_dropout": 0.9, "pool_type": "avg", "no_ln_pre": True,
                                     "ls_init_value": 0.5}, [drawn(1, 9, PLACE + i) for i in range(PAIRS)])
