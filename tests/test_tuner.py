"""`gradwise.tune` over a Python function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwise
from gradwise.search.splits import split

SPACE: dict[str, Any] = {"lr": "1e-4..1", "rule": ["sgd", "adam"]}


def score(config: dict[str, Any], seed: int) -> float:
    luck = 0.001 * float(np.random.default_rng(seed).standard_normal())
    return (np.log10(config["lr"]) + 2) ** 2 + (config["rule"] == "sgd") + luck


def test_the_winner_is_compared_with_the_baseline_and_tested_once() -> None:
    tested: list[dict[str, Any]] = []

    def test(config: dict[str, Any]) -> float:
        tested.append(config)
        return 7.0

    found = gradwise.tune(score, SPACE, trials=15, baseline={"lr": 1.0, "rule": "sgd"}, test=test)
    assert found.better
    assert not found.reason
    assert found.config is not None
    assert found.value == score(found.config, 0)
    assert found.value == min(t["value"] for t in found.trials)
    assert tested == [found.config]
    assert found.test == 7.0


def test_more_can_be_better() -> None:
    found = gradwise.tune(
        lambda config: -((config["n"] - 3) ** 2), {"n": "1..9"}, method="grid", points=9, maximize=True
    )
    assert (found.config, found.value, found.better) == ({"n": 3}, 0.0, False)
    assert found.reason == "there is no baseline to compare with"
    assert [t["value"] for t in found.trials if t["config"] == {"n": 5}] == [-4.0]


def test_a_baseline_that_is_best_stays() -> None:
    found = gradwise.tune(score, SPACE, trials=5, method="random", baseline={"lr": 0.01, "rule": "adam"})
    assert found.config == {"lr": 0.01, "rule": "adam"}
    assert found.reason == "no trial did better than the baseline"


def test_an_objective_that_reports_is_pruned() -> None:
    def objective(config: dict[str, Any], report: Any) -> float:
        for epoch in range(1, 10):
            report(epoch, config["lr"] + 1 / epoch)
        return float(config["lr"])

    found = gradwise.tune(objective, {"lr": "0.0..1.0"}, trials=20, method="random", pruning="median", epochs=9)
    assert {t["state"] for t in found.trials} == {"complete", "pruned"}
    assert found.value == min(t["config"]["lr"] for t in found.trials)


def test_what_one_configuration_breaks_does_not_end_the_search() -> None:
    found = gradwise.tune(lambda config: 1 / config["n"], {"n": [0, 1, 2]}, method="grid", trials=3)
    assert [t.get("problem") for t in found.trials if t["state"] == "failed"] == ["ZeroDivisionError: division by zero"]
    assert found.config == {"n": 2}
    none = gradwise.tune(lambda config: config["n"] / 0, {"n": [0, 1]}, trials=3)
    assert (none.config, none.reason) == (None, "no trial gave a value")


def test_a_search_goes_on_where_it_is_kept(tmp_path: Path) -> None:
    made: list[float] = []

    def objective(config: dict[str, Any]) -> float:
        made.append(config["lr"])
        return float(config["lr"])

    url = f"sqlite:///{tmp_path / 'tune.db'}"
    for trials in (2, 4):
        found = gradwise.tune(objective, {"lr": "1e-4..1"}, method="random", trials=trials, store=url)
    assert len(made) == len(set(made)) == len(found.trials) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "magic"}, "there is no method 'magic'"),
        ({"pruning": "hard"}, "there is no pruning 'hard'"),
        ({"seeds": 2}, "3 pairs of runs at least"),
        ({"space": {"lr": "1..0"}}, "lr has a range from 1 to 0"),
        ({"space": {}}, "the space is empty"),
        ({"space": {"lr": []}}, "lr names no value"),
        ({"baseline": {"lr": 1.0}}, "the baseline gives no score: KeyError"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gradwise.tune(score, given.pop("space", SPACE), trials=1, **given)


def test_three_parts_have_nothing_in_common_and_all_of_the_data() -> None:
    y = np.repeat([0, 1, 2], [700, 250, 50])
    x = np.arange(1000.0)[:, None]
    made = split((x, y), seed=3)
    parts = made.indices
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert [len(p) for p in parts] == [600, 200, 200]
    for part, (inputs, targets) in zip(parts, made, strict=True):
        assert (inputs[:, 0] == part).all()
        assert (targets == y[part]).all()
        shares = np.bincount(targets) / len(targets)
        assert shares == pytest.approx([0.7, 0.25, 0.05], abs=0.01)
    again = split((x, y), seed=3)
    assert all((a == b).all() for a, b in zip(parts, again.indices, strict=True))
    assert not all((a == b).all() for a, b in zip(parts, split((x, y), seed=4).indices, strict=True))


def test_tensors_datasets_and_numbers_to_predict() -> None:
    import torch

    x, y = torch.randn(50, 3), torch.randn(50)
    train, validation, test = gradwise.split((x, y), shares=(0.5, 0.3, 0.2))
    assert (train[0].shape, validation[1].shape, test[0].shape) == ((25, 3), (15,), (10, 3))
    subsets = gradwise.split(torch.utils.data.TensorDataset(x, y), labels=(y > 0).tolist())
    assert [len(part) for part in subsets] == [30, 10, 10]
    assert sorted(k for part in subsets for k in part.indices) == list(range(50))


@pytest.mark.parametrize(
    ("data", "given", "said"),
    [
        ([1, 2], {}, "too few"),
        ([1] * 10, {"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ([1] * 10, {"shares": (0.5, 0.5)}, "three shares"),
        ([1] * 10, {"labels": [1]}, "1 labels for 10 items"),
        (([1] * 10, [1] * 9), {}, "equally long"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(data: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split(data, **given)
