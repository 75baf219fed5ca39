"""`mode train` from JPEGs against open_clip from the same JPEGs, on one GPU, alternating: pairs/s, data loading included.

    PYTHON bench/peers/bench_cuda_loader.py build-gpu/bin/mode [--config ViT-B-32] [--batch 1024] [--backend cuda-bf16]
        [--kinds 500x375,1024x768] [--peers pillow,torchvision] [--workers 16] [--rounds 3] [--seconds 10] [--device cuda]

The script makes WebDataset shards of pictures with the spectrum of photographs (quality 90: about 40 and 110 KB) in --folder, once.
Ours is the command itself, with --algorithms: a round is one run, and its rate is that of the steps beyond those of a
short run, so startup is not counted; the share of time spent waiting for data is printed too.

The peer: open_clip's model and loss in bf16 (autocast), compiled (autotuned), the context cut to the longest text, fused
AdamW; a DataLoader with --workers persistent processes that make whole batches, prefetch_factor 2, pinned memory, batches
copied to the GPU on a separate stream while the previous one is computed. Pictures are read from mapped tars by an index,
texts were tokenized beforehand: both favour the peer. pillow: open_clip's own augmentation, floats from the workers.
torchvision: decode_jpeg and v2's RandomResizedCrop on bytes, converted to floats on the GPU. A round starts with uncounted
steps on the batches that were prefetched, and then has a multiple of --workers steps. Before the other side starts, the
workers have filled their queues and are idle.
"""
import io
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

import pictures
import turns

PREFETCH, SHORT = 2, 12
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # open_clip's


class Shards:
    """(JPEG, text) pairs of memory-mapped tars."""
    def __init__(self, paths):
        self.maps, self.at, self.texts = [], [], []
        for k, path in enumerate(paths):
            with open(path, "rb") as f:
                self.maps.append(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
            with tarfile.open(path) as tar:
                for m in tar:
                    if m.name.endswith(".jpg"):
                        self.at.append((k, m.offset_data, m.size))
                    else:
                        self.texts.append(self.maps[k][m.offset_data:m.offset_data + m.size].decode())

    def jpeg(self, i):
        k, at, size = self.at[i]
        return self.maps[k][at:at + size]


def decoder(torch, open_clip, how, size):
    """JPEG bytes -> a tensor [3, size, size] of floats, or of bytes."""
    if how == "pillow":
        from PIL import Image
        transform = open_clip.image_transform(size, is_train=True)
        return lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2
    crop = v2.RandomResizedCrop(size, (0.9, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return lambda data: crop(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB))


def batches_of(torch, shards, ids, decode, a):
    """An endless iterator of batches, that of their DataLoader."""
    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self):
            torch.manual_seed(torch.utils.data.get_worker_info().id)
            while True:
                rows = torch.randint(len(shards.at), (a.batch,))
                yield torch.stack([decode(shards.jpeg(int(i))) for i in rows]), ids[rows]
    return iter(torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=a.workers, prefetch_factor=PREFETCH,
                                            persistent_workers=True, pin_memory=a.device == "cuda",
                                            multiprocessing_context="fork"))


def fed(torch, batches, device):
    """The batches on the device, as floats, each copied while the previous one is computed."""
    mean, std = (255 * torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    stream, ready = torch.cuda.Stream() if device == "cuda" else None, None
    for pixels, ids in batches:
        with torch.cuda.stream(stream):  # None: a no-op
            now = [t.to(device, non_blocking=True) for t in (pixels, ids)]
        if ready:
            yield ready
        if stream:
            torch.cuda.current_stream().wait_stream(stream)
            for t in now:
                t.record_stream(torch.cuda.current_stream())
        x = now[0]
        ready = (x - mean) / std if x.dtype == torch.uint8 else x, now[1]


def trainer(torch, open_clip, a, config):
    """A function of pixels and ids that launches one step; one for all peers, so it is compiled once."""
    turns.tf32(torch, True)
    torch.backends.cudnn.benchmark = True
    model = open_clip.CLIP(**{**config, "text_cfg": {**config["text_cfg"], "context_length": pictures.LONGEST}}).to(a.device)
    net = torch.compile(model, mode="max-autotune-no-cudagraphs") if a.device == "cuda" else model
    return turns.training(torch, model, net, torch.autocast(a.device, torch.bfloat16))


class Peer:
    def __init__(self, torch, a, loader, step):
        self.a, self.loader, self.step, self.wait = a, loader, step, turns.waiting(torch, a)
        self.batches = fed(torch, loader, a.device)
        self.steps(2)
        self.rest()

    def steps(self, n):
        for _ in range(n):
            self.step(*next(self.batches))
        self.wait()

    def round(self):
        """(pairs per second, begun, ended)"""
        self.steps(self.a.workers * PREFETCH)
        begun, n = time.perf_counter(), 0
        while n == 0 or time.perf_counter() - begun < self.a.seconds:
            self.steps(self.a.workers)
            n += self.a.workers
        ended = time.perf_counter()
        self.rest()
        return n * self.a.batch / (ended - begun), begun, ended

    def rest(self):
        """Waits until its workers have prefetched all they may."""
        def used():
            total = 0
            for w in self.loader._workers:
                with open(f"/proc/{w.pid}/stat") as f:
                    total += sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
            return total
        before = used()
        while True:
            time.sleep(0.5)
            now = used()
            if now - before < self.a.workers:  # clock ticks, 10 ms
                return
            before = now


class Ours:
    def __init__(self, a, paths, tmp):
        self.a, self.tmp = a, tmp
        self.cmd = [a.mode, "train", "--config", a.config, "--data", "::".join(paths), "--text-keys", "txt", "--batch",
                    str(a.batch), "--backend", a.backend, "--algorithms", tmp + "/algorithms", "--checkpoint-steps", "0",
                    "--clip-merges", a.merges, "--out", tmp + "/out", "--json"]
        self.run(SHORT)  # chooses the algorithms
        self.short = self.run(SHORT)[0]
        self.n = SHORT + max(SHORT, round(SHORT * a.seconds / self.short))

    def run(self, steps):
        """(seconds of its steps, share of them spent waiting for data, when it ended)"""
        shutil.rmtree(self.tmp + "/out", ignore_errors=True)
        done = subprocess.run(self.cmd + ["--steps", str(steps)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(self.cmd[:4])} ended with {done.returncode}: {done.stderr[-600:]}")
        row = json.loads(done.stdout.splitlines()[-1])
        return steps * self.a.batch / row["pairs_per_second"], row["data_share"], time.perf_counter()

    def round(self):
        """(pairs per second, begun, ended, share of the time spent waiting for data)"""
        seconds, share, ended = self.run(self.n)
        return (self.n - SHORT) * self.a.batch / (seconds - self.short), ended - seconds, ended, share


def room(a, size):
    """Prefetched batches, of floats or of bytes, are in shared memory."""
    each = sum(4 if how == "pillow" else 1 for how in a.peers.split(","))
    want, v = a.workers * (PREFETCH + 1) * a.batch * 3 * size * size * each, os.statvfs("/dev/shm")
    if want > v.f_bavail * v.f_frsize:
        sys.exit(f"/dev/shm has {v.f_bavail * v.f_frsize / 2**30:.1f} GiB free, the peer's batches take {want / 2**30:.1f}. "
                 "HINT: mount -o remount,size=..., or fewer --workers, or a smaller --batch")


def kind(torch, open_clip, a, edge, step, w, h, clocks, tmp):
    paths, size = pictures.shards(a.folder, w, h, a.pictures, a.samples)
    peers, ours = {}, Ours(a, paths, tmp)
    if torch:
        shards = Shards(paths)
        ids = open_clip.SimpleTokenizer(context_length=pictures.LONGEST)(shards.texts)
        loaders = {how: batches_of(torch, shards, ids, decoder(torch, open_clip, how, edge), a) for how in a.peers.split(",")}
        for how, loader in loaders.items():
            peers[how] = Peer(torch, a, loader, step)
    rates = {name: [] for name in ["ours", *peers]}
    for i in range(a.rounds):
        for name, side in [("ours", ours), *peers.items()]:
            rate, begun, ended, *share = side.round()
            rates[name].append(rate)
            print(f"{w}x{h}, {name}, round {i + 1}: {rate:.0f} pairs/s{f', data {100 * share[0]:.0f} %' if share else ''} "
                  f"({clocks.between(begun, ended)})", file=sys.stderr, flush=True)
    best = statistics.median(rates["ours"])
    for name in peers or ["none"]:
        got = rates.get(name)
        if not got:
            print(f"| {w}x{h}, {size / 1e3:.0f} KB | none | {best:.0f} | | | |", flush=True)
            continue
        ratios = sorted(x / y for x, y in zip(rates["ours"], got))
        print(f"| {w}x{h}, {size / 1e3:.0f} KB | {name} | {best:.0f} | {statistics.median(got):.0f} | "
              f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f}, {ratios[-1]:.2f} |", flush=True)
    for peer in peers.values():
        peer.loader._shutdown_workers()


def main():
    p = turns.arguments(__doc__)
    p.add_argument("--config", default="ViT-B-32", help="an open_clip model name, or its config file")
    p.add_argument("--batch", type=int, default=1024)
    p.add_argument("--backend", default="cuda-bf16", help="our backend")
    p.add_argument("--kinds", default="500x375,1024x768", help="sizes of pictures, one table row each per peer")
    p.add_argument("--peers", default="pillow,torchvision", help="none: ours alone, without torch")
    p.add_argument("--workers", type=int, default=16, help="processes of the peer's DataLoader")
    p.add_argument("--pictures", type=int, default=1024, help="distinct pictures of each size")
    p.add_argument("--samples", type=int, default=16384, help="pairs in the shards")
    p.add_argument("--folder", default=os.path.join(tempfile.gettempdir(), "mode-bench-shards"), help="where the shards are, or will be made")
    p.add_argument("--merges", default=os.environ.get("MODE_CLIP_MERGES") or
                   os.path.expanduser("~/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz"), help="ours")
    turns.device_argument(p, "cuda")
    p.set_defaults(rounds=3, seconds=10)
    a = p.parse_args()
    torch = open_clip = step = side = None
    if a.peers != "none":
        torch = turns.begin(a)
        turns.device(torch, a)
        import open_clip
        if a.config.endswith(".json"):
            with open(a.config) as f:
                config = json.load(f)
        else:
            config = open_clip.get_model_config(a.config)
        side = config["vision_cfg"]["image_size"]
        room(a, side)
        step = trainer(torch, open_clip, a, config)
    clocks = turns.Clocks()
    print(f"training {a.config} from JPEG, batch {a.batch}, {a.backend}; {a.workers} processes of the peer, {turns.processors()} "
          f"cores, {a.rounds} alternating rounds of {a.seconds:g} s, medians\n\n"
          "| pictures | peer | ours, pairs/s | peer, pairs/s | **ratio** | lowest, highest |\n|---|---|---|---|---|---|", flush=True)
    for text in a.kinds.split(","):
        with tempfile.TemporaryDirectory() as tmp:
            kind(torch, open_clip, a, side, step, *map(int, text.split("x")), clocks, tmp)
    clocks.close()


if __name__ == "__main__":
    main()
