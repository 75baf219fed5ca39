"""`mode bench logistic` against scikit-learn's LogisticRegression (lbfgs), alternating: one regression on the same rows.

    $(tests/golden/venv.sh scikit-learn) bench/peers/bench_logistic.py build/bin/mode [--rows 6000] [--classes 37] [--width 512]
        [--strengths 0.316,31.6] [--threads 2]

Rows are like CLIP features: unit vectors in a narrow cone, with a 1/k spectrum, randomly rotated so that no column is a
principal axis.
Peers: f32, as in CLIP's own script; f64. Both sides start from zero weights and stop at an equally small gradient:
scikit-learn tests its largest element, ours its norm, so the peer's tolerance is the largest element at the point where
the norm is 1e-5 of the initial one. Both sides' final objectives and gradients are printed, in double precision.
"""
import os
import subprocess
import sys
import tempfile

import turns


def draw(np, n, c, d):
    rng = np.random.default_rng(1)
    axes = 1 / np.sqrt(1 + np.arange(d))
    y = rng.integers(c, size=n)
    x = (rng.normal(size=(c, d))[y] * .5 + rng.normal(size=(n, d))) * axes + 3 * rng.normal(size=d) * axes
    x = x @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


def judge(np, x, y, w, b, strength):
    """Objective and gradient."""
    n = len(x)
    z = x @ w.T + b
    z -= z.max(1, keepdims=True)
    p = np.exp(z)
    total = p.sum(1, keepdims=True)
    value = (np.log(total[:, 0]) - z[np.arange(n), y]).mean() + (w * w).sum() / (2 * strength * n)
    p /= total
    p[np.arange(n), y] -= 1
    return value, np.concatenate([(p.T @ x / n + w / (strength * n)).ravel(), p.mean(0)])


def main():
    p = turns.arguments(__doc__)
    p.add_argument("--rows", type=int, default=6000)
    p.add_argument("--classes", type=int, default=37)
    p.add_argument("--width", type=int, default=512)
    p.add_argument("--strengths", default="0.316,31.6")
    a = p.parse_args()
    a.threads = a.threads or 1
    os.environ.update(MODE_THREADS=str(a.threads), OMP_NUM_THREADS=str(a.threads), OPENBLAS_NUM_THREADS=str(a.threads))
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    x, y = draw(np, a.rows, a.classes, a.width)
    wide = x.astype(np.float64)
    with tempfile.TemporaryDirectory() as scratch:
        data, labels, weights = (os.path.join(scratch, f) for f in ("x", "y", "w"))
        x.tofile(data)
        y.astype(np.float32).tofile(labels)
        for strength in map(float, a.strengths.split(",")):
            cmd = [a.mode, "bench", "logistic", "--data", data, "--labels", labels, "--width", str(a.width), "--strength",
                   str(strength)]
            subprocess.run(cmd + ["--rounds", "1", "--weights", weights], check=True, stdout=subprocess.DEVNULL)
            w = np.fromfile(weights)
            w, b = w[:-a.classes].reshape(a.classes, a.width), w[-a.classes:]
            zero = np.zeros_like(w), np.zeros_like(b)
            first = np.linalg.norm(judge(np, wide, y, *zero, strength)[1])
            value, g = judge(np, wide, y, w, b, strength)
            tolerance = np.abs(g).max() * 1e-5 * first / np.linalg.norm(g)
            print(f"ours: objective {value:.9f}, gradient {np.linalg.norm(g) / first:.1e} of the initial one", file=sys.stderr)
            fits = {}

            def peer(name, rows):
                def work():
                    fits[name] = LogisticRegression(C=strength, tol=tolerance, max_iter=10000).fit(rows, y)
                return work
            turns.compare(f"{a.rows} x {a.width}, {a.classes} classes, C = {strength:g}", cmd,
                          {"scikit-learn, f32": peer("f32", x), "scikit-learn, f64": peer("f64", wide)}, 1, a.rounds, a.threads)
            for name, f in fits.items():
                value, g = judge(np, wide, y, f.coef_.astype(float), f.intercept_.astype(float), strength)
                print(f"{name}: objective {value:.9f}, gradient {np.linalg.norm(g) / first:.1e} of the initial one, "
                      f"{f.n_iter_[0]} steps", file=sys.stderr)
            print()


main()
