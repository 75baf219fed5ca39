"""make_tower_goldens.py - writes tests/golden/towers.safetensors: open_clip's results for small models of every kind, in
double precision, and the statistics of its initial weights.

    $(tests/golden/venv.sh) tests/golden/make_tower_goldens.py

- KINDS random configurations of all options (those of check_towers.py), and every way to find a text's pooled token, on
  texts where it is in an unusual place: features, loss, and for each gradient its norm and its inner product with random
  numbers. Weights and inputs are generated (counted.py).
- for new models, per parameter over DRAWS of them: mean, standard deviation and kurtosis (3: normal, 1.8: uniform; 0: a
  constant).
tests/golden/test_towers.c compares.
"""
import json
import pathlib
import random

import torch
from check_towers import small
from counted import made, step, uniform
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "towers.safetensors"
KINDS, DRAWS = 12, 200

VISION = {"image_size": 8, "patch_size": 4, "width": 24, "layers": 2, "head_width": 8}
TEXT = {"context_length": 8, "vocab_size": 6, "width": 20, "heads": 2, "layers": 2}
ODD = [{"text_cfg": {"pool_type": "eos", "eos_id": 3}},  # in the middle, twice, and not at all
       {"text_cfg": {"pool_type": "eos", "eos_id": 0}},  # the padding id: absent from a text that fills the context
       {"text_cfg": {"pool_type": "eos", "eos_id": 0, "no_causal_mask": True}},
       {"text_cfg": {"pool_type": "argmax"}},  # the highest id more than once
       {"text_cfg": {"pool_type": "last", "no_causal_mask": True, "act_kwargs": {"approximate": "tanh"},
                     "norm_kwargs": {"eps": 1e-2}}, "vision_cfg": {"norm_kwargs": {"eps": 3e-2}}}]
DRAWN = [{}, {"quick_gelu": True, "vision_cfg": {"ls_init_value": 0.1, "mlp_ratio": 2.5},
              "text_cfg": {"proj_bias": True, "ls_init_value": 0.2, "mlp_ratio": 3.0}},
         {"custom_text": True, "init_logit_scale": 1.5, "nonscalar_logit_scale": True,
          "vision_cfg": {"no_ln_pre": True, "pool_type": "avg"}}]


def with_options(options):
    return {"embed_dim": 12, **options, "vision_cfg": VISION | options.get("vision_cfg", {}),
            "text_cfg": TEXT | options.get("text_cfg", {})}


def compare(k, cfg, odd, out, meta):
    context = cfg["text_cfg"]["context_length"]
    lengths = [context, 1, (context + 1) // 2, context - 1, context]
    image, text, loss, grads = step(cfg, lengths, odd)
    sums = [[float(g.norm()), float((g * torch.tensor(uniform("sum." + key, g.numel(), 1.0))).sum())]
            for key, g in sorted(grads.items())]
    out[f"{k}.n_ids"] = torch.tensor(lengths, dtype=torch.int32)
    out[f"{k}.image"], out[f"{k}.text"], out[f"{k}.loss"] = image.float(), text.float(), loss.reshape(1)
    out[f"{k}.grads"] = torch.tensor(sums, dtype=torch.float64)
    meta[f"{'odd' if odd else 'kind'}.{k}"] = json.dumps(cfg)
    least = min(s[0] / len(grads[key]) ** 0.5 for s, key in zip(sums, sorted(grads)))
    print(k, f"loss {loss.item():.4f}, {len(grads)} gradients, the smallest {least:.1e};", cfg)


def draw(k, cfg, out, meta):
    seen = {}
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        for key, p in made(cfg).named_parameters():
            seen.setdefault(key, []).append(p.detach().double().reshape(-1))
    rows = []
    for key, parts in sorted(seen.items()):
        x = torch.cat(parts)
        d = x - x.mean()
        v = float((d ** 2).mean())
        same = bool((x == x[0]).all())
        rows.append([float(x[0] if same else x.mean()), 0 if same else v**0.5, 0 if same else float((d**4).mean()) / v**2])
    out[f"drawn.{k}"] = torch.tensor(rows, dtype=torch.float64)
    meta[f"drawn.{k}"], meta["draws"] = json.dumps(cfg), str(DRAWS)


def main():
    r, out, meta = random.Random(21), {}, {"torch": torch.__version__}
    for k in range(KINDS):
        compare(k, small(r), False, out, meta)
    for k, options in enumerate(ODD):
        compare(KINDS + k, with_options(options), True, out, meta)
    for k, options in enumerate(DRAWN):
        draw(k, with_options(options), out, meta)
    save_file(out, OUT, meta)
    print(OUT, OUT.stat().st_size, "bytes")


main()
