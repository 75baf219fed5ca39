"""Do open_clip, torch, transformers and we read each other's checkpoints, with bit-identical tensors and equal features?

    $(tests/golden/venv.sh) tests/golden/check_weights.py build/bin/mode [--quick]

Models with random weights, made by open_clip: a small one of odd sizes, ViT-B-32 and ViT-B-32-quickgelu (--quick: only
the small one). For each:
- what open_clip, torch and transformers save (safetensors; the zip of torch.save and the legacy format; a training
  checkpoint with "module." names and an optimizer; TorchScript; fp16, bf16, f64; a Hugging Face folder, in one file,
  sharded and as pytorch_model.bin) becomes an open_clip folder with `mode convert`: every tensor must be bit-identical;
- open_clip -> Hugging Face -> open_clip -> Hugging Face -> open_clip with `mode convert`: the same bytes;
- open_clip's features, those of transformers (CLIPModel, CLIPProcessor) from the folder we wrote, and those of
  `mode encode` on either folder must agree: no component of a unit feature differs by more than 1e-5;
- the tokenizer's and the preprocessor's files of our Hugging Face folder, through every class that reads them, must give
  the ids of `mode tokenize` and the pixels of `mode preprocess`; open_clip's tokenizer of our folder likewise.
Checkpoints whose pickle would call code must be refused, with the name of what it calls.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor, CLIPTokenizerFast

warnings.filterwarnings("ignore")
LIMIT = 1e-5
SMALL = {"embed_dim": 48,
         "vision_cfg": {"image_size": 48, "layers": 3, "width": 96, "head_width": 32, "patch_size": 16, "mlp_ratio": 3.0},
         "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 80, "heads": 5, "layers": 2}}
TEXTS = ["a photo of a cat", "Two dogs, running!", "x", "straße über 東京", "a " * 100, "it's 1234 o'clock ..."]
failures = []


def say(good, text):
    print(("ok    " if good else "FAIL  ") + text, flush=True)
    if not good:
        failures.append(text)


def run(*args, good=True):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if good and r.returncode:
        sys.exit(f"{' '.join(map(str, args))}: {r.stderr}")
    return r


def raw(t):
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_tensors(folder, want, what):
    got = load_file(os.path.join(folder, "open_clip_model.safetensors"))
    bad = [k for k in want if k not in got or got[k].dtype != want[k].dtype or got[k].shape != want[k].shape or
           raw(got[k]) != raw(want[k])]
    extra = sorted(set(got) - set(want))
    say(not bad and not extra, f"{what}: {len(want)} tensors, {len(bad)} differ {bad[:3]}, {len(extra)} too many {extra[:3]}")


def pictures(folder):
    rng = np.random.default_rng(5)
    paths = []
    for i, (w, h) in enumerate([(64, 48), (300, 200), (31, 97), (224, 224), (500, 333)]):
        noise = rng.integers(0, 256, (h // 4 + 1, w // 4 + 1, 3), dtype=np.uint8)
        paths.append(os.path.join(folder, f"{i}.png"))
        Image.fromarray(noise).resize((w, h), Image.BILINEAR).save(paths[-1])
    return paths


def unit(x):
    return torch.nn.functional.normalize(x.float(), dim=-1).detach().numpy()


def ours(mode, folder, work, paths):
    listing, texts, out = (os.path.join(work, n) for n in ("list.txt", "texts.txt", "out"))
    open(listing, "w").write("\n".join(paths) + "\n")
    open(texts, "w").write("\n".join(TEXTS) + "\n")
    r = run(mode, "encode", "--model", folder, "--images", listing, "--texts", texts, "--out", out)
    return np.load(out + "/image_features.npy"), np.load(out + "/text_features.npy"), r.stderr


def compare(what, got, want):
    apart = max(float(np.abs(g - w).max()) for g, w in zip(got, want))
    say(apart <= LIMIT, f"{what}: largest difference of a unit feature {apart:.1e}")


def beside(mode, name, hf, there, work, paths):
    """The files beside the weights: tokenizer and preprocessor of our folders, as the libraries load them."""
    golden = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokens.jsonl")
    texts = [t for t in (json.loads(line).get("text") for line in open(golden, encoding="utf-8")) if t and "\n" not in t]
    texts += ["<|endoftext|> in a text", "one<|startoftext|>two", "<|ENDOFTEXT|>", "", " a\tb "]

    def tokenize(*options):
        r = subprocess.run([mode, "tokenize", *options], input="".join(t + "\n" for t in texts).encode(),
                           stdout=subprocess.PIPE, check=True)
        return [json.loads(line) for line in r.stdout.decode().splitlines()]

    want = tokenize("--clean", "hf")
    plain = os.path.join(work, "two-files")  # what a transformers without support for tokenizer.json reads
    os.makedirs(plain)
    for f in ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        os.symlink(os.path.join(hf, f), os.path.join(plain, f))
    readers = {"CLIPTokenizerFast": CLIPTokenizerFast.from_pretrained(hf), "AutoTokenizer": AutoTokenizer.from_pretrained(hf),
               "CLIPProcessor": CLIPProcessor.from_pretrained(hf).tokenizer,
               "AutoProcessor": AutoProcessor.from_pretrained(hf).tokenizer,
               "AutoTokenizer of vocab.json and merges.txt": AutoTokenizer.from_pretrained(plain)}
    for what, tokenizer in readers.items():
        got = [tokenizer(t, truncation=True).input_ids for t in texts]
        bad = [t for t, a, b in zip(texts, got, want) if a != b]
        say(not bad, f"{name}: {what}: {len(texts)} texts, {len(bad)} differ {bad[:2]}")
    bare = Tokenizer.from_file(os.path.join(hf, "tokenizer.json"))
    cut = [ids if len(ids) <= 77 else ids[:76] + ids[-1:] for ids in (bare.encode(t).ids for t in texts)]
    say(cut == want, f"{name}: the tokenizers library on tokenizer.json: {sum(a != b for a, b in zip(cut, want))} differ")
    said = readers["AutoTokenizer"].decode(want[0], skip_special_tokens=True)
    say(said.split() == texts[0].lower().split() or said.replace(" ", "") == texts[0].lower().replace(" ", ""),
        f"{name}: and back: {said!r}")
    padded = open_clip.get_tokenizer("local-dir:" + there)(texts).tolist()
    say(padded == tokenize("--pad"), f"{name}: open_clip's tokenizer of our folder, padded to its context")

    out = os.path.join(work, "pixels.npy")
    run(mode, "preprocess", *paths, "--model", hf, "--out", out)
    got, pictures_ = torch.tensor(np.load(out)), [Image.open(p).convert("RGB") for p in paths]
    preprocess = open_clip.create_model_and_transforms("local-dir:" + there)[2]
    say(float((torch.stack([preprocess(p) for p in pictures_]) - got).abs().max()) <= 1e-6,
        f"{name}: open_clip's transform of our folder: our pixels")
    for what, options, levels in (("pil", {"backend": "pil"}, 1e-4), ("torchvision", {}, 1.001)):
        theirs = AutoImageProcessor.from_pretrained(hf, **options)(images=pictures_, return_tensors="pt")["pixel_values"]
        std = theirs.new_tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1)
        apart = float(((theirs - got) * std).abs().max()) * 255
        say(apart <= levels, f"{name}: transformers' processor, {what}: our pixels within {apart:.1e} of 255 levels")


def prefixed(state):
    return {"module." + k: v for k, v in state.items()}


def check(mode, name, cfg, work):
    work = os.path.join(work, name)
    os.makedirs(work)
    torch.manual_seed(11)
    if cfg:
        config = os.path.join(work, name + ".json")
        json.dump(cfg, open(config, "w"))
        open_clip.add_model_config(config)
        open(os.path.join(work, "config.json"), "w").write(json.dumps({"model_cfg": cfg}))
        config = os.path.join(work, "config.json")
    else:
        cfg, config = open_clip.get_model_config(name), name
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    for p in model.parameters():  # initial zeros and ones would hide mistakes
        p.data.add_(0.02 * torch.randn_like(p))
    state = {k: v.clone() for k, v in model.state_dict().items() if k != "attn_mask"}
    n = 0

    def convert(source, to, *extra):
        nonlocal n
        n += 1
        out = os.path.join(work, f"made{n}")
        run(mode, "convert", source, out, "--to", to, *extra)
        return out

    def file(saver):
        nonlocal n
        n += 1
        path = os.path.join(work, f"file{n}.pt")
        saver(path)
        return path

    # torch
    for what, path, want in [
        ("state dict, torch.save", file(lambda p: torch.save(state, p)), state),
        ("state dict, torch.save before 1.6",
         file(lambda p: torch.save(state, p, _use_new_zipfile_serialization=False)), state),
        ("fp16", file(lambda p: torch.save({k: v.half() for k, v in state.items()}, p)),
         {k: v.half() for k, v in state.items()}),
        ("bf16 safetensors", file(lambda p: save_file({k: v.bfloat16() for k, v in state.items()}, p)),
         {k: v.bfloat16() for k, v in state.items()}),
        ("f64", file(lambda p: torch.save({k: v.double() for k, v in state.items()}, p)),
         {k: v.double() for k, v in state.items()}),
        ("transposed views", file(lambda p: torch.save(
            {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()}, p)), state),
    ]:
        made = convert(path, "open_clip", "--config", config)
        same_tensors(made, want, f"{name}: {what}")
        os.remove(path)
    optimizer = torch.optim.AdamW(model.parameters())
    images, tokens = torch.randn(2, 3, *((model.visual.image_size,) * 2 if isinstance(model.visual.image_size, int)
                                         else model.visual.image_size)), open_clip.tokenize(TEXTS[:2])
    if cfg["embed_dim"] < 100:
        f = model(images, tokens)
        (f[0].sum() + f[1].sum()).backward()
        optimizer.step()
        trained = {k: v.clone() for k, v in model.state_dict().items() if k != "attn_mask"}
        path = file(lambda p: torch.save({"epoch": 3, "name": "x", "state_dict": prefixed(trained),
                                          "optimizer": optimizer.state_dict()}, p))
        same_tensors(convert(path, "open_clip", "--config", config), trained, f"{name}: training checkpoint of open_clip")
        model.load_state_dict(state, strict=False)
        scripted = torch.jit.trace(model, (images, tokens), check_trace=False)
        same_tensors(convert(file(scripted.save), "open_clip", "--config", config), state, f"{name}: TorchScript")

    # open_clip's folder and back through Hugging Face's
    folder = os.path.join(work, "open_clip")
    os.makedirs(folder)
    json.dump({"model_cfg": cfg, "preprocess_cfg": {
        "mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic", "resize_mode": "shortest"}}, open(folder + "/open_clip_config.json", "w"))
    torch.save(state, folder + "/open_clip_pytorch_model.bin")
    hf = convert(folder, "hf")
    there = convert(hf, "open_clip")
    again = convert(convert(there, "hf"), "open_clip")
    same_tensors(again, state, f"{name}: open_clip -> ours -> Hugging Face -> ours -> open_clip")
    a, b = (open(x + "/open_clip_model.safetensors", "rb").read() for x in (there, again))
    say(a == b, f"{name}: the two open_clip files are the same {len(a)} bytes")

    # features
    paths = pictures(work)
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.open(p)) for p in paths])
        want = (unit(model.encode_image(pixels)), unit(model.encode_text(open_clip.tokenize(TEXTS))))
    got = ours(mode, folder, work, paths)
    compare(f"{name}: ours of open_clip's folder", got, want)
    compare(f"{name}: ours of the Hugging Face folder", ours(mode, hf, work, paths), want)
    back = open_clip.create_model_from_pretrained("local-dir:" + again)[0].eval()
    with torch.no_grad():
        compare(f"{name}: open_clip of our folder",
                (unit(back.encode_image(pixels)), unit(back.encode_text(open_clip.tokenize(TEXTS)))), want)
    theirs, info = CLIPModel.from_pretrained(hf, output_loading_info=True)
    theirs.eval()
    say(not any(info.values()), f"{name}: transformers loads our folder, nothing missing or left over")
    processor = CLIPProcessor.from_pretrained(hf)
    plain = [t for t in TEXTS]
    beside(mode, name, hf, again, work, paths)
    inputs = processor(text=plain, images=[Image.open(p) for p in paths], return_tensors="pt", padding=True,
                       truncation=True)
    ids = open_clip.tokenize(TEXTS)
    lengths = (ids != 0).sum(1)
    got_ids = [row[:n].tolist() for row, n in zip(inputs["input_ids"], lengths)]
    say(got_ids == [row[:n].tolist() for row, n in zip(ids, lengths)], f"{name}: transformers' tokenizer from our files")
    apart = float((inputs["pixel_values"] - pixels).abs().max())
    say(inputs["pixel_values"].shape == pixels.shape,
        f"{name}: transformers' pictures have our size; largest difference of a pixel from open_clip's {apart:.1e}")
    with torch.no_grad():
        out = theirs(input_ids=inputs["input_ids"], pixel_values=pixels, attention_mask=inputs["attention_mask"])
    compare(f"{name}: transformers of our folder", (unit(out.image_embeds), unit(out.text_embeds)), want)
    say(abs(float(theirs.logit_scale) - float(model.logit_scale)) < 1e-6, f"{name}: logit scale")

    # what transformers saves
    one, parts, pickled = (os.path.join(work, x) for x in ("hf-one", "hf-parts", "hf-bin"))
    theirs.save_pretrained(one)
    same_tensors(convert(one, "open_clip"), state, f"{name}: save_pretrained")
    theirs.save_pretrained(parts, max_shard_size="30MB" if cfg["embed_dim"] > 100 else "1MB")
    say(os.path.exists(parts + "/model.safetensors.index.json"), f"{name}: transformers has cut the model into parts")
    same_tensors(convert(parts, "open_clip"), state, f"{name}: save_pretrained in parts")
    os.makedirs(pickled)
    os.rename(one + "/config.json", pickled + "/config.json")
    torch.save(theirs.state_dict(), pickled + "/pytorch_model.bin")
    same_tensors(convert(pickled, "open_clip"), state, f"{name}: pytorch_model.bin")
    half = convert(file(lambda p: torch.save({k: v.half() for k, v in state.items()}, p)), "open_clip", "--config", config)
    _, _, stderr = ours(mode, half, work, paths)
    say("F16, computed with as F32 (exact)" in stderr, f"{name}: fp16 is said: {stderr.strip()}")
    subprocess.run(["rm", "-rf", work], check=True)


class Evil:
    def __init__(self, f, *args):
        self.call = (f, args)

    def __reduce__(self):
        return self.call


def hostile(mode, work):
    import builtins
    mark = os.path.join(work, "it-ran")
    for what, value, word in [("os.system", Evil(os.system, f"touch {mark}"), "posix.system"),
                              ("eval", Evil(builtins.eval, f"open({mark!r}, 'w')"), "eval"),
                              ("a whole module", torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
                              ("subprocess", Evil(subprocess.Popen, ["touch", mark]), ".Popen")]:
        for zipped in (True, False):
            path = os.path.join(work, "evil.pt")
            torch.save({"state_dict": {"a": torch.ones(2)}, "x": value}, path, _use_new_zipfile_serialization=zipped)
            r = run(mode, "convert", path, os.path.join(work, "evil"), "--to", "open_clip", "--config", "ViT-B-32",
                    good=False)
            say(r.returncode == 65 and word in r.stderr and "byte" in r.stderr and not os.path.exists(mark),
                f"{what} is refused: {r.stderr.strip()}")


def encoder(mode, work):
    """The fetched sentence encoder in other file formats: bit-identical vectors."""
    models = os.path.join(os.environ.get("MODE_CACHE", os.path.expanduser("~/.cache/mode")), "models", "encoder")
    state = load_file(models + "/model.safetensors")
    texts = os.path.join(work, "texts.txt")
    open(texts, "w").write("\n".join(TEXTS) + "\n")
    names = sorted(state)
    half = len(names) // 2
    map_ = {k: f"part-{int(i >= half)}.safetensors" for i, k in enumerate(names)}

    def parts(folder):
        for n in range(2):
            save_file({k: state[k] for k in names if map_[k].startswith(f"part-{n}")}, f"{folder}/part-{n}.safetensors")
        json.dump({"metadata": {}, "weight_map": map_}, open(folder + "/model.safetensors.index.json", "w"))

    bert = {"bert." + k: v for k, v in state.items()}
    kinds = {"safetensors": lambda f: save_file(state, f + "/model.safetensors"), "in parts": parts,
             "pytorch_model.bin": lambda f: torch.save(bert, f + "/pytorch_model.bin"),
             "pytorch_model.bin before 1.6":
                 lambda f: torch.save(bert, f + "/pytorch_model.bin", _use_new_zipfile_serialization=False)}
    first = None
    for i, (what, save) in enumerate(kinds.items()):
        folder = os.path.join(work, f"encoder{i}")
        os.makedirs(folder)
        for f in ("config.json", "tokenizer.json", "1_Pooling"):
            os.symlink(os.path.join(models, f), os.path.join(folder, f))
        save(folder)
        run(mode, "embed", "--encoder", folder, "--texts", texts, "--out", work + "/x.npy")
        got = open(work + "/x.npy", "rb").read()
        first = first or got
        say(got == first, f"encoder, {what}: the same vectors")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode")
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    mode = os.path.abspath(args.mode)
    with tempfile.TemporaryDirectory() as work:
        hostile(mode, work)
        encoder(mode, work)
        check(mode, "mode-small", SMALL, work)
        if not args.quick:
            check(mode, "ViT-B-32", None, work)
            check(mode, "ViT-B-32-quickgelu", None, work)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
