"""make_schedule_goldens.py - writes tests/golden/schedules.txt: the learning rates of open_clip_train's schedulers.

    $(tests/golden/venv.sh) tests/golden/make_schedule_goldens.py

Per line: schedule (our name), lr, warm-up, total and cooldown steps, power, end, step, learning rate at that step. Short
schedules have every step up to the total, long ones a few. tests/golden/test_schedules.c compares.
"""
import pathlib
from importlib.metadata import version
from types import SimpleNamespace

from open_clip_train.scheduler import const_lr, const_lr_cooldown, cosine_lr

SHORT = [("cosine", 5e-4, 3, 12, 0, 1, 0), ("cosine", 1e-3, 0, 7, 0, 1, 0),
         ("constant", 5e-4, 3, 12, 0, 1, 0), ("constant", 1e-3, 0, 7, 0, 1, 0),
         ("constant_cooldown", 5e-4, 3, 12, 5, 1, 0), ("constant_cooldown", 5e-4, 3, 12, 9, 1, 1e-5),
         ("constant_cooldown", 5e-4, 0, 12, 12, 2, 0), ("constant_cooldown", 1e-3, 2, 11, 1, 1, 0),
         ("constant_cooldown", 1e-3, 2, 17, 8, 0.5, 1e-4), ("constant_cooldown", 3e-4, 4, 20, 10, 3, 3e-4)]
LONG = [("cosine", 5e-4, 2000, 390624, 0, 1, 0), ("constant", 5e-4, 2000, 390624, 0, 1, 0),
        ("constant_cooldown", 5e-4, 2000, 390624, 78125, 1, 0), ("constant_cooldown", 4e-4, 10000, 390624, 61035, 1.5, 1e-6)]


def rate(kind, lr, warmup, total, cooldown, power, end, step):
    optimizer = SimpleNamespace(param_groups=[])
    if kind == "cosine":
        return cosine_lr(optimizer, lr, warmup, total)(step)
    if kind == "constant":
        return const_lr(optimizer, lr, warmup, total)(step)
    return const_lr_cooldown(optimizer, lr, warmup, total, cooldown, power, end)(step)


def rows():
    for case in SHORT:
        yield from ((*case, step) for step in range(case[3] + 1))
    for case in LONG:
        total, cooldown = case[3], case[4]
        for step in (0, case[2] - 1, case[2], 100000, total - cooldown - 1, total - cooldown, 329589, 350001, total - 1):
            yield (*case, step)


with open(pathlib.Path(__file__).parent / "schedules.txt", "w") as f:
    f.write(f"# open_clip_torch {version('open_clip_torch')}; make_schedule_goldens.py\n")
    for row in rows():
        f.write(" ".join(map(str, row)) + f" {rate(*row)!r}\n")
