"""`mode bench embed` against transformers: the same texts to unit vectors (mean pooling), tokenizing included, alternating.

    $(tests/golden/venv.sh) bench/peers/bench_embed.py build/bin/mode ENCODER SHARD... [--texts 512]
    PYTHON bench/peers/bench_embed.py build/bin/mode ENCODER SHARD... --texts 32768 --device cuda --backend cuda-bf16
        --batch 400 --batch-tokens 16384 --peers arrival,sorted,sorted+bf16,sorted+bf16+compiled,sorted+bf16+compiled+ids

Peers, in inference mode, batches padded to their longest text, fp32 unless stated. arrival: in order of arrival, --batch
texts at a time, as in scripts; sorted: by length, which wastes little on padding, batches of at most --batch-tokens
tokens if that is given, as in servers; compiled: torch.compile; bf16: weights and activations (attention by SDPA in
either case); tf32: f32 GEMMs in TF32, off by default in PyTorch; ids: texts tokenized beforehand, which ours never are.
If sorted, a thread tokenizes the next batches while the device computes, by the tokenizers library alone, which runs each
batch on --threads threads; transformers' wrapper around it takes longer than the model does on a GPU.
With --device cuda wall time is compared, until the vectors are on the host, clocks are logged, and --threads defaults to
all cores.
"""
import collections
import concurrent.futures
import copy
import itertools
import tempfile

import turns


def batches(lengths, most, tokens):
    """(first, end) of each batch of rows with these lengths: at most `most` rows, or at most `tokens` tokens with padding."""
    at = 0
    while at < len(lengths):
        end, longest = at + 1, lengths[at]
        while end < len(lengths):
            longest = max(longest, lengths[end])
            if end - at >= most if not tokens else longest * (end - at + 1) > tokens:
                break
            end += 1
        yield at, end
        at = end


def ahead(pool, f, inputs, n):
    """f of each input, in order, prefetching n of them."""
    inputs, begun = iter(inputs), collections.deque()
    begun.extend(pool.submit(f, x) for x in itertools.islice(inputs, n))
    while begun:
        done = begun.popleft().result()
        begun.extend(pool.submit(f, x) for x in itertools.islice(inputs, 1))
        yield done


AHEAD = 4


def main():
    p = turns.arguments(__doc__)
    p.add_argument("encoder")
    p.add_argument("shards", nargs="+")
    p.add_argument("--texts", type=int, default=512)
    p.add_argument("--batch", type=int, default=64, help="texts per batch of the peer")
    p.add_argument("--batch-tokens", type=int, default=0, help="instead, for sorted peers: tokens per batch, padding included")
    p.add_argument("--backend", default="cpu", help="our backend")
    turns.device_argument(p, "cpu")
    p.add_argument("--peers", default="arrival,sorted,sorted+compiled")
    a = p.parse_args()
    torch = turns.begin(a)
    from transformers import AutoModel, AutoTokenizer
    device, wait = turns.device(torch, a), turns.waiting(torch, a)
    texts = turns.captions(a.shards, a.texts)
    tokenizer = AutoTokenizer.from_pretrained(a.encoder)
    length_of = {t: min(128, len(ids)) for t, ids in zip(texts, tokenizer(texts)["input_ids"])}

    def tokens_of(rows):
        return tokenizer(rows, padding=True, truncation=True, max_length=128, return_tensors="pt")

    quick = copy.deepcopy(tokenizer.backend_tokenizer)
    quick.enable_truncation(128)
    quick.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)

    def tokens_quickly(rows):
        found = quick.encode_batch_fast(rows)
        x = {"input_ids": torch.tensor([e.ids for e in found]), "attention_mask": torch.tensor([e.attention_mask for e in found])}
        return {k: v.pin_memory() for k, v in x.items()} if device == "cuda" else x

    def peer(how):
        model = AutoModel.from_pretrained(a.encoder, dtype=torch.bfloat16 if "bf16" in how else torch.float32).to(device).eval()
        net = torch.compile(model, dynamic=True) if "compiled" in how else model
        is_sorted = "sorted" in how
        rows = sorted(texts, key=length_of.get, reverse=True) if is_sorted else texts
        cut = list(batches([length_of[t] for t in rows], a.batch, a.batch_tokens if is_sorted else 0))
        pieces = [rows[i:j] for i, j in cut]
        before = [tokens_quickly(piece) for piece in pieces] if "ids" in how else None
        pool = concurrent.futures.ThreadPoolExecutor(1) if is_sorted and a.threads > 1 else None
        read = tokens_quickly if is_sorted else tokens_of

        def run():
            out = []
            turns.tf32(torch, "tf32" in how)
            with torch.inference_mode():
                if is_sorted:
                    sorted(texts, key=len, reverse=True)  # a part of the work
                for x in before or (ahead(pool, read, pieces, AHEAD) if pool else map(read, pieces)):
                    x = {k: v.to(device, non_blocking=True) for k, v in x.items()}
                    h = net(**x).last_hidden_state
                    mask = x["attention_mask"].unsqueeze(-1).to(h.dtype)
                    out.append(torch.nn.functional.normalize(((h * mask).sum(1) / mask.sum(1)).float(), dim=-1))
                torch.cat(out).cpu()
        return run

    lengths = [length_of[t] for t in texts]
    clocks = turns.Clocks() if device == "cuda" else None
    with tempfile.TemporaryDirectory() as tmp:
        turns.write_lines(tmp + "/texts", texts)
        cmd = [a.mode, "bench", "embed", "--encoder", a.encoder, "--pooling", "mean", "--max-tokens", "128", "--texts",
               tmp + "/texts", "--backend", a.backend]
        turns.compare(f"embedding {a.texts} texts of {sum(lengths) / len(lengths):.1f} tokens (longest {max(lengths)}), "
                      f"{a.backend}", cmd, {f"transformers, {how}": peer(how.split("+")) for how in a.peers.split(",")},
                      a.texts, a.rounds, a.threads, clocks, a.seconds if clocks else 0, wait)
    if clocks:
        clocks.close()


if __name__ == "__main__":
    main()
