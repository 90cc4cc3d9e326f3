"""Frames: the pieces a recording travels in, from the probes to what keeps it. Imports only the stdlib."""

from __future__ import annotations

import json
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


def as_json(data: Any) -> str:
    """`data` as JSON text; what JSON does not know becomes the number in it (scalar tensors) or a short text."""
    return json.dumps(data, default=_plain)


def _plain(value: Any) -> Any:
    try:
        return value.item()
    except Exception:
        return repr(value)[:200]
