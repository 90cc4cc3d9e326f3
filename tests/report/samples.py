"""Synthetic recordings and diagnoses of every sort a report has to lay out."""

from __future__ import annotations

import numpy as np

from gradwise.diagnosis.findings import CheckItem, Diagnosis, Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.recording.recording import (
    Event,
    OptimizerInfo,
    ParameterInfo,
    Place,
    Recording,
    RunInfo,
    Series,
)
from gradwise.recording.signals import GRADIENT, LOSS, LR, PARAMETER, TIME, UPDATE, VALIDATION
from gradwise.schedules import constant, cosine

RUN = "20261121-094501-x7k2"
MADE = Place("train.py", 14, "main", "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)")
TENSORS = ("body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias", "head.weight", "head.bias")


def curve(values, steps=None) -> Series:
    values = np.asarray(values, np.float64)
    return Series(np.arange(len(values)) if steps is None else np.asarray(steps, np.int64), values)


def recording(loss, validation=None, *, lr=0.1, tensors=TENSORS, script="train.py", seed=0, **run) -> Recording:
    """A run with that training loss (n,), validation evenly over it, and plausible norms of `tensors`."""
    rng = np.random.default_rng(seed)
    loss = np.asarray(loss, np.float64)
    n = len(loss)
    sampled = np.arange(0, n, max(1, n // 200))
    labels = tuple(tensors)
    shape = (len(sampled), len(labels))
    depth = 10.0 ** -np.linspace(0, 2, len(labels))
    gradient = depth * np.exp(rng.normal(0, 0.2, shape))
    parameter = np.full(shape, 3.0) * np.linspace(1, 2, len(labels))
    series = {
        (LOSS.name, 0): curve(loss),
        (TIME.name, 0): curve(np.arange(n) * 0.004 + 0.1),
        (LR.name, 0): Series(np.array([0]), np.array([[lr]]), ("0",)),
        (GRADIENT.name, 0): Series(sampled, gradient, labels),
        (PARAMETER.name, 0): Series(sampled, parameter, labels),
        (UPDATE.name, 0): Series(sampled, lr * gradient, labels),
    }
    if validation is not None:
        steps = np.linspace(n / len(validation), n, len(validation)).astype(int) - 1
        series[VALIDATION.name, 0] = curve(validation, steps)
    info = OptimizerInfo(
        0,
        "SGD",
        {"lr": lr},
        ({"lr": lr},),
        tuple(ParameterInfo(t, (64, 64), 0) for t in labels),
        Place(script, MADE.line, MADE.function, MADE.text),
    )
    run = {
        "id": RUN,
        "script": script,
        "argv": ("--epochs", "3"),
        "cwd": "/home/ada/digits",
        "started": 1000.0,
        "ended": 1000.0 + 0.1 + 0.004 * n,
        "status": "finished",
        "exit": 0,
        **run,
    }
    return Recording(RunInfo(**run), (info,) if n else (), series if n else {})


def diagnosis(run: Recording, verdict, findings=(), **more) -> Diagnosis:
    steps = len(run.get(LOSS))
    return Diagnosis(
        run.run.id,
        run.run.script,
        run.run.argv,
        verdict,
        tuple(findings),
        steps=steps,
        overhead_fraction=0.0082,
        startup_seconds=0.41,
        **more,
    )


def falling(n=840, start=2.31, end=0.06, noise=0.12, seed=0):
    t = np.arange(n) / n
    level = end + (start - end) * np.exp(-7 * t)
    return level * np.exp(np.random.default_rng(seed).normal(0, noise, n))


CHECKLIST = (
    CheckItem("batch size", "64 of 1,437 rows; gradients of successive steps agree", True),
    CheckItem("input normalization", "inputs between 0 and 16, mean 4.9: not standardized", False),
    CheckItem("learning-rate design", "SGD at a constant 5.0, no schedule", False),
    CheckItem("weight initialization", "not measured in this run", None),
)


def healthy():
    run = recording(falling(), [1.1, 0.6, 0.4, 0.3, 0.22, 0.17, 0.14, 0.12, 0.11, 0.1])
    return diagnosis(
        run, "healthy", summary="Converging: the training loss settles at 0.06, validation follows at 0.1."
    ), run


def lr_too_high():
    rng = np.random.default_rng(1)
    jumps = np.concatenate((np.linspace(2.3, 9, 14), 2.4 + np.abs(rng.normal(0, 0.6, 826))))
    run = recording(jumps, [2.4, 2.5, 2.38, 2.44, 2.5, 2.41], lr=5.0, argv=("--lr", "5", "--epochs", "3"))
    remedies = (
        Remedy(
            Intervention(lr_scale=0.03),
            "train.py:14  SGD(…, lr=5.0) → lr=0.15",
            "verified",
            "",
            840,
            True,
            VALIDATION.name,
            (2.312, None, 2.307),
            (0.2134, 0.1921, 0.2208),
            (False, False, False),
            "--- train.py\n+++ train.py\n@@ -14 +14 @@\n-    opt = SGD(model.parameters(), lr=5.0)\n"
            "+    opt = SGD(model.parameters(), lr=0.15)\n",
        ),
        Remedy(
            Intervention(lr_scale=0.3),
            "train.py:14  SGD(…, lr=5.0) → lr=1.5",
            "failed",
            "no better with seed 2",
            840,
            True,
            VALIDATION.name,
            (2.312, None, 2.307),
            (0.9, None, 2.31),
            (False, True, True),
        ),
        Remedy(
            Intervention(clip_norm=1.0),
            "train.py:31  torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before optimizer.step()",
            "suggested",
            "the repair budget was used up before it could be tried",
        ),
    )
    finding = Finding(
        "lr-too-high",
        "error",
        0.97,
        Where("train.py", 14, step=0),
        "The learning rate of 5.0 is too high from the start: within 14 steps the loss climbs from 2.30 to 9.0, and "
        "then it bounces around 2.4, the loss of a uniform guess, because every step overshoots. Directions of "
        "successive steps are opposed, and a step changes the weights by more than half of their size.",
        {
            "loss at start": 2.302,
            "highest loss": 9.02,
            "update/weight ratio": 0.56,
            "cosine of successive steps": -0.83,
            "first steps": [2.302, 2.8, 3.3, 3.8, 4.4, 4.9, 5.3],
        },
        remedies,
    )
    return diagnosis(
        run,
        "sick",
        (finding,),
        checklist=CHECKLIST,
        summary="The learning rate is about 30× too high; with 0.15 the same script reaches 0.21.",
    ), run


def non_finite():
    loss = falling(400, 2.3, 0.4, 0.1, 2)
    loss[300:] *= np.exp(np.arange(100) * 0.08)
    loss[370:] = np.nan
    run = recording(loss, [1.9, 1.3, 0.9, 0.7, 0.6, float("nan")], status="failed", exit=1)
    remedy = Remedy(
        Intervention(clip_norm=1.0, schedule=constant(1.0, 300) >> cosine(100)),
        "train.py:31  clip_grad_norm_(model.parameters(), 1.0) before optimizer.step()",
        "verified",
        "",
        390,
        False,
        LOSS.name,
        (None, None, None),
        (0.4123, 0.4012, 0.4404),
        (False, False, False),
    )
    finding = Finding(
        "non-finite-loss",
        "error",
        0.999,
        Where("model.py", 88, "decoder.3.weight", "decoder.3", 370),
        "The loss is NaN from step 370 on. The first tensor to go was the gradient of decoder.3.weight.",
        {
            "first non-finite": "gradient of decoder.3.weight",
            "loss before": 148.2,
            "gradient norm before": 3.1e7,
        },
        (remedy,),
    )
    return diagnosis(run, "sick", (finding,), checklist=CHECKLIST, summary="The loss turned NaN at step 370."), run


def inconclusive():
    run = recording(falling(12), status="stopped")
    return diagnosis(
        run, "inconclusive", checklist=CHECKLIST, notes=("The script ended before its first epoch was over.",)
    ), run


def never_stepped():
    run = recording([], status="failed", exit=2)
    return diagnosis(run, "inconclusive", summary="No optimizer was stepped, so there is nothing to judge."), run


def many():
    _, run = lr_too_high()
    first = lr_too_high()[0].findings[0]
    names = (
        "late-divergence",
        "unnormalized-inputs",
        "missing-zero-grad",
        "noisy-small-batch",
        "decay-on-bias-or-norm",
        "dead-units",
        "unshuffled-data",
        "over-regularized",
        "bad-initialization",
    )
    others = tuple(
        Finding(
            name,
            "warning" if k < 5 else "info",
            0.8 - 0.07 * k,
            Where("train.py", 14 + k, step=100 * k),
            f"What {name} means for this run, in a sentence of ordinary length that says why. " * 3,
            {"a figure": 1.5 * k, "another": -0.2, "a third": "text"},
            first.remedies,
        )
        for k, name in enumerate(names)
    )
    return diagnosis(
        run,
        "sick",
        (first, *others),
        checklist=CHECKLIST,
        summary="Several causes.",
        notes=tuple(f"Note {k}: something worth knowing about this run." for k in range(6)),
    ), run


def hostile():
    """Every text a user controls tries to break out of its surroundings."""
    evil = "<script>alert(1)</script>\x1b[31m\u202e'\"&</style>"
    script = "/home/ada/" + "very-long-folder-name/" * 12 + evil + "/träin_日本語🎉.py"
    run = recording(falling(3000), [0.9, 0.5], tensors=(evil, "b" * 90), script=script, argv=(evil, "a b", ""))
    remedy = Remedy(Intervention(lr_scale=2.0), f"{script}:14  {evil} → lr=…", "suggested", evil)
    finding = Finding(
        "late-lr-too-high",
        "warning",
        0.5,
        Where(script, 14, evil, evil, 200),
        evil * 3,
        {evil: evil},
        (remedy,),
    )
    return diagnosis(
        run,
        "sick",
        (finding,),
        summary=evil,
        notes=(evil, "lone \udcff surrogate"),
        checklist=(CheckItem(evil, evil, None),),
    ), run


ALL = {f.__name__: f for f in (healthy, lr_too_high, non_finite, inconclusive, never_stepped, many, hostile)}


def trials(seeds=3) -> list[Recording]:
    """Paired runs for `lr_too_high`: untouched and lr ×0.03."""
    runs = []
    for seed in range(seeds):
        bad = 2.4 + np.abs(np.random.default_rng(seed).normal(0, 0.6, 840))
        runs.append(recording(bad, [2.4, 2.3, 2.35], seed=seed, id=f"base{seed}", parent=RUN))
        good = recording(
            falling(seed=seed),
            [1.0, 0.4, 0.2],
            seed=seed,
            id=f"cure{seed}",
            parent=RUN,
            intervention={"lr_scale": 0.03},
        )
        runs.append(good)
    return [_with_seed(r, k // 2) for k, r in enumerate(runs)]


def _with_seed(run: Recording, seed: int) -> Recording:
    from dataclasses import replace

    return replace(run, run=replace(run.run, seed=seed))


def event(**data) -> Event:
    return Event("validation-place", 0, 0, data)
