"""The four curves and their neighbours, from descent whose faults are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from descent import descend, of_losses, recording_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwise.diagnosis import Diagnosis, diagnose
from gradwise.diagnosis.evidence import evidence_of
from gradwise.recording.recording import Event, Recording, RunInfo

EDGE = 2 / 10.0


def ids(diagnosis: Diagnosis) -> list[str]:
    return [f.id for f in diagnosis.findings]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_a_sound_rate_is_healthy(share: float, noise: float, seed: int) -> None:
    result = diagnose(descend(share * EDGE, noise=noise, seed=seed))
    assert result.findings == ()
    assert result.verdict == "healthy"


@pytest.mark.parametrize("share", [1.05, 1.5, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_beyond_the_edge_of_stability_the_rate_is_too_high(share: float, noise: float) -> None:
    result = diagnose(descend(share * EDGE, noise=noise))
    assert ids(result)[0] == "lr-too-high"
    finding = result.findings[0]
    assert (finding.where.file, finding.where.line) == ("train.py", 14)
    assert "non-finite-loss" not in ids(result)
    first = finding.remedies[0]
    assert first.intervention.lr_scale is not None
    assert first.intervention.lr_scale < 1
    assert first.advice.startswith("train.py:14  SGD(…, lr=")


@pytest.mark.parametrize("share", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_line_that_pays_all_it_promises_is_too_low(share: float, noise: float) -> None:
    result = diagnose(descend(share * EDGE, noise=noise))
    assert ids(result) == ["lr-too-low"]
    assert result.findings[0].severity == "warning"


def test_a_floor_that_the_rate_holds_up() -> None:
    # At a standstill the noise lifts the loss by about lr/4 times the squared gradient noise: an eighth of the fall.
    recording = descend(0.4 * EDGE, 4000, noise=3.0)
    e = evidence_of(recording, 0)
    assert e.curve is not None
    lifted = e.curve.end  # the minimum is 0
    assert e.floor * e.curve.fall == pytest.approx(lifted, rel=0.5)
    assert ids(diagnose(recording))[:1] == ["late-lr-too-high"]


def test_the_same_rate_with_decay_is_healthy() -> None:
    recording = descend(lambda t: 0.4 * EDGE * (1 - t / 4000), 4000, noise=3.0)
    assert "late-lr-too-high" not in ids(diagnose(recording))


def test_a_schedule_that_grows_is_late_divergence_and_names_the_turn() -> None:
    recording = descend(lambda t: 0.2 * EDGE * 1.006**t, 420, noise=0.05)
    result = diagnose(recording)
    assert ids(result)[0] == "late-divergence"
    turned = np.log(1 / 0.2) / np.log(1.006)
    assert result.findings[0].where.step == pytest.approx(turned, rel=0.35)
    assert "schedule" in result.findings[0].explanation


@settings(max_examples=40, deadline=None)
@given(
    share=st.sampled_from([1e-4, 0.3, 1.5, 20.0]),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e6]),
    shift=st.sampled_from([0.0, -1.0, -100.0, 7.0]),
    seed=st.integers(0, 5),
)
def test_neither_scale_nor_sign_of_the_loss_matters(share: float, scale: float, shift: float, seed: int) -> None:
    plain = diagnose(descend(share * EDGE, 300, noise=0.02, seed=seed))
    other = diagnose(descend(share * EDGE, 300, noise=0.02, seed=seed, scale=scale, shift=shift * scale))
    assert ids(plain) == ids(other)
    assert plain.verdict == other.verdict


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("steps", [50, 1000])
def test_pure_noise_is_inconclusive(steps: int, seed: int) -> None:
    losses = 1 + 0.3 * np.random.default_rng(seed).standard_normal(steps)
    result = diagnose(of_losses(losses))
    assert result.findings == ()
    assert result.verdict == "inconclusive"


@pytest.mark.parametrize("seed", range(10))
def test_slow_wandering_is_not_taken_for_a_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wander = np.zeros(1000)
    for i in range(1, 1000):  # correlated over some 30 steps, longer than a window
        wander[i] = 0.97 * wander[i - 1] + 0.1 * rng.standard_normal()
    curve = evidence_of(of_losses(5 + wander + 0.2 * rng.standard_normal(1000)), 0).curve
    assert curve is not None
    assert curve.came_down < 4


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("steps", [120, 600])
def test_a_fall_that_only_many_noisy_losses_show_together_is_healthy(steps: int, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(steps)
    result = diagnose(of_losses(1 + np.exp(-8 * np.arange(steps) / steps) + 0.3 * noise))
    assert result.findings == ()
    assert result.verdict == "healthy"


@pytest.mark.parametrize("seed", range(10))
def test_a_power_law_with_spikes_that_recover_is_healthy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(5000)
    losses = 2 + 8 * (1 + t / 20) ** -0.5 + 0.1 * rng.standard_normal(len(t))
    losses[rng.integers(100, 5000, 20)] += rng.uniform(1, 30, 20)
    result = diagnose(of_losses(losses))
    assert result.findings == ()
    assert result.verdict == "healthy"


def test_warm_restarts_are_no_run_away() -> None:
    t = np.arange(3000)
    cycle = t % 1000
    rate = 0.5 * (1 + np.cos(np.pi * cycle / 1000))
    losses = 1 + 4 * np.exp(-t / 100) + 0.3 * rate + 0.02 * np.random.default_rng(0).standard_normal(len(t))
    rows = {
        "loss/train": list(enumerate(losses)),
        "time": list(enumerate(1e-3 * t)),
        "lr": list(enumerate(rate)),
    }
    cut = {k: v[:2150] for k, v in rows.items()}
    assert diagnose(recording_of(rows)).findings == ()
    assert diagnose(recording_of(cut)).findings == ()


def test_a_loss_that_is_never_finite_names_its_stage() -> None:
    losses = np.full(100, np.nan)
    recording = of_losses(losses)
    event = Event("non-finite", 0, 0, {"what": "loss", "value": "nan", "stage": "target"})
    recording = Recording(recording.run, recording.optimizers, recording.series, (event,))
    result = diagnose(recording)
    assert ids(result) == ["non-finite-loss"]
    assert result.findings[0].evidence["stage"] == "target"
    assert result.findings[0].where.step == 0


def test_a_sudden_nan_after_sound_training_is_not_blamed_on_the_rate() -> None:
    sound = descend(0.3 * EDGE, 400, noise=0.1)
    loss = sound.series["loss/train", 0]
    loss.values[300:] = np.nan
    result = diagnose(sound)
    assert ids(result)[0] == "non-finite-loss"
    assert result.findings[0].where.step == 300


def test_one_nan_among_many_is_a_warning() -> None:
    sound = descend(0.3 * EDGE, 400, noise=0.1)
    sound.series["loss/train", 0].values[200] = np.nan
    result = diagnose(sound)
    assert [(f.id, f.severity) for f in result.findings] == [("non-finite-loss", "warning")]


@pytest.mark.parametrize("losses", [[], [1.0], [2.3, 1.0, 0.5]])
def test_too_few_steps_are_inconclusive(losses: list[float]) -> None:
    result = diagnose(of_losses(np.array(losses)))
    assert result.verdict == "inconclusive"
    assert result.findings == ()
    assert result.summary


@pytest.mark.parametrize(("second", "verdict"), [(0.1, "healthy"), (0.9, "inconclusive")])
def test_an_optimizer_that_takes_up_what_another_learned_need_not_fall(second: float, verdict: str) -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(400)
    first = of_losses(0.1 + np.exp(-np.arange(200) / 30) + noise[:200])
    later = {
        "loss/train": [(i, second + noise[200 + i]) for i in range(200)],
        "time": [(i, 1.0 + i) for i in range(200)],
    }
    after = recording_of(later, source=1)
    result = diagnose(Recording(first.run, (*first.optimizers, *after.optimizers), {**first.series, **after.series}))
    assert (result.verdict, result.findings) == (verdict, ())


def test_gone_within_three_steps_is_the_rate() -> None:
    result = diagnose(of_losses(np.array([2.3, 40.0, 1e9, np.nan, np.nan])))
    assert ids(result)[0] == "lr-too-high"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "never imported torch"),
        ({"torch": "2.13"}, "no backward pass"),
        ({"torch": "2.13", "backwards": 7, "optimizers_made": 1}, "no optimizer ever made a step"),
        ({"torch": "2.13", "backwards": 7}, "nothing changed the parameters"),
    ],
)
def test_nothing_to_see_is_said(facts: dict[str, object], says: str) -> None:
    result = diagnose(Recording(RunInfo("r", facts=facts)))
    assert result.verdict == "inconclusive"
    assert says in result.summary


def test_adversaries_are_not_judged_by_their_curves() -> None:
    rng = np.random.default_rng(0)
    up = recording_of({"loss/train": [(i, 0.5 + i / 100 + rng.random()) for i in range(400)],
                       "time": [(i, i * 1e-3) for i in range(400)]})  # fmt: skip
    down = recording_of({"loss/train": [(i, 2.0 + rng.random()) for i in range(400)],
                         "time": [(i, i * 1e-3) for i in range(400)]}, source=1)  # fmt: skip
    both = Recording(up.run, up.optimizers + down.optimizers, {**up.series, **down.series})
    assert diagnose(both).verdict == "healthy"


def test_steps_without_losses_are_not_called_too_few() -> None:
    result = diagnose(recording_of({"time": [(i, 1e-3 * i) for i in range(300)]}))
    assert result.verdict == "inconclusive"
    assert "no loss was seen" in result.summary


def test_a_target_is_reported() -> None:
    recording = descend(0.3 * EDGE)
    assert "reached at about step" in diagnose(recording, target=1.0).summary
    assert "not reached" in diagnose(recording, target=-1.0).summary


@pytest.mark.parametrize("steps", [50, 200, 20_000])
def test_short_and_long_runs(steps: int) -> None:
    assert diagnose(descend(0.4 * EDGE, steps, noise=0.1)).findings == ()
    assert ids(diagnose(descend(3 * EDGE, steps, noise=0.1)))[0] == "lr-too-high"
