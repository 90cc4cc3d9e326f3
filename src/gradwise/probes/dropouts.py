"""Dropout in the script's modules: where, and with which probability."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gradwise.probes.examinations import Exam
from gradwise.probes.names import Names
from gradwise.probes.recorder import Recorder

_MOST = 64


class Dropouts:
    """Records at the first backward pass which modules drop how much (a probability changed later isn't seen)."""

    def __init__(self, recorder: Recorder, names: Names) -> None:
        self.recorder, self.names = recorder, names

    def before(self, exam: Exam) -> None:
        """Look at the modules, once."""
        if not exam.first:
            return
        found: dict[str, float] = {}
        for root in self.names.roots():
            for name, module in root.named_modules():
                p = _probability(module)
                if p > 0 and len(found) < _MOST:
                    found[name or type(module).__name__] = p
        if found:
            self.recorder.event("dropout", data={"modules": found})

    def after(self, exam: Exam) -> None:
        """Nothing more."""

    def finish(self) -> None:
        """Nothing more."""


def _probability(module: Any) -> float:
    """What share of its outputs a module drops in training: dropout layers, and recurrent ones between layers."""
    kinds: Iterable[str] = (base.__name__ for base in type(module).__mro__)
    value: Any = 0.0
    with suppress(AttributeError):
        kinds = set(kinds)
        if kinds & {"_DropoutNd"}:
            value = module.p
        elif "RNNBase" in kinds and module.num_layers > 1:
            value = module.dropout
    return float(value) if isinstance(value, int | float) else 0.0
