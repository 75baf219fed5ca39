"""check_images.py - pictures against Pillow, torchvision and open_clip on thousands of random cases.

    make parity-images        or        $(tests/golden/venv.sh) tests/golden/check_images.py build/bin/mode-test-pictures

Decoding (every kind of JPEG, PNG and WebP that Pillow or our own writer makes), resizing (random sizes, boxes,
filters, sides of one pixel, extreme ratios, enlarging; AVX2 and plain), the evaluation transform of open_clip, the
sizes of torchvision's random crops, and damaged files. Everything but damaged files must be bit-identical; for damaged
files the table says who refuses what. Exits with 1 if anything differs. --cases scales the numbers of cases, --seed
changes them.
"""
import argparse
import collections
import io
import math
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import numpy as np
import open_clip.transform
import torch
import torchvision
from PIL import Image, features

warnings.simplefilter("ignore")
MODES, FILTERS = ("shortest", "longest", "squash"), ("bicubic", "bilinear")


class Ours:
    def __init__(self, program):
        self.p = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *words):
        self.p.stdin.write((" ".join(str(w) for w in words) + "\n").encode())
        self.p.stdin.flush()
        status, w, h, n = struct.unpack("<iiiI", self.p.stdout.read(16))
        return status, w, h, self.p.stdout.read(n)


class Tally:
    def __init__(self):
        self.rows, self.bad = collections.OrderedDict(), 0

    def add(self, what, same, detail=""):
        row = self.rows.setdefault(what, [0, 0])
        row[0] += 1
        if not same:
            row[1] += 1
            self.bad += 1
            if row[1] <= 3:
                print(f"DIFFERS: {what}: {detail}", file=sys.stderr)

    def show(self):
        for what, (n, bad) in self.rows.items():
            print(f"{what:58} {n:6} cases  {bad:4} differ")


def pixels(rng, w, h, n):
    y, x = np.mgrid[:h, :w]
    f = rng.uniform(0.01, 0.6, (n, 2))
    base = np.stack([127 + 110 * np.sin(x * f[c, 0] + y * f[c, 1] + c) for c in range(n)], -1)
    return np.clip(base + rng.normal(0, rng.choice([2, 20, 60]), (h, w, n)), 0, 255).astype(np.uint8)


def side(rng, top=300):
    return int(rng.choice([1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33])) if rng.random() < 0.2 else int(rng.integers(1, top))


def saved(image, fmt, **kw):
    f = io.BytesIO()
    image.save(f, fmt, **kw)
    return f.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(rng, w, h, bits, colour, channels, interlace, extra=b""):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes if interlace else [(0, 0, 1, 1)]:
        pw, ph = (w - x0 + dx - 1) // dx, (h - y0 + dy - 1) // dy
        if pw > 0 and ph > 0:
            raw += b"".join(bytes([int(rng.integers(0, 5))]) + rng.bytes((pw * bits * channels + 7) // 8) for _ in range(ph))
    head = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, int(interlace))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))


def jpegs(rng, ours, folder):
    w, h = side(rng), side(rng)
    rgb = Image.fromarray(pixels(rng, w, h, 3))
    q = int(rng.integers(5, 101))
    kw = {"quality": q, "subsampling": int(rng.integers(0, 3)), "optimize": q < 80 and bool(rng.integers(0, 2))}
    yield "JPEG baseline, 4:4:4, 4:2:2, 4:2:0", saved(rgb, "JPEG", **kw)
    yield "JPEG progressive", saved(rgb, "JPEG", progressive=True, **kw)
    yield "JPEG with restart markers", saved(rgb, "JPEG", restart_marker_rows=1, **kw)
    yield "JPEG grey", saved(rgb.convert("L"), "JPEG", quality=q, progressive=bool(rng.integers(0, 2)))
    yield "JPEG stored as RGB", saved(rgb, "JPEG", quality=q, keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    yield "JPEG turned by EXIF (ignored by all)", saved(rgb, "JPEG", exif=exif, icc_profile=rng.bytes(300), **kw)
    yield "JPEG with bytes after its end", saved(rgb, "JPEG", **kw) + rng.bytes(40)
    cmyk = Image.frombytes("CMYK", (w, h), pixels(rng, w, h, 4).tobytes())
    yield "JPEG CMYK", saved(cmyk, "JPEG", quality=q, progressive=bool(rng.integers(0, 2)))
    path = os.path.join(folder, "odd")
    for kind, args in (("JPEG with odd sampling factors", (3, rng.integers(1, 5), rng.integers(1, 3), rng.integers(0, 3), 0, 0)),
                       ("JPEG progressive with odd sampling factors", (3, rng.integers(1, 5), rng.integers(1, 3), 0, 1, 0)),
                       ("JPEG YCCK", (4, 1, 1, 0, rng.integers(0, 2), 1)),
                       ("JPEG YCCK with sampling factors", (4, 2, rng.integers(1, 3), 0, 0, 1))):
        assert ours.ask("jpeg", path, w, h, *map(int, args), int(rng.integers(1 << 40)))[0] == 0
        yield kind, open(path, "rb").read()


def pngs(rng):
    w, h = side(rng, 120), side(rng, 120)
    rgb = Image.fromarray(pixels(rng, w, h, 3))
    for mode in ("RGB", "L", "P", "1", "LA", "RGBA"):
        yield f"PNG {mode}, as Pillow writes it", saved(rgb.convert(mode), "PNG", optimize=bool(rng.integers(0, 2)))
    for bits, colour, channels in ((1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (8, 4, 2), (16, 4, 2),
                                   (8, 6, 4), (16, 6, 4)):
        extra, name = b"", {0: "grey", 2: "RGB", 4: "grey and alpha", 6: "RGBA"}[colour]
        if colour in (0, 2) and rng.random() < 0.5:
            extra = chunk(b"tRNS", b"".join(struct.pack(">H", int(rng.integers(0, 1 << bits))) for _ in range(channels)))
        if rng.random() < 0.3:
            extra = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sBIT", b"\x01" * channels) + extra
        yield f"PNG {name}, {bits} bits, tRNS, interlaced or not", raw_png(rng, w, h, bits, colour, channels, rng.random() < 0.5, extra)
    for bits in (1, 2, 4, 8):
        n = 1 << bits
        extra = chunk(b"PLTE", rng.bytes(3 * n)) + (chunk(b"tRNS", rng.bytes(n)) if rng.random() < 0.5 else b"")
        yield f"PNG palette, {bits} bits, tRNS, interlaced or not", raw_png(rng, w, h, bits, 3, 1, rng.random() < 0.5, extra)
    more = [Image.fromarray(pixels(rng, w, h, 3)) for _ in range(2)]
    yield "PNG animated: its first picture", saved(rgb, "PNG", save_all=True, append_images=more, default_image=bool(rng.integers(0, 2)))
    short = int(rng.integers(1, 16))
    yield "PNG palette shorter than its indices", raw_png(rng, w, h, 4, 3, 1, False, chunk(b"PLTE", rng.bytes(3 * short)))


def webps(rng):
    w, h = side(rng, 200), side(rng, 200)
    rgb, rgba = (Image.fromarray(pixels(rng, w, h, n)) for n in (3, 4))
    q = int(rng.integers(0, 101))
    yield "WebP lossy", saved(rgb, "WEBP", quality=q, method=int(rng.integers(0, 5)))
    yield "WebP lossless", saved(rgb, "WEBP", lossless=True)
    yield "WebP lossy with alpha", saved(rgba, "WEBP", quality=q)
    yield "WebP lossless with alpha", saved(rgba, "WEBP", lossless=True, exact=True)
    other = [Image.fromarray(pixels(rng, w, h, 4)) for _ in range(2)]
    yield "WebP animated: its first frame", saved(rgba, "WEBP", save_all=True, append_images=other, duration=50, quality=q,
                                                  lossless=bool(rng.integers(0, 2)), background=(9, 8, 7, 255))
    yield "WebP animated, opaque", saved(rgb, "WEBP", save_all=True, append_images=[o.convert("RGB") for o in other], duration=50)


def check_resizes(tally, ours, rng, folder, n):
    path = os.path.join(folder, "resize")
    for i in range(n):
        if i % 8 == 0:
            w, h = side(rng, 400), side(rng, 400)
            if rng.random() < 0.1:
                w, h = (1, int(rng.integers(1, 3000))) if rng.random() < 0.5 else (int(rng.integers(1, 3000)), 1)
            im = Image.fromarray(pixels(rng, w, h, 3))
            im.save(path, "PNG", compress_level=1)
        size = (side(rng, 500), side(rng, 500))
        box = (0.0, 0.0, float(w), float(h))
        if rng.random() < 0.5:
            x, y = sorted(rng.uniform(0, w, 2)), sorted(rng.uniform(0, h, 2))
            if rng.random() < 0.5:
                x, y = np.floor(x) + (0, 1), np.floor(y) + (0, 1)
            if x[1] - x[0] > 0.01 and y[1] - y[0] > 0.01:
                box = tuple(float(np.float32(v)) for v in (x[0], y[0], x[1], y[1]))
        f = FILTERS[int(rng.integers(0, 2))]
        want = im.resize(size, getattr(Image, f.upper()), box=box).tobytes()
        for plain in (0, 1):
            st, _, _, got = ours.ask("resize", path, f, *size, *map(repr, box), plain)
            tally.add(f"resize, {f}, {'plain C' if plain else 'AVX2'}", st == 0 and got == want, f"{w}x{h} {box} to {size}")


def check_eval(tally, ours, rng, name, path, im):
    size, m, f, fill = side(rng, 256), int(rng.integers(0, 3)), int(rng.integers(0, 2)), int(rng.integers(0, 256))
    if max(im.size) / min(im.size) * size > 20000:
        return
    t = open_clip.transform.image_transform(size, is_train=False, resize_mode=MODES[m], interpolation=FILTERS[f], fill_color=fill)
    try:
        want = t(im).numpy()
    except ValueError:  # open_clip rounds a side to 0 where ours takes 1
        return
    st, _, _, got = ours.ask("eval", path, size, m, f, fill)
    got = np.frombuffer(got, np.float32).reshape(want.shape) if st == 0 else want + 9
    tally.add(f"open_clip's evaluation, {MODES[m]}, {FILTERS[f]}", np.array_equal(got, want),
              f"{name} {im.size} to {size}, fill {fill}, worst {abs(got - want).max()}")


def check_crops(tally, ours, rng, n):
    """torchvision's get_params with its draws recorded, and ours fed with the same draws."""
    draws = []
    uniform = torch.Tensor.uniform_

    def recorded(self, *a, **kw):
        out = uniform(self, *a, **kw)
        draws.append(out)
        return out
    torch.Tensor.uniform_ = recorded
    try:
        for _ in range(n):
            w, h = side(rng, 700), side(rng, 700)
            lo = float(rng.uniform(0.05, 1))
            draws.clear()
            y, x, ch, cw = torchvision.transforms.RandomResizedCrop.get_params(torch.empty(3, h, w), [lo, 1.0], [3 / 4, 4 / 3])
            for i in range(0, len(draws), 2):
                share, aspect = draws[i].item(), torch.exp(draws[i + 1]).item()
                got = struct.unpack("<2i", ours.ask("crop", w, h, repr(share), repr(aspect))[3])
                if got != (0, 0):
                    break
            if got == (0, 0):
                same = struct.unpack("<4i", ours.ask("fallback", w, h)[3]) == (x, y, cw, ch)
                tally.add("random crop that never fits, against torchvision", same, f"{w}x{h}")
            else:
                tally.add("random crop, torchvision's draws", got == (cw, ch) and i + 2 == len(draws), f"{w}x{h} {got} {cw, ch}")
    finally:
        torch.Tensor.uniform_ = uniform


def check_damage(ours, rng, folder, files, n):
    """Who refuses what: pictures cut short or with bytes changed."""
    table = collections.Counter()
    path = os.path.join(folder, "damaged")
    for _ in range(n):
        name, data = files[int(rng.integers(len(files)))]
        b = bytearray(data)
        if rng.random() < 0.5:
            del b[int(rng.integers(1, len(b))):]
            what = "cut short"
        else:
            for _ in range(int(rng.integers(1, 4))):
                b[int(rng.integers(len(b)))] = int(rng.integers(256))
            what = "bytes changed"
        with open(path, "wb") as f:
            f.write(b)
        st, w, h, got = ours.ask("decode", path)
        try:
            im = Image.open(path).convert("RGB")
            want = (im.width, im.height, im.tobytes())
        except Exception:
            want = None
        kind = name.split()[0] + ", " + what
        verdict = "both refuse" if st and not want else "only ours refuses" if st else "only Pillow refuses" if not want else \
            "same pixels" if want == (w, h, got) else "other pixels"
        table[kind, verdict] += 1
    verdicts = ("both refuse", "same pixels", "only ours refuses", "only Pillow refuses", "other pixels")
    print(f"\n{'damaged files':26}" + "".join(f"{v:>20}" for v in verdicts))
    for kind in sorted({k for k, _ in table}):
        print(f"{kind:26}" + "".join(f"{table[kind, v]:20}" for v in verdicts))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--cases", type=float, default=1.0)
    a.add_argument("--seed", type=int, default=1)
    o = a.parse_args()
    assert int(Image.__version__.split(".")[0]) < 13, "Pillow 13 resizes in another order of passes"
    rng, ours, tally = np.random.default_rng(o.seed), Ours(o.program), Tally()
    torch.manual_seed(o.seed)
    torch.set_num_threads(1)
    kept = []
    print(f"Pillow {Image.__version__} (libjpeg-turbo {features.version('libjpeg_turbo')}, libwebp {features.version('webp')}), "
          f"torchvision {torchvision.__version__}, open_clip {open_clip.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "picture")
        for i in range(math.ceil(60 * o.cases)):
            for name, data in (*jpegs(rng, ours, folder), *pngs(rng), *webps(rng)):
                with open(path, "wb") as f:
                    f.write(data)
                im = Image.open(path).convert("RGB")
                st, w, h, got = ours.ask("decode", path)
                same = st == 0 and (w, h) == im.size and got == im.tobytes()
                why = got.decode() if st else "pixels"
                if st == 0 and not same and (w, h) == im.size:
                    d = np.abs(np.frombuffer(got, np.uint8).astype(int) - np.asarray(im).ravel())
                    why = f"{(d > 0).sum()} bytes of {d.size} differ, by up to {d.max()}"
                tally.add(name, same, f"{im.size}: {why}")
                if same:
                    check_eval(tally, ours, rng, name, path, im)
                if len(kept) < 400:
                    kept.append((name, data))
        check_resizes(tally, ours, rng, folder, math.ceil(4000 * o.cases))
        check_crops(tally, ours, rng, math.ceil(3000 * o.cases))
        tally.show()
        check_damage(ours, rng, folder, kept, math.ceil(2000 * o.cases))
    sys.exit(1 if tally.bad else 0)


main()
