"""`gradwise tune` as a user runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from cli.visits import Place, refused
from search import tunable


def test_it_finds_the_winner_and_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path)
    tunable.write(tmp_path)
    before = (tmp_path / "train.py").read_bytes()
    words = (
        "tune",
        "--method",
        "grid",
        "--seeds",
        "0",
        "--lr",
        "1e-4,0.1",
        "--json",
        "tune.json",
        "--html",
        "tune.html",
    )
    done = place.run(*words, "train.py")
    assert done.returncode == 0, done.stderr
    assert "2 trials by grid" in done.stderr
    assert "not compared with the script's own settings" in done.stdout
    assert "epoch 0" not in done.stdout  # what the script prints in trials is not shown
    report = json.loads((tmp_path / "tune.json").read_text())
    assert {t["config"]["lr"]: t["state"] for t in report["trials"]} == {1e-4: "complete", 0.1: "complete"}
    best = next(t for t in report["trials"] if t["number"] == report["best"])
    assert best["config"] == {"lr": 0.1}
    assert best["value"] < report["own"]["value"]
    assert report["test"] is None
    assert any("No test score was named" in note for note in report["notes"])

    again = place.run(*words, "--test-metric", r"test score (\S+)", "train.py")
    assert again.returncode == 0, again.stderr
    assert "2 of them made before" in again.stderr
    report = json.loads((tmp_path / "tune.json").read_text())
    assert len(report["trials"]) == 2
    assert 0 < report["test"]["value"] < 1
    assert (tmp_path / "train.py").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".gradwise", "train.py", "tune.html", "tune.json"]
    page = (tmp_path / "tune.html").read_text("utf-8")
    assert "<h3>The search in figures</h3>" in page
    assert "lr=0.1" in report["winner"]["diff"]  # the script says lr=0.001
    assert "+optimizer = torch.optim.SGD(model.parameters(), lr=0.1)" in page
    command = shlex.split(report["winner"]["command"])
    assert command[:2] == ["gradwise", "run"]
    assert json.loads(command[3]) == {"lr_scale": pytest.approx(100.0)}

    # Another study of the same command begins with what this one found best.
    warm = ("tune", "--warm-start", "1", "--trials", "1", "--seeds", "0", "--lr", "0.05..1", "--clip", "own,1.0")
    later = place.run(*warm, "--json", "tune.json", "train.py")
    assert later.returncode == 0, later.stderr
    assert "first come 1 of earlier studies: train-" in later.stderr
    (trial,) = json.loads((tmp_path / "tune.json").read_text())["trials"]
    assert trial["config"] == {"lr": 0.1, "clip": "own"}
    assert trial["value"] == pytest.approx(best["value"])


def test_a_driver_that_is_killed_goes_on_where_it_ended(tmp_path: Path) -> None:
    place = Place(tmp_path)
    tunable.write(tmp_path)
    words = ("tune", "--jobs", "2", "--seeds", "0", "--trials", "4", "--method", "grid", "--json", "tune.json")
    words = (*words, "--arg", "hidden=2,3,4,5", "train.py", "--mode", "slow", "--epochs", "3")
    started = place.start(*words)
    assert started.stderr is not None
    for line in started.stderr:
        if "trial" in line and "with hidden" in line:
            break
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    done = place.run(*words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tune.json").read_text())
    assert sorted(t["config"]["hidden"] for t in report["trials"]) == [2, 3, 4, 5]
    assert {t["state"] for t in report["trials"]} == {"complete"}
    assert "of them made before" in done.stderr


def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    place = Place(tmp_path)
    tunable.write(tmp_path)
    started = place.start("tune", "--arg", "hidden=2,3,4", "--arg", "mode=hang", "train.py")
    assert started.stderr is not None
    for line in started.stderr:
        if "trials by" in line:
            break
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    shown, said = started.communicate(timeout=200)
    assert started.returncode == 130
    assert "it was interrupted" in shown
    assert "the same command goes on from here" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lr", "0.1", "nowhere.py"), "nowhere.py"),
        (("train.py",), "the space is empty"),
        (("--lr", "fast", "train.py"), "lr must be numbers"),
        (("--arg", "hidden", "train.py"), "write NAME=VALUES"),
        (("--arg", "n=1", "--arg", "n=2", "train.py"), "--arg names n twice"),
        (("--lr", "0.1,0.2", "--method", "magic", "train.py"), "there is no method 'magic'"),
        (("--lr", "0.1,0.2", "--method", "guess", "train.py"), "one configuration"),
        (("--lr", "0.1,0.2", "--pruning", "hard", "train.py"), "there is no 'hard'"),
        (("--lr", "0.1,0.2", "--pruning", "median", "--training-loss", "train.py"), "--pruning goes by the validation"),
        (("--lr", "0.1", "--metric", "x", "--training-loss", "train.py"), "select on one of them"),
        (("--lr", "0.1", "--metric", "x", "--test-metric", "x", "train.py"), "is no test score"),
        (("--lr", "0.1", "--metric", "(", "train.py"), "no regular expression"),
        (("--lr", "0.1", "--seeds", "2", "train.py"), "3 pairs of runs at least"),
        (("--lr", "0.1", "--maximize", "train.py"), "--metric"),
        (("--space", "none.toml", "train.py"), "cannot be read"),
        (("--space", "odd.toml", "train.py"), "odd.toml: rule must be out of"),
        (("--lr", "0.1", "--store", "no/folder/tune.db", "train.py"), "there is no folder"),
        (("--lr", "0.1", "--store", "train.py", "train.py"), "cannot be used"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, monkeypatch, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    Place(tmp_path)
    (tmp_path / "odd.toml").write_text('[tune]\nrule = ["magic"]\n')
    assert said in refused(capsys, monkeypatch, tmp_path, "tune", *words)
