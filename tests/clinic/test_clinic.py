"""The clinic: its patients are as its README says, and its tools refuse what isn't."""

from __future__ import annotations

import ast
import importlib
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CLINIC = Path(__file__).parents[2] / "clinic"


def tool(name: str) -> ModuleType:
    sys.path.insert(0, str(CLINIC))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CLINIC))


patients, prove = tool("patients"), tool("prove")
ALL = patients.load()
LIBRARIES = {"numpy", "torch", "sklearn"}


def each(some: Any) -> Any:
    return pytest.mark.parametrize("patient", list(some), ids=lambda patient: patient.name)


def test_each_cause_has_two_patients() -> None:
    causes = Counter(patient.cause for patient in ALL)
    assert {cause: causes[cause] for cause in patients.CAUSES if causes[cause] < 2} == {}


def test_there_are_forty_healthy_ones_and_a_hundred_in_all() -> None:
    assert sum(patient.cause is None for patient in ALL) >= 40
    assert len(ALL) >= 100


def test_a_third_of_the_sick_ones_has_a_reference() -> None:
    sick = [patient for patient in ALL if patient.cause]
    assert 3 * sum(bool(patient.reference) for patient in sick) >= len(sick)


def test_the_split_has_each_patient_once_and_is_even() -> None:
    split = patients.read_split()
    assert sorted(split) == sorted(patient.name for patient in ALL)
    for group in ([p for p in ALL if p.cause], [p for p in ALL if not p.cause]):
        halves = Counter(patient.split for patient in group)
        assert abs(halves["development"] - halves["test"]) <= 1 + len(group) // 10


@each(ALL)
def test_a_script_knows_nothing(patient: Any) -> None:
    assert "gradwise" not in patient.text.lower()
    for text in {patient.text, patient.fixed}:
        tree = ast.parse(text)
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in imported} <= LIBRARIES | sys.stdlib_module_names


@each(patient for patient in ALL if patient.cause)
def test_a_sick_script_does_not_say_what_is_wrong(patient: Any) -> None:
    first = patient.text.lower()
    assert patient.cause not in first
    assert not re.findall(r"\b(bug|fault|faulty|wrong on purpose|sick|broken)\b", first)


@each(patient for patient in ALL if patient.cause or patient.proof)
def test_the_proof_is_of_this_very_patient_and_holds(patient: Any) -> None:
    proof = patient.proof
    assert proof.get("digest") == patient.digest, f"python clinic/prove.py --only {patient.name}"
    if patient.cause:
        assert proof["cured"] is True
        assert len(proof["sick"]) >= 3
        assert prove.against(proof["sick"], proof["fixed"], patient.maximize) == ""
    else:
        assert len(proof["score"]) >= 3
        assert all(map(math.isfinite, proof["score"]))


GOOD = 'why = "w"\nmetric = "loss (.+)"\nmaximize = false\n'
CAUSE = 'cause = "lr-too-high"\n'
FIX = '[[fix]]\nfind = "lr=9"\nreplace = "lr=1"\n'


def clinic(folder: Path, notes: str, script: str = "lr=9", kind: str = "sick/lr-too-high") -> Path:
    place = folder / kind
    place.mkdir(parents=True)
    (place / "task.py").write_text(script)
    (place / "task.toml").write_text(notes)
    return folder


def test_a_patient_is_read(tmp_path: Path) -> None:
    [patient] = patients.load(clinic(tmp_path, GOOD + CAUSE + 'also = ["dead-units"]\n' + FIX))
    assert (patient.name, patient.cause, patient.also) == ("sick/lr-too-high/task", "lr-too-high", ("dead-units",))
    assert (patient.text, patient.fixed) == ("lr=9", "lr=1")
    assert patient.split is None
    assert patient.score("loss 3\nloss 2.5") == 2.5
    assert math.isnan(patient.score("loss nan"))
    assert patient.score("none") is None


@pytest.mark.parametrize(
    ("notes", "script", "complaint"),
    [
        (GOOD + CAUSE, "lr=9", "`fix` is missing"),
        (GOOD + FIX, "lr=9", "`cause` is missing"),
        (CAUSE + FIX, "lr=9", "`why` is missing"),
        (GOOD + 'cause = "dead-units"\n' + FIX, "lr=9", "lies in the folder"),
        (GOOD + CAUSE + 'also = ["measles"]\n' + FIX, "lr=9", "not in the catalogue"),
        (GOOD + CAUSE + "also = 3\n" + FIX, "lr=9", "should be a list"),
        (GOOD + CAUSE + "args = [3]\n" + FIX, "lr=9", "isn't a string"),
        (GOOD + CAUSE + 'kind = "rnn"\n' + FIX, "lr=9", "`kind` is not a key"),
        (GOOD.replace("(.+)", "(") + CAUSE + FIX, "lr=9", "not a regular expression"),
        (GOOD.replace("(.+)", ".+") + CAUSE + FIX, "lr=9", "no group"),
        (GOOD + CAUSE + FIX, "lr=8", "0 times"),
        (GOOD + CAUSE + FIX, "lr=9 lr=9", "2 times"),
        (GOOD + CAUSE + FIX + FIX, "lr=9", "another fix takes away"),
        (GOOD + CAUSE + FIX + 'more = ""\n', "lr=9", "two strings"),
        (GOOD + "cause", "lr=9", "task.toml"),
    ],
)
def test_bad_notes_are_refused_with_a_reason(tmp_path: Path, notes: str, script: str, complaint: str) -> None:
    with pytest.raises(patients.BadPatient, match=complaint.replace("(", r"\(")) as caught:
        patients.load(clinic(tmp_path, notes, script))
    assert "task.toml" in str(caught.value)


def test_a_healthy_patient_needs_a_kind_and_takes_no_cause(tmp_path: Path) -> None:
    with pytest.raises(patients.BadPatient, match="`kind` is missing"):
        patients.load(clinic(tmp_path / "a", GOOD, kind="healthy"))
    with pytest.raises(patients.BadPatient, match="`cause` is not a key"):
        patients.load(clinic(tmp_path / "b", GOOD + CAUSE, kind="healthy"))
    [patient] = patients.load(clinic(tmp_path / "c", GOOD + 'kind = "rnn"', kind="healthy"))
    assert patient.name == "healthy/task"


def test_a_script_and_its_notes_come_together(tmp_path: Path) -> None:
    (clinic(tmp_path / "a", GOOD + CAUSE + FIX) / "sick/lr-too-high/task.py").unlink()
    (clinic(tmp_path / "b", GOOD + CAUSE + FIX) / "sick/lr-too-high/task.toml").unlink()
    for folder in "ab":
        with pytest.raises(patients.BadPatient, match="beside it"):
            patients.load(tmp_path / folder)


def some(cause: str | None, n: int, split: str | None = None, kind: str | None = None) -> list[Any]:
    names = [f"{cause or kind}/{i}{'' if split is None else split}" for i in range(n)]
    return [patients.Patient(n, Path(n), "", "", True, cause=cause, kind=kind, split=split) for n in names]


def test_the_split_is_even_in_each_stratum_and_in_all() -> None:
    group = [*some("lr-too-high", 4), *some("dead-units", 3), *some("overfitting", 1)]
    group += [p for k in range(7) for p in some(None, 1, kind=f"kind {k}")]
    split = patients.divide(group)
    assert Counter(split[p.name] for p in group if p.cause == "lr-too-high") == {"development": 2, "test": 2}
    for like in (group[:8], group[8:]):
        halves = Counter(split[p.name] for p in like)
        assert abs(halves["development"] - halves["test"]) <= 1
    assert split == patients.divide(group)


def test_nobody_changes_halves() -> None:
    old = some("lr-too-high", 3, "test")
    split = patients.divide([*old, *some("lr-too-high", 3)])
    assert Counter(split.values()) == {"test": 3, "development": 3}
    assert all(split[p.name] == "test" for p in old)


def test_a_split_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"development": ["a"], "test": ["a"]}))
    with pytest.raises(patients.BadPatient, match="both halves"):
        patients.read_split(path)
    path.write_text(json.dumps({"development": ["a"], "rest": []}))
    with pytest.raises(patients.BadPatient, match="the halves are"):
        patients.read_split(path)


def test_a_cure_is_better_in_each_pair_by_more_than_it_varies() -> None:
    assert prove.against([0.5, 0.5, 0.5], [0.9, 0.8, 0.9], True) == ""
    assert prove.against([0.5, 0.5, 0.5], [0.9, 0.8, 0.9], False)
    assert "1 of 3" in prove.against([0.5, 0.5, 0.95], [0.9, 0.8, 0.9], True)
    assert "varies" in prove.against([1.0, 1.0, 1.0], [0.99, 0.99, 0.1], False)
    assert prove.against([math.nan, 3.0, math.inf], [1.0, 1.0, 1.0], False) == ""
    assert prove.against([3.0, 3.0], [1.0, math.nan], False)


SCRIPT = """import random
random.seed(3)
print("loss", lr)
print("loss", lr + random.random())
"""


def test_a_proof_is_written_into_the_notes_and_nothing_else_changes(tmp_path: Path) -> None:
    notes = "# a comment\n" + GOOD + CAUSE + "[proof]\nsick = [1]\n\n" + FIX
    folder = clinic(tmp_path, notes, SCRIPT.replace("import random", "import random\nlr=9"))
    [patient] = patients.load(folder)
    assert not patient.proved
    proof, problem = prove.prove(patient, 3)
    assert problem == ""
    prove.write(patient.notes, proof)
    [patient] = patients.load(folder)
    assert patient.proved
    gains = [a - b for a, b in zip(patient.proof["sick"], patient.proof["fixed"], strict=True)]
    assert gains == pytest.approx([8, 8, 8])
    assert len(set(patient.proof["sick"])) == 3
    text = patient.notes.read_text()
    assert text.startswith(notes.split("[proof]")[0].rstrip())
    assert text.count("[proof]") == 1
    assert FIX in text
    again = {**proof, "cured": False}
    prove.write(patient.notes, again)
    assert not patients.load(folder)[0].proved


def test_a_script_without_a_seed_is_seeded(tmp_path: Path) -> None:
    script = "import random\nlr=9\nprint('loss', random.random())"
    [patient] = patients.load(clinic(tmp_path, GOOD + 'kind = "x"', script, "healthy"))
    scores = [prove.run(patient, script, seed)[0] for seed in (0, 1, 0)]
    assert scores[0] == scores[2] != scores[1]


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    [patient] = patients.load(clinic(tmp_path, GOOD + CAUSE + FIX, "lr=9\nraise ValueError(lr)"))
    with pytest.raises(prove.Failed, match="ValueError: 9"):
        prove.run(patient, patient.text, 0)
    with pytest.raises(prove.Failed, match="fixed, seed 0: it failed: ValueError: 1"):
        prove.prove(patient, 1)
    with pytest.raises(prove.Failed, match="nothing that it printed"):
        prove.run(patient, "print(3)", 0)
