"""make_width_goldens.py - writes tests/golden/widths/*.safetensors: features, loss and gradients, in double precision by
open_clip and PyTorch, of CLIP towers of published widths, and the vectors of a BERT of base width by transformers.

    $(tests/golden/venv.sh) tests/golden/make_width_goldens.py

Models of this width do not fit into the repository, so their weights and inputs are generated (counted.py). Of each
gradient the norm and PROBES entries at generated places are stored.
tests/golden/test_widths.c compares.
"""
import json
import pathlib

import numpy as np
import torch
from counted import fill, numbers, step
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

HERE = pathlib.Path(__file__).parent / "widths"
PROBES = 256


def clip(name, cfg, lengths):
    image, text, loss, grads = step(cfg, lengths)
    out = {"n_ids": torch.tensor(lengths, dtype=torch.int32), "loss": loss.reshape(1), "image": image.float(),
           "text": text.float()}
    for key, g in grads.items():
        places = (numbers("probe." + key, PROBES) % np.uint64(g.numel())).astype(np.int64)
        out["probes." + key] = g[torch.tensor(places)].float()
        out["norm." + key] = g.norm().reshape(1)
    save_file(out, HERE / f"{name}.safetensors", {"model_cfg": json.dumps(cfg), "torch": torch.__version__})
    print(name, loss.item(), sum(g.numel() for g in grads.values()), "parameters")


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
