"""JPEG file to normalised tensor: ours against open_clip's own transform (Pillow + torchvision) and against torchvision
without Pillow (decode_jpeg, antialiased resize of channels-last bytes; its pixels are not open_clip's), one thread each.

    $(tests/golden/venv.sh) bench/peers/bench_preprocess.py build/bin/mode [FILE... | --rounds 7]

Without files: synthetic pictures with the spectrum of photographs, from 96 to 4000 pixels wide, at two qualities. Both
sides read the files beforehand. Rounds alternate; the median of each round's ratio of CPU times: over 1 means ours is
faster. --train: the training transform (crops of 0.9 to 1) instead of evaluation.
"""
import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import open_clip.transform
import torch
import torchvision.transforms.v2 as v2
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from pictures import photograph

torch.set_num_threads(1)
MEAN, STD = open_clip.transform.OPENAI_DATASET_MEAN, open_clip.transform.OPENAI_DATASET_STD


def peers(size, train):
    transform = open_clip.transform.image_transform(size, is_train=train)
    resize = v2.RandomResizedCrop(size, (0.9, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True) if train else \
        v2.Compose([v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(size)])
    rest = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def pillow(data):
        return transform(Image.open(io.BytesIO(data)).convert("RGB"))

    def native(data):
        im = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return rest(resize(im))
    return {"open_clip (Pillow + torchvision)": pillow, "torchvision alone": native}


def timed(f, files):
    t = time.process_time()
    for data in files:
        f(data)
    return (time.process_time() - t) / len(files)


def ours(program, paths, size, train):
    cmd = [program, "bench", "preprocess", *paths, "--size", str(size), "--rounds", "1", "--backend", "cpu"]
    cmd += ["--train"] if train else []
    done = subprocess.run(cmd, stdout=subprocess.PIPE, env={**os.environ, "MODE_THREADS": "1"}, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    return row["cpu"] / row["items"]


def compare(program, name, paths, size, train, rounds):
    files = [open(p, "rb").read() for p in paths]
    kb = sum(map(len, files)) / len(files) / 1024
    for peer, f in peers(size, train).items():
        timed(f, files[:2])
        rows = [(ours(program, paths, size, train), timed(f, files)) for _ in range(rounds)]
        ratio = statistics.median(p / o for o, p in rows)
        o, p = (statistics.median(r[i] for r in rows) * 1e3 for i in (0, 1))
        print(f"| {name}, {kb:.0f} KB | {peer} | {o:.2f} | {p:.2f} | **{ratio:.2f}** |", flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("files", nargs="*")
    a.add_argument("--rounds", type=int, default=7)
    a.add_argument("--size", type=int, default=224)
    a.add_argument("--train", action="store_true")
    o = a.parse_intermixed_args()
    print("| pictures | peer | ours, CPU ms | peer, CPU ms | **ratio** |\n|---|---|---|---|---|")
    if o.files:
        return compare(o.program, f"{len(o.files)} files", o.files, o.size, o.train, o.rounds)
    with tempfile.TemporaryDirectory() as folder:
        for w, h, count in ((96, 96, 64), (256, 256, 32), (500, 375, 24), (1024, 768, 8), (4000, 3000, 1)):
            for quality in (90, 97):
                paths = []
                for i in range(count):
                    paths.append(os.path.join(folder, f"{w}-{quality}-{i}.jpg"))
                    photograph(w, h, i % 4).save(paths[-1], quality=quality)
                compare(o.program, f"{w} x {h}, quality {quality}", paths, o.size, o.train, o.rounds)


sys.exit(main())
