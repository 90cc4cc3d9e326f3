"""A recording: everything known of one training run, as plain immutable data. Checks read it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwise.recording.signals import Signal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source: where something was made, called or evaluated."""

    file: str
    line: int
    function: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Series:
    """One signal over time: `steps` (n,) int64, ascending; `values` (n,) float64, or (n, len(labels)) with `labels`."""

    steps: Ints
    values: Floats
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, steps: Ints) -> Floats:
        """The value that held at each of `steps` (last one recorded at or before it; the first one before that)."""
        index = np.searchsorted(self.steps, steps, side="right") - 1
        return self.values[np.clip(index, 0, None)]


EMPTY = Series(np.empty(0, np.int64), np.empty(0, np.float64))


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A tensor an optimizer holds: its name where a module gives it one, else its position ("0.3")."""

    name: str
    shape: tuple[int, ...]
    group: int
    device: str = "cpu"
    dtype: str = "float32"
    trainable: bool = True


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """What was seen of one optimizer. `kind` is the class' name; "manual" where a script updates without one."""

    index: int
    kind: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    parameters: tuple[ParameterInfo, ...] = ()
    made: Place | None = None
    stepped: Place | None = None
    scheduler: Place | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once: `kind` says what, `data` is JSON."""

    kind: str
    step: int
    source: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What run this is. `status` is "running", "finished", "stopped" (by a budget), "failed", "killed" or "lost"."""

    id: str
    script: str = ""
    argv: tuple[str, ...] = ()
    module: bool = False
    cwd: str = ""
    started: float = 0.0
    ended: float | None = None
    status: str = "running"
    exit: int | None = None
    parent: str | None = None
    intervention: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "argv": list(self.argv)}


@dataclass(frozen=True, slots=True)
class Recording:
    """A run with all its series, keyed by signal name and source, its optimizers and its events."""

    run: RunInfo
    optimizers: tuple[OptimizerInfo, ...] = ()
    series: Mapping[tuple[str, int], Series] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    def get(self, signal: Signal, source: int = 0) -> Series:
        """The series of `signal` for `source`; an empty one where nothing was recorded."""
        return self.series.get((signal.name, source), EMPTY)

    def sources(self, signal: Signal) -> Sequence[int]:
        """The sources that recorded anything of `signal`, ascending."""
        return sorted(s for name, s in self.series if name == signal.name and len(self.series[name, s]))

    def happened(self, kind: str) -> Sequence[Event]:
        """The events of one kind, in order."""
        return [e for e in self.events if e.kind == kind]
