"""The documents' experiments, rerun: one file per experiment, and what they share.

The file of claim X5 is called `x05_….py` and has an `EXPERIMENT`. The files' names alone say what claims there are, so
that listing them loads none.
"""

from __future__ import annotations

import re
from importlib import import_module, resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwise.lab.experiment import Experiment


def _where() -> dict[str, str]:
    found = {}
    for name in sorted(entry.name for entry in resources.files(__name__).iterdir()):
        numbered = re.fullmatch(r"([px])(\d+)_\w+\.py", name)
        if numbered:
            found[numbered[1].upper(), int(numbered[2])] = name.removesuffix(".py")
    # The documents' claims (X), then what was published elsewhere (P).
    return {f"{kind}{number}": found[kind, number] for kind, number in sorted(found, key=lambda k: (k[0] != "X", k))}


# From a claim's name to its module, in the order of the list of claims.
WHERE: dict[str, str] = _where()


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
