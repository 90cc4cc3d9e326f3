"""`gradwise race` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.visits import Place, refused


def test_a_race_gives_a_table_a_page_a_gif_and_json(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow isn't installed: pip install 'gradwise[lab]'")
    place = Place(tmp_path)
    words = "race wells --rules sgd,adam --lr sgd=0.1 --steps 30 --seeds 2 --html r.html --gif r.gif --json r.json"
    done = place.run(*words.split())
    assert done.returncode == 0, done.stderr
    head, *_ = done.stdout.splitlines()
    assert head == "wells: f = x² − y² + y⁴/4"
    assert "30 steps from 1, 0.01 and 1 more scattered about it; the goal: has left the saddle: f ≤ -0.5" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    (sgd,) = [row for row in rows if row[:1] == ["sgd"]]
    assert sgd[1:3] == ["0.1", "given"]
    assert [row[2] for row in rows if row[:1] == ["adam"]] == ["range", "textbook"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["lanes"]) == 3
    assert f"{report['lanes'][0]['steps_to_goal'][0]}" in " ".join(sgd)
    assert (tmp_path / "r.gif").read_bytes()[:6] == b"GIF89a"
    assert "Plotly" in (tmp_path / "r.html").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.gif", "r.html", "r.json", "train.py"]


def test_a_function_of_ones_own_and_the_list(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("mine.py", "def bowl(x, y):\n    return (x - 1) ** 2 + y**2\n")
    words = "race mine.py:bowl --rules sgd --lr sgd=0.3 --start 0,0 --view -2,2,-1,1 --steps 20"
    done = place.run(*words.split())
    assert done.returncode == 0, done.stderr
    assert "20 steps from 0, 0" in done.stdout
    listed = place.run("race", "--list").stdout
    assert "beale" in listed
    assert "network-plane" in listed
    assert "adam *" in listed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere", "there is no surface 'nowhere'; there are saddle"),
        ("beale --rules sgd,sdg", "there is no rule 'sdg' to race; there are sgd"),
        ("beale --lr sgd", "--lr takes RULE=RATE, such as adam=0.1, not 'sgd'"),
        ("beale --lr sgd=-1", "the rate of sgd must be above 0, not -1"),
        ("beale --start 1", "--start takes 2 numbers with commas between them, not '1'"),
        ("beale --view 2,1,0,1", "the map's x goes from 2 to 1: the first must be the lower"),
        ("beale --html no/such/r.html", "to write --html r.html to: make it, or name another"),
        ("none.py:f", "there is no file none.py to take f from"),
    ],
)
def test_what_a_user_can_get_wrong(capsys, monkeypatch, tmp_path: Path, words: str, says: str) -> None:
    assert says in refused(capsys, monkeypatch, tmp_path, "race", *words.split())
