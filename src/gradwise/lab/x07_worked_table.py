"""X7: D4's worked table of RMSprop, recomputed: which of its figures follow from which.

Exact arithmetic: printed figures are intervals of fractions, half a unit of their last digit to either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING, Any

from gradwise.lab.drawing import dots
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.optim.rules.rmsprop import rmsprop

if TYPE_CHECKING:
    import plotly.graph_objects as go

Interval = tuple[Fraction, Fraction]

_DIGITS = 10**12  # to which roots are bracketed


@dataclass(frozen=True)
class Row:
    """A row of the table, as printed: gradient, average of its squares, rate α/√S, update."""

    name: str
    g: str
    s: str
    step: str
    update: str


TABLE = (
    Row("last layer's weight", "1.2", "1.44", "0.01", "0.012"),
    Row("first layer's weight", "0.00003", "0.0000001", "100", "0.003"),
    Row("bias", "0.03", "0.0009", "1.05", "0.0315"),
)
ALPHAS = ("0.012", "0.0315")
AS_PRINTED, SQUARED = "S as printed", "S = g²"


def printed(text: str) -> Interval:
    """What a printed figure can stand for.

    >>> printed("1.05")
    (Fraction(209, 200), Fraction(211, 200))
    """
    half = Fraction(1, 2) * Fraction(10) ** int(Decimal(text).as_tuple().exponent)
    return Fraction(text) - half, Fraction(text) + half


def root(square: Fraction) -> Interval:
    """A square root, between two fractions that are one apart in the twelfth digit, or the same if it is exact.

    >>> root(Fraction("1.44"))
    (Fraction(6, 5), Fraction(6, 5))
    """
    scaled = square * _DIGITS**2
    low = isqrt(scaled.numerator // scaled.denominator)
    exact = Fraction(low, _DIGITS) ** 2 == square
    return Fraction(low, _DIGITS), Fraction(low if exact else low + 1, _DIGITS)


def alpha(row: Row) -> Interval | None:
    """The α from which a row's step and its update follow (S and g as printed); None if there is none."""
    low, high = root(Fraction(row.s))
    by_step = [bound * edge for bound, edge in zip(printed(row.step), (low, high), strict=True)]
    by_update = [bound * edge / Fraction(row.g) for bound, edge in zip(printed(row.update), (low, high), strict=True)]
    return _common((by_step[0], by_step[1]), (by_update[0], by_update[1]))


def _common(*intervals: Interval) -> Interval | None:
    low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
    return (low, high) if low <= high else None


def cells(quick: bool) -> list[Cell]:
    """The table with its own S, and with S = g²."""
    return [Cell(name, {"squared": name == SQUARED}) for name in (AS_PRINTED, SQUARED)]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """Each row's update by gradwise's own rule, S standing still (a decay of 1): α/√S and α g/√S for each α."""
    found: dict[str, Any] = {}
    for rate in ALPHAS:
        updates = []
        for row in TABLE:
            g = float(row.g)
            s = g * g if settings["squared"] else float(row.s)
            moved, *_ = rmsprop.update(0.0, g, s, None, None, float(rate), 1.0, 0.0, "none", 0.0, False)
            updates.append(-moved)
        found[rate] = {"updates": updates, "steps": [u / float(row.g) for u, row in zip(updates, TABLE, strict=True)]}
    return found


def setup(quick: bool) -> str:
    """What is computed."""
    return (
        "Nothing is trained and nothing is drawn at random: seeds give the same. Each row of the table (gradient g, "
        "average S of its squares, rate α/√S, update) is recomputed by gradwise's own RMSprop rule without ε, in "
        "double precision, for the two α that its rows suggest; with S as printed, and with S = g², as an average that "
        "forgets at once has it. Which α a row's figures can follow from is worked out in fractions, each printed "
        "figure taken as an interval of half a unit of its last digit to either side."
    )


def judge(runs: Runs) -> Verdict:
    """Three sentences on what follows from what."""
    found = [alpha(row) for row in TABLE]
    known = [interval for interval in found if interval is not None]
    together = _common(*known) if len(known) == len(TABLE) else None
    later = _common(*(interval for interval in found[1:] if interval is not None))
    squares = [Fraction(row.g) ** 2 for row in TABLE]
    odd = [(row, square) for row, square in zip(TABLE, squares, strict=True) if Fraction(row.s) != square]
    apart = Fraction(max(Fraction(r.g) for r in TABLE), min(Fraction(r.g) for r in TABLE))
    ratios = {cell: _ratio(_first(runs, cell)[ALPHAS[0]]["updates"]) for cell in (AS_PRINTED, SQUARED)}
    unequal = [
        f"not by the {row.name}, {row.s} against {float(square):.2g}, {float(Fraction(row.s) / square):.0f} times it"
        for row, square in odd
    ]
    one = f"Steps and updates follow from one α: {', '.join(f'{_said(a)} by the {r.name}' for a, r in _by_row(found))}"
    return conclude(
        [
            Statement(f"{one}{f'; the last two agree on {_said(later)}' if later else ''}.", together is not None),
            Statement(f"S is g² in each row: {'; '.join(unequal) or 'yes'}.", not odd),
            Statement(
                f"RMSprop makes updates alike where gradients are not: gradients differ {float(apart):,.0f}-fold, "
                f"updates {ratios[AS_PRINTED]:.3g}-fold with S as printed and {ratios[SQUARED]:.3g}-fold with S = g².",
                max(ratios.values()) ** 2 < apart,
            ),
        ],
        "The table's point stands; its figures do not belong together. An S above g² is what an average would have "
        "that remembers larger gradients, and then rows 1 and 3, where S is g², remember constant ones.",
    )  # fmt: skip


def _by_row(found: Sequence[Interval | None]) -> list[tuple[Interval | None, Row]]:
    return list(zip(found, TABLE, strict=True))


def _said(interval: Interval | None) -> str:
    if interval is None:
        return "none"
    low, high = (f"{float(v):.4g}" for v in interval)
    return low if low == high else f"{low} to {high}"


def _first(runs: Runs, cell: str) -> Measures:
    return runs[cell][min(runs[cell])]


def _ratio(values: Sequence[float]) -> float:
    return max(values) / min(values)


def tables(runs: Runs) -> Sequence[Table]:
    """The table as printed, what α each row needs, and recomputed both ways."""
    found = [alpha(row) for row in TABLE]
    head = ["", "g", "S", "α/√S", "update", "g² exactly", "α that it needs"]
    rows = [
        [r.name, r.g, r.s, r.step, r.update, f"{float(Fraction(r.g) ** 2):.3g}", _said(a)] for a, r in _by_row(found)
    ]
    made = [Table("The table as printed, and what it needs", [head, *rows])]
    for cell in runs:
        measures = _first(runs, cell)
        head = ["", *(f"{what}, α = {rate}" for rate in measures for what in ("α/√S", "update"))]
        rows = [
            [r.name, *(f"{measures[rate][what][k]:.4g}" for rate in measures for what in ("steps", "updates"))]
            for k, r in enumerate(TABLE)
        ]
        made.append(Table(f"Recomputed, {cell}", [head, *rows]))
    return made


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """Gradients and updates, as printed and recomputed."""
    drawn: dict[str, dict[str, list[float]]] = {
        "gradient": {r.name: [float(r.g)] for r in TABLE},
        "update as printed": {r.name: [float(r.update)] for r in TABLE},
    }
    for cell in runs:
        for rate, values in _first(runs, cell).items():
            updates = zip(TABLE, values["updates"], strict=True)
            drawn[f"{cell}, α = {rate}"] = {r.name: [u] for r, u in updates}
    figure = dots("size", drawn, log_y=True)
    figure.update_layout(title="Gradients and RMSprop's updates")
    return {"updates": figure}


EXPERIMENT = Experiment(
    id="X7",
    title="D4's worked table of RMSprop",
    claim=(
        "Gradients of 1.2, 0.00003 and 0.03 have S = 1.44, 1e-7 and 0.0009, rates of 0.01, 100 and 1.05 and updates of "
        "0.012, 0.003 and 0.0315: RMSprop makes alike what differed by orders of magnitude."
    ),
    source="D4, its worked example; Tieleman & Hinton, Lecture 6.5, 2012",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.01, 0.01),
)
