"""Rates that run out, and the remark on those that never do."""

from __future__ import annotations

import numpy as np
import pytest
from descent import descend

from gradwise.diagnosis import diagnose
from gradwise.diagnosis.case import Case
from gradwise.diagnosis.decay import little_decay, starved
from gradwise.diagnosis.evidence import evidence_of
from gradwise.recording.recording import Recording


def case(recording: Recording) -> Case:
    return Case(recording, evidence_of(recording, 0))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_rate_that_is_gone_halfway_down(noise: float) -> None:
    found = starved(case(descend(lambda t: 0.02 * 0.9**t, 800, noise=noise)))
    assert found is not None
    assert found.confidence > 0.6
    assert found.step == pytest.approx(np.log(0.01) / np.log(0.9), abs=3)
    assert found.candidates[0].lr is not None


@pytest.mark.parametrize(
    "rate",
    [
        lambda t: 0.1 * 0.985**t,
        lambda t: 0.1 * (1 - t / 800),
        lambda t: 0.05 * (1 + np.cos(np.pi * t / 800)),
        lambda t: 0.1 if t < 400 else 1e-5,
        lambda t: 0.1,
    ],
    ids=["exponential", "linear", "cosine", "dropped when done", "constant"],
)
def test_a_rate_that_lasts_until_it_is_done(rate: object) -> None:
    assert starved(case(descend(rate, 800, noise=0.3))) is None  # type: ignore[arg-type]


def test_a_long_settled_run_at_a_constant_rate_is_remarked_on_and_no_finding() -> None:
    recording = descend(0.05, 3000, noise=0.05)
    remark = little_decay(case(recording))
    assert remark is not None
    assert "3000 steps" in remark
    result = diagnose(recording)
    assert remark in result.notes
    assert result.findings == ()


@pytest.mark.parametrize(
    "recording",
    [descend(0.05, 500), descend(lambda t: 0.05 * 0.998**t, 3000), descend(1e-4, 3000)],
    ids=["short", "decayed", "still falling"],
)
def test_other_runs_are_not(recording: Recording) -> None:
    assert little_decay(case(recording)) is None
