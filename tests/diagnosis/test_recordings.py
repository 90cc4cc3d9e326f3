"""The documents' curves as real scripts of `examples/` made them: recorded once, told right ever after.

Each file under `recordings/` holds the series of one watched run with the command that made it and what is known of
it by outcome (`examples/curves.json`). They were taken within the overhead budget on a busy machine: looks are sparse.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gradwise.diagnosis import diagnose
from gradwise.recording import builder
from gradwise.recording.frames import Message
from gradwise.recording.recording import Recording, RunInfo, Series

FOLDER = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))


def load(name: str) -> tuple[Recording, str]:
    """A stored recording and what it is known to be."""
    with np.load(FOLDER / f"{name}.npz") as data:
        meta = json.loads(bytes(data["meta"]))
        series = {
            (signal, source): Series(data[f"s{i}"].astype(np.int64), data[f"v{i}"].astype(np.float64), tuple(labels))
            for i, (signal, source, labels) in enumerate(meta["series"])
        }
    script, *argv = meta["command"]
    run = RunInfo(name, script=script, argv=tuple(argv), status="finished", facts=meta["facts"])
    optimizers = tuple(builder.optimizer(o) for o in meta["optimizers"])
    events = tuple(builder.event(Message("event", e)) for e in meta["events"])
    return Recording(run, optimizers, series, events), meta["expected"]


def test_there_are_recordings_of_every_curve() -> None:
    assert {name.split("-")[0] for name in NAMES} == {"green", "red", "yellow", "late"}


@pytest.mark.parametrize("name", NAMES)
def test_a_real_curve_is_told_right(name: str) -> None:
    recording, expected = load(name)
    diagnosis = diagnose(recording)
    said = [f.id for f in diagnosis.findings] or [diagnosis.verdict]
    if expected == "healthy":
        assert not [f for f in diagnosis.findings if f.severity != "info"]
        assert diagnosis.verdict in ("healthy", "inconclusive")
    else:
        assert said[0] == expected
        assert diagnosis.findings[0].where.file == recording.run.script


@pytest.mark.parametrize("name", NAMES)
def test_the_sign_and_scale_of_a_real_loss_do_not_matter(name: str) -> None:
    recording, _ = load(name)
    series = dict(recording.series)
    for (signal, source), s in recording.series.items():
        if signal in ("norm/gradient", "progress", "progress/kept"):
            series[signal, source] = Series(s.steps, 1e-3 * s.values, s.labels)
        elif signal == "loss/train":
            series[signal, source] = Series(s.steps, 1e-3 * s.values - 5.0, s.labels)
    other = diagnose(Recording(recording.run, recording.optimizers, series, recording.events))
    same = diagnose(recording)
    assert [f.id for f in other.findings] == [f.id for f in same.findings]
