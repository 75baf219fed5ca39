"""Does open_clip load what we write, and do its features agree with ours?

    $(tests/golden/venv.sh) tests/golden/check_open_clip.py build/bin/mode demo-run

For experts/dense and experts/expert-0: open_clip.create_model_from_pretrained('local-dir:...'), 64 pictures of the
evaluation sets and some prompts through both. Three things must hold:
- the preprocessed pixels are bit-identical (needs Pillow before 13, docs/decisions/0007-pictures-as-pillow-12.md);
- no component of a unit feature differs by more than 1e-5;
- against open_clip's model in float64, our error is at most twice that of open_clip in float32 (+ 2e-7).
"""
import os
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import open_clip
import PIL
import torch
from PIL import Image

LIMIT = 1e-5


def pictures(root, folder, n):
    out = []
    for task in sorted(os.listdir(root)):
        with tarfile.open(os.path.join(root, task, "test", "0.tar")) as tar:
            for m in tar:
                if m.name.endswith((".jpg", ".png", ".webp")):
                    path = os.path.join(folder, f"{len(out)}_{os.path.basename(m.name)}")
                    with open(path, "wb") as f:
                        f.write(tar.extractfile(m).read())
                    out.append(path)
                    if len(out) % 8 == 0:
                        break
        if len(out) >= n:
            break
    return out[:n]


def error(x, exact):
    """Error relative to exact, over all components."""
    return float(np.linalg.norm(x.astype(np.float64) - exact) / np.linalg.norm(exact))


def compare(name, what, ours, theirs, exact):
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    apart, cosine = float(np.abs(ours - theirs).max()), 1 - float((ours.astype(np.float64) * exact).sum(1).min())
    e_ours, e_theirs = error(ours, exact), error(theirs, exact)
    good = apart <= LIMIT and e_ours <= 2 * e_theirs + 2e-7
    print(f"{name}: {what} features {ours.shape}: largest difference {apart:.2e}; from float64: ours {e_ours:.2e} "
          f"(1 - cos <= {cosine:.1e}), open_clip {e_theirs:.2e}: {'agree' if good else 'DISAGREE'}")
    return good


def check(mode, demo, name, texts):
    folder = os.path.join(demo, "experts", name)
    model, preprocess = open_clip.create_model_from_pretrained("local-dir:" + folder)
    tokenizer = open_clip.get_tokenizer("local-dir:" + folder)
    model.eval()
    with tempfile.TemporaryDirectory() as tmp:
        paths = pictures(os.path.join(demo, "data", "eval"), tmp, 64)
        for file, lines in (("images.txt", paths), ("texts.txt", texts)):
            with open(os.path.join(tmp, file), "w") as f:
                f.write("\n".join(lines) + "\n")
        merges = os.path.join(demo, "models", "bpe_simple_vocab_16e6.txt.gz")
        subprocess.run([mode, "encode", "--model", folder, "--images", os.path.join(tmp, "images.txt"), "--texts",
                        os.path.join(tmp, "texts.txt"), "--clip-merges", merges, "--out", os.path.join(tmp, "out")],
                       check=True, stdout=subprocess.DEVNULL)
        subprocess.run([mode, "preprocess", *paths, "--model", folder, "--out", os.path.join(tmp, "x.npy")], check=True)
        ours = [np.load(os.path.join(tmp, "out", f"{what}_features.npy")) for what in ("image", "text")]
        pixels = np.load(os.path.join(tmp, "x.npy"))
        x = torch.stack([preprocess(Image.open(p).convert("RGB")) for p in paths])
    ids = tokenizer(texts)
    same = np.array_equal(pixels, x.numpy())
    print(f"{name}: pixels {pixels.shape}: {'the same bytes' if same else 'DIFFERENT'}"
          + ("" if same else f", by up to {np.abs(pixels - x.numpy()).max():.2e} in "
             f"{sum(not np.array_equal(a, b) for a, b in zip(pixels, x.numpy()))} pictures"))
    with torch.no_grad():
        theirs = [model.encode_image(x, normalize=True).numpy(), model.encode_text(ids, normalize=True).numpy()]
        model.double()
        for module in model.modules():  # its layer norms and casts query the dtype of their weights
            if hasattr(module, "attn_mask") and module.attn_mask is not None:
                module.attn_mask = module.attn_mask.double()
        exact = [model.encode_image(x.double(), normalize=True).numpy(), model.encode_text(ids, normalize=True).numpy()]
    assert exact[0].dtype == exact[1].dtype == np.float64
    return all([same] + [compare(name, what, ours[i], theirs[i], exact[i]) for i, what in enumerate(("image", "text"))])


def main(mode, demo):
    texts = [f"a picture of {w}" for w in
             "a red apple|the flag of France|an office folder|a smiling face|a blue house|four of clubs".split("|")]
    texts += ["", "!", "naïve café ☕", "x" * 500]
    if int(PIL.__version__.split(".")[0]) >= 13:
        print(f"Pillow {PIL.__version__} resizes in another order of passes: pixels will differ", file=sys.stderr)
    return 0 if all([check(mode, demo, name, texts) for name in ("dense", "expert-0")]) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
