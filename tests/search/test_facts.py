"""What a script's own run tells, and what knobs change, given that."""

from __future__ import annotations

import numpy as np
import pytest

from gradwise.interventions import Intervention
from gradwise.recording.recording import Event, OptimizerInfo, Recording, RunInfo, Series
from gradwise.recording.signals import TIME, VALIDATION
from gradwise.search.domains import SpaceError
from gradwise.search.facts import Facts, intervention, spread

FACTS = Facts(300, 2.0, 0.05, 0, 10)


def recording(groups: tuple[dict[str, object], ...], words: str = "", kind: str = "SGD") -> Recording:
    steps = np.arange(30)
    series = {(TIME.name, 0): Series(steps, steps * 0.1), (VALIDATION.name, 2): Series(steps[9::10], np.ones(3))}
    place = Event("validation-place", 0, 2, {"source": 2, "file": "a.py", "line": 3, "text": words})
    return Recording(RunInfo(""), (OptimizerInfo(0, kind, {}, groups),), series, (place,))


def test_the_rate_is_the_one_that_the_optimizer_was_made_with() -> None:
    facts = Facts.of(recording(({"lr": 0.001, "initial_lr": 0.1}, {"lr": 0.5})), 2.5)
    assert facts == Facts(30, 2.5, 0.1, 2, 3, facts.where, facts.optimizer)
    assert facts.optimizer is not None
    assert facts.optimizer.kind == "SGD"
    assert Facts.from_json(facts.to_json()) == facts
    assert Facts.of(recording(({"lr": 0.3},), kind="manual"), 1.0).rate is None


@pytest.mark.parametrize(
    ("words", "test"),
    [
        ("evaluate(model, test_loader)", True),
        ("loss = criterion(model(x_test), y_test)", True),
        ("evaluate(model, val_loader)", False),
        ("validate(model, x_test)", False),
        ("x, x_val = train_test_split(x)", False),
        ("latest = evaluate(model, held_out)", False),
    ],
)
def test_code_that_speaks_of_a_test_set(words: str, test: bool) -> None:
    assert Facts.of(recording((), words), 1.0).on_test_data == test


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (("evaluate(model, val_loader) train", "evaluate(model, test_loader)"), 0),
        (("evaluate(model, test_loader)", "evaluate(model, held_out)"), 1),
        (("evaluate(model, train_loader)", "evaluate(model, test_loader)"), 1),
        (("evaluate(model, test_loader)",), 0),
    ],
)
def test_a_test_set_is_not_selected_on_where_there_is_another(words: tuple[str, ...], chosen: int) -> None:
    steps = np.arange(30)
    often = {(VALIDATION.name, k): Series(steps[9 :: 10 - 5 * ("test" in w)], np.ones(0)) for k, w in enumerate(words)}
    series = {(TIME.name, 0): Series(steps, steps * 0.1)}
    series |= {key: Series(s.steps, np.ones(len(s.steps))) for key, s in often.items()}
    places = tuple(Event("validation-place", 0, k, {"text": w}) for k, w in enumerate(words))
    assert Facts.of(Recording(RunInfo(""), (), series, places), 1.0).place == chosen


def test_a_rate_alone_leaves_the_script_its_schedule() -> None:
    assert intervention({"lr": 0.1}, FACTS, 300) == Intervention(lr_scale=2.0)


def test_a_shape_is_laid_over_the_whole_run_at_the_rate_given_or_its_own() -> None:
    own = intervention({"schedule": "cosine"}, FACTS, 300)
    assert own.lr is not None
    assert (own.lr(0), own.lr(150)) == (0.05, pytest.approx(0.025))
    given = intervention({"schedule": "cosine", "lr": 1.0, "steps": 100}, FACTS, 300)
    assert given.lr is not None
    assert (given.lr(0), given.lr(50), given.stop) == (1.0, pytest.approx(0.5), 100)
    assert spread({"schedule": "cosine"})
    assert not spread({"schedule": "constant"})
    assert not spread({"lr": 0.1})


def test_own_changes_nothing() -> None:
    assert not intervention({"lr": "own", "schedule": "own", "rule": "own", "clip": "own"}, FACTS, 300)


def test_each_knob_has_its_key() -> None:
    knobs = {"rule": "adam", "momentum": 0.9, "weight_decay": 0, "clip": 1.0, "accumulation": 2, "dropout": 0.1}
    change = intervention(knobs, FACTS, 300, which=1)
    assert change.to_json() == {
        "optimizer": 1, "rule": "adam", "momentum": 0.9, "decay": 0, "clip_norm": 1.0, "accumulate": 2, "dropout": 0.1,
    }  # fmt: skip
    assert Intervention.from_json(change.to_json()) == change


@pytest.mark.parametrize("knobs", [{"lr": 0.1}, {"schedule": "cosine"}])
def test_where_there_is_no_rate_none_can_be_set(knobs: dict[str, float]) -> None:
    with pytest.raises(SpaceError, match="no learning rate to set"):
        intervention(knobs, Facts(300, 1.0), 300)
