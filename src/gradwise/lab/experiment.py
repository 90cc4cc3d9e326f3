"""What an experiment is: cells run once per seed, and a pure judgement of what they measured.

Measuring is the only part that trains; each run is stored as it ends, so that a killed one continues. Verdict, tables
and figures are pure functions of the stored measures: they can be made again without training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

HOLDS = "holds"
WITH_CONDITIONS = "holds with conditions"
DOES_NOT_HOLD = "does not hold"
UNDECIDED = "undecided"  # the seeds run so far can't tell; no claim is judged on an interval that leaves it open

Measures = Mapping[str, Any]  # JSON: numbers, text, lists of them; a number that isn't finite comes back as None
Runs = Mapping[str, Mapping[int, Measures]]  # cell -> seed -> what was measured


@dataclass(frozen=True)
class Cell:
    """One configuration, run once per seed.

    Args:
        name: unique in its experiment; what tables and the store call it.
        settings: what `measure` needs, as JSON. Two cells with the same settings give the same measures; a stored
            result is used again only where its cell's settings are unchanged.
        rank: cells of a lower rank are run with all seeds before any of a higher one. Only cells of rank 0 are sure to
            be among the runs that are judged: an experiment that ranks its cells must do without the rest.
    """

    name: str
    settings: Mapping[str, Any]
    rank: int = 0


@dataclass(frozen=True)
class Bench:
    """What a run may use.

    Args:
        quick: the reduced form of the experiment.
        data_dir: where the larger data sets are; `None` where the user named none.
        progress: called now and then with the share done, in [0, 1].
        checkpoint: a file that a run of many minutes may keep its state in (`lab/checkpoint.py`), to go on from when it
            was killed. `None` where nothing is kept.
    """

    quick: bool = False
    data_dir: Path | None = None
    progress: Callable[[float], None] = field(default=lambda share: None, compare=False)
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Statement:
    """One sentence of the claim, as it was found.

    Args:
        text: the sentence, with the figures that decide it.
        held: whether it held; `None` where the measurement can't tell.
        condition: under which condition it held, "" where it held without one.
    """

    text: str
    held: bool | None
    condition: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: one of the four words, why, and sentence by sentence."""

    word: str
    why: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Table:
    """A table of text; the first row is the head, the first column names the row."""

    title: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Experiment:
    """A claim of the documents, and how it is put to the test.

    Args:
        id: its row in the list of claims, "X5".
        title: a few words.
        claim: what is claimed, in one or two sentences.
        source: which document and section says so, and the literature behind it.
        setup: from quick (bool) to a paragraph: model, data, rules, rates and how they were chosen, lengths.
        cells: from quick to the cells.
        measure: from a cell's settings, a seed and the bench to measures. The same input gives the same measures.
        judge: from the runs to the verdict; pure.
        tables: from the runs to tables; pure.
        figures: from the runs to figures by a short file name; pure.
        seeds: how many seeds it takes by default, 3 or more.
        data: names of the data sets that the full form needs beyond what scikit-learn bundles.
        minutes: about how long (quick, full) takes on two cores.
    """

    id: str
    title: str
    claim: str
    source: str
    setup: Callable[[bool], str]
    cells: Callable[[bool], Sequence[Cell]]
    measure: Callable[[Mapping[str, Any], int, Bench], Measures]
    judge: Callable[[Runs], Verdict]
    tables: Callable[[Runs], Sequence[Table]]
    figures: Callable[[Runs], Mapping[str, go.Figure]]
    seeds: int = 3
    data: tuple[str, ...] = ()
    minutes: tuple[float, float] = (1, 10)


def measured(runs: Runs, cell: str, what: str) -> list[Any]:
    """A measure of a cell, seed by seed."""
    return [runs[cell][seed][what] for seed in sorted(runs[cell])]


def conclude(statements: Sequence[Statement], why: str = "") -> Verdict:
    """The verdict that follows from its statements.

    All held: *holds*. None held and some failed: *does not hold*. Some held and some failed, or held only under a
    condition: *holds with conditions*. *Undecided* where most can't be told, or none failed and some can't be told.
    """
    held = [s for s in statements if s.held]
    failed = sum(s.held is False for s in statements)
    unknown = len(statements) - len(held) - failed
    if unknown > len(held) + failed or (unknown and not failed):
        word = UNDECIDED
    elif not held:
        word = DOES_NOT_HOLD
    elif failed or any(s.condition for s in held):
        word = WITH_CONDITIONS
    else:
        word = HOLDS
    return Verdict(word, why, tuple(statements))
