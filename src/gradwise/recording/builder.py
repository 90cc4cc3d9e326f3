"""From frames to a recording: what each message means is said here once, for spool, store and `watch`."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from gradwise.recording.frames import Declaration, Frame, Message, Points
from gradwise.recording.recording import (
    Event,
    OptimizerInfo,
    ParameterInfo,
    Place,
    Recording,
    RunInfo,
    Series,
)

T = TypeVar("T")


class RecordingBuilder:
    """Gathers frames into a recording.

    >>> builder = RecordingBuilder(RunInfo("a"))
    >>> _ = builder.add([Declaration(0, "loss/train", 0), Points(0, np.arange(2), np.array([2.0, 1.5]))])
    >>> builder.build().series["loss/train", 0].values
    array([2. , 1.5])

    Args:
        run: what is known of the run before its first message.
    """

    def __init__(self, run: RunInfo | None = None) -> None:
        self.run = RunInfo("") if run is None else run
        self._optimizers: dict[int, OptimizerInfo] = {}
        self._events: list[Event] = []
        self._declared: dict[int, Declaration] = {}
        self._parts: dict[tuple[str, int], list[Series]] = {}

    def add(self, frames: Iterable[Frame]) -> RecordingBuilder:
        """Take frames in the order they were made; returns self."""
        for frame in frames:
            if isinstance(frame, Points):
                declared = self._declared[frame.series]
                part = Series(frame.steps, frame.values, declared.labels)
                self._parts.setdefault((declared.signal, declared.source), []).append(part)
            elif isinstance(frame, Declaration):
                self._declared[frame.series] = frame
            elif frame.kind == "optimizer":
                info = optimizer(frame.data)
                self._optimizers[info.index] = info
            elif frame.kind in ("event", "place"):
                self._events.append(event(frame))
            elif frame.kind in ("run", "facts", "end"):
                self.run = updated(self.run, frame)
        return self

    def build(self) -> Recording:
        """The recording so far; more frames may be added afterwards."""
        for key, parts in self._parts.items():
            self._parts[key] = [joined(parts)]
        return Recording(
            run=self.run,
            optimizers=tuple(self._optimizers[i] for i in sorted(self._optimizers)),
            series={key: parts[0] for key, parts in self._parts.items()},
            events=tuple(self._events),
        )


class FrameSink:
    """A `Sink` in the reader's own process: hands frames on at each flush; a forked child hands on nothing.

    Args:
        deliver: takes the frames of one flush; must not raise.
    """

    def __init__(self, deliver: Callable[[list[Frame]], object]) -> None:
        self._deliver = deliver
        self._frames: list[Frame] = []
        self._widths: list[int] = []
        self._pid = os.getpid()

    def message(self, kind: str, data: Mapping[str, Any]) -> None:
        """A rare fact."""
        self._frames.append(Message(kind, data))

    def series(self, signal: str, source: int, labels: Sequence[str] = ()) -> int:
        """Declare a series and get its number."""
        self._widths.append(len(labels))
        self._frames.append(Declaration(len(self._widths) - 1, signal, source, tuple(labels)))
        return len(self._widths) - 1

    def points(self, series: int, steps: array[int], values: array[float]) -> None:
        """Points of a declared series; those that do not fit its labels are dropped."""
        width = self._widths[series]
        if len(values) == len(steps) * max(1, width):
            column = np.array(values)
            shaped = column.reshape(len(steps), width) if width else column
            self._frames.append(Points(series, np.array(steps, np.int64), shaped))

    def flush(self) -> None:
        """Deliver everything taken so far."""
        frames, self._frames = self._frames, []
        if frames and os.getpid() == self._pid:
            self._deliver(frames)


def joined(parts: Sequence[Series]) -> Series:
    """Parts of one series as one, steps ascending; columns meet by label, NaN where a part lacked it."""
    if len(parts) == 1 and _ascending(parts[0].steps):
        return parts[0]
    labels = tuple(dict.fromkeys(label for part in parts for label in part.labels))
    steps = np.concatenate([part.steps for part in parts])
    if all(part.labels == labels for part in parts):
        values = np.concatenate([part.values for part in parts])
    else:
        values = np.full((len(steps), len(labels)), np.nan)
        row = 0
        for part in parts:
            columns = [labels.index(label) for label in part.labels]
            values[row : row + len(part), columns] = part.values
            row += len(part)
    if not _ascending(steps):
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
    return Series(steps, values, labels)


def updated(run: RunInfo, message: Message) -> RunInfo:
    """`run` after a "run", "end" or "facts" message: fields are replaced, anything else joins its facts."""
    known = {} if message.kind == "facts" else {k: v for k, v in message.data.items() if k in _RUN}
    facts = {k: v for k, v in message.data.items() if k not in known}
    known.pop("id", None)
    facts = {**run.facts, **known.pop("facts", {}), **facts}
    if "argv" in known:
        known["argv"] = tuple(known["argv"])
    return replace(run, **known, facts=facts)


def run_info(data: Mapping[str, Any]) -> RunInfo:
    """The run that `RunInfo.to_json` described."""
    info = _made(RunInfo, data)
    return replace(info, argv=tuple(info.argv))


def event(message: Message) -> Event:
    """The event an "event" or "place" message tells of."""
    data = message.data
    if message.kind == "place":
        return Event("validation-place", 0, data["source"], data)
    return _made(Event, data)


def optimizer(data: Mapping[str, Any]) -> OptimizerInfo:
    """The optimizer an "optimizer" message describes."""
    info = _made(OptimizerInfo, data)
    parameters = (_made(ParameterInfo, p) for p in info.parameters)
    return replace(
        info,
        groups=tuple(info.groups),
        parameters=tuple(replace(p, shape=tuple(p.shape)) for p in parameters),
        made=place(info.made),
        stepped=place(info.stepped),
        scheduler=place(info.scheduler),
    )


def place(data: Any) -> Place | None:
    """The place a JSON object describes."""
    return None if data is None else _made(Place, data)


def _made(kind: type[T], data: Any) -> T:
    """A dataclass from a mapping (or one already made), leaving out keys this version does not know."""
    if isinstance(data, kind):
        return data
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in data.items() if k in known})


def _ascending(steps: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    return bool(np.all(steps[1:] >= steps[:-1]))


_RUN = {f.name for f in fields(RunInfo)}
