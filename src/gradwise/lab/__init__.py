"""The documents' experiments, rerun: one file per experiment, and what they share.

Each experiment's file has an `EXPERIMENT`; here stands only where it is, so that listing them loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwise.lab.experiment import Experiment

# In the order of the list of claims.
WHERE: dict[str, str] = {
    "X2": "x02_race",
    "X5": "x05_lenet",
    "X7": "x07_worked_table",
    "X11": "x11_ravine",
    "X12": "x12_bias_correction",
}  # fmt: skip


def find(name: str) -> Experiment:
    """The experiment of that name, in capitals or not.

    Raises:
        KeyError: there is none of that name; the message names those that there are.
    """
    place = WHERE.get(name.upper())
    if place is None:
        raise KeyError(f"there is no claim {name!r}; there are {', '.join(WHERE)}")
    found: Experiment = import_module(f"gradwise.lab.{place}").EXPERIMENT
    return found
