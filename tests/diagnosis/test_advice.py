"""Advice: every change in words that name the user's line."""

from __future__ import annotations

import pytest

from gradwise.diagnosis.advice import advise
from gradwise.diagnosis.evidence import Evidence
from gradwise.interventions import ACTIVATIONS, FIXES, INITS, RULES, Intervention
from gradwise.recording.recording import EMPTY, OptimizerInfo, Place
from gradwise.schedules import constant, cosine

MADE, STEPPED = Place("train.py", 14), Place("train.py", 30)


def evidence(kind: str = "SGD", **group) -> Evidence:
    optimizer = OptimizerInfo(0, kind, {}, ({"lr": 5.0, **group},), (), MADE, STEPPED)
    return Evidence(0, optimizer, None, 100, EMPTY, 0.0)


@pytest.mark.parametrize(
    ("change", "group", "expected"),
    [
        (Intervention(lr_scale=0.03), {}, "train.py:14  SGD(…, lr=5) → lr=0.15"),
        (Intervention(momentum=0.5), {"momentum": 0.9}, "train.py:14  SGD(…, momentum=0.9) → momentum=0.5"),
        (Intervention(momentum=0.5), {"betas": [0.9, 0.999]},
         "train.py:14  SGD(…, betas=(0.9, 0.999)) → betas=(0.5, 0.999)"),
        (Intervention(eps=1e-8), {"eps": 0.1}, "train.py:14  SGD(…, eps=0.1) → eps=1e-08"),
        (Intervention(decay_scale=0.1), {"weight_decay": 1.0},
         "train.py:14  SGD(…, weight_decay=1) → weight_decay=0.1"),
        (Intervention(rule="adam"), {}, "train.py:14  SGD(…) → Adam(…)"),
        (Intervention(clip_norm=1.0), {},
         "train.py:30  before the step add torch.nn.utils.clip_grad_norm_(parameters, 1)"),
        (Intervention(fixes=("zero-grad",)), {}, "train.py:30  after the step add optimizer.zero_grad()"),
        (Intervention(accumulate=4), {},
         "train.py:30  (loss / 4).backward() on every batch, step() and zero_grad() on every 4th"),
    ],
)  # fmt: skip
def test_a_change_to_the_users_own_line(change, group, expected):
    assert advise(change, evidence(**group)) == expected


def test_the_findings_line_comes_before_the_optimizers():
    said = advise(Intervention(fixes=("logits",)), evidence(), Place("model.py", 7))
    assert said == "model.py:7  drop the softmax or sigmoid before the loss: it applies that itself"


EVERY = [
    *(Intervention(fixes=(name,)) for name in FIXES), *(Intervention(init=name) for name in INITS),
    *(Intervention(activation=name) for name in ACTIVATIONS), *(Intervention(rule=name) for name in RULES),
    Intervention(lr=0.1 * constant()), Intervention(schedule=cosine(10)), Intervention(decay=0.1),
    Intervention(loss_scale=0.1), Intervention(dropout=0.1), Intervention(dropout_scale=0.0),
    Intervention(dropout_scale=0.5), Intervention(noise=0.1), Intervention(stop=100),
]  # fmt: skip


@pytest.mark.parametrize("change", EVERY, ids=lambda change: change.describe())
def test_every_change_has_words(change):
    words = advise(change, evidence())
    assert words
    assert "{" not in words
    assert advise(change, Evidence(0, OptimizerInfo(0, "manual"), None, 0, EMPTY, 0.0))  # nothing known


def test_several_at_once_are_told_one_after_the_other():
    both = advise(Intervention(lr_scale=0.1, fixes=("standardize",)), evidence())
    assert both.split("; ")[0] == "train.py:14  SGD(…, lr=5) → lr=0.5"
    assert "standardize the inputs" in both
