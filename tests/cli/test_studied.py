"""`gradwise runs compare --study`: trials of a search beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import gradwise
from gradwise.cli.runs import app
from gradwise.search import jobs
from gradwise.search.methods import Method
from gradwise.search.space import Space
from gradwise.search.study import Study, same_question

SPACE = Space.of({"lr": "0.0123,0.01231,0.1,1", "rule": "adam"})
QUESTION = {"metric": "", "maximize": False, "on_training": False}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two studies: what each trial came to, and how the best one was confirmed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gradwise").mkdir()
    url = f"sqlite:///{tmp_path / '.gradwise' / 'tune.db'}"
    Study(url, "train-old", SPACE, Method("grid")).close()
    study = Study(url, "train-new", SPACE, Method("grid"))
    same_question(study, QUESTION)
    own = jobs.Result(0.9, start=2.5, steps=1200, seconds=3.0)
    study.note("reference", {"result": own.to_json(), "facts": {}})
    for value in (0.5, 0.25, None):
        row = study.ask()
        assert row is not None
        study.tell(row.number, jobs.Result(value, start=2.5, diverged=value is None, steps=1200, seconds=2.0))
    pairs = {
        f"{who} {k}": jobs.Result(level + k / 100).to_json()
        for who, level in (("winner", 0.2), ("own", 0.8))
        for k in (1, 2, 3)
    }
    study.note("confirmation 1 3", {"runs": pairs, "test": None})
    study.ask()
    study.close()
    return tmp_path


def compare(*words: str, columns: int = 100) -> Result:
    return CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": str(columns), "GRADWISE_STORE": ""})


def test_trials_lie_side_by_side(place: Path) -> None:
    result = compare("--study", "last", "0", "best", "2", "own")
    assert result.exit_code == 0, result.output
    lines = {" ".join(line.split()) for line in result.output.splitlines()}
    assert "#0 #1 #2 own" in lines
    assert "lr 0.0123 0.01231 0.1 own" in lines  # told apart, however near
    assert "state complete complete diverged complete" in lines
    assert "before training 2.5 2.5 2.5 2.5" in lines
    assert "validation loss 0.5 0.25 – 0.9" in lines
    assert "seed +1 – 0.21 – 0.81" in lines
    assert "steps 1,200 1,200 1,200 1,200" in lines
    assert "study train-new" in lines
    assert "rule adam adam adam own" in lines


def test_what_is_the_same_is_said_apart(place: Path) -> None:
    output = compare("--study", "new", "0", "1").output
    assert "the same in all: rule adam" in output
    assert "settings" not in output


def test_a_trial_is_shown_once_and_by_itself_with_all_its_settings(place: Path) -> None:
    lines = {" ".join(line.split()) for line in compare("--study", "new", "best", "1").output.splitlines()}
    assert {"#1", "lr 0.0123", "rule adam", "validation loss 0.25"} <= lines


def test_the_comparison_as_data(place: Path) -> None:
    found = json.loads(compare("--study", "train-new", "1", "own", "3", "--json").output)
    assert found["study"] == "train-new"
    assert found["trials"] == [1, "own", 3]
    assert found["settings"]["lr"] == [0.01231, "own", 1]
    assert found["outcome"]["state"] == ["complete", "complete", "lost"]
    assert found["outcome"]["validation loss"] == [0.25, 0.9, None]
    assert found["outcome"]["seed +3"] == [pytest.approx(0.23), pytest.approx(0.83), None]


def test_a_search_from_python_compares_with_its_baseline(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'tune.db'}"
    gradwise.tune(
        lambda config: float(config["n"]), {"n": [1, 2, 3]}, method="grid", trials=3, maximize=True,
        baseline={"n": 0}, seeds=0, store=store,
    )  # fmt: skip
    found = json.loads(compare("--study", "tune", "best", "own", "0", "--store", store, "--json").output)
    assert found["settings"] == {"n": [3, 0, 1]}
    assert found["outcome"]["value"] == [3, 0, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--study", "other", "0"), "there is no study 'other' in sqlite:"),
        (("--study", "other", "0"), "there are train-old, train-new"),
        (("--study", "train", "0"), "several studies have 'train' in their names: train-old, train-new"),
        (("--study", "new", "9"), "the study train-new has no trial 9: its trials are 0 to 3"),
        (("--study", "new", "first"), "no trial 'first' (write its number, or best, or own)"),
        (("--study", "old", "0"), "the study train-old has no trial 0: it has none yet"),
        (("--study", "old", "best"), "no trial of the study train-old has a value yet"),
        (("--study", "old", "own"), "has no run of the script's own settings"),
        (("--study", "new", "0", "--store", "none.db"), "there are no studies in sqlite:"),
        (("--study", "new", "0", "--store", "text.db"), "cannot be used"),
        (("--study", "new", "0", "--store", "magic://x"), "no database of the kind"),
    ],
)
def test_what_is_not_there_is_said(place: Path, words: tuple[str, ...], said: str) -> None:
    (place / "text.db").write_text("no database, but long enough to be taken for something" * 20)
    result = compare(*words)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1
    assert not (place / "none.db").exists()
