"""`gradwise run`: what can be applied, and what is refused in words."""

from __future__ import annotations

import json

import pytest
from visits import Place, refused

from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.report import write_json


def remedy(scale: float, status: str) -> Remedy:
    return Remedy(Intervention(lr_scale=scale), f"lr times {scale}", status, steps=10, metric="loss/train")  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path) -> Place:
    place = Place(tmp_path)
    place.write("script.py", "import sys; print('ran', sys.argv[1:]); sys.exit(3)")
    remedies = (remedy(0.1, "suggested"), remedy(0.3, "verified"))
    findings = tuple(Finding(f"id-{k}", "error", 0.9, Where(), "because", {}, r) for k, r in enumerate((remedies, ())))
    made = Diagnosis("", "script.py", (), "sick", findings)
    write_json(tmp_path / "report.json", made)
    write_json(tmp_path / "other.json", Diagnosis("", "elsewhere/other.py", (), "sick", findings))
    write_json(tmp_path / "empty.json", Diagnosis("", "script.py", (), "healthy"))
    untried = Finding("id", "error", 0.9, Where(), "because", {}, remedies[:1])
    write_json(tmp_path / "untried.json", Diagnosis("", "script.py", (), "sick", (untried,)))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "odd#1").write_text((tmp_path / "report.json").read_text())
    return place


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("report.json", "lr ×0.3 (report.json, remedy 2 of 2, verified)"),
        ("report.json#1", "lr ×0.1 (report.json, remedy 1 of 2, suggested)"),
        ("odd#1", "lr ×0.3 (odd#1, remedy 2 of 2, verified)"),
    ],
)
def test_the_chosen_fix_is_named_and_the_script_is_the_users(place, reference, words):
    done = place.run("run", "--apply", reference, "script.py", "--apply", "x")
    assert (done.returncode, done.stdout) == (3, "ran ['--apply', 'x']\n")
    assert done.stderr == f"gradwise: running script.py with {words}\n"


def test_quiet_says_nothing(place):
    done = place.run("run", "-q", "--apply", "report.json", "script.py")
    assert (done.returncode, done.stderr) == (3, "")


def test_an_intervention_can_be_typed(place):
    change = json.dumps({"lr_scale": 0.5, "schedule": {"cosine": {"steps": 10, "end": 0.0}}})
    done = place.run("run", "--intervention", change, "-m", "script")
    assert done.returncode == 3
    assert "running script with lr ×0.5, lr × cosine(steps=10)" in done.stderr


def test_a_report_about_another_script_is_worth_a_word(place):
    done = place.run("run", "--apply", "other.json", "script.py")
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == (
        "gradwise: other.json is about elsewhere/other.py, not about script.py: its fix may not fit"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to apply"),
        (["--apply", "report.json", "--intervention", "{}"], "either --apply"),
        (["--apply", "none.json"], "there is no report none.json"),
        (["--apply", "broken.json"], "broken.json is not a gradwise report"),
        (["--apply", "empty.json"], "holds no remedy"),
        (["--apply", "untried.json"], "no remedy in untried.json is verified: choose one by its number (#1 lr ×0.1"),
        (["--apply", "report.json#3"], "has no remedy 3: it holds 2"),
        (["--apply", "report.json#0"], "counted from 1"),
        (["--apply", "report.json#best"], "counted from 1"),
        (["--intervention", "{"], "--intervention can't be read"),
        (["--intervention", "[1]"], "a JSON object is wanted"),
        (["--intervention", '{"rate": 1}'], "unknown intervention key 'rate'"),
        (["--intervention", '{"lr_scale": -1}'], "must be a positive number"),
        (["--intervention", '{"schedule": {"cosine": {}}}'], "--intervention can't be read"),
        (["--intervention", "{}"], "changes nothing"),
    ],
)
def test_what_cannot_be_applied_is_refused(place, capsys, monkeypatch, words, said):
    assert said in refused(capsys, monkeypatch, place.folder, "run", *words, "script.py")


def test_a_missing_run_or_store_is_said(place, capsys, monkeypatch):
    monkeypatch.delenv("GRADWISE_STORE", raising=False)
    assert "there is no store" in refused(capsys, monkeypatch, place.folder, "report", "last")
    place.run("run", "-q", "--apply", "report.json", "script.py")
    said = refused(capsys, monkeypatch, place.folder, "report", "nonesuch")
    assert "no run in .gradwise/runs.db has an id like 'nonesuch'" in said
    # A run without a report is diagnosed anew.
    done = place.run("report", "last")
    assert done.returncode == 0
    assert "inconclusive" in done.stdout
