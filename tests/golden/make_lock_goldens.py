"""make_lock_goldens.py - writes tests/golden/clip_locks/: what open_clip's locked towers train.

    $(tests/golden/venv.sh) tests/golden/make_lock_goldens.py

names.json: of some models the smallest number of unlocked groups (image) or layers (text) with which each parameter is
trained. steps.safetensors: ten steps of open_clip's own trainer in float64 from clip_gradients/gelu, with some locks:
the losses and the final weights of every parameter. tests/golden/test_clip_locks.c compares.
"""
import json
import pathlib
import types

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip_train import train as trainer
from open_clip_train.scheduler import cosine_lr
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
TINY = {"embed_dim": 6, "vision_cfg": {"image_size": 8, "layers": 2, "width": 8, "patch_size": 4, "head_width": 4},
        "text_cfg": {"context_length": 9, "vocab_size": 19, "width": 12, "heads": 3, "layers": 1}}
STEPS, LR, WARMUP = 10, 1e-3, 2
LOCKS = [(0, None, None), (None, 0, 0.5), (2, 3, 0.5), (1, 1, None), (3, None, 0.5)]  # image, text, --grad-clip-norm


def model_of(cfg):
    kind = CustomTextCLIP if cfg.get("custom_text") else CLIP
    return kind(cfg["embed_dim"], CLIPVisionCfg(**cfg["vision_cfg"]), CLIPTextCfg(**cfg["text_cfg"]), output_dict=True)


def lock(model, image, text):
    if image is not None:
        model.lock_image_tower(unlocked_groups=image)
    if text is not None:
        model.lock_text_tower(unlocked_layers=text, freeze_layer_norm=True)


def trained(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


def first(cfg, tower):
    """{name: the smallest number of unlocked groups with which it is trained}, of the parameters that can be locked."""
    model, found, depth = model_of(cfg), {}, cfg["vision_cfg" if tower == "image" else "text_cfg"]["layers"] + 3
    everything = {n for n, _ in model.named_parameters()}
    for n in range(depth + 1):
        for p in model.parameters():
            p.requires_grad = True
        lock(model, *((n, None) if tower == "image" else (None, n)))
        now = trained(model)
        for name in everything - now:
            found[name] = n + 1
        assert all((name in now) == (n >= found.get(name, 0)) for name in everything)
    return found


def names():
    linear = TINY | {"text_cfg": TINY["text_cfg"] | {"proj_bias": True}, "custom_text": True}
    none = TINY | {"text_cfg": TINY["text_cfg"] | {"proj_type": "none", "width": 6}, "custom_text": True}
    vision = TINY | {"vision_cfg": TINY["vision_cfg"] | {"no_ln_pre": True, "ls_init_value": 0.1, "pool_type": "avg"}}
    models = [open_clip.get_model_config("ViT-B-32"), linear, none, vision]
    return [{"config": cfg, "image": first(cfg, "image"), "text": first(cfg, "text")} for cfg in models]


def refuses():
    """3.3.0's command line cannot lock a text tower without --lock-text-freeze-layer-norm."""
    try:
        model_of(TINY).lock_text_tower(freeze_layer_norm=False)
    except AssertionError:
        return True
    return False


def steps(image, text, clip):
    folder, losses = HERE / "clip_gradients" / "gelu", []
    model = model_of(json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    batch = load_file(folder / "step.safetensors")
    model = model.double()
    model.attn_mask = model.attn_mask.double()
    lock(model, image, text)
    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if exclude(n, p)], "weight_decay": 0.0},
                                   {"params": [p for n, p in named if not exclude(n, p)], "weight_decay": 0.2}],
                                  lr=LR, betas=(0.9, 0.98), eps=1e-6)
    pairs = len(batch["pixels"])
    args = types.SimpleNamespace(device="cpu", precision="fp64", distill=False, accum_freq=1, skip_scheduler=False,
                                 horovod=False, grad_clip_norm=clip, rank=0, local_rank=0, world_size=1,
                                 batch_size=pairs, log_every_n_steps=1, log_local=False, wandb=False)
    loader = type("Loader", (list,), {"num_batches": STEPS, "num_samples": STEPS * pairs})(
        [(batch["pixels"].double(), batch["ids"].long())] * STEPS)
    data = {"train": types.SimpleNamespace(set_epoch=lambda e: None, dataloader=loader)}
    writer = types.SimpleNamespace(add_scalar=lambda k, v, step: losses.append(v) if k == "train/loss" else None)
    trainer.get_input_dtype = lambda precision: torch.float64
    trainer.train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None,
                            cosine_lr(optimizer, LR, WARMUP, STEPS), None, args, writer)
    assert len(losses) == STEPS
    print(image, text, clip, losses[0], losses[-1], len(named), "tensors trained")
    return {"losses": torch.tensor(losses, dtype=torch.float64)} | {
        n: p.detach().float().contiguous() for n, p in model.named_parameters()}


assert refuses()
out = HERE / "clip_locks"
out.mkdir(exist_ok=True)
(out / "names.json").write_text(json.dumps(names(), indent=1, sort_keys=True) + "\n")
tensors = {}
for image, text, clip in LOCKS:
    which = f"{'-' if image is None else image} {'-' if text is None else text} {clip or 0}"
    tensors |= {f"{which}/{name}": t for name, t in steps(image, text, clip).items()}
save_file(tensors, out / "steps.safetensors", {"open_clip": open_clip.__version__, "torch": torch.__version__})
