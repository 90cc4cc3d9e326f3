"""`gradwise claims` as a user runs it."""

from __future__ import annotations

import json
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.visits import Place, refused
from gradwise import lab
from gradwise.cli import main
from gradwise.cli.claims import _Progress
from gradwise.lab import pages
from gradwise.lab.data import DataError
from gradwise.lab.experiment import Cell
from lab.toy import MADE, TOY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, where there is one claim that costs nothing."""
    module = types.ModuleType("gradwise.lab.x99_toy")
    module.EXPERIMENT = TOY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradwise.lab.x99_toy", module)
    for where in (lab, pages):
        monkeypatch.setattr(where, "WHERE", {"X99": "x99_toy"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWISE_RESULTS", str(tmp_path / "kept"))
    monkeypatch.setenv("COLUMNS", "100")
    MADE.clear()

    def made(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gradwise", "claims", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


def test_a_claim_is_run_and_told_and_not_run_again(run: Run) -> None:
    status, out, _ = run("x99", "--quick")
    assert status == 0
    for said in ("X99  A toy  quick form, 3 seeds", "claim: More is more.", "set-up: quick", "Scores", "with η",
                 "Curves <b>& co (quick form)", "✓ It is better: by 1 [1, 1].", "X99 holds"):  # fmt: skip
        assert said in out
    assert len(MADE) == 9
    assert run("X99", "--quick")[1] == out
    assert len(MADE) == 9, "stored runs are used"
    run("X99", "--quick", "--seeds", "4")
    assert len(MADE) == 12
    assert run("X99", "--quick", "-q")[1] == "X99 holds\n"


def test_the_list_says_what_is_known(run: Run) -> None:
    _, out, _ = run()
    assert "X99" in out
    assert "holds" not in out
    run("X99", "--quick")
    assert "holds (quick form, 3 seeds)" in " ".join(run()[1].split())
    run("X99")
    assert "holds (full form, 3 seeds)" in " ".join(run()[1].split())


def test_files_are_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("before\n<!-- claims -->\nold\n<!-- end -->\nafter\n")
    status, _, err = run("all", "--quick", "--html", "c.html", "--json", "c.json", "--page", "docs/claims")
    assert status == 0
    assert "wrote 4 files" in err
    assert "quick form" in (tmp_path / "c.html").read_text("utf-8")
    data = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert (data["id"], data["verdict"]["word"], len(data["records"])) == ("X99", "holds", 9)
    docs = tmp_path / "docs" / "claims"
    assert sorted(p.name for p in docs.rglob("*.*")) == ["X99.json", "index.md", "x99-curve.svg", "x99.md"]
    assert "quick form" in (docs / "figures" / "x99-curve.svg").read_text("utf-8")
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert readme.startswith("before\n<!-- claims -->\n|")
    assert readme.endswith("<!-- end -->\nafter\n")
    assert "[X99](docs/claims/x99.md) | A toy | holds | quick form, 3 seeds" in readme
    before = {p: p.read_bytes() for p in docs.rglob("*.*")}
    run("all", "--quick", "--stored", "--page", "docs/claims")
    assert {p: p.read_bytes() for p in docs.rglob("*.*")} == before, "the same runs make the same pages"


def test_interrupted_it_says_what_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwise.lab.results import Results

    keep = Results.keep

    def stopping(*words: object) -> object:
        if len(MADE) == 4:
            raise KeyboardInterrupt
        return keep(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(Results, "keep", stopping)
    status, out, err = run("X99", "--quick")
    assert status == 130
    assert "ended: 3 of 9 runs of X99 are kept; the same command goes on from here" in err
    assert "6 runs are not there yet" in out, "what there is, is told"
    monkeypatch.setattr(Results, "keep", keep)
    status, _, err = run("X99", "--quick")
    assert status == 0
    assert "3 of 9 runs were made before" in err


def test_a_data_set_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wanting(*words: object) -> object:
        raise DataError("CIFAR-10 is needed, and it isn't there")

    monkeypatch.setattr(
        sys.modules["gradwise.lab.x99_toy"], "EXPERIMENT", type(TOY)(**{**vars(TOY), "measure": wanting})
    )
    status, out, err = run("X99")
    assert (status, out) == (2, "")
    assert "X99: CIFAR-10 is needed, and it isn't there; --quick runs without it" in err


def test_nothing_stored_nothing_told(run: Run) -> None:
    status, out, err = run("X99", "--stored", "--html", "c.html")
    assert status == 0
    assert "X99 has no complete seed yet" in out
    assert "nothing is written" in err


@pytest.mark.parametrize(("words", "said"), [
    (("X77",), "there is no claim 'X77'; there are"),
    (("X5", "--html", "nowhere/c.html"), "--html"),
    (("X5", "--page", "train.py"), "--page train.py is a file: name a folder"),
    (("--json", "c.json"), "name the claims to write about, or all"),
])  # fmt: skip
def test_what_is_refused(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Place(tmp_path)
    assert said in refused(capsys, monkeypatch, tmp_path, "claims", *words)


def test_two_processes_killed_and_gone_on_with(tmp_path: Path) -> None:
    place = Place(tmp_path)
    words = ("claims", "X5", "--quick", "--results", "kept", "--seeds", "1", "--jobs", "2")
    started = place.start(*words)
    kept = tmp_path / "kept" / "X5" / "quick"
    while started.poll() is None and len(list(kept.glob("*.json"))) < 2:
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=200)
    assert started.returncode == 130, err
    assert err.count("of 10 runs of X5 are kept; the same command goes on from here") == 1
    assert "Traceback" not in err
    before = len(list(kept.glob("*.json")))
    assert 2 <= before < 10
    done = place.run(*words, "--json", "x5.json")
    assert done.returncode == 0, done.stderr
    assert f"{before} of 10 runs were made before" in done.stderr
    records = json.loads((tmp_path / "x5.json").read_text("utf-8"))["records"]
    assert len({(r["cell"], r["seed"]) for r in records}) == len(records) == 10
    assert not [p for p in kept.iterdir() if p.suffix != ".json"], "no lock and no half file is left"


def test_the_time_left_is_judged_by_what_this_process_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("gradwise.cli.claims.time", SimpleNamespace(monotonic=lambda: clock[0]))
    job = SimpleNamespace(wanted=lambda: 4, lacking=lambda: [0, 1, 2, 3], experiment=SimpleNamespace(id="X"))
    progress = _Progress(job, quiet=True)
    said: list[str] = []
    progress.live = SimpleNamespace(update=said.append)
    cell = Cell("a", {})
    progress.tell(cell, 0, 0.0)
    progress.tell(cell, 0, 0.5)  # from a checkpoint
    clock[0] = 100.0
    progress.tell(cell, 0, 0.75)
    assert said[-1].endswith("21 min 40 s left")
