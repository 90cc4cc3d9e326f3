"""X5's verdict, and those of the published figures, follow from what was measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradwise.lab import p01_quadratic_deep, p02_fmnist_2c2d, x05_lenet
from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, UNDECIDED, WITH_CONDITIONS
from gradwise.lab.training import seeded
from gradwise.schedules import Schedule
from lab.manipulated import altered, statement, swapped

X5 = x05_lenet.EXPERIMENT


def run(test: float, accuracy: list[float], lowest: int, lr: list[float]) -> dict[str, Any]:
    validation = [1.0 + 0.1 * abs(k + 1 - lowest) for k in range(len(accuracy))]
    return {"test accuracy": test, "test loss": 1.0, "train": validation, "validation": validation,
            "accuracy": accuracy, "lr": lr, "data": "cifar10", "note": ""}  # fmt: skip


def as_claimed() -> dict[str, dict[int, Any]]:
    """Six epochs, three seeds, everything as the document says."""
    runs: dict[str, dict[int, Any]] = {}
    for seed in range(3):
        off = 0.001 * seed
        flat, jumps = [0.5 + off] * 6, [0.5 + off] * 3 + [0.56 + off, 0.56 + 2 * off, 0.56]
        runs.setdefault("η high, plateau", {})[seed] = run(0.57 + off, jumps, 3, [1e-3] * 3 + [1e-4] * 3)
        runs.setdefault("η high", {})[seed] = run(0.54 + 2 * off, flat, 2, [1e-3] * 6)
        runs.setdefault("η low, plateau", {})[seed] = run(0.561 + off, jumps, 5, [1e-4] * 3 + [1e-5] * 3)
        runs.setdefault("η low", {})[seed] = run(0.56 + 1.1 * off, flat, 6, [1e-4] * 6)
        for k, decay in enumerate(x05_lenet.DECAYS):
            better = 0.0 if decay == "constant" else 0.02 + 0.001 * k + off / 2
            runs.setdefault(decay, {})[seed] = run(0.55 + off + better, flat, 4, [1e-3] * 6)
    return runs


def test_all_as_claimed_holds() -> None:
    verdict = X5.judge(as_claimed())
    assert [s.held for s in verdict.statements] == [True] * 7
    assert verdict.word == HOLDS
    table = X5.tables(as_claimed())[0].rows
    assert table[1][0] == "η high, plateau"
    assert table[1][-1] == "0.5617", "the document's figure stands beside ours"


@pytest.mark.parametrize(("one", "other", "part"), [
    ("η high, plateau", "η high", "At the high rate the plateau raises"),
    ("η high", "η low", "A low rate alone gets there too"),
    ("η high", "η low", "It is slower"),
])  # fmt: skip
def test_what_holds_of_one_cell_fails_of_the_other(one: str, other: str, part: str) -> None:
    assert statement(X5, as_claimed(), part).held is True
    assert statement(X5, swapped(as_claimed(), one, other), part).held is False


def test_a_plateau_that_matters_as_much_at_the_low_rate() -> None:
    def change(cell: str, seed: int, measures: dict[str, Any]) -> None:
        if cell == "η low, plateau":
            measures["test accuracy"] += 0.1

    assert statement(X5, altered(as_claimed(), change), "At the low rate it changes less").held is False


def test_a_jump_is_measured_against_the_same_run_without_a_cut() -> None:
    def rising(cell: str, seed: int, measures: dict[str, Any]) -> None:
        if cell == "η high":
            measures["accuracy"] = [0.5] * 3 + [0.6, 0.6 + 0.001 * seed, 0.6]

    assert statement(X5, altered(as_claimed(), rising), "first cut (high rate)").held is False

    def uncut(cell: str, seed: int, measures: dict[str, Any]) -> None:
        measures["lr"] = [measures["lr"][0]] * 6

    assert "no run was cut" in statement(X5, altered(as_claimed(), uncut), "after a cut (high rate)").text
    assert X5.judge(altered(as_claimed(), uncut)).word != HOLDS


def test_decays_of_which_only_some_help() -> None:
    def change(cell: str, seed: int, measures: dict[str, Any]) -> None:
        if cell in ("step", "SGDR"):
            measures["test accuracy"] -= 0.1

    found = statement(X5, altered(as_claimed(), change), "Decays by schedule")
    assert found.held is True
    assert found.condition == "shown for exponential, natural exponential, cosine only"
    assert X5.judge(altered(as_claimed(), change)).word == WITH_CONDITIONS


def test_it_is_judged_before_the_decays_are_run() -> None:
    runs = {cell: m for cell, m in as_claimed().items() if cell.startswith("η")}
    assert X5.judge(runs).word == UNDECIDED
    assert len(X5.tables(runs)) == 2
    assert set(X5.figures(runs)) == {"accuracy", "validation"}


def test_one_seed_settles_nothing() -> None:
    runs = {cell: {0: m[0]} for cell, m in as_claimed().items()}
    assert X5.judge(runs).word == UNDECIDED


def test_a_training_that_diverged_is_drawn_and_judged() -> None:
    def change(cell: str, seed: int, measures: dict[str, Any]) -> None:
        if cell == "η high" and seed == 1:
            measures["validation"] = [1.0, None]
            measures["accuracy"] = [0.1] * 6

    found = altered(as_claimed(), change)
    X5.judge(found)
    assert set(X5.figures(found)) == {"accuracy", "validation", "decays"}


@pytest.mark.parametrize("decay", x05_lenet.DECAYS)
def test_decays_fall_over_the_run(decay: str) -> None:
    schedule = x05_lenet.DECAYS[decay](40, 704)
    assert isinstance(schedule, Schedule)
    assert schedule(0) == pytest.approx(1.0)
    end = schedule(40 * 704 - 1)
    assert end == 1.0 if decay == "constant" else end < 0.14
    if decay == "SGDR":
        assert schedule(10 * 704) == 1.0, "one restart, after a quarter"


def test_a_cut_is_found_where_the_rate_falls() -> None:
    assert x05_lenet.first_cut([1e-3, 1e-3, 1e-4]) == 2
    assert x05_lenet.first_cut([1e-3, 1e-3]) is None


def quadratic(shift: float) -> dict[str, dict[int, Any]]:
    return {
        rule: {seed: {"test loss": loss + shift * spread + spread * (seed - 1), "curve": []} for seed in range(3)}
        for rule, (_, loss, spread) in p01_quadratic_deep.PUBLISHED.items()
    }


def test_a_published_figure_is_reproduced_or_not() -> None:
    assert p01_quadratic_deep.EXPERIMENT.judge(quadratic(0.5)).word == HOLDS
    assert p01_quadratic_deep.EXPERIMENT.judge(quadratic(1.5)).word == DOES_NOT_HOLD


def test_the_quadratic_is_the_published_one() -> None:
    eigenvalues = torch.linalg.eigvalsh(p01_quadratic_deep.hessian().double())
    assert int((eigenvalues > 30).sum()) == 10
    assert int((eigenvalues < 1).sum()) == 90
    assert float(eigenvalues.min()) > 0


def test_the_published_accuracy() -> None:
    def runs(ten: float, hundred: float) -> dict[str, dict[int, Any]]:
        found = {"10 epochs": ten, "100 epochs": hundred}
        return {c: {s: {"final": v + 0.001 * (s - 1), "accuracy": [v], "data": "fashion_mnist"} for s in range(3)}
                for c, v in found.items()}  # fmt: skip

    judge = p02_fmnist_2c2d.EXPERIMENT.judge
    assert judge(runs(0.9136, 0.9230)).word == HOLDS
    assert [s.held for s in judge(runs(0.95, 0.90)).statements] == [False, False]
    with_ten = {"10 epochs": runs(0.9136, 0.0)["10 epochs"]}
    assert judge(with_ten).word == UNDECIDED


def test_the_published_net() -> None:
    with seeded(0):
        model = p02_fmnist_2c2d.network(28)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 3_274_634
    assert all(
        float(p.detach().min()) == pytest.approx(0.05) for name, p in parameters.items() if name.endswith("bias")
    )
    weights = parameters["7.weight"].detach()
    assert float(weights.abs().max()) <= 0.1
    assert float(weights.std()) == pytest.approx(0.044, abs=0.001), "0.05, cut off at two deviations"
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
