"""X9: what is trained is what is said, strengths are chosen on validation data, the verdict follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradwise.lab.data import load
from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, UNDECIDED, Bench
from gradwise.lab.training import evaluate
from gradwise.lab.x09_regularizers import EXPERIMENT, L1, NONE, TERM, _augment, _Keeper, _train, gap

SMALL = {"data": "digits", "rows": 60, "hidden": 16, "epochs": 4}


def measured(way: str, *strengths: dict[str, float]) -> Any:
    return EXPERIMENT.measure({**SMALL, "way": way, "strengths": list(strengths)}, 0, Bench(quick=True))


def test_the_strength_is_chosen_by_the_validation_loss() -> None:
    found = measured("L2", {"l2": 1e-3}, {"l2": 10.0})
    assert found["strength"] == {"l2": 1e-3}
    assert found["validation"] == min(found["tried"])
    assert gap(found) == found["validation"] - found["train"]
    assert found["strength"] == measured("L2", {"l2": 10.0}, {"l2": 1e-3})["strength"]


def test_only_the_proximal_step_makes_exact_zeros() -> None:
    proximal, term = measured(L1, {"l1": 1.0}), measured(TERM, {"term": 1e-2})
    assert proximal["zeros"] > 0.2
    assert term["zeros"] == 0


def test_a_penalty_is_of_weights_only_and_not_in_the_loss_that_is_told() -> None:
    data = load("digits").first(60)
    free, _ = _train(data, 16, 2, 0.01, {}, 0)
    strong, told = _train(data, 16, 2, 0.01, {"l2": 1.0}, 0)
    size = {name: p.norm() for name, p in free.named_parameters()}
    for name, p in strong.named_parameters():
        if name.endswith("weight"):
            assert p.norm() < 0.9 * size[name]
    assert told["train"] == pytest.approx(evaluate(strong, data.train)[0])


def test_augmentation_is_what_it_is_called() -> None:
    x = torch.arange(2 * 1 * 8 * 8.0).reshape(2, 1, 8, 8)
    assert _augment({"l2": 1.0}) is None
    noise, shift = _augment({"noise": 0.5}), _augment({"shift": 1})
    assert noise is not None
    assert shift is not None
    torch.manual_seed(0)
    assert (noise(torch.zeros(100, 1, 8, 8))).std().item() == pytest.approx(0.5, rel=0.05)
    moved = shift(x)
    for before, after in zip(x, moved, strict=True):
        ways = [torch.roll(before, (a, b), (-2, -1)) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        assert any(torch.equal(after, way) for way in ways)


def test_early_stopping_keeps_the_best_epochs_weights() -> None:
    net = nn.Linear(1, 1, bias=False)
    keeper = _Keeper(2, net)
    stops = []
    for weight, loss in ((1.0, 0.9), (2.0, 0.5), (3.0, 0.7), (4.0, 0.6)):
        nn.init.constant_(net.weight, weight)
        stops.append(keeper(loss))
    assert stops == [False, False, False, True]
    assert keeper.best["weight"].item() == 2.0


def runs(gaps: float, tests: float, spread: float = 0.001) -> dict[str, dict[int, Any]]:
    """A regularizer that changes gap and test loss by so much, and others that do alike."""
    found: dict[str, dict[int, Any]] = {}
    for way, zeros in ((NONE, 0.0), (L1, 0.3), (TERM, 0.0), ("L2", 0.0)):
        found[way] = {}
        for seed in range(3):
            change = (way != NONE) * (1 + spread * (seed - 1))
            found[way][seed] = {
                "train": 0.1, "validation": 0.6 + 0.01 * seed + gaps * change, "test": 0.7 + tests * change,
                "accuracy": 0.9, "zeros": zeros, "strength": {"l2": 0.1}, "curve": [1.0, 0.6],
                "train_curve": [0.9, 0.1],
            }  # fmt: skip
    return found


def test_the_verdict_follows_the_paired_differences() -> None:
    helped = EXPERIMENT.judge(runs(-0.1, -0.1))
    assert [s.held for s in helped.statements] == [True] * 4
    assert helped.statements[-1].condition == "by its proximal step, not as a term of the loss"
    assert EXPERIMENT.judge(runs(-0.1, 0.1)).statements[0].held is False
    assert EXPERIMENT.judge(runs(0.1, -0.1)).statements[0].held is False
    assert EXPERIMENT.judge(runs(-0.1, -0.1, spread=3)).statements[0].held is None


def test_no_zeros_are_not_taken_for_some() -> None:
    found = runs(-0.1, -0.1, spread=3)
    for m in found[L1].values():
        m["zeros"] = 0.0
    assert EXPERIMENT.judge(found).word == UNDECIDED
    worse = runs(0.1, 0.1)
    assert EXPERIMENT.judge({way: worse[way] for way in (NONE, "L2")}).word == DOES_NOT_HOLD
    better = runs(-0.1, -0.1)
    assert EXPERIMENT.judge({way: better[way] for way in (NONE, "L2")}).word == HOLDS


def test_tables_and_figures_show_what_was_measured() -> None:
    found = runs(-0.1, -0.2)
    means, changes = EXPERIMENT.tables(found)
    assert means.rows[1][:5] == ["none", "0.100", "0.610", "0.510", "0.700"]
    assert changes.rows[1][2].startswith("-0.2 ")
    assert set(EXPERIMENT.figures(found)) == {"regularizers", "curves"}
