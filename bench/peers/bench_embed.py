"""`mode bench embed` against transformers: the same texts to unit vectors (mean pooling), tokenizing included, in turns.

    $(tests/golden/venv.sh) bench/peers/bench_embed.py build/bin/mode ENCODER SHARD... [--texts 512]

Peers, all fp32 in inference mode, batches of 64 padded to their longest text: in order of arrival, as scripts do it;
sorted by length, which wastes little on padding; the same compiled.
"""
import tempfile

import turns


def main():
    p = turns.arguments(__doc__)
    p.add_argument("encoder")
    p.add_argument("shards", nargs="+")
    p.add_argument("--texts", type=int, default=512)
    p.add_argument("--batch", type=int, default=64, help="of the peer")
    p.add_argument("--peers", default="arrival,sorted,sorted+compiled")
    a = p.parse_args()
    torch = turns.begin(a)
    from transformers import AutoModel, AutoTokenizer
    texts = turns.captions(a.shards, a.texts)
    tokenizer = AutoTokenizer.from_pretrained(a.encoder)

    def peer(how):
        model = AutoModel.from_pretrained(a.encoder).eval()
        net = torch.compile(model, dynamic=True) if "compiled" in how else model

        def run():
            rows = sorted(texts, key=len, reverse=True) if "sorted" in how else texts
            with torch.inference_mode():
                for i in range(0, len(rows), a.batch):
                    x = tokenizer(rows[i:i + a.batch], padding=True, truncation=True, max_length=128, return_tensors="pt")
                    h = net(**x).last_hidden_state
                    mask = x["attention_mask"].unsqueeze(-1)
                    torch.nn.functional.normalize((h * mask).sum(1) / mask.sum(1), dim=-1)
        return run

    lengths = [len(tokenizer(t)["input_ids"]) for t in texts]
    with tempfile.TemporaryDirectory() as tmp:
        turns.write_lines(tmp + "/texts", texts)
        turns.compare(f"embedding {a.texts} texts of {sum(lengths) / len(lengths):.1f} tokens (longest {max(lengths)})",
                      [a.mode, "bench", "embed", "--encoder", a.encoder, "--pooling", "mean", "--max-tokens", "128",
                       "--texts", tmp + "/texts"],
                      {f"transformers, {how}": peer(how.split("+")) for how in a.peers.split(",")},
                      a.texts, a.rounds, a.threads)


if __name__ == "__main__":
    main()
