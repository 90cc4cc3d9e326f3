import doctest
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from samples import ALL, lr_too_high
from strategies import diagnoses

from gradwise import interventions
from gradwise.diagnosis.findings import Diagnosis, Finding, Where
from gradwise.report import read_json, schema, write_json
from gradwise.report.schema import check, fields

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "report-json.md"


@given(diagnoses)
def test_any_diagnosis_survives_the_journey(diagnosis):
    data = json.loads(json.dumps(diagnosis.to_json()))
    check(data)
    assert Diagnosis.from_json(data) == diagnosis


@pytest.mark.parametrize("name", ALL)
def test_files_hold_what_was_written(tmp_path, name):
    diagnosis, _ = ALL[name]()
    write_json(tmp_path / "report.json", diagnosis)
    assert read_json(tmp_path / "report.json").to_json() == diagnosis.to_json()
    json.loads((tmp_path / "report.json").read_text("utf-8"))


def test_what_is_not_finite_becomes_null(tmp_path):
    diagnosis, _ = lr_too_high()
    sick = Finding("x", "error", 0.5, Where(), "", {"ratio": math.inf, "steps": [1.0, math.nan]})
    write_json(tmp_path / "report.json", diagnosis.with_findings((sick,)))
    evidence = json.loads((tmp_path / "report.json").read_bytes())["findings"][0]["evidence"]
    assert evidence == {"ratio": None, "steps": [1.0, None]}


def test_the_page_documents_every_field_as_the_schema_has_it():
    page = PAGE.read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{path}` | {kind} | {meaning} |" for path, kind, meaning in fields()]


def test_the_example_on_the_page_is_a_report():
    example = PAGE.read_text("utf-8").partition("```json\n")[2].partition("```")[0]
    check(json.loads(example))
    assert Diagnosis.from_json(json.loads(example)).findings[0].remedies[0].status == "verified"


def test_every_field_that_is_written_is_documented():
    known = {path for path, _, _ in fields()}

    def walk(value, at):
        if at == "findings[].evidence" or at.endswith("intervention.schedule"):
            return
        if isinstance(value, dict):
            for key, part in value.items():
                path = f"{at}.{key}" if at else key
                assert path in known
                walk(part, path)
        elif isinstance(value, list):
            for part in value:
                walk(part, f"{at}[]")

    for make in ALL.values():
        walk(make()[0].to_json(), "")


def test_every_intervention_is_documented():
    known = {p.rpartition(".")[2] for p, _, _ in fields() if ".intervention." in p}
    assert known == set(interventions._KEYS)


def edited(path: str, value: object) -> dict:
    """The report of `lr_too_high` with one field replaced, or left out where `value` is ..."""
    data = lr_too_high()[0].to_json()
    *way, last = path.split("/")
    part = data
    for key in way:
        part = part[int(key) if key.isdigit() else key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema must be 1, got 2"),
        ("verdict", "ill", 'verdict must be one of healthy, sick, inconclusive, got "ill"'),
        ("run", ..., "run is missing"),
        ("steps", -1, "steps must be at least 0, got -1"),
        ("steps", True, "steps must be integer, got true"),
        ("argv", ["--lr", 5], r"argv\[1\] must be string, got 5"),
        ("findings", {}, "findings must be array"),
        ("findings/0/confidence", 1.5, r"findings\[0\].confidence must be at most 1, got 1.5"),
        ("findings/0/where/file", ..., r"findings\[0\].where.file is missing"),
        ("findings/0/remedies/1/status", "tried", r"remedies\[1\].status must be one of verified"),
        ("findings/0/remedies/0/baseline", ["2.3"], r"baseline\[0\] must be number or null"),
        ("findings/0/remedies/0/intervention", {"lr_scale": 0}, "lr_scale must be above 0, got 0"),
        ("findings/0/remedies/0/intervention", {"speed": 2}, "unknown intervention key 'speed'"),
        ("findings/0/remedies/0/intervention", {"schedule": {"zigzag": {}}}, "unknown schedule 'zigzag'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, path, value, message):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(edited(path, value)))
    with pytest.raises(ValueError, match=message) as error:
        read_json(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema": NaN}', "\xff"])
def test_what_is_no_report_is_refused_by_name(tmp_path, text):
    file = tmp_path / "notes.txt"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"notes\.txt is not a gradwise report"):
        read_json(file)


def test_missing_files_are_for_the_caller_to_report(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_fields_of_later_versions_of_schema_1_are_skipped(tmp_path):
    data = edited("findings/0/mood", "bad") | {"weather": "fine"}
    check(data)
    assert Diagnosis.from_json(data) == Diagnosis.from_json(lr_too_high()[0].to_json())


def test_fields_that_may_be_absent():
    data = lr_too_high()[0].to_json()
    for key in ("summary", "checklist", "notes"):
        del data[key]
    del data["findings"][0]["source"]
    check(data)
    assert Diagnosis.from_json(data).checklist == ()


def test_reading_without_the_check_still_raises_only_value_errors():
    for path in ("run", "findings/0/where/step", "findings/0/remedies/0/baseline"):
        with pytest.raises(ValueError, match="schema 1"):
            Diagnosis.from_json(edited(path, ...))
    with pytest.raises(ValueError, match="schema 7"):
        Diagnosis.from_json({"schema": 7})


def test_examples_in_docstrings():
    assert doctest.testmod(schema).failed == 0
