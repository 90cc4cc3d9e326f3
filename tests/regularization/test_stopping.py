"""When to stop: against Keras's callback, and the same after a checkpoint."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.regularization import StoppingState, early_stopping

metrics = st.lists(st.sampled_from([0.5, 0.9, 0.95, 1.0, 1.5, -2.0, float("nan"), float("inf")]), max_size=30)


def keras(values: list[float], patience: int, min_delta: float, mode: str) -> tuple[int | None, int | None]:
    """keras.callbacks.EarlyStopping of Keras 3: the epoch it stops at and the best one."""
    best, wait, best_epoch = None, 0, None
    for epoch, current in enumerate(values):
        wait += 1
        worst = float("inf") if mode == "min" else -float("inf")
        reference = worst if best is None else best
        if current < reference - min_delta if mode == "min" else current > reference + min_delta:
            best, best_epoch, wait = current, epoch, 0
        elif wait >= patience:
            return epoch, best_epoch
    return None, best_epoch


@given(metrics, st.integers(1, 4), st.sampled_from([0.0, 0.1]), st.sampled_from(["min", "max"]), st.integers(0, 30))
def test_it_stops_when_keras_does_also_after_a_checkpoint(values, patience, min_delta, mode, cut) -> None:
    stopping = early_stopping(patience, min_delta, mode)
    state, stopped = stopping.start, None
    for k, value in enumerate(values):
        if k == cut:
            state = StoppingState.from_json(json.loads(json.dumps(state.to_json())))
        state, stop = stopping(state, value)
        if stop:
            stopped = k
            break
    assert (stopped, state.best_at) == keras(values, patience, min_delta, mode)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: early_stopping(0), "patience must be an integer of at least 1, got 0"),
        (lambda: early_stopping(2.5), "patience must be an integer"),
        (lambda: early_stopping(min_delta=-1), "min_delta must be at least 0"),
        (lambda: early_stopping(mode="low"), "mode must be 'min' or 'max'"),
        (lambda: StoppingState.from_json({"seen": 3}), "has seen, best, best_at"),
        (lambda: StoppingState.from_json({"seen": 3, "best": 1.0, "best_at": 3}), "makes no sense"),
        (lambda: StoppingState.from_json({"seen": 3, "best": "1", "best_at": 2}), "best must be a number"),
    ],
)
def test_what_makes_no_sense_is_said(wrong, words) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()
