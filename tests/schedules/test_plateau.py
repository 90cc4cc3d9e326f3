"""Cutting on a plateau: the two rules, against Keras's callback and torch's scheduler."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradwise import schedules
from gradwise.schedules import Plateau, PlateauState, cosine, reduce_on_plateau, warmup

NAMES = {name: getattr(schedules, name) for name in schedules.__all__}

metrics = st.lists(
    st.sampled_from([0.5, 0.9, 0.99995, 0.9999, 1.0, 1.0001, 1.5, 2.0, float("nan"), float("inf"), -1.0])
)
settings = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([0.5, 0.1]),
        "patience": st.integers(0, 4),
        "mode": st.sampled_from(["min", "max"]),
        "cooldown": st.integers(0, 3),
    }
)


def factors(plateau: Plateau, values: list[float]) -> list[float]:
    state, seen = plateau.start, []
    for value in values:
        state, factor = plateau(state, value)
        seen.append(factor)
    return seen


def keras(values: list[float], factor: float, patience: int, mode: str, cooldown: int, min_delta: float) -> list[float]:
    """keras.callbacks.ReduceLROnPlateau.on_epoch_end of Keras 3, for an own rate of 1."""
    lr, best, wait, counter, rates = 1.0, float("inf") if mode == "min" else -float("inf"), 0, 0, []
    for current in values:
        if counter > 0:
            counter -= 1
            wait = 0
        if current < best - min_delta if mode == "min" else current > best + min_delta:
            best, wait = current, 0
        elif not counter > 0:
            wait += 1
            if wait >= patience:
                lr, counter, wait = lr * factor, cooldown, 0
        rates.append(lr)
    return rates


@given(metrics, settings)
def test_one_rule_is_that_of_keras(values, given_) -> None:
    expected = keras(values, **given_, min_delta=1e-4)
    assert factors(reduce_on_plateau(**given_), values) == pytest.approx(expected, rel=1e-12)


@given(metrics, settings, st.booleans())
def test_the_other_is_that_of_torch(values, given_, relative) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, **given_, threshold_mode="rel" if relative else "abs", eps=0
    )
    expected = []
    for value in values:
        theirs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    ours = reduce_on_plateau(**given_, rule="torch", relative=None if relative else False)
    assert factors(ours, values) == pytest.approx(expected, rel=1e-12)


def test_how_the_two_rules_differ() -> None:
    still = [1.0] * 12
    assert factors(reduce_on_plateau(), still).index(0.1) == 10  # the tenth that is no better
    assert factors(reduce_on_plateau(rule="torch"), still).index(0.1) == 11  # the eleventh
    # 1,000 falls by 0.001 at a time: more than 1e-4, less than 1e-4 of it.
    slow = [1000 - 0.001 * k for k in range(20)]
    assert set(factors(reduce_on_plateau(), slow)) == {1.0}
    assert set(factors(reduce_on_plateau(rule="torch"), slow)) == {1.0, 0.1}


@given(metrics, settings, st.sampled_from(["keras", "torch"]), st.data())
def test_its_state_is_small_json_and_all_there_is(values, given_, rule, data) -> None:
    plateau = reduce_on_plateau(**given_, rule=rule)
    cut = data.draw(st.integers(0, len(values)))
    state = plateau.start
    for value in values[:cut]:
        state, _ = plateau(state, value)
    state = PlateauState.from_json(json.loads(json.dumps(state.to_json())))
    rest = []
    for value in values[cut:]:
        state, factor = plateau(state, value)
        rest.append(factor)
    assert rest == factors(plateau, values)[cut:]


def test_products_and_limits() -> None:
    plateau = (2 * reduce_on_plateau(0.1, patience=1) * warmup(4)).clip(lo=0.05)
    assert plateau.factor(plateau.start, 0) == 0.5
    assert plateau.factor(PlateauState(cuts=1), 3) == pytest.approx(0.2)
    assert plateau.factor(PlateauState(cuts=5), 3) == 0.05
    assert plateau(plateau.start, 1.0, step=1) == (PlateauState(best=1.0), 1.0)


@pytest.mark.parametrize(
    "plateau",
    [
        reduce_on_plateau(),
        0.5 * reduce_on_plateau(0.5, 3, "torch", "max", 0.1, False, 2),
        (warmup(3) >> cosine(5)) * (reduce_on_plateau() * -2.0).clip(0.1, 0.5).clip(hi=1),
    ],
    ids=repr,
)
def test_json_and_code_bring_it_back(plateau: Plateau) -> None:
    assert Plateau.from_json(json.loads(json.dumps(plateau.to_json()))) == plateau
    assert eval(repr(plateau), dict(NAMES)) == plateau  # noqa: S307
    assert hash(plateau) == hash(Plateau.from_json(plateau.to_json()))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: reduce_on_plateau(1.0), "factor must be below 1"),
        (lambda: reduce_on_plateau(patience=-1), "patience must be at least 0"),
        (lambda: reduce_on_plateau(rule="lasagne"), "rule must be one of 'keras', 'torch'"),
        (lambda: reduce_on_plateau(mode="low"), "mode must be one of"),
        (lambda: reduce_on_plateau() * reduce_on_plateau(), "unsupported operand"),
        (lambda: reduce_on_plateau().clip(), "give lo, hi or both"),
        (lambda: PlateauState.from_json({"cuts": 1}), "a plateau's state has cuts, best, wait, cooldown"),
        (lambda: PlateauState.from_json({"cuts": 1.5, "best": 1, "wait": 0, "cooldown": 0}), "cuts must be an integer"),
        (lambda: PlateauState.from_json({"cuts": 1, "best": "1", "wait": 0, "cooldown": 0}), "best must be a number"),
        (lambda: Plateau.from_json({"cosine": {"steps": 3}}), "key reduce_on_plateau"),
        (lambda: Plateau.from_json({"reduce_on_plateau": {"paitence": 3}}), "paitence"),
    ],
)
def test_what_makes_no_sense_is_said(wrong, words) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        wrong()
