"""`mode bench train` against open_clip: the same pixels and texts, forward, loss, backward, AdamW, fp32, alternating.

    $(tests/golden/venv.sh) bench/peers/bench_train.py build/bin/mode SHARD... [--config ViT-B-32] [--batch 32] [--dense]

Texts are captions of the tar shards; --words N: each is extended with others to N words, --dense: until it fills the
context, so that there is no padding to skip. Peers: open_clip's model and loss, AdamW (fused); compiled: torch.compile;
channels last; cut: the context cut to the longest text of the batch.
"""
import os
import tempfile

import turns


def longer(texts, words):
    return [" ".join(" ".join(texts[(i + k) % len(texts)] for k in range(words)).split()[:words])
            for i in range(len(texts))] if words else texts


def main():
    p = turns.arguments(__doc__)
    p.add_argument("shards", nargs="+")
    p.add_argument("--config", default="ViT-B-32")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--words", type=int, default=0)
    p.add_argument("--dense", action="store_true")
    p.add_argument("--merges", default=os.path.expanduser("~/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz"))
    p.add_argument("--peers", default="eager,compiled,compiled+cut", help="of: eager compiled channels_last cut, joined by +")
    a = p.parse_args()
    torch = turns.begin(a)
    import open_clip
    config = open_clip.get_model_config(a.config)
    size = config["vision_cfg"]["image_size"]
    pixels = torch.randn(a.batch, 3, size, size)
    texts = longer(turns.captions(a.shards, a.batch), 90 if a.dense else a.words)
    ids = open_clip.SimpleTokenizer()(texts)
    lengths = ids.argmax(-1) + 1

    def peer(how):
        context = int(lengths.max()) if "cut" in how else config["text_cfg"]["context_length"]
        text_cfg = {**config["text_cfg"], "context_length": context}
        model = open_clip.CLIP(**{**config, "text_cfg": text_cfg}).train()
        x, y = pixels, ids[:, :context].contiguous()
        if "channels_last" in how:
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        step = turns.training(torch, model, torch.compile(model) if "compiled" in how else model)
        return lambda: step(x, y)

    with tempfile.TemporaryDirectory() as tmp:
        pixels.numpy().tofile(tmp + "/pixels")
        turns.write_lines(tmp + "/texts", texts)
        cmd = [a.mode, "bench", "train", "--config", a.config, "--pixels", tmp + "/pixels", "--texts", tmp + "/texts",
               "--clip-merges", a.merges]
        for how in a.peers.split(","):  # one at a time: each holds weights, gradients and moments
            turns.compare(f"training {a.config}, batch {a.batch}, {lengths.float().mean():.1f} tokens per text", cmd,
                          {f"open_clip, {how}": peer(how.split("+"))}, a.batch, a.rounds, a.threads)


if __name__ == "__main__":
    main()
