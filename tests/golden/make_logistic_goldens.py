"""make_logistic_goldens.py - writes tests/golden/logistic/*.safetensors: rows, labels, and scikit-learn's logistic
regressions on them in double precision, for C from very strong regularisation (weights near zero) to almost none.

    $(tests/golden/venv.sh scikit-learn) tests/golden/make_logistic_goldens.py

`many` is like CLIP features: unit rows in a narrow cone, classes of very different sizes; `two` has two classes, which
scikit-learn treats separately; `long` has columns of very different scales. The script fails if a fit is not at its
minimum to ten digits. tests/golden/test_logistic_minima.c compares.
"""
import pathlib

import numpy as np
import sklearn
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

HERE = pathlib.Path(__file__).parent / "logistic"
STRENGTHS = [1e-4, 1e-2, 1, 1e2, 1e4]


def objective(x, y, w, b, strength):
    """Its value and gradient in the terms of common/optim/logistic.h: w [c, d]; of two classes one is the other, negated."""
    z = x @ w.T + b
    z -= z.max(1, keepdims=True)
    p = np.exp(z)
    total = p.sum(1, keepdims=True)
    n, rows = len(x), np.arange(len(x))
    hold = (2 if len(w) == 2 else 1) / (strength * n)
    value = (np.log(total[:, 0]) - z[rows, y]).mean() + hold / 2 * (w * w).sum()
    p /= total
    p[rows, y] -= 1
    return value, np.concatenate([(p.T @ x / n + hold * w).ravel(), p.mean(0)])


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw(name):
    rng = np.random.default_rng(7)
    if name == "many":
        centres = rng.normal(size=(7, 20))
        y = np.sort(rng.choice(7, 400, p=[.3, .2, .2, .1, .1, .07, .03]))
        x = unit(4 * rng.normal(size=20) + centres[y] + 1.5 * rng.normal(size=(400, 20)))
    elif name == "two":
        y = (rng.random(150) < .3).astype(int)
        x = unit(rng.normal(size=(150, 12)) + .5 * y[:, None] + 1)
    else:
        y = rng.integers(3, size=120)
        x = (rng.normal(size=(120, 6)) + y[:, None] * .5) * [10, 1, .1, 3, 1, 30] + 5
    return x.astype(np.float32), y.astype(np.int32)


def make(name):
    x, y = draw(name)
    out = {"x": x, "label": y, "strength": np.array(STRENGTHS)}
    c, d = y.max() + 1, x.shape[1]
    w, b, values = np.zeros((len(STRENGTHS), c, d)), np.zeros((len(STRENGTHS), c)), np.zeros(len(STRENGTHS))
    start = np.linalg.norm(objective(x.astype(float), y, w[0], b[0], 1)[1])
    for i, strength in enumerate(STRENGTHS):
        fit = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-13, max_iter=1000).fit(x.astype(float), y)
        w[i], b[i] = fit.coef_, fit.intercept_
        if c == 2:
            w[i], b[i] = np.vstack([-fit.coef_, fit.coef_]) / 2, np.array([-.5, .5]) * fit.intercept_
        b[i] -= b[i].mean()  # softmax is invariant to a constant added to all biases
        values[i], g = objective(x.astype(float), y, w[i], b[i], strength)
        share = np.linalg.norm(g) / start
        assert share < 1e-10, (name, strength, share)
        print(f"{name} C={strength:g}: objective {values[i]:.12f}, gradient {share:.1e}, |w| {np.linalg.norm(w[i]):.4f}")
    out |= {"w": w, "b": b, "objective": values}
    save_file(out, HERE / f"{name}.safetensors", {"scikit-learn": sklearn.__version__})


HERE.mkdir(exist_ok=True)
for each in ("many", "two", "long"):
    make(each)
