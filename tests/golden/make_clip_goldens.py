"""make_clip_goldens.py - writes tests/golden/clip_gradients/<variant>/: two tiny CLIP models, and their features, loss
and gradients on one batch as open_clip and PyTorch compute them in double precision.

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


def config(quick):
    cfg = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 8, "patch_size": 4, "head_width": 4},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCAB, "width": 12, "heads": 3, "layers": 2},
    }
    return cfg | {"quick_gelu": True} if quick else cfg


def make(variant, quick, seed):
    torch.manual_seed(seed)
    cfg = config(quick)
    model = CLIP(cfg["embed_dim"], CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"]),
                 quick_gelu=quick)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    weights = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    pixels = torch.randn(PAIRS, 3, SIDE, SIDE)
    n_ids = torch.tensor([2, CONTEXT, 5, 1, 7], dtype=torch.int32)
    ids = torch.zeros(PAIRS, CONTEXT, dtype=torch.int32)
    for row, n in zip(ids, n_ids.tolist()):
        row[: n - 1] = torch.randint(1, VOCAB - 1, (n - 1,))
        row[n - 1] = VOCAB - 1
    model = model.double().train()
    image, text, scale = model(pixels.double(), ids.long())
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    out = {"pixels": pixels, "ids": ids, "n_ids": n_ids, "loss": loss.detach().reshape(1),
           "image": image.detach().float(), "text": text.detach().float()}
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
