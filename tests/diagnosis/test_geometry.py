"""Where the loss is stuck, and what the curvature there says of the cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwise.diagnosis.curve import Curve, curve_of
from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Where
from gradwise.diagnosis.geometry import Plateau, plateau, question, weighed
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place, Recording, RunInfo, Series
from gradwise.recording.signals import LOSS, TIME

RNG = np.random.default_rng(0)
STEPS = np.arange(400)
STUCK = 0.69 + 0.01 * RNG.standard_normal(400)
FALLING = np.exp(-STEPS / 300) + 0.001 * RNG.standard_normal(400)
SETTLED = np.exp(-STEPS / 20) + 0.001 * RNG.standard_normal(400)
ESCAPED = np.where(STEPS < 150, 1.0, np.exp(-(STEPS - 150) / 10)) + 0.002 * RNG.standard_normal(400)
DATA: dict[str, Any] = {
    "kind": "saddle", "why": "because", "gradient_norm": 1e-4, "gradient_noise": 2e-4, "optimizer": "SGD", "lr": 0.1,
    "momentum": 0.9, "sharpness": 0.3,
    "smallest": {"value": -0.5, "residual": 0.01, "noise": 0.05},
    "largest": {"value": 4.0, "residual": 0.01, "noise": 0.1},
    "fresh": {"batches": 8, "smallest": {"value": -0.4, "noise": 0.05}},
    "direction": [{"parameter": "0.weight", "share": 0.7}, {"parameter": "2.weight", "share": 0.29},
                  {"parameter": "2.bias", "share": 0.01}],
}  # fmt: skip
SADDLE = Finding(
    "stuck-at-saddle", "error", 0.7, Where("net.py", 3), "All units are equal.", {},
    (Remedy(Intervention(fixes=("break-symmetry",)), "draw"),),
)  # fmt: skip
WHERE = Plateau(0, 390, 0.69)


def curve(losses: Any) -> Curve:
    found = curve_of(Series(STEPS, np.asarray(losses)))
    assert found is not None
    return found


def recording(losses: Any = STUCK, sources: int = 1) -> Recording:
    optimizers = tuple(
        OptimizerInfo(k, "SGD", groups=({"lr": 0.1, "momentum": 0.0},), made=Place("net.py", 9)) for k in range(sources)
    )
    series = {(s.name, k): Series(STEPS, v) for k in range(sources) for s, v in ((LOSS, losses), (TIME, 0.1 * STEPS))}
    return Recording(RunInfo(""), optimizers, series=series)


def diagnosis(*findings: Finding, suspicions: tuple[Finding, ...] = (), verdict: Any = None) -> Diagnosis:
    verdict = verdict or ("sick" if findings else "inconclusive")
    return Diagnosis("", "net.py", (), verdict, findings, "as it seemed", suspicions=suspicions)


@pytest.mark.parametrize(
    ("losses", "first", "last"),
    [(STUCK, 0, 400), (np.full(400, 0.69), 0, 400), (ESCAPED, 0, 150), (SETTLED, 80, 400)],
)
def test_plateaus(losses: Any, first: int, last: int) -> None:
    found = plateau(curve(losses), 2)
    assert found is not None
    assert found.source == 2
    assert abs(found.first - first) <= 20
    assert abs(found.last - last) <= 20
    assert found.first < found.step < found.last


def test_a_loss_on_its_way_is_not_stuck() -> None:
    assert plateau(curve(FALLING)) is None


def test_it_is_asked_where_a_saddle_is_suspected_or_nothing_explains() -> None:
    other = replace(SADDLE, id="lr-too-low", confidence=0.5)
    asked = {
        "finding": question(diagnosis(SADDLE), recording()),
        "suspicion": question(diagnosis(other, suspicions=(SADDLE,)), recording()),
        "nothing": question(diagnosis(), recording()),
        "weak": question(diagnosis(suspicions=(replace(other, confidence=0.4),)), recording()),
    }
    assert all(where is not None for where in asked.values()), asked
    unasked = {
        "explained": question(diagnosis(other), recording()),
        "perhaps explained": question(diagnosis(suspicions=(other,)), recording()),
        "healthy": question(diagnosis(verdict="healthy"), recording(SETTLED)),
        "falling": question(diagnosis(), recording(FALLING)),
        "several": question(diagnosis(), recording(sources=2)),
        "short": question(diagnosis(), Recording(RunInfo(""))),
        "never stepped": question(diagnosis(SADDLE), Recording(RunInfo(""))),
    }
    assert all(where is None for where in unasked.values()), unasked


def test_a_saddle_is_confirmed_with_its_figures() -> None:
    for before in (diagnosis(SADDLE), diagnosis(suspicions=(replace(SADDLE, confidence=0.4),))):
        after = weighed(before, WHERE, DATA, recording())
        [finding] = after.findings
        assert (after.verdict, after.suspicions, finding.confidence) == ("sick", (), 0.9)
        assert finding.explanation.startswith("All units are equal. From step 0 to 390 the loss stands at 0.69")
        assert "mostly in 0.weight and 2.weight" in finding.explanation
        assert finding.evidence["smallest"] == -0.5
        assert finding.evidence["smallest_error"] == pytest.approx(0.11)
        assert finding.evidence["direction"] == ["0.weight (70%)", "2.weight (29%)"]
        assert finding.evidence["steps_to_grow_e_fold"] == pytest.approx(0.1 / 0.05)
        assert finding.remedies == SADDLE.remedies


def test_a_saddle_that_nothing_hinted_at_is_a_finding() -> None:
    after = weighed(diagnosis(), WHERE, DATA, recording())
    [finding] = after.findings
    assert (finding.id, finding.confidence, after.summary) == ("stuck-at-saddle", 0.8, finding.explanation)
    assert (finding.where.file, finding.where.line, finding.where.parameter) == ("net.py", 9, "0.weight")
    assert [r.intervention.describe() for r in finding.remedies] == [
        "break-symmetry", "he initialization", "momentum 0.9",
    ]  # fmt: skip


@pytest.mark.parametrize("fresh", [None, {"smallest": {"value": 0.1}}])
def test_a_saddle_by_its_own_batches_alone_is_none(fresh: Any) -> None:
    after = weighed(diagnosis(), WHERE, {**DATA, "fresh": fresh}, recording())
    assert (after.findings, after.verdict) == ((), "inconclusive")


@pytest.mark.parametrize("kind", ["minimum", "degenerate", "not critical"])
def test_what_is_no_saddle_lowers_the_suspicion(kind: str) -> None:
    after = weighed(diagnosis(SADDLE), WHERE, {**DATA, "kind": kind}, recording())
    assert after.findings == ()
    assert after.verdict == "inconclusive"
    assert all(f.confidence < 0.6 and f.evidence["point"] == kind for f in after.suspicions)
    assert kind in after.notes[-1]
    assert kind in after.summary


def test_other_findings_come_first_then() -> None:
    other = replace(SADDLE, id="vanishing-gradients", confidence=0.65, explanation="they vanish")
    surer = replace(SADDLE, confidence=0.95)
    after = weighed(diagnosis(surer, other), WHERE, {**DATA, "kind": "not critical"}, recording())
    assert ([f.id for f in after.findings], after.verdict) == (["vanishing-gradients"], "sick")
    assert after.summary == "they vanish"


def test_equal_units_stay_equal_on_the_way() -> None:
    fact = replace(SADDLE, confidence=0.9, evidence={"equal_units": 16.0})
    after = weighed(diagnosis(fact), WHERE, {**DATA, "kind": "not critical"}, recording())
    assert [f.confidence for f in after.findings] == [0.9]
    assert weighed(diagnosis(fact), WHERE, {**DATA, "kind": "minimum"}, recording()).findings == ()


def test_inconclusive_changes_nothing_but_is_noted() -> None:
    after = weighed(diagnosis(SADDLE), WHERE, {**DATA, "kind": "inconclusive"}, recording())
    assert [f.confidence for f in after.findings] == [0.7]
    assert "inconclusive" in after.notes[-1]


@pytest.mark.parametrize(("sharpness", "noise", "told"), [(2.0, 0.1, True), (1.05, 0.05, True), (1.05, 0.4, False)])
def test_steps_across_a_valley_are_told_of_a_rate(sharpness: float, noise: float, told: bool) -> None:
    rate = replace(SADDLE, id="late-lr-too-high", confidence=0.7)
    data = {**DATA, "kind": "not critical", "sharpness": sharpness, "largest": {"value": 4.0, "noise": noise}}
    after = weighed(diagnosis(rate, suspicions=(SADDLE,)), WHERE, data, recording())
    assert ("sharpness_over_limit" in after.findings[0].evidence) == told
    assert ("across the valley" in after.findings[0].explanation) == told
    assert after.findings[0].confidence == 0.7


def test_a_sharpness_that_is_not_known_is_not_told() -> None:
    rate = replace(SADDLE, id="lr-too-high")
    data = {k: v for k, v in DATA.items() if k != "sharpness"} | {"kind": "not critical"}
    assert weighed(diagnosis(rate), WHERE, data, recording()).findings[0].evidence == {}
