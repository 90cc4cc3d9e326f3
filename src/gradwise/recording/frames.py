"""Frames: the pieces a recording travels in, from the probes to what keeps it. Imports only the stdlib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from gradwise.recording.recording import Floats, Ints


@dataclass(frozen=True, slots=True)
class Message:
    """A rare fact: `kind` is "run", "facts", "optimizer", "place", "event" or "end", `data` is JSON."""

    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Declaration:
    """From here on, points of `series` are `signal` of `source`: a column per label, or one value a step."""

    series: int
    signal: str
    source: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a declared series: `steps` (n,), `values` (n,) or, where it has labels, (n, len(labels))."""

    series: int
    steps: Ints
    values: Floats


Frame: TypeAlias = Message | Declaration | Points
