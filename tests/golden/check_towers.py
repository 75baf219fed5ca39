"""Are our towers open_clip's, for every configuration? Random weights, float64 as ground truth.

    $(tests/golden/venv.sh) tests/golden/check_towers.py build/bin [NAME ...]

Every plain ViT of open_clip by name, also with -quickgelu if open_clip has it (widths, heads, patch and image sizes as
published; layers cut to DEPTH where the full model would take too long, ViT-L-14 in full), and random small
configurations with every option of the two towers. For each: open_clip's model with random weights is written as a
folder, `mode-test-clip-steps` computes features, loss and every gradient of one batch, and so do open_clip in float32
and in float64. Required:
- features: 1 - cos <= 1e-6, and the error against float64 is at most 1.5 times that of open_clip in float32 (+ 2e-7);
- the loss is within 2e-6 relative;
- every gradient is within 2e-5 (1e-4 for tensors of less than two dimensions) in relative Frobenius norm, or within
  1.5 times open_clip's own error where cancellation leaves float32 no better.
BERT-family encoders likewise, against transformers in float64, for every kind of pooling.
MODE_BACKEND=cpu-amx etc. selects the backend.
"""
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
import open_clip
import torch
from counted import exact_of, made
from open_clip.loss import ClipLoss
from safetensors.torch import load_file, save_file

DEPTH = 3
WHOLE = {"ViT-S-32-alt", "ViT-B-32", "ViT-L-14"}
NEEDED = 2.0e-7
WORST = {}
OF_THIS = {}  # the same for the current model
RATIOS = []  # our error / that of open_clip in float32, for all gradients


def names():
    out = []
    for name in open_clip.list_models():
        cfg = open_clip.get_model_config(name)
        v, t = cfg["vision_cfg"], cfg["text_cfg"]
        plain = not (v.get("timm_model_name") or isinstance(v.get("layers"), list) or t.get("hf_model_name")
                     or t.get("hf_tokenizer_name") or "multimodal_cfg" in cfg)
        if plain:
            out.append(name)
    return sorted(out)


def randomised(model, seed):
    """Larger than initial weights, so that every gradient is well above the noise."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not p.requires_grad or name == "logit_scale":
                continue
            if p.ndim >= 2:
                p.add_(torch.randn(p.shape, generator=g) * 0.5 * p.std())
            else:
                p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return model


def batch_of(cfg, n, seed):
    g = torch.Generator().manual_seed(seed)
    t = cfg["text_cfg"]
    vocab, context = t.get("vocab_size", 49408), t.get("context_length", 77)
    size = cfg["vision_cfg"]["image_size"]
    size = size if isinstance(size, int) else size[0]
    pixels = torch.randn(n, 3, size, size, generator=g)
    n_ids = torch.randint(2, context + 1, (n,), generator=g, dtype=torch.int32)
    n_ids[0] = context
    ids = torch.zeros(n, context, dtype=torch.int32)
    for row, k in zip(ids, n_ids.tolist()):
        row[: k - 1] = torch.randint(1, vocab - 1, (k - 1,), generator=g)
        row[k - 1] = vocab - 1
    return pixels, ids, n_ids


def step(model, pixels, ids):
    model.train()
    image, text, scale = model(pixels, ids.long())[:3]
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    grads = {k: p.grad.detach().clone() for k, p in model.named_parameters() if p.requires_grad}
    for p in model.parameters():
        p.grad = None
    return image.detach().double(), text.detach().double(), loss.item(), grads


def error(x, exact):
    return float((x.double() - exact).norm() / max(float(exact.norm()), 1e-300))


def note(kind, value, limit, where):
    share = value / limit
    for worst in (WORST, OF_THIS):
        if share >= worst.get(kind, (0,))[0]:
            worst[kind] = (share, value, limit, where)


def compare(name, ours, exact, theirs):
    bad = []
    OF_THIS.clear()
    first = len(RATIOS)
    for i, what in enumerate(("image", "text")):
        cos = torch.nn.functional.cosine_similarity(ours[what].double(), exact[i], dim=1)
        away = float((1 - cos).max())
        e, e_theirs = error(ours[what], exact[i]), error(theirs[i], exact[i])
        note("1 - cos", max(away, 0), 1e-6, f"{name} {what}")
        note("features / open_clip fp32", e, 1.5 * e_theirs + NEEDED, f"{name} {what}")
        if away > 1e-6 or e > 1.5 * e_theirs + NEEDED:
            bad.append(f"{what}: 1 - cos {away:.1e}, {e:.2e} from float64, open_clip {e_theirs:.2e}")
    loss = float(ours["losses"][0])
    note("loss", abs(loss - exact[2]) / abs(exact[2]), 2e-6, name)
    if abs(loss - exact[2]) > 2e-6 * abs(exact[2]):
        bad.append(f"loss {loss} for {exact[2]}")
    for key, g in exact[3].items():
        e, e_theirs = error(ours["grad." + key].reshape(g.shape), g), error(theirs[3][key], g)
        limit = max(2e-5 if g.ndim >= 2 else 1e-4, 1.5 * e_theirs)
        if float(g.norm()) < 1e-9 * max(1, g.numel() ** 0.5) and float(ours["grad." + key].norm()) < 1e-6:
            continue  # zero up to rounding in both: a bias that the loss does not depend on, such as that of the keys
        note("gradients", e, limit, f"{name} {key}")
        RATIOS.append(e / max(e_theirs, 1e-9))
        if e > limit:
            bad.append(f"{key}: {e:.2e} (limit {limit:.1e}, open_clip {e_theirs:.2e})")
    said = [f"{OF_THIS[kind][1]:.1e}" if kind != "features / open_clip fp32" else f"{100 * OF_THIS[kind][0]:.0f} %"
            for kind in ("1 - cos", "features / open_clip fp32", "loss", "gradients")]
    return bad, "1 - cos {}, features {} of the limit, loss {}, gradients {}, ".format(*said) + \
        f"{np.median(RATIOS[first:]):.2f} of open_clip's error"


def check_clip(bins, name, cfg, n, seed, tmp, options=()):
    began = time.time()
    torch.manual_seed(seed)
    model = randomised(made(cfg), seed + 1)
    pixels, ids, n_ids = batch_of(cfg, n, seed + 2)
    folder = os.path.join(tmp, "model")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "open_clip_config.json"), "w") as f:
        json.dump({"model_cfg": cfg, "preprocess_cfg": {}}, f)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              os.path.join(folder, "open_clip_model.safetensors"))
    save_file({"pixels": pixels, "ids": ids, "n_ids": n_ids, "order": torch.arange(n, dtype=torch.int32)[None]},
              os.path.join(tmp, "in.safetensors"))
    theirs = step(model, pixels, ids)
    exact = step(exact_of(model), pixels.double(), ids)
    del model
    gc.collect()
    subprocess.run([os.path.join(bins, "mode-test-clip-steps"), folder, os.path.join(tmp, "in.safetensors"),
                    os.path.join(tmp, "out.safetensors"), "backend=" + os.environ.get("MODE_BACKEND", "cpu"), *options],
                   check=True)
    bad, said = compare(name, load_file(os.path.join(tmp, "out.safetensors")), exact, theirs)
    print(f"{name} {cfg['vision_cfg'].get('layers')}+{cfg['text_cfg'].get('layers')} layers {' '.join(options)}: "
          f"{'agrees' if not bad else 'DISAGREES'}: {said} ({time.time() - began:.0f} s)", flush=True)
    for line in bad:
        print("    " + line)
    return not bad


def published(name):
    cfg = open_clip.get_model_config(name)
    if name not in WHOLE:
        cfg["vision_cfg"]["layers"] = min(cfg["vision_cfg"]["layers"], DEPTH)
        cfg["text_cfg"]["layers"] = min(cfg["text_cfg"]["layers"], DEPTH)
        cfg["text_cfg"]["vocab_size"] = 1000  # the rest of the table is unused
    return cfg


def small(r):
    """A random configuration with options that open_clip's files use rarely or never."""
    patch, grid, heads = r.choice([2, 3, 4, 5]), r.choice([1, 2, 3, 4]), r.choice([1, 2, 3])
    width = 4 * r.choice([2, 3, 5, 8]) * heads
    quick = r.random() < 0.3
    extra = lambda: {} if quick else r.choice([{}, {"act_kwargs": {"approximate": "tanh"}}])
    v = {"image_size": r.choice([patch * grid, [patch * grid] * 2]), "patch_size": patch, "width": width,
         "layers": r.choice([1, 2, 3]), "head_width": width // heads, "mlp_ratio": r.choice([4.0, 2.5, 0.7]),
         "pool_type": r.choice(["tok", "avg"]), "final_ln_after_pool": r.random() < 0.5,
         "no_ln_pre": r.random() < 0.4, "pos_embed_type": r.choice(["learnable", "learnable", "sin_cos_2d"]),
         **r.choice([{}, {"ls_init_value": 0.5}]), **r.choice([{}, {"norm_kwargs": {"eps": 1e-6}}]), **extra()}
    t_heads = r.choice([1, 2, 4])
    t = {"context_length": r.choice([1, 2, 7, 16]) + 1, "vocab_size": r.choice([30, 200]),
         "width": t_heads * r.choice([3, 8, 11]), "heads": t_heads, "layers": r.choice([1, 2, 3]),
         "mlp_ratio": r.choice([4.0, 1.5]), "pool_type": r.choice(["argmax", "argmax", "first", "last", "eos"]),
         "no_causal_mask": r.random() < 0.3, "proj_bias": r.random() < 0.3,
         **r.choice([{}, {"ls_init_value": 0.3}]), **extra()}
    if t["pool_type"] == "eos":
        t["eos_id"] = t["vocab_size"] - 1
    cfg = {"embed_dim": r.choice([3, 8, 17]), "quick_gelu": quick, "vision_cfg": v, "text_cfg": t,
           **r.choice([{}, {"init_logit_scale": 1.0}, {"nonscalar_logit_scale": True}, {"custom_text": True}])}
    if r.random() < 0.2:
        t["proj_type"], t["proj_bias"], cfg["embed_dim"] = "none", False, t["width"]
    return cfg


def main(bins, *only):
    torch.set_num_threads(int(os.environ.get("MODE_THREADS", "2")))
    good = True
    with tempfile.TemporaryDirectory() as tmp:
        if not only or "small" in only:
            r = random.Random(7)
            for i in range(60):
                options = r.choice([(), (), ("dense=1", "full=1"), ("checkpoint=1",), ("pieces=3",), ("full=1",)])
                good &= check_clip(bins, f"small-{i}", small(r), r.choice([4, 5, 9]), 100 + i, tmp, options)
        unknown = set(only) - set(names()) - {"small", "bert"}
        if unknown:
            sys.exit(f"no plain ViT of open_clip: {', '.join(sorted(unknown))}")
        for name in only or names():
            if name not in ("small", "bert"):
                good &= check_clip(bins, name, published(name), 4 if name in WHOLE else 3, 11, tmp)
        if not only or "bert" in only:
            good &= check_berts(bins, tmp)
    for kind, (share, value, limit, where) in WORST.items():
        print(f"worst of {kind}: {value:.2e} of {limit:.2e} ({100 * share:.0f} %) in {where}")
    if RATIOS:
        print(f"error of {len(RATIOS)} gradients over that of open_clip in float32: median {np.median(RATIOS):.2f}, 95 % "
              f"below {np.percentile(RATIOS, 95):.2f}")
    print("all agree" if good else "DISAGREE")
    return 0 if good else 1


def check_berts(bins, tmp):
    """Random BERTs: every pooling, activation and epsilon; texts of very different lengths."""
    from transformers import BertConfig, BertModel, BertTokenizerFast
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(60)] + list("abcdefghij")
    r, good = random.Random(3), True
    for k in range(12):
        heads = r.choice([1, 2, 4])
        c = BertConfig(vocab_size=len(words), hidden_size=heads * r.choice([5, 8, 16]), num_attention_heads=heads,
                       num_hidden_layers=r.choice([1, 2, 4]), intermediate_size=r.choice([7, 64]),
                       max_position_embeddings=64, hidden_act=r.choice(["gelu", "gelu_new"]),
                       layer_norm_eps=r.choice([1e-12, 1e-5]), attn_implementation="eager")
        torch.manual_seed(k)
        model = randomised(BertModel(c), k).eval()
        folder = os.path.join(tmp, f"bert-{k}")
        model.save_pretrained(folder)
        with open(os.path.join(folder, "vocab.txt"), "w") as f:
            f.write("\n".join(words) + "\n")
        tokenizer = BertTokenizerFast(os.path.join(folder, "vocab.txt"))
        texts = [" ".join(r.choice(words[5:]) for _ in range(n)) for n in (1, 2, 3, 5, 9, 17, 40, 60, 4, 30)]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            theirs, exact = model(**inputs), model.double()(**inputs)
        mask = inputs["attention_mask"].unsqueeze(-1).double()
        for pooling in ("pooler", "cls", "mean"):
            pool = {"pooler": lambda o: o.pooler_output, "cls": lambda o: o.last_hidden_state[:, 0],
                    "mean": lambda o: (o.last_hidden_state * mask.to(o.last_hidden_state.dtype)).sum(1)
                    / mask.to(o.last_hidden_state.dtype).sum(1)}[pooling]
            want, peer = (torch.nn.functional.normalize(pool(o), dim=1) for o in (exact, theirs))
            with open(os.path.join(tmp, "texts"), "w") as f:
                f.write("\n".join(texts) + "\n")
            subprocess.run([os.path.join(bins, "mode"), "embed", "--encoder", folder, "--texts",
                            os.path.join(tmp, "texts"), "--pooling", pooling, "--out", os.path.join(tmp, "f.npy")],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            got = torch.tensor(np.load(os.path.join(tmp, "f.npy")))
            away = float((1 - (got.double() * want).sum(1)).max())
            e, e_theirs = error(got, want), error(peer, want)
            ok = away <= 1e-6 and e <= 1.5 * e_theirs + NEEDED
            good &= ok
            note("BERT features / transformers fp32", e, 1.5 * e_theirs + NEEDED, f"bert-{k} {pooling}")
            if not ok:
                print(f"bert-{k} {pooling}: 1 - cos {away:.1e}, {e:.2e} from float64, transformers {e_theirs:.2e}")
        print(f"bert-{k}: {c.num_hidden_layers} layers of {c.hidden_size}, {c.hidden_act}: "
              f"{'agrees' if good else 'DISAGREES'}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
