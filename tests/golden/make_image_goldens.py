"""make_image_goldens.py - writes tests/golden/images.tar: small picture files and the results of Pillow, torchvision and
open_clip on them. Needs Pillow 3.3 to 12 (13 changed the order of resize passes), torch, torchvision, open_clip_torch:

    $(tests/golden/venv.sh) tests/golden/make_image_goldens.py

Each picture NN.<ext> has NN.json: size, SHA-256 of its RGB bytes, of resized RGB bytes for many sizes and boxes, and of
the preprocessed float32 tensor for every resize mode. tests/golden/test_image.c compares.
"""
import hashlib
import io
import json
import os
import struct
import tarfile
import zlib

import numpy as np
import open_clip.transform
import PIL
from PIL import Image

assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 resizes in another order of passes"
rng = np.random.default_rng(20240424)
FILTERS = ("bicubic", "bilinear")


def noise(w, h, n=3):
    y, x = np.mgrid[:h, :w]
    base = [127 + 90 * np.sin((x * (c + 2) + y * (5 - c)) / 9.0) for c in range(n)]
    return np.clip(np.stack(base, -1) + rng.normal(0, 25, (h, w, n)), 0, 255).astype(np.uint8)


def saved(image, fmt, **kw):
    f = io.BytesIO()
    image.save(f, fmt, **kw)
    return f.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(w, h, bits, colour, channels, interlace=False, extra=b""):
    """A PNG of random bits, in bit depths that Pillow does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes if interlace else [(0, 0, 1, 1)]:
        pw, ph = (w - x0 + dx - 1) // dx, (h - y0 + dy - 1) // dy
        if pw > 0 and ph > 0:
            raw += b"".join(b"\0" + rng.bytes((pw * bits * channels + 7) // 8) for _ in range(ph))
    head = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, int(interlace))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def pictures():
    rgb = Image.fromarray(noise(45, 37))
    alpha = np.dstack([noise(33, 21), rng.integers(0, 256, (21, 33), dtype=np.uint8)])
    alpha[:9, :, 3] = 0
    for subsampling in (0, 1, 2):
        yield "jpg", saved(rgb, "JPEG", quality=88, subsampling=subsampling)
    yield "jpg", saved(rgb, "JPEG", quality=70, progressive=True)
    yield "jpg", saved(rgb.convert("L"), "JPEG")
    yield "jpg", saved(Image.frombytes("CMYK", (31, 18), noise(31, 18, 4).tobytes()), "JPEG", quality=92)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be ignored
    yield "jpg", saved(rgb, "JPEG", exif=exif)
    for mode in ("RGB", "L", "P", "1", "LA"):
        yield "png", saved(rgb.convert(mode), "PNG")
    yield "png", saved(Image.fromarray(alpha, "RGBA"), "PNG")
    for bits, colour, channels in ((2, 0, 1), (4, 0, 1), (16, 0, 1), (16, 2, 3), (16, 4, 2), (16, 6, 4)):
        yield "png", raw_png(19, 13, bits, colour, channels)
    yield "png", raw_png(19, 13, 4, 3, 1, extra=chunk(b"PLTE", rng.bytes(48)) + chunk(b"tRNS", rng.bytes(16)))
    yield "png", raw_png(21, 15, 8, 2, 3, interlace=True)
    yield "webp", saved(rgb, "WEBP", quality=80)
    yield "webp", saved(rgb, "WEBP", lossless=True)
    yield "webp", saved(Image.fromarray(alpha, "RGBA"), "WEBP", lossless=True)
    frames = [Image.fromarray(alpha, "RGBA"), Image.fromarray(alpha[::-1], "RGBA")]
    yield "webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)  # its first frame
    yield "png", saved(Image.fromarray(noise(2, 230)), "PNG")  # so thin that Pillow resizes its height first
    yield "png", saved(Image.fromarray(noise(230, 1)), "PNG")
    yield "jpg", saved(rgb, "JPEG", quality=60, restart_marker_rows=1)
    for w, h in ((97, 61), (61, 98), (64, 64), (3, 50), (200, 7)):  # crops with odd margins, thin pictures
        yield "png", saved(Image.fromarray(noise(w, h)), "PNG")


def sha(data):
    return hashlib.sha256(data).hexdigest()


def resizes(im):
    w, h = im.size
    for _ in range(16):
        size = (int(rng.integers(1, 130)), int(rng.integers(1, 130)))
        box = (0.0, 0.0, float(w), float(h))
        if rng.random() < 0.6:
            x = sorted(rng.uniform(0, w, 2))
            y = sorted(rng.uniform(0, h, 2))
            if x[1] - x[0] > 0.5 and y[1] - y[0] > 0.5:
                box = tuple(float(np.float32(v)) for v in (x[0], y[0], x[1], y[1]))
        f = FILTERS[int(rng.integers(0, 3)) // 2]
        out = im.resize(size, getattr(Image, f.upper()), box=box)
        yield {"size": size, "box": box, "filter": f, "sha256": sha(out.tobytes())}


def inputs(im):
    for mode in ("shortest", "longest", "squash"):
        for size in (32, 49):
            f, fill = FILTERS[size % 2], size if size % 2 else 0
            transform = open_clip.transform.image_transform(size, is_train=False, resize_mode=mode, interpolation=f, fill_color=fill)
            try:
                x = transform(im).numpy().astype("<f4")
            except ValueError:  # open_clip rounds a side to 0 where ours takes 1
                continue
            yield {"mode": mode, "size": size, "filter": f, "fill": fill, "sha256": sha(x.tobytes())}


here = os.path.dirname(os.path.abspath(__file__))
with tarfile.open(os.path.join(here, "images.tar"), "w", format=tarfile.USTAR_FORMAT) as tar:
    for i, (ext, data) in enumerate(pictures()):
        im = Image.open(io.BytesIO(data)).convert("RGB")
        facts = {"width": im.width, "height": im.height, "sha256": sha(im.tobytes()), "resize": list(resizes(im)),
                 "input": list(inputs(im))}
        for name, body in ((f"{i:02d}.{ext}", data), (f"{i:02d}.json", json.dumps(facts).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            info.mode = 0o444
            tar.addfile(info, io.BytesIO(body))
