"""Frames become the recording they describe, in whatever portions they arrive."""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.recording.builder import FrameSink, RecordingBuilder, joined
from gradwise.recording.frames import Declaration, Frame, Message, Points
from gradwise.recording.recording import (
    Event,
    OptimizerInfo,
    ParameterInfo,
    Place,
    RunInfo,
    Series,
)
from gradwise.recording.signals import LOSS, LR

INFO = OptimizerInfo(
    index=1,
    kind="SGD",
    defaults={"lr": 0.1},
    groups=({"lr": 0.1},),
    parameters=(ParameterInfo("fc.weight", (10, 5), 0),),
    made=Place("train.py", 14, "main", "SGD(model.parameters(), lr=0.1)"),
)


def over_the_wire(data: object) -> dict[str, object]:
    back: dict[str, object] = json.loads(json.dumps(data))
    return back


def test_an_optimizer_survives_json_and_the_last_word_on_it_counts() -> None:
    first, last = asdict(INFO), {**asdict(INFO), "kind": "Adam", "from_a_later_version": 1}
    other = {"index": 0, "kind": "manual"}
    frames = [Message("optimizer", over_the_wire(m)) for m in (first, other, last)]
    built = RecordingBuilder().add(frames).build()
    assert [o.kind for o in built.optimizers] == ["manual", "Adam"]
    assert built.optimizers[1].parameters == INFO.parameters
    assert built.optimizers[1].made == INFO.made
    assert built.optimizers[1].groups == INFO.groups


def test_messages_tell_what_run_it_is() -> None:
    frames = [
        Message("run", {"script": "train.py", "argv": ["--lr", "5"], "id": "theirs", "hostname": "node1"}),
        Message("facts", {"device": "cpu", "status": "a fact of that name"}),
        Message("facts", {"device": "cuda"}),
        Message("end", {"status": "failed", "exit": 1, "exception": "ValueError"}),
    ]
    run = RecordingBuilder(RunInfo("mine", started=5.0)).add(frames).build().run
    assert run == RunInfo(
        "mine",
        script="train.py",
        argv=("--lr", "5"),
        started=5.0,
        status="failed",
        exit=1,
        facts={
            "hostname": "node1",
            "device": "cuda",
            "status": "a fact of that name",
            "exception": "ValueError",
        },
    )


def test_places_and_events_become_events() -> None:
    place = {
        "source": 2,
        "file": "train.py",
        "line": 30,
        "function": "",
        "text": "loss = f(x)",
        "callers": [],
    }
    happened = asdict(Event("non-finite", 12, 1, {"module": "fc"}))
    built = RecordingBuilder().add([Message("place", place), Message("event", happened)]).build()
    assert built.events == (
        Event("validation-place", 0, 2, place),
        Event("non-finite", 12, 1, {"module": "fc"}),
    )


@given(st.lists(st.integers(-5, 50), max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_points_in_any_order_and_any_portions_come_out_ascending(steps: list[int], cuts: list[int]) -> None:
    builder = RecordingBuilder().add([Declaration(0, LOSS.name, 0)])
    edges = sorted(min(c, len(steps)) for c in cuts)
    order = np.arange(len(steps), dtype=np.float64)
    for a, b in zip([0, *edges], [*edges, len(steps)], strict=True):
        builder.add([Points(0, np.array(steps[a:b], np.int64), order[a:b])])
        builder.build()
    series = builder.build().get(LOSS)
    expected = sorted(range(len(steps)), key=lambda i: steps[i])
    assert series.steps.tolist() == [steps[i] for i in expected]
    assert series.values.tolist() == expected


def test_columns_meet_by_label_when_labels_change() -> None:
    frames: list[Frame] = [
        Declaration(0, LR.name, 0, ("0",)),
        Points(0, np.array([0]), np.array([[0.1]])),
        Declaration(1, LR.name, 0, ("1", "0")),
        Points(1, np.array([1]), np.array([[0.2, 0.3]])),
    ]
    series = RecordingBuilder().add(frames).build().get(LR)
    assert series.labels == ("0", "1")
    np.testing.assert_array_equal(series.values, [[0.1, np.nan], [0.3, 0.2]])


def test_one_part_is_not_copied() -> None:
    part = Series(np.arange(3), np.ones(3))
    assert joined([part]) is part


def test_a_declared_series_without_points_is_not_there() -> None:
    built = RecordingBuilder().add([Declaration(0, LOSS.name, 0)]).build()
    assert built.series == {}
    assert len(built.get(LOSS)) == 0


class TestFrameSink:
    def test_what_is_put_in_reaches_the_recording_at_a_flush(self) -> None:
        builder = RecordingBuilder()
        sink = FrameSink(builder.add)
        sink.message("facts", {"device": "cpu"})
        series = sink.series(LR.name, 0, ["0", "1"])
        values = array("d", [0.1, 0.2, 0.3, 0.4])
        sink.points(series, array("q", [0, 1]), values)
        values[0] = 9.0
        assert builder.build().run.facts == {}
        sink.flush()
        built = builder.build()
        assert built.run.facts == {"device": "cpu"}
        np.testing.assert_array_equal(built.get(LR).values, [[0.1, 0.2], [0.3, 0.4]])

    def test_points_that_do_not_fit_are_dropped(self) -> None:
        got: list[Frame] = []
        sink = FrameSink(got.extend)
        sink.points(sink.series(LR.name, 0, ["0", "1"]), array("q", [0]), array("d", [0.1]))
        sink.flush()
        assert [type(f) for f in got] == [Declaration]

    def test_a_forked_process_delivers_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got: list[Frame] = []
        sink = FrameSink(got.extend)
        sink.message("facts", {})
        monkeypatch.setattr(os, "getpid", lambda: -1)
        sink.flush()
        assert got == []
