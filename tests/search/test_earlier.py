"""What earlier studies of the same script give a new one to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradwise.search.earlier import earlier
from gradwise.search.jobs import Result
from gradwise.search.methods import Method
from gradwise.search.space import Space
from gradwise.search.study import Study, same_question

QUESTION: dict[str, Any] = {
    "script": "train.py",
    "argv": ["--epochs", "5"],
    "module": False,
    "metric": "",
    "which": None,
}


def study(url: str, name: str, space: Space, values: list[float], question: dict[str, Any] = QUESTION) -> None:
    """A study with trials that had these values."""
    made = Study(url, name, space, Method("grid", points=len(values)))
    same_question(made, {**question, "space": space.to_json()})
    for value in values:
        row = made.ask()
        assert row is not None
        made.tell(row.number, Result(value if value < 9 else None, problem="it failed" if value > 9 else ""))
    made.close()


def test_the_best_come_first_and_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    study(url, "one", Space.of({"lr": "0.1,0.2,0.3,0.4,0.5"}), [3.0, 1.0, 2.0, 10.0, 9.0])
    study(url, "two", Space.of({"lr": "0.2"}), [0.5])
    study(url, "another script", Space.of({"lr": "0.1"}), [0.1], {**QUESTION, "script": "other.py"})
    study(url, "another length", Space.of({"lr": "0.1"}), [0.1], {**QUESTION, "argv": ["--epochs", "9"]})
    space = Space.of({"lr": "0.15..0.5"})
    found = earlier(url, "new", QUESTION, space)
    assert [(g.study, g.number, dict(g.config), g.value) for g in found] == [
        ("two", 0, {"lr": 0.2}, 0.5),
        ("one", 2, {"lr": 0.3}, 2.0),
    ]
    assert earlier(url, "two", QUESTION, space)[0].study == "one"
    assert earlier(f"sqlite:///{tmp_path / 'none.db'}", "new", QUESTION, space) == []


def test_what_was_not_set_is_the_scripts_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    study(url, "one", Space.of({"lr": "0.1,0.2"}), [2.0, 1.0])
    (best, _) = earlier(url, "new", QUESTION, Space.of({"lr": "0.01..1", "clip": "own,0.1..10"}))
    assert best.config == {"lr": 0.2, "clip": "own"}
    assert earlier(url, "new", QUESTION, Space.of({"lr": "0.01..1", "clip": "0.1..10"})) == []


def test_guesses_are_tried_first_whatever_the_method() -> None:
    space = Space.of({"lr": "0.01..1", "rule": "sgd,adam"})
    for method in ("random", "grid", "tpe"):
        made = Study(None, "s", space, Method(method, trials=9))
        guesses = [{"lr": 0.25, "rule": "adam"}, {"lr": 0.5, "rule": "sgd"}]
        made.guess(guesses)
        rows = [made.ask() for _ in range(3)]
        assert [dict(r.config) for r in rows[:2] if r] == guesses
        assert rows[2] is not None
        assert dict(rows[2].config) not in guesses
        made.guess(guesses)  # known by now
        row = made.ask()
        assert row is not None
        assert dict(row.config) not in guesses
