"""How sure the checks on the wiring are, from recordings made up for it; real scripts are in tests/probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from descent import descend

from gradwise.diagnosis import Diagnosis, diagnose
from gradwise.diagnosis.hypotheses import REPORT
from gradwise.recording import signals
from gradwise.recording.recording import Event, Recording, RunInfo, Series

HEALTHY = descend(0.06, noise=0.2)
PLACE = {"file": "net.py", "line": 7, "function": "forward", "text": "h = self.encoder(x)"}
LOST: dict[str, Any] = {
    "parameters": ["Decoder.0.weight", "Decoder.0.bias"],
    "tensors": 2,
    "elements": 100,
    "held_elements": 200,
    "held_in_modules": 4,
    "in_modules": 2,
    "modules": ["Decoder"],
    "hidden": "",
    "loaded": 0,
    "standing": ["within"],
}
IDLE: dict[str, Any] = {
    "parameters": ["encoder.weight"],
    "tensors": 1,
    "trainable": 4,
    "loaded": 0,
    "ran": ["encoder (Linear)"],
    "cut": ["encoder (Linear)"],
    "place": PLACE,
    "mistyped": [],
}


def having(*events: Event, of: Recording = HEALTHY) -> Recording:
    return replace(of, events=events)


def carried(*values: float) -> Recording:
    series = Series(np.arange(len(values)), np.array(values))
    return replace(HEALTHY, series={**HEALTHY.series, (signals.CARRIED.name, 0): series})


def told(diagnosis: Diagnosis) -> dict[str, float]:
    return {f.id: f.confidence for f in (*diagnosis.findings, *diagnosis.suspicions)}


def test_the_rest_of_the_run_is_healthy() -> None:
    assert diagnose(HEALTHY).verdict == "healthy"


@pytest.mark.parametrize("values", [(), (1.0,), (0.0, 0.0, 0.0), (1.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_gradients_that_are_cleared(values: tuple[float, ...]) -> None:
    assert told(diagnose(carried(*values))) == {}


def test_gradients_that_are_not_cleared() -> None:
    always, mostly = told(diagnose(carried(1.0, 1.0))), told(diagnose(carried(1.0, 1.0, 1.0, 0.0)))
    assert always["missing-zero-grad"] > mostly["missing-zero-grad"] > REPORT


@pytest.mark.parametrize(
    ("change", "sure"),
    [
        ({}, True),
        ({"hidden": "blocks (a list) of Net", "standing": ["before"], "elements": 1e9}, True),
        ({"standing": ["before"]}, False),
        ({"standing": ["target"]}, False),
        ({"standing": ["apart"]}, False),
        ({"elements": 1e9}, False),
        ({"loaded": 1}, False),
        ({"loaded": 2}, None),
        ({"held_in_modules": 0}, None),
        ({"tensors": 0, "parameters": []}, None),
    ],
)
def test_parameters_without_an_optimizer(change: dict[str, Any], sure: bool | None) -> None:
    result = told(diagnose(having(Event("unowned", 0, data={**LOST, **change}))))
    assert ("parameters-not-optimized" in result) is (sure is not None)
    if sure is not None:
        assert (result["parameters-not-optimized"] >= REPORT) is sure


def test_found_again() -> None:
    events = Event("unowned", 0, data=LOST), Event("unowned", 300, data={**LOST, "tensors": 0, "parameters": []})
    assert told(diagnose(having(*events))) == {}


def test_seen_only_at_the_very_end() -> None:
    assert told(diagnose(having(Event("unowned", 595, data=LOST)))) == {}
    assert told(diagnose(having(Event("unreached", 595, 0, IDLE)))) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "frozen-or-detached-graph"),
        ({"loaded": 1}, None),
        ({"cut": []}, None),
        ({"cut": [], "tensors": 4}, "frozen-or-detached-graph"),
        ({"cut": [], "ran": [], "tensors": 4}, None),
        ({"tensors": 0, "cut": []}, None),
        ({"tensors": 0, "cut": [], "mistyped": ["0.weight"]}, "frozen-or-detached-graph"),
    ],
)
def test_parameters_without_a_gradient(change: dict[str, Any], expected: str | None) -> None:
    assert list(told(diagnose(having(Event("unreached", 2, 0, {**IDLE, **change}))))) == [expected] * bool(expected)


def test_where_a_graph_is_cut() -> None:
    (finding,) = diagnose(having(Event("unreached", 2, 0, IDLE))).findings
    assert (finding.where.file, finding.where.line, finding.where.module) == ("net.py", 7, "encoder (Linear)")
    assert finding.remedies[0].intervention.fixes == ("unfreeze",)


def test_an_optimizer_that_holds_what_nothing_uses_is_one_finding() -> None:
    idle = {**IDLE, "tensors": 4, "ran": [], "cut": []}
    events = Event("unowned", 0, data=LOST), Event("unreached", 2, 0, idle)
    (finding,) = diagnose(having(*events)).findings
    assert finding.id == "no-parameter-change"
    assert "Decoder.0.weight" in finding.explanation


def mode(step: int, training: bool, active: int, number: int = 0, loaded: bool = True) -> Event:
    data = {
        "model": "Net",
        "number": number,
        "training": training,
        "loaded": loaded,
        "active": active,
        "sensitive": 2,
        "modules": ["Dropout"],
    }
    return Event("mode", step, data=data)


@pytest.mark.parametrize(
    ("states", "sure"),
    [
        ([mode(0, True, 2)], None),
        ([mode(0, True, 2), mode(40, False, 0)], True),
        ([mode(0, False, 0)], False),
        ([mode(0, True, 0)], None),
        ([mode(0, False, 1)], None),
        ([mode(0, True, 2), mode(40, False, 0), mode(90, True, 2)], None),
        ([mode(0, True, 2), mode(40, False, 0), mode(90, True, 2), mode(200, False, 0)], None),
        ([mode(0, True, 2), mode(596, False, 0)], None),
        ([mode(0, True, 2, 0), mode(0, False, 0, 1)], False),
    ],
)
def test_modes_while_training(states: list[Event], sure: bool | None) -> None:
    result = told(diagnose(having(*states)))
    assert ("eval-mode-in-training" in result) is (sure is not None)
    if sure is not None:
        assert (result["eval-mode-in-training"] >= REPORT) is sure


def evaluated(training: bool, passes: int, evals: int = 0, source: int = 0) -> Event:
    data = {"training": training, "passes": passes, "modules": ["BatchNorm1d"], "evals": evals, "place": PLACE}
    return Event("evaluated", 50 * passes, source, data)


def test_modes_while_evaluating() -> None:
    never = told(diagnose(having(evaluated(True, 1), evaluated(True, 2))))
    elsewhere = told(diagnose(having(evaluated(True, 1), evaluated(True, 2, evals=1))))
    assert never["train-mode-in-eval"] > elsewhere["train-mode-in-eval"] > REPORT
    assert told(diagnose(having(evaluated(True, 1)))) == {}
    assert told(diagnose(having(evaluated(True, 1), evaluated(False, 2)))) == {}
    assert told(diagnose(having(evaluated(False, 1), evaluated(True, 2)))) == {}


def test_places_and_events_that_say_little_are_no_trouble() -> None:
    kinds = (
        "unowned",
        "unreached",
        "loss-probabilities",
        "loss-shapes",
        "mode",
        "evaluated",
        "gradients-cleared",
        "gradients-unused",
    )
    diagnose(having(*(Event(kind, 0) for kind in kinds)))


def test_nothing_but_steps_that_change_nothing() -> None:
    still = descend(0.0)
    assert diagnose(still).findings[0].id == "no-parameter-change"


@pytest.mark.parametrize(("status", "backwards", "expected"), [
    ("finished", 500, ["no-parameter-change"]), ("finished", 5, []), ("stopped", 500, []), ("killed", 500, []),
])  # fmt: skip
def test_no_step_was_ever_made(status: str, backwards: int, expected: list[str]) -> None:
    run = RunInfo("r", status=status, facts={"backwards": backwards, "optimizers_made": 1, "torch": "2.13"})
    recording = Recording(run, HEALTHY.optimizers)
    result = diagnose(recording)
    assert [f.id for f in result.findings] == expected
    assert (result.verdict == "sick") is bool(expected)


def test_a_scaler_that_skips_every_step() -> None:
    run = RunInfo("r", status="finished", facts={"backwards": 30, "optimizers_made": 1, "torch": "2.13"})
    scale = Series(np.arange(5), 2.0 ** np.arange(16, 11, -1))
    recording = Recording(run, HEALTHY.optimizers, {(signals.SCALE.name, 0): scale})
    assert "GradScaler skipped" in diagnose(recording).findings[0].explanation
