"""A search on the terminal: the table while it goes on, the page at its end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradwise.report.tuning import LiveTable, headline, render_tuning, write_tuning_json


def trial(number: int, value: float | None, state: str = "complete", **more: Any) -> dict[str, Any]:
    config = {"lr": 0.1 / (number + 1), "rule": "adam"}
    return {"number": number, "config": config, "state": state, "value": value, "steps": 1200, "seconds": 3.0, **more}


def report(**changes: Any) -> dict[str, Any]:
    return {
        "command": ["train.py"],
        "selected_on": "validation loss",
        "maximize": False,
        "own": {"value": 2.0, "steps": 1200, "seconds": 3.0},
        "trials": [
            trial(0, 1.5),
            trial(1, 0.25),
            trial(2, None, "failed", problem="the script failed: ValueError: no"),
        ],
        "best": 1,
        "chosen": 1,
        "winner": {"changes": "lr ×0.1", "command": "gradwise run --intervention '{}' train.py"},
        "confirmed": {"better": True, "pairs": [[2.0, 0.3], [2.1, 0.2], [1.9, 0.4]], "gain": 1.7, "reason": ""},
        "test": {"metric": "x", "value": 0.91},
        "ended": "",
        "notes": ["A note."],
        **changes,
    }


def page(data: dict[str, Any], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    render_tuning(data, Console(file=file, width=90))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_page_says_what_was_found_and_how_sure() -> None:
    shown = page(report())
    for words in (
        "✓ better than the script's own settings in 3 paired runs: trial 1, lr 0.05, rule adam",
        "selected on validation loss",
        "the script's own settings: 2 (1,200 steps, 3.0 s)",
        "seed +3: 1.9 → 0.4",
        "test score, read once, of the chosen configuration retrained: 0.91",
        "3 trials: 2 complete, 1 failed",
        "failed: the script failed: ValueError: no",
        "gradwise run --intervention '{}' train.py",
        "A note.",
    ):
        assert words in shown
    assert shown.index("0.25") < shown.index("1.5 ")  # the best first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"best": None, "chosen": None, "winner": None, "confirmed": None}, "no trial gave a value"),
        ({"chosen": None, "winner": None, "confirmed": None}, "✗ nothing better than the script's own settings"),
        ({"confirmed": None}, "not compared with the script's own settings"),
        (
            {"confirmed": {"better": False, "pairs": [[1.0, 0.9]] * 3, "gain": 0.1, "reason": "no better in 1 of 3"}},
            "✗ best, but not shown to be better",
        ),
    ],
)
def test_it_claims_no_more_than_was_shown(changes: dict[str, Any], said: str) -> None:
    data = report(**changes)
    assert said in headline(data)[0]
    shown = page(data)
    assert " ".join(said.split()[:4]) in shown
    assert "✓" not in shown


def test_where_more_is_better_the_highest_comes_first() -> None:
    shown = page(report(maximize=True, best=0, chosen=0))
    assert shown.index("1.5") < shown.index("0.25")


def test_any_terminal_can_show_it() -> None:
    shown = page(report(trials=[trial(1, 0.25, config={"näme": "\x1b[31m"})]), "ascii")
    assert "\x1b" not in shown
    assert "+ better than" in shown


def test_the_live_table_shows_the_best_and_what_runs() -> None:
    file = io.StringIO()
    with LiveTable(9, console=Console(file=file, force_terminal=True, width=90)) as live:
        live.update(
            [trial(0, 1.5), trial(1, 0.25), {"number": 2, "config": {"lr": 0.3}, "state": "running"}], "searching"
        )
        shown = file.getvalue()
        live.tick()
        assert file.getvalue() == shown  # the time has not gone on by a second
        live._due = 0.0
        live.tick()
        assert len(file.getvalue()) > len(shown)
    assert "searching · 2 of 9 trials" in shown
    assert "running" in shown
    assert "0.25" in shown


def test_elsewhere_each_new_best_is_a_line() -> None:
    file = io.StringIO()
    with LiveTable(9, console=Console(file=file, width=200)) as live:
        for trials in ([trial(0, 1.5)], [trial(0, 1.5), trial(1, 1.7)], [trial(0, 1.5), trial(2, 0.2)]):
            live.update(trials, "searching")
    assert file.getvalue().splitlines() == [
        "gradwise: trial 0: 1.5 with lr 0.1, rule adam",
        "gradwise: trial 2: 0.2 with lr 0.0333, rule adam",
    ]


def test_json_is_written_as_it_is(tmp_path: Path) -> None:
    write_tuning_json(tmp_path / "tune.json", report())
    assert json.loads((tmp_path / "tune.json").read_text()) == report()
