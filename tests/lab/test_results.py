"""Runs are kept as they end, used again only as they were made, and made once by however many processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradwise.lab.account import account, read
from gradwise.lab.experiment import Bench, Cell
from gradwise.lab.results import Record, Results, default_folder, plain
from gradwise.lab.running import measures_of
from lab.toy import MADE, TOY, job, measure


def watch(cell: Cell, seed: int, share: float) -> None:
    """Nobody looks."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    MADE.clear()


def test_runs_are_made_by_rank_then_seed_by_seed(tmp_path: Path) -> None:
    assert job(tmp_path).make(None, watch) == 0
    assert MADE == [("1.0", 0), ("0.0", 0), ("1.0", 1), ("0.0", 1), ("1.0", 2), ("0.0", 2),
                    ("2.0", 0), ("2.0", 1), ("2.0", 2)]  # fmt: skip
    MADE.clear()
    job(tmp_path, seeds=4).make(None, watch)
    assert MADE == [("1.0", 3), ("0.0", 3), ("2.0", 3)], "more seeds cost only those"


def test_a_killed_run_goes_on_with_what_it_lacks(tmp_path: Path) -> None:
    def dying(settings: Mapping[str, Any], seed: int, bench: Bench) -> Mapping[str, Any]:
        if (settings["gain"], seed) == (0.0, 1):
            raise KeyboardInterrupt
        return measure(settings, seed, bench)

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, measure=dying).make(None, watch)
    assert MADE == [("1.0", 0), ("0.0", 0), ("1.0", 1)]
    partly = job(tmp_path)
    assert {c: sorted(m) for c, m in partly.runs().items()} == {"with η": [0], "without": [0]}, "only complete seeds"
    assert account(partly).data["lacking"] == 6
    MADE.clear()
    partly.make(None, watch)
    assert len(MADE) == 6
    assert set(partly.runs()) == {"with η", "without", "more"}
    assert not list(tmp_path.rglob("*.lock"))
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_with_other_settings_is_not_used(tmp_path: Path) -> None:
    job(tmp_path).make(None, watch)
    MADE.clear()
    changed = [Cell("with η", {"gain": 1.5}), Cell("without", {"gain": 0.0})]
    job(tmp_path, cells=lambda quick: changed).make(None, watch)
    assert MADE == [("1.5", 0), ("1.5", 1), ("1.5", 2)]


def test_the_full_form_does_not_use_the_quick_one(tmp_path: Path) -> None:
    quick = job(tmp_path)
    quick.make(None, watch)
    full = type(quick)(TOY, False, 3, Results(tmp_path), "1.2.3")
    assert len(full.lacking()) == 9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"experiment": "X99"}', "null"])
def test_a_broken_file_is_made_anew(tmp_path: Path, text: str) -> None:
    job(tmp_path).make(None, watch)
    path = next(tmp_path.rglob("with-lr-*-seed0.json"))
    path.write_text(text)
    MADE.clear()
    job(tmp_path).make(None, watch)
    assert MADE == [("1.0", 0)]


def test_what_was_measured_is_the_same_fresh_and_stored(tmp_path: Path) -> None:
    job(tmp_path).make(None, watch)
    record = job(tmp_path).runs()["with η"][2]
    assert record.measures == {"score": 1.02, "curve": [1.0, None, 3.0]}
    assert record.provenance["gradwise"] == "1.2.3"
    assert record.provenance["torch"] == torch.__version__
    assert record.provenance["threads"] == torch.get_num_threads()
    assert record.provenance["processor"]
    assert record.settings == {"gain": 1.0}


def test_an_account_is_written_and_read(tmp_path: Path) -> None:
    done = job(tmp_path)
    done.make(None, watch)
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account(done).to_json()))
    assert read(path) == ("X99", True, done.runs())
    assert measures_of(done.runs())["more"][1]["score"] == 2.01
    path.write_text('{"id": "X99", "quick": true, "records": [{"cell": 1}]}')
    with pytest.raises(ValueError, match=r"account\.json holds no claim's runs.*a run's record has experiment"):
        read(path)


def test_what_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from lab.toy import job\n"
        "j = job(Path(sys.argv[1])); cell, seed = next(iter(j.order()))\n"
        "with j.results.taken('X99', True, cell, seed) as ours:\n"
        "    print(ours, flush=True); sys.stdin.readline()\n"
    )
    here = str(Path(__file__).parent.parent)
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), here],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    mine = job(tmp_path)
    assert mine.make(None, watch) == 1
    assert ("1.0", 0) not in MADE
    assert len(MADE) == 8
    other.kill()  # what a dead process was at is free again
    other.communicate()
    assert mine.make(None, watch) == 0
    assert MADE[-1] == ("1.0", 0)


def test_a_lock_that_was_taken_away_is_no_lock(tmp_path: Path) -> None:
    results, cell = Results(tmp_path), Cell("a", {})
    with results.taken("X99", True, cell, 0) as ours:
        assert ours
        with results.taken("X99", True, cell, 0) as again:
            assert not again
    with results.taken("X99", True, cell, 0) as ours:
        assert ours


def test_what_a_measure_may_be() -> None:
    seen = plain({"a": (1, 2.5), "b": float("inf"), "c": np.float32(0.5), "d": torch.tensor(3), "e": None, 5: True})
    assert seen == {"a": [1, 2.5], "b": None, "c": 0.5, "d": 3, "e": None, "5": True}
    with pytest.raises(TypeError, match="a measure must be a number, text, or lists and dicts of them; got object"):
        plain([object()])
    with pytest.raises(ValueError, match="a run's record has experiment, quick, cell"):
        Record.from_json([])


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    monkeypatch.delenv("GRADWISE_RESULTS", raising=False)
    assert default_folder() == Path("/somewhere/gradwise/claims")
    monkeypatch.setenv("GRADWISE_RESULTS", "/else")
    assert default_folder() == Path(os.sep, "else")
