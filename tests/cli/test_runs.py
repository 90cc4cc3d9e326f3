"""`gradwise runs` tells what is in a store, at 80 columns and as JSON, and takes out only what it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gradwise.cli.digests import arguments, differences, final
from gradwise.cli.runs import app
from gradwise.recording.frames import Declaration, Message, Points
from gradwise.recording.recording import Event, OptimizerInfo, ParameterInfo, Place, RunInfo, Series
from gradwise.recording.store import Store


def record(store: Store, run: str, lr: float, losses: list[float], **fields: Any) -> None:
    age = fields.pop("age", 60.0)
    status = fields.pop("status", "finished")
    store.create(RunInfo(run, started=time.time() - age, cwd="/home/ada", **{"script": "examples/train.py", **fields}))
    optimizer = OptimizerInfo(
        0,
        "SGD",
        {"lr": lr, "momentum": 0.9, "nesterov": False},
        ({},),
        (ParameterInfo("fc.weight", (3, 4), 0),),
        Place("train.py", 14),
    )
    steps = np.arange(len(losses))
    store.append(
        run,
        [
            Message("optimizer", asdict(optimizer)),
            Declaration(0, "loss/train", 0),
            Points(0, steps, np.array(losses)),
            Declaration(1, "loss/validation", 0),
            Points(1, steps[-1:], np.array(losses[-1:]) + 1),
            Declaration(2, "lr", 0, ("0",)),
            Points(2, np.array([0, 5]), np.array([[lr], [lr / 10]])),
            Message("event", asdict(Event("non-finite", 7))),
        ],
    )
    if status != "running":
        store.append(run, [Message("end", {"status": status, "exit": 0, "ended": time.time() - age + 12})])


@pytest.fixture
def path(tmp_path: Path) -> str:
    name = str(tmp_path / "runs.db")
    with Store.open(name) as store:
        record(store, "20261101-090000-aaaa", 5.0, [2.5] * 60, argv=("--lr", "5"), age=3 * 86_400)
        record(store, "20261102-090000-bbbb", 0.15, [2.5, *[0.25] * 99], argv=("--lr=0.15",), age=7300)
        record(store, "20261103-090000-cccc", 5.0, [2.5, float("nan")], argv=("[bold]\x1b[31m",), status="failed")
        record(
            store,
            "20261104-090000-dddd",
            0.15,
            [2.5, 0.5],
            parent="20261101-090000-aaaa",
            seed=1,
            intervention={"lr_scale": 0.03},
        )
        store.save_report(
            "20261101-090000-aaaa",
            {"verdict": "sick", "findings": [{"id": "lr-too-high", "confidence": 0.97}]},
        )
    return name


def gradwise_runs(*words: str, answer: str | None = None, columns: int = 80) -> Result:
    return CliRunner().invoke(app, words, input=answer, env={"COLUMNS": str(columns), "GRADWISE_STORE": ""})


def rows(result: Result) -> dict[str, list[str]]:
    """The cells of each line under the first one's heading."""
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    return {line[0]: line[1:] for line in lines if line}


def test_the_list_has_the_newest_first_in_eighty_columns(path: str) -> None:
    result = gradwise_runs("--store", path)
    assert all(len(line) <= 80 for line in result.output.splitlines())
    table = rows(result)
    assert list(table) == ["id", "cccc", "bbbb", "aaaa"]
    assert table["aaaa"] == ["3", "d", "train.py", "--lr", "5", "finished", "60", "2.5", "→", "2.5", "sick"]
    assert table["bbbb"] == ["2", "h", "train.py", "--lr=0.15", "finished", "100", "2.5", "→", "0.25", "–"]
    assert table["cccc"][-4:] == ["2.5", "→", "NaN", "–"]


def test_what_scripts_are_called_cannot_paint_the_terminal(path: str) -> None:
    assert "\x1b" not in gradwise_runs("--store", path, columns=200).output
    assert "[bold]" in gradwise_runs("--store", path, columns=200).output


def test_the_list_ends_where_it_is_told_and_says_so(path: str) -> None:
    result = gradwise_runs("--store", path, "-n", "1")
    assert "bbbb" not in result.output
    assert "2 older ones: gradwise runs --limit 3" in result.output


def test_long_commands_take_two_lines(tmp_path: Path) -> None:
    name = str(tmp_path / "long.db")
    with Store.open(name) as store:
        record(store, "20261101-090000-aaaa", 5.0, [1.0], argv=("--path", "x" * 300))
    lines = gradwise_runs("--store", name).output.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)


def test_ids_are_whole_where_their_last_parts_are_alike(path: str) -> None:
    with Store.open(path) as store:
        record(store, "20261109-090000-aaaa", 5.0, [1.0])
    table = rows(gradwise_runs("--store", path, columns=120))
    assert {"20261101-090000-aaaa", "20261109-090000-aaaa", "bbbb"} <= set(table)


def test_the_list_as_json(path: str) -> None:
    listed = json.loads(gradwise_runs("--store", path, "--json").output)
    assert [r["id"][-4:] for r in listed] == ["cccc", "bbbb", "aaaa"]
    assert listed[0]["last_loss"] is None
    assert listed[2]["argv"] == ["--lr", "5"]
    assert (listed[2]["steps"], listed[2]["first_loss"], listed[2]["verdict"]) == (60, 2.5, "sick")


@pytest.mark.parametrize("words", [("--store", "{}", "show", "aaaa"), ("show", "20261101", "--store", "{}")])
def test_one_run_is_shown_with_its_trials(path: str, words: tuple[str, ...]) -> None:
    result = gradwise_runs(*(word.format(path) for word in words))
    assert all(len(line) <= 80 for line in result.output.splitlines())
    table = rows(result)
    assert table["run"] == ["20261101-090000-aaaa"]
    assert table["command"] == ["examples/train.py", "--lr", "5"]
    assert table["took"] == ["12", "s"]
    assert table["optimizer"] == ["SGD(lr=5.0,", "momentum=0.9),", "1", "tensor,", "train.py:14"]
    assert table["verdict"] == ["sick:", "lr-too-high", "(97%)"]
    assert table["events"] == ["non-finite", "at", "step", "7"]
    assert table["lr"] == ["0", "1", "5", "0.5"]
    assert table["dddd"] == ["lr", "×0.03", "1", "finished", "2", "2.5", "→", "0.5"]


def test_the_last_run_is_shown_unless_another_is_named(path: str) -> None:
    shown = json.loads(gradwise_runs("show", "--store", path, "--json").output)
    assert shown["id"] == "20261103-090000-cccc"
    assert shown["optimizers"][0]["made"]["line"] == 14
    assert {s["signal"] for s in shown["series"]} == {"loss/train", "loss/validation", "lr"}


def test_a_comparison_names_what_differs_and_how_it_ended(path: str) -> None:
    result = gradwise_runs("compare", "aaaa", "bbbb", "--store", path)
    table = rows(result)
    assert table["--lr"] == ["5", "0.15"]
    assert "script" not in table
    output = " ".join(result.output.split())
    assert "optimizer lr 5 0.15" in output
    assert "optimizer momentum" not in output
    assert "final lr 0.5 0.015" in output
    assert "training loss 2.5 0.25" in output
    assert "validation loss 3.5 1.25" in output
    compared = json.loads(gradwise_runs("compare", "aaaa", "dddd", "--store", path, "--json").output)
    assert compared["settings"]["intervention"] == [None, "lr ×0.03"]
    assert compared["outcome"]["training loss"] == [2.5, 0.5]


def test_alike_runs_are_called_so(path: str) -> None:
    assert rows(gradwise_runs("compare", "aaaa", "aaaa", "--store", path))["settings"] == ["the", "same"] * 2


class TestDelete:
    def left(self, path: str) -> list[str]:
        with Store.open(path) as store:
            return [r.id[-4:] for r in store.runs()]

    def test_a_run_goes_with_its_trials(self, path: str) -> None:
        result = gradwise_runs("delete", "aaaa", "20261101", "--yes", "--store", path)
        assert result.output == "Deleted 1 recording and 1 trial.\n"
        assert self.left(path) == ["bbbb", "cccc"]

    @pytest.mark.parametrize(("answer", "left"), [("y\n", ["cccc"]), ("n\n", ["aaaa", "bbbb", "cccc"]), ("", 3)])
    def test_it_asks_first(self, path: str, answer: str, left: list[str] | int) -> None:
        result = gradwise_runs("delete", "aaaa", "bbbb", "--store", path, answer=answer)
        assert "Delete 2 recordings and their trials?" in result.output
        assert result.exit_code == (0 if answer == "y\n" else 1)
        assert self.left(path) == left or len(self.left(path)) == left

    def test_a_wrong_name_deletes_nothing(self, path: str) -> None:
        result = gradwise_runs("delete", "aaaa", "zzzz", "--yes", "--store", path)
        assert result.exit_code == 2
        assert "no run in" in result.output
        assert len(self.left(path)) == 3


def test_no_store_yet_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No recordings yet: `gradwise doctor SCRIPT`" in gradwise_runs().output
    assert gradwise_runs("--json").output == "[]\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("show",), ("compare", "a", "b"), ("delete", "a"), ("--store", "x.db")])
def test_a_missing_store_is_named(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = gradwise_runs(*words)
    assert result.exit_code == 2
    assert result.output.startswith("gradwise: there is no store")
    assert result.output.count("\n") == 1


def test_the_command_line_costs_no_heavy_import() -> None:
    code = (
        "import sys, gradwise.cli.runs; "
        "print([m for m in ('torch', 'numpy', 'sqlalchemy', 'plotly', 'rich.table') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--lr", "5", "--amp"], {"--lr": "5", "--amp": "yes"}),
        (["--betas", "0.9", "0.99", "-v"], {"--betas": "0.9 0.99", "-v": "yes"}),
        (["--lr=", "x"], {"--lr": "x"}),
        (["data", "--momentum", "-1e-3"], {"argument 1": "data", "--momentum": "-1e-3"}),
        (["--lr", "1", "--lr", "2"], {"--lr": "2"}),
    ],
)
def test_arguments_are_known_by_name(argv: list[str], named: dict[str, str]) -> None:
    assert arguments(argv) == named


def test_differences_are_what_is_not_the_same() -> None:
    assert differences([{"a": "1", "b": "2"}, {"a": "1", "c": "3"}]) == {"b": ["2", None], "c": [None, "3"]}


def test_a_final_loss_is_no_single_noisy_step_but_never_hides_a_breakdown() -> None:
    noisy = Series(np.arange(900, 1000), np.where(np.arange(100) % 2, 1.0, 3.0))
    assert final(noisy, 1000) == 2.0
    noisy.values[-1] = np.inf
    assert final(noisy, 1000) == np.inf
    assert final(Series(np.arange(2), np.array([2.0, 1.0])), 2) == 1.0
