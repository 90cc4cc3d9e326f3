"""Replays that a diagnosis calls for are made once, within the budget, and what they find is in the diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import FakeBench, diagnosis, finding

from gradwise.diagnosis import diagnose
from gradwise.diagnosis.findings import Diagnosis, Remedy
from gradwise.interventions import Intervention
from gradwise.recording.recording import Event, Recording
from gradwise.recording.signals import LOSS
from gradwise.search import Plan, repair
from gradwise.search.attempts import Attempts
from gradwise.search.decide import decide
from gradwise.search.examine import calls_for, examine
from gradwise.trials.process import Interrupted, Target
from gradwise.trials.runner import Runner, Trial
from gradwise.trials.sandbox import Workspace

ORIGIN = {"kind": "inf", "operation": "log", "stage": "forward", "step": 40, "place": {"file": "net.py", "line": 5}}
SADDLE = {
    "kind": "saddle", "why": "", "gradient_norm": 0.0, "smallest": {"value": -1.0}, "largest": {"value": 1.0},
    "fresh": {"smallest": {"value": -1.0}}, "direction": [],
}  # fmt: skip
LOST = replace(finding(id="non-finite-loss", step=40), evidence={"first_bad_step": 40}, explanation="It was nan: so.")


@dataclass
class Replaying(FakeBench):
    """A bench whose replays tell `told`, with the watched run's luck or another."""

    lr: float = 0.0  # the loss stands still
    told: list[Mapping[str, Any]] = field(default_factory=list)
    asked: list[Mapping[str, int]] = field(default_factory=list)
    lucky: bool = True
    stopped: bool = False

    def replay(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        return self._tell("curvature", order)

    def trace(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        return self._tell("non-finite-origin", order)

    def _tell(self, kind: str, order: Mapping[str, int]) -> Trial:
        if self.stopped:
            raise Interrupted("SIGINT")
        self.asked.append(order)
        recording = self.record(Intervention(), 0 if self.lucky else 5, 60)
        event = Event(kind, order["step"], 0, self.told[len(self.asked) - 1])
        return Trial(replace(recording, events=(event,)), "", False, 3.0)


def examined(
    bench: FakeBench, what: Diagnosis, budget: float = 200.0, paired: bool = True
) -> tuple[Diagnosis, Attempts]:
    attempts = Attempts(bench.watched(), Plan(bench.seconds, budget, paired=paired), bench)
    return examine(what, bench.watched(), attempts), attempts


def test_a_nan_is_traced_once_and_paid_for() -> None:
    bench = Replaying(told=[ORIGIN])
    what = replace(diagnosis(LOST), summary=LOST.explanation)
    after, attempts = examined(bench, what)
    assert (after.findings[0].where.file, after.findings[0].where.line) == ("net.py", 5)
    assert after.summary == after.findings[0].explanation
    assert attempts.spent == 3.0
    assert [(o["step"], o["before"], o["beyond"]) for o in bench.asked] == [(40, 2, 3)]


def test_with_other_luck_more_steps_are_looked_at() -> None:
    finite = {"problem": "the loss stayed finite when the run was repeated"}
    bench = Replaying(told=[finite, ORIGIN], lucky=False)
    after, attempts = examined(bench, diagnosis(LOST))
    assert after.findings[0].where.file == "net.py"
    assert attempts.spent == 6.0
    assert bench.asked[1]["before"] == 40
    assert bench.asked[1]["beyond"] > 40
    bench = Replaying(told=[ORIGIN])
    examined(bench, diagnosis(LOST), paired=False)
    assert bench.asked[0]["before"] == 40
    bench = Replaying(told=[finite])
    after, _ = examined(bench, diagnosis(LOST))
    assert len(bench.asked) == 1  # the same luck: it would not help
    assert after.findings == (LOST,)
    assert "stayed finite" in after.notes[-1]


def test_what_can_not_be_looked_for_is_noted() -> None:
    for bench, budget, words in (
        (FakeBench(), 100.0, "nowhere to replay"),
        (Replaying(told=[ORIGIN]), 1.0, "the budget of 1.0 s was spent"),
        (Replaying(told=[ORIGIN]), 9.0, "it would take about"),
    ):
        after, _ = examined(bench, diagnosis(LOST), budget)
        assert words in after.notes[-1]
        assert after.findings == (LOST,)


def test_a_stuck_loss_that_nothing_explains_is_looked_at() -> None:
    bench = Replaying(told=[SADDLE])
    what = replace(diagnosis(), verdict="inconclusive")
    assert calls_for(what, bench.watched())
    after, _ = examined(bench, what)
    assert [f.id for f in after.findings] == ["stuck-at-saddle"]
    assert 100 < bench.asked[0]["step"] < 300
    after, _ = examined(Replaying(told=[{"problem": "the loss is bfloat16"}]), what)
    assert "bfloat16" in after.notes[-1]
    after, _ = examined(FakeBench(lr=0.0), what)
    assert "nowhere to replay" in after.notes[-1]


def test_what_needs_no_replay_gets_none() -> None:
    bench = Replaying()
    for what in (diagnosis(), diagnosis(finding(id="lr-too-low"))):
        assert not calls_for(what, bench.watched())
        assert examined(bench, what)[0] == what
    assert bench.asked == []


def test_repair_tries_what_the_origin_suggests() -> None:
    bench = Replaying(lr=2.5, told=[ORIGIN])
    repaired = repair(diagnosis(LOST), bench.watched(), Plan(bench.seconds, 200.0), bench)
    assert bench.made[0][0] == "skip-non-finite"
    assert "net.py:5" in str(repaired.diagnosis)


def test_interrupted_it_says_so() -> None:
    bench = Replaying(stopped=True)
    hurt = replace(LOST, remedies=finding(Intervention(clip_norm=1.0)).remedies)
    repaired = repair(diagnosis(hurt), bench.watched(), Plan(bench.seconds, 200.0), bench)
    [remedy] = repaired.diagnosis.findings[0].remedies
    assert "interrupted" in remedy.reason
    assert bench.made == []


ZEROS = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(256, 4)
y = x[:, :1] * x[:, 1:2] + x[:, 2:3]
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
for p in model.parameters():
    nn.init.zeros_(p)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(200):
    k = torch.randint(256, (32,))
    loss = nn.functional.mse_loss(model(x[k]), y[k])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


@pytest.mark.parametrize("doubt", [False, True])
def test_a_net_of_zeros(doubt: bool, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "script.py").write_text(ZEROS)
    target = Target("script.py", cwd=str(tmp_path / "work"))
    with Workspace.before(target.cwd, target.script) as workspace:
        workspace.after()
        runner = Runner(target, workspace)
        watched = runner.run(Intervention(), 0, None, 100.0).recording
        what = diagnose(watched)
        if doubt:  # as if the recording alone told nothing
            what = replace(what, findings=(), suspicions=(), verdict="inconclusive")
        attempts = Attempts(watched, Plan(5.0, 300.0), runner)
        after = examine(what, watched, attempts)
    found = after.findings[0]
    assert found.id == "stuck-at-saddle", (what, after.notes)
    assert found.evidence["point"] == "saddle"
    assert found.evidence["smallest"] < -found.evidence["smallest_error"]
    assert any(part.startswith("2.weight") for part in found.evidence["direction"])
    assert np.isfinite(watched.get(LOSS, 0).values).all()
    assert isinstance(watched, Recording)


def test_a_cure_that_fails_does_not_unsay_a_nan() -> None:
    failed = Remedy(Intervention(clip_norm=1.0), "clip", "failed")
    told = decide(diagnosis(LOST), [replace(LOST, remedies=(failed,))])
    assert [f.confidence for f in told.findings] == [LOST.confidence]
    other = replace(LOST, id="lr-too-low", remedies=(failed,))
    assert [f.confidence for f in decide(diagnosis(other), [other]).findings] == [0.4]
