"""Does training in another precision converge as in the trusted one? Compares loss curves (steps.jsonl of `mode train`).

    python3 bench/loss_curves.py BF16.jsonl BF16.jsonl BF16.jsonl --against FP8.jsonl [FP8.jsonl...] [--window 100]

The first files are of the trusted precision, with at least three different seeds: they define a band, from the lowest to
the highest mean of every window of steps, widened by its own width on either side. A curve passes if 95 % of its windows,
and the last one, are within the band or below it. Exits with 1 if one does not pass.
"""
import argparse
import json
import sys


def windows(path, n):
    with open(path) as f:
        loss = [json.loads(line)["loss"] for line in f]
    if len(loss) < n:
        sys.exit(f"{path}: {len(loss)} steps; a window has {n}")
    return [sum(loss[i:i + n]) / n for i in range(0, len(loss) - n + 1, n)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("trusted", nargs="+")
    p.add_argument("--against", nargs="+", required=True)
    p.add_argument("--window", type=int, default=100, help="steps")
    a = p.parse_args()
    if len(a.trusted) < 3:
        sys.exit("a band needs at least three trusted curves")
    trusted, others = ([windows(f, a.window) for f in files] for files in (a.trusted, a.against))
    n = min(map(len, trusted + others))
    band = [(min(x), max(x)) for x in list(zip(*trusted))[:n]]
    print("steps\tlowest\thighest\t" + "\t".join(a.against))
    for i, (low, high) in enumerate(band):
        print(f"{(i + 1) * a.window}\t{low:.4f}\t{high:.4f}\t" + "\t".join(f"{c[i]:.4f}" for c in others))
    failed = 0
    for name, curve in zip(a.against, others):
        out = [curve[i] > 2 * high - low for i, (low, high) in enumerate(band)]
        passes = sum(out) <= 0.05 * n and not out[-1]
        failed += not passes
        print(f"{name}: {n - sum(out)} of {n} windows within the band: {'passes' if passes else 'DOES NOT PASS'}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
