"""Does open_clip load what we write, and do its features agree with ours?

    $(tests/golden/venv.sh) tests/golden/check_open_clip.py build/bin/mode demo-run

For experts/dense and experts/expert-0: open_clip.create_model_from_pretrained('local-dir:...'), 64 pictures of the
evaluation sets and 64 prompts through both; fails when any unit feature differs by more than 1e-4.
"""
import os
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import open_clip
import torch
from PIL import Image


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


def main(mode, demo):
    texts = [f"a picture of {w}" for w in
             "a red apple|the flag of France|an office folder|a smiling face|a blue house|four of clubs".split("|")]
    texts += ["", "!", "naïve café ☕", "x" * 500]
    worst = 0.0
    for name in ("dense", "expert-0"):
        folder = os.path.join(demo, "experts", name)
        model, preprocess = open_clip.create_model_from_pretrained("local-dir:" + folder)
        tokenizer = open_clip.get_tokenizer("local-dir:" + folder)
        model.eval()
        with tempfile.TemporaryDirectory() as tmp:
            paths = pictures(os.path.join(demo, "data", "eval"), tmp, 64)
            with open(os.path.join(tmp, "images.txt"), "w") as f:
                f.write("\n".join(paths) + "\n")
            with open(os.path.join(tmp, "texts.txt"), "w") as f:
                f.write("\n".join(texts) + "\n")
            merges = os.path.join(demo, "models", "bpe_simple_vocab_16e6.txt.gz")
            subprocess.run([mode, "encode", "--model", folder, "--images", os.path.join(tmp, "images.txt"), "--texts",
                            os.path.join(tmp, "texts.txt"), "--clip-merges", merges, "--out", os.path.join(tmp, "out")],
                           check=True)
            ours_i = np.load(os.path.join(tmp, "out", "image_features.npy"))
            ours_t = np.load(os.path.join(tmp, "out", "text_features.npy"))
            with torch.no_grad():
                x = torch.stack([preprocess(Image.open(p).convert("RGB")) for p in paths])
                theirs_i = model.encode_image(x, normalize=True).numpy()
                theirs_t = model.encode_text(tokenizer(texts), normalize=True).numpy()
        for what, ours, theirs in (("image", ours_i, theirs_i), ("text", ours_t, theirs_t)):
            assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
            d = float(np.abs(ours - theirs).max())
            print(f"{name}: {what} features {ours.shape}: largest difference {d:.2e}")
            worst = max(worst, d)
    print(f"worst {worst:.2e}, allowed 1e-4: {'agree' if worst <= 1e-4 else 'DISAGREE'}")
    return 0 if worst <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
