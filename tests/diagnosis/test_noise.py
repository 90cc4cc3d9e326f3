"""Gradients drowned by noise and by epsilon, from recordings with known signal and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent import descend, recording_of

from gradwise.diagnosis.case import Case
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.hypotheses import DOUBT, Hypothesis
from gradwise.diagnosis.noise import drowned, ruled_by_eps
from gradwise.recording.recording import OptimizerInfo, ParameterInfo, Recording, Series


def noise_of(recording: Recording) -> Hypothesis | None:
    return drowned(Case(recording, evidence_of(recording, 0)))


def test_the_batch_that_the_noise_calls_for() -> None:
    # |G|^2 is about 40 * 3^2 at the start and the noise's square 40 * 60^2: a batch some hundred times as large.
    recording = descend(0.002, 800, noise=60.0, every=4)
    recording = Recording(
        recording.run,
        recording.optimizers,
        {**recording.series, ("batch", 0): Series(np.array([0]), np.array([8.0]))},
    )
    found = noise_of(recording)
    assert found is not None
    assert found.confidence < DOUBT
    assert found.evidence["batch_called_for"] > 30 * 8
    assert found.candidates[0].accumulate == 4
    assert "rows" in found.says


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_a_little_noise_is_none(noise: float) -> None:
    assert noise_of(descend(0.05, 800, noise=noise)) is None


def test_nothing_recorded_says_nothing() -> None:
    recording = recording_of({"loss/train": [(i, 1.0) for i in range(50)], "time": [(i, 0.0) for i in range(50)]})
    assert noise_of(recording) is None


def adam(gradient: float, eps: float = 1e-8, kind: str = "Adam", fall: float = 0.0) -> Recording:
    """A run whose gradient has this rms per element; the loss falls by `fall` in all."""
    steps = range(0, 400, 8)
    rows = {
        "loss/train": [(i, 1.0 - fall * i / 400 + 1e-3 * (-1) ** i) for i in range(400)],
        "time": [(i, 1e-3 * i) for i in range(400)],
        "lr": [(0, 1e-3)],
    }
    plain = recording_of(rows)
    columns = {name: Series(np.array(steps), np.full((len(steps), 1), value), ("weight",)) for name, value in (
        ("norm/gradient", gradient * 10), ("norm/update", 1e-3), ("norm/parameter", 5.0),
    )}  # fmt: skip
    optimizer = OptimizerInfo(0, kind, {}, ({"lr": 1e-3, "eps": eps},), (ParameterInfo("weight", (10, 10), 0),))
    return replace(plain, optimizers=(optimizer,), series={**plain.series, **{(k, 0): v for k, v in columns.items()}})


def eps_of(recording: Recording) -> Hypothesis | None:
    return ruled_by_eps(Case(recording, evidence_of(recording, 0)))


def test_epsilon_above_the_gradient_is_named_with_both() -> None:
    found = eps_of(adam(1e-10))
    assert found is not None
    assert found.confidence > 0.8
    assert (found.evidence["eps"], found.evidence["gradient_rms"]) == (1e-8, pytest.approx(1e-10))
    assert found.candidates[0].eps == pytest.approx(1e-12)
    assert found.candidates[1].loss_scale == pytest.approx(1e4)


@pytest.mark.parametrize(
    "recording",
    [adam(1e-7), adam(1e-3), adam(1e-10, kind="SGD"), adam(0.0), adam(1e-5, eps=1e-6)],
    ids=["a little above", "far above", "another rule", "no gradient", "a large epsilon below"],
)
def test_epsilon_below_the_gradient_is_let_be(recording: Recording) -> None:
    assert eps_of(recording) is None
