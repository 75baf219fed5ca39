"""Mean average precision by its definition: prints the expected values of tests/unit/ensemble/test_metrics.c.

    python3 tests/golden/average_precision.py

Per class: the sum over the thresholds, from the highest score down, of the increase of recall times the precision
(scikit-learn's definition); then the mean over the classes, where a class without a positive counts as 0. Computed in
exact fractions. Scores and labels come from a small generator that the test has too.
"""
from fractions import Fraction

ROWS, CLASSES = 200, 6
state = 1


def draw():
    global state
    state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    return state >> 8


def average_precision(scores, truth):
    positives, total, recall = sum(truth), Fraction(0), Fraction(0)
    if positives == 0:
        return total
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth) if s >= threshold]
        now = Fraction(sum(chosen), positives)
        total += (now - recall) * Fraction(sum(chosen), len(chosen))
        recall = now
    return total


table = []
for i in range(ROWS):
    row = []
    for k in range(CLASSES):
        score = draw() - (1 << 22)
        truth = draw() % (k + 2) == 0 and k < CLASSES - 1
        row.append((score, truth))
    table.append(row)
per_class = [average_precision([r[k][0] for r in table], [r[k][1] for r in table]) for k in range(CLASSES)]
print("per class", [f"{float(x):.15f}" for x in per_class])
print("mean", f"{float(sum(per_class) / CLASSES):.15f}")
