"""Synthetic pictures and captions for benchmarks: the spectrum of photographs, JPEGs of their sizes.

    PYTHON bench/peers/pictures.py FOLDER [500x375 1024x768]     the shards for bench_cuda_loader.py
"""
import io
import multiprocessing
import os
import random
import sys
import tarfile

import numpy as np
from PIL import Image

# each is one token of CLIP's tokenizer
WORDS = ("a the of on in with two three red blue green white black old small large man woman child dog cat horse bird tree "
         "house street car boat table chair window door garden river sea beach sky sun snow rain light night city road "
         "bridge field grass flower book paper glass water fire stone wood hand face hair hat shirt dress shoe").split()


def photograph(w, h, seed):
    """Noise at every scale, with an amplitude that falls with the frequency, less in colour than in luminance."""
    rng = np.random.default_rng(seed)
    out, n = np.full((h, w, 3), 120, np.float32), 4
    while n < 2 * max(w, h):
        light, colour = (rng.normal(0, 1, (max(2, n * h // max(w, h)), max(2, n * w // max(w, h)), c)) for c in (1, 3))
        layer = (0.8 * light + 0.3 * colour).astype(np.float32)
        for c in range(3):
            out[..., c] += 60 * (4 / n) ** 0.7 * np.asarray(Image.fromarray(layer[..., c]).resize((w, h), Image.BICUBIC))
        n *= 2
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def jpeg(job):
    """The JPEG of a photograph (width, height, seed), with the most common settings of cameras and web sites."""
    out = io.BytesIO()
    photograph(*job).save(out, "JPEG", quality=90)
    return out.getvalue()


LONGEST = 36


def caption(draw):
    """8 to LONGEST tokens, including start and end."""
    return " ".join(draw.choices(WORDS, k=draw.randint(6, LONGEST - 2)))


def shards(folder, w, h, n_pictures=1024, n_samples=16384, per_shard=1024):
    """Tars of n_samples pairs, .jpg and .txt, of n_pictures pictures, repeated with other captions; those of an earlier call
    are reused. Returns their paths and the mean size of a picture in bytes."""
    done = os.path.join(folder, f"{w}x{h}-{n_pictures}-{n_samples}-{per_shard}")
    paths = [os.path.join(done, f"{i:05d}.tar") for i in range((n_samples + per_shard - 1) // per_shard)]
    if not os.path.isdir(done):
        with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
            made = pool.map(jpeg, [(w, h, i) for i in range(n_pictures)], chunksize=4)
        draw, half_done = random.Random(w), done + ".part"
        os.makedirs(half_done, exist_ok=True)
        for s, path in enumerate(paths):
            with tarfile.open(os.path.join(half_done, os.path.basename(path)), "w") as tar:
                for i in range(s * per_shard, min(n_samples, (s + 1) * per_shard)):
                    for ext, data in (("jpg", made[i * 7919 % n_pictures]), ("txt", caption(draw).encode())):
                        m = tarfile.TarInfo(f"{i:08d}.{ext}")
                        m.size = len(data)
                        tar.addfile(m, io.BytesIO(data))
        os.rename(half_done, done)
    with tarfile.open(paths[0]) as tar:
        sizes = [m.size for m in tar if m.name.endswith(".jpg")]
    return paths, sum(sizes) / len(sizes)


if __name__ == "__main__":
    for kind in sys.argv[2:] or ["500x375", "1024x768"]:
        made, size = shards(sys.argv[1], *map(int, kind.split("x")))
        print(f"{len(made)} shards, pictures of {size / 1e3:.0f} KB: {os.path.dirname(made[0])}")
