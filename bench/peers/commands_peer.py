"""The peers' side of bench/peers/bench_commands.py: one measurement per call, prints one JSON line {"n", "seconds", "cpu"}.

Only the work is timed: imports, model construction, compilation and a warm-up are not. cpu: CPU seconds of this process
and all its descendants. PEER_THREADS: threads (or processes), PEER_SHARDS=N: only the first N shards.
"""
import glob
import io
import json
import os
import sys
import tarfile
import time

THREADS = int(os.environ.get("PEER_THREADS", os.cpu_count()))


def shards(data, n=int(os.environ.get("PEER_SHARDS", 1 << 30))):
    return sorted(glob.glob(os.path.join(data, "train", "**", "*.tar"), recursive=True))[:n]


def pairs(files, limit):
    """The first (caption, JPEG) pairs of some shards."""
    out = []
    for shard in files:
        with tarfile.open(shard) as tar:
            sample = {}
            for m in tar:
                key, ext = m.name.rsplit(".", 1)
                sample[ext] = tar.extractfile(m).read()
                if "json" in sample and "jpg" in sample:
                    out.append((json.loads(sample["json"])["texts"][0], sample["jpg"]))
                    sample = {}
                    if len(out) == limit:
                        return out
    return out


def cpu_seconds():
    parent, used = {}, {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:  # it has exited
            continue
        pid = int(path.split("/")[2])
        parent[pid] = int(fields[1])
        used[pid] = sum(int(x) for x in fields[11:15])
    total = 0
    for pid in used:
        at = pid
        while at and at != os.getpid():
            at = parent.get(at, 0)
        total += used[pid] if at else 0
    return total / os.sysconf("SC_CLK_TCK")


class Clock:
    def __init__(self):
        self.cpu, self.wall = cpu_seconds(), time.perf_counter()

    def row(self, n):
        wall = time.perf_counter() - self.wall
        return {"n": n, "seconds": wall, "cpu": cpu_seconds() - self.cpu}


def captions(data, decode):
    """tarfile + json over every shard, in PEER_THREADS processes; decode: Pillow decodes every picture, too."""
    from concurrent.futures import ProcessPoolExecutor
    files = shards(data)
    with ProcessPoolExecutor(THREADS) as pool:
        list(pool.map(_captions_of, files[:THREADS], [True] * THREADS))  # processes are up, modules loaded
        clock = Clock()
        return clock.row(sum(pool.map(_captions_of, files, [decode] * len(files))))


def _captions_of(path, decode):
    from PIL import Image
    n, texts = 0, []
    with tarfile.open(path) as tar:
        for m in tar:
            if m.name.endswith(".json"):
                texts.append(json.loads(tar.extractfile(m).read())["texts"][0])
            elif m.name.endswith(".jpg"):
                n += 1
                if decode:
                    Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB").load()
    return n


def embed(data, encoder, limit, is_sorted):
    """transformers in fp32: chunks of 400 padded to the longest; sorted: longest first, which wastes little on padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    torch.set_num_threads(THREADS)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    texts = [t for t, _ in pairs(shards(data), limit)]

    def run(rows):
        if is_sorted:
            rows = sorted(rows, key=len, reverse=True)
        with torch.inference_mode():
            for i in range(0, len(rows), 400):
                x = tokenizer(rows[i:i + 400], padding=True, truncation=True, max_length=128, return_tensors="pt")
                h = model(**x).last_hidden_state
                mask = x["attention_mask"].unsqueeze(-1)
                torch.nn.functional.normalize((h * mask).sum(1) / mask.sum(1), dim=-1)
    run(texts[:400])
    clock = Clock()
    run(texts)
    return clock.row(len(texts))


def encode(data, model_dir, limit, compiled):
    """open_clip: decode and preprocess (DataLoader, a worker per core), encode_image in fp32."""
    import open_clip
    import torch
    from PIL import Image
    torch.set_num_threads(THREADS)
    model, preprocess = open_clip.create_model_from_pretrained("local-dir:" + model_dir)
    model.eval()
    rows = [jpg for _, jpg in pairs(shards(data), limit)]

    class Set(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, i):
            return preprocess(Image.open(io.BytesIO(rows[i])).convert("RGB"))
    loader = torch.utils.data.DataLoader(Set(), batch_size=256, num_workers=THREADS, persistent_workers=True)
    features = torch.compile(model.encode_image) if compiled else model.encode_image

    def run():
        with torch.inference_mode():
            for x in loader:
                features(x, normalize=True)
    run()
    clock = Clock()
    run()
    return clock.row(len(rows))


def train(data, model_dir, steps, compiled, is_cut, workers):
    """open_clip's model and loss, AdamW (fused), fp32, RandomResizedCrop from JPEG by DataLoader workers; batch 256.

    cut: the context length is that of the longest caption instead of the config's."""
    import open_clip
    import torch
    from open_clip.loss import ClipLoss
    from PIL import Image
    torch.set_num_threads(THREADS)
    config = json.load(open(os.path.join(model_dir, "open_clip_config.json")))["model_cfg"]
    rows = pairs(shards(data), -1)
    longest = config["text_cfg"]["context_length"]
    if is_cut:
        encode = open_clip.SimpleTokenizer().encode
        longest = min(longest, 2 + max(len(encode(t)) for t, _ in rows))
    config["text_cfg"]["context_length"] = longest
    model = open_clip.CLIP(**config)
    transform = open_clip.image_transform(config["vision_cfg"]["image_size"], is_train=True)
    tokenizer = open_clip.SimpleTokenizer(context_length=longest)
    warm_up = 2

    class Set(torch.utils.data.Dataset):
        def __len__(self):
            return 256 * (steps + warm_up)

        def __getitem__(self, i):
            text, jpg = rows[i * 7919 % len(rows)]
            return transform(Image.open(io.BytesIO(jpg)).convert("RGB")), tokenizer([text])[0]
    loader = torch.utils.data.DataLoader(Set(), batch_size=256, num_workers=workers)
    decay = [p for n, p in model.named_parameters() if p.ndim >= 2]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}],
                            lr=1e-3, betas=(0.9, 0.98), eps=1e-6, fused=True)
    net = torch.compile(model) if compiled else model
    loss_of = ClipLoss()
    for i, (x, ids) in enumerate(loader):
        if i == warm_up:
            clock = Clock()
        out = net(x, ids)
        loss = loss_of(*out[:3])
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
    return clock.row(256 * steps)


if __name__ == "__main__":
    what, data, args = sys.argv[1], sys.argv[2], sys.argv[3:]
    row = {"captions": lambda: captions(data, "decode" in args),
           "embed": lambda: embed(data, args[0], int(args[1]), "sorted" in args),
           "encode": lambda: encode(data, args[0], int(args[1]), "compiled" in args),
           "train": lambda: train(data, args[0], int(args[1]), "compiled" in args, "cut" in args, int(args[2]))}[what]()
    print(json.dumps(row))
