"""The peers' side of bench/peers/compare.py: one measurement per call, prints one JSON line {"n":..., "seconds":...}.

Only the work is timed: imports, model construction and a warm-up are not. Threads: all cores, as torch does by itself.
"""
import glob
import io
import json
import os
import sys
import tarfile
import time


def shards(data):
    return sorted(glob.glob(os.path.join(data, "train", "**", "*.tar"), recursive=True))


def pairs(data, limit):
    out = []
    for shard in shards(data):
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


def captions(data, decode):
    """tarfile + json over every shard, in as many processes as cores; decode: Pillow looks at every picture too."""
    from concurrent.futures import ProcessPoolExecutor
    files = shards(data)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(os.path.basename, files[:2]))  # processes are up
        t = time.perf_counter()
        n = sum(pool.map(_captions_of, files, [decode] * len(files)))
        return n, time.perf_counter() - t


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


def embed(data, encoder, limit, sort):
    """transformers in fp32: chunks of 400 padded to the longest; sort: longest first, which is kinder to padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    texts = [t for t, _ in pairs(data, limit)]
    if sort:
        texts.sort(key=len, reverse=True)

    def run(rows):
        with torch.inference_mode():
            for i in range(0, len(rows), 400):
                x = tokenizer(rows[i:i + 400], padding=True, truncation=True, return_tensors="pt")
                h = model(**x).last_hidden_state
                mask = x["attention_mask"].unsqueeze(-1)
                torch.nn.functional.normalize((h * mask).sum(1) / mask.sum(1), dim=-1)
    run(texts[:400])
    t = time.perf_counter()
    run(texts)
    return len(texts), time.perf_counter() - t


def encode(data, model_dir, limit):
    """open_clip: decode + preprocess (DataLoader, one worker per core) and encode_image in fp32."""
    import open_clip
    import torch
    from PIL import Image
    model, preprocess = open_clip.create_model_from_pretrained("local-dir:" + model_dir)
    model.eval()
    rows = [jpg for _, jpg in pairs(data, limit)]

    class Set(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, i):
            return preprocess(Image.open(io.BytesIO(rows[i])).convert("RGB"))
    loader = torch.utils.data.DataLoader(Set(), batch_size=256, num_workers=os.cpu_count(), persistent_workers=True)

    def run():
        with torch.inference_mode():
            for x in loader:
                model.encode_image(x, normalize=True)
    run()
    t = time.perf_counter()
    run()
    return len(rows), time.perf_counter() - t


def train(data, model_dir, steps, compiled):
    """open_clip's model and loss, AdamW, fp32, RandomResizedCrop from JPEG by DataLoader workers; batch 256."""
    import open_clip
    import torch
    from open_clip.loss import ClipLoss
    from PIL import Image
    config = json.load(open(os.path.join(model_dir, "open_clip_config.json")))
    model = open_clip.CLIP(**config["model_cfg"])
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    transform = open_clip.image_transform(size, is_train=True)
    tokenizer = open_clip.SimpleTokenizer()
    rows = pairs(data, 256 * (steps + 2))

    class Set(torch.utils.data.Dataset):
        def __len__(self):
            return 256 * (steps + 2)

        def __getitem__(self, i):
            text, jpg = rows[i % len(rows)]
            return transform(Image.open(io.BytesIO(jpg)).convert("RGB")), tokenizer([text])[0]
    loader = torch.utils.data.DataLoader(Set(), batch_size=256, num_workers=1)
    decay = [p for n, p in model.named_parameters() if p.ndim >= 2]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}],
                            lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    net = torch.compile(model) if compiled else model
    loss_of = ClipLoss()
    n = 0
    for i, (x, ids) in enumerate(loader):
        if i == 2:
            t = time.perf_counter()
        out = net(x, ids)
        loss = loss_of(*out[:3]) if not isinstance(out, dict) else loss_of(out["image_features"], out["text_features"], out["logit_scale"])
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        if i >= 2:
            n += x.shape[0]
    return n, time.perf_counter() - t


if __name__ == "__main__":
    what, data, args = sys.argv[1], sys.argv[2], sys.argv[3:]
    n, s = {"captions": lambda: captions(data, args[0] == "decode"),
            "embed": lambda: embed(data, args[0], int(args[1]), args[2] == "sorted"),
            "encode": lambda: encode(data, args[0], int(args[1])),
            "train": lambda: train(data, args[0], int(args[1]), args[2] == "compiled")}[what]()
    print(json.dumps({"n": n, "seconds": s}))
