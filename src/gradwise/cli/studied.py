"""Trials of a study of `gradwise tune` beside each other, for `gradwise runs compare --study`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradwise.cli.common import refuse, study_url
from gradwise.cli.tables import fitted, print_json, printed, terminal

if TYPE_CHECKING:
    from gradwise.search.kept import Kept
    from gradwise.search.rows import Row

_STYLES = {"running": "cyan", "failed": "red", "lost": "yellow", "pruned": "yellow", "diverged": "red"}


def compare_trials(study: str, words: Sequence[str], store: str | None, json: bool) -> None:
    """Print the comparison.

    Args:
        study: its name, or what stands for it.
        words: its trials: numbers, `best`, `own`.
        store: the database.
        json: whether to print JSON.
    """
    from gradwise.search.kept import kept
    from gradwise.search.storage import StudyError

    try:
        found = kept(study_url(store), study)
        rows = list({row.number: row for row in map(found.named, words)}.values())  # `best` may be named twice
    except StudyError as error:
        refuse(str(error))
    names = list(dict.fromkeys(name for row in rows for name in row.config))
    settings = {name: [row.config.get(name) for row in rows] for name in names}
    same = {n: v[0] for n, v in settings.items() if len(rows) > 1 and all(each == v[0] for each in v)}
    differ = {name: values for name, values in settings.items() if name not in same}
    ends = dict(_outcome(found, rows))
    if json:
        numbers = ["own" if row.number < 0 else row.number for row in rows]
        about = {"study": found.name, "trials": numbers, "settings": differ, "same": same, "outcome": ends}
        print_json(about)
    else:
        _print(found.name, rows, differ, same, ends)


def _outcome(found: Kept, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    """What came of them; only what some of them have."""
    ends: dict[str, list[Any]] = {"state": [_state(row) for row in rows]}
    results = [row.result for row in rows]
    ends["before training"] = [found.shown(r.start) if r else None for r in results]
    ends[found.measure] = [found.shown(r.value) if r else None for r in results]
    confirmed = [found.confirmed(row) for row in rows]
    for k in range(max(map(len, confirmed), default=0)):
        ends[f"seed +{k + 1}"] = [found.shown(c[k].value) if k < len(c) else None for c in confirmed]
    ends["steps"] = [r.steps if r else None for r in results]
    ends["duration"] = [r.seconds if r else None for r in results]
    ends["problem"] = [(r.problem or None) if r else None for r in results]
    yield from ((name, values) for name, values in ends.items() if any(v is not None for v in values))


def _state(row: Row) -> str:
    went_wrong = row.result is not None and row.state == "complete" and row.result.value is None
    return "diverged" if went_wrong else row.state


def _print(
    study: str, rows: Sequence[Row], differ: Mapping[str, list[Any]], same: Mapping[str, Any], ends: Mapping[str, Any]
) -> None:
    console = terminal()
    cells = [[name, *told_apart(values)] for name, values in differ.items()]
    cells = cells or [["settings", *["the same"] * len(rows)]]
    cells += [[name, *(_cell(name, v) for v in values)] for name, values in ends.items()]
    texts = [[printed(cell, console, _STYLES.get(cell, "")) for cell in row] for row in cells]
    heads = ("", *("own" if row.number < 0 else f"#{row.number}" for row in rows))
    console.print(fitted(heads, texts, range(1, len(heads)), console))
    console.print()
    if same and differ:
        alike = ", ".join(f"{name} {told_apart([value])[0]}" for name, value in same.items())
        console.print(printed(f"the same in all: {alike}", console, "dim"))
    console.print(printed(f"study {study}", console, "dim"))


def told_apart(values: Sequence[Any]) -> list[str]:
    """Settings as words, with as many digits as it takes to see that they differ.

    >>> told_apart([0.1234, 0.12341, None, "adam"])
    ['0.1234', '0.12341', '–', 'adam']
    """
    from gradwise.legible import number

    for digits in range(3, 17):
        words = ["–" if v is None else number(v, digits) if isinstance(v, float) else str(v) for v in values]
        if len(set(words)) == len(set(values)):
            break
    return words


def _cell(name: str, value: Any) -> str:
    from gradwise.legible import duration, number

    if value is None or isinstance(value, str):
        return value or "–"
    if name == "duration":
        return duration(value)
    return f"{value:,}" if name == "steps" else number(value, 4)
