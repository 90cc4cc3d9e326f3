"""Every claim in its quick form, the whole way: runs, store, verdict, tables, figures, pages. On bundled data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gradwise.lab import WHERE, find
from gradwise.lab.account import QUICK, account, of_runs, read
from gradwise.lab.data import BUNDLED
from gradwise.lab.experiment import Bench, conclude
from gradwise.lab.results import Results, plain
from gradwise.lab.running import Job, measures_of
from gradwise.report.claims import markdown, render_claim
from gradwise.report.picture import still


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", WHERE)
def test_the_quick_form_of_each_claim(name: str, tmp_path: Path) -> None:
    experiment = find(name)
    job = Job(experiment, quick=True, seeds=experiment.seeds, results=Results(tmp_path), version="test")
    shares: list[float] = []
    assert job.make(None, lambda cell, seed, share: shares.append(share)) == 0
    assert not job.lacking()
    assert all(0 <= share <= 1 for share in shares)

    runs = job.runs()
    assert len(runs) == len(experiment.cells(True))
    seen = measures_of(runs)
    cell = min(experiment.cells(True), key=lambda c: c.rank)
    again = plain(experiment.measure(cell.settings, 1, Bench(quick=True)))
    assert json.loads(json.dumps(again)) == seen[cell.name][1], "measuring twice gives the same"
    verdict = experiment.judge(seen)
    assert verdict.word == conclude(verdict.statements).word, "the word must follow from the statements"
    assert verdict == experiment.judge(seen), "a judgement is a pure function"
    # The same measures under other seeds' numbers: nothing but statistics over seeds may decide.
    order = sorted(next(iter(seen.values())))
    turned = {cell: {seed: m[order[k - 1]] for k, seed in enumerate(order)} for cell, m in seen.items()}
    assert [s.held for s in experiment.judge(turned).statements] == [s.held for s in verdict.statements]

    found = account(job)
    assert all(QUICK in [a.text for a in figure.layout.annotations] for figure in found.figures.values())
    for key, figure in found.figures.items():
        assert still(figure, key) == still(figure, key)
        assert key == key.lower()
        assert " " not in key, "it becomes a file's name"
    for table in found.data["tables"]:
        assert {len(row) for row in table["rows"]} == {len(table["rows"][0])}, table["title"]
        assert "nan" not in json.dumps(table["rows"]).lower()
    page = markdown(found.data, {})
    assert verdict.word in page
    with (tmp_path / "terminal.txt").open("w") as file:
        render_claim(found.data, found.figures, Console(file=file, width=100))

    # What is written and read again says the same, without training.
    (tmp_path / "kept.json").write_text(json.dumps(found.to_json(), allow_nan=False))
    kept = of_runs(experiment, *read(tmp_path / "kept.json")[1:])
    assert kept.data["verdict"] == found.data["verdict"]
    assert kept.data["tables"] == found.data["tables"]


@pytest.mark.parametrize("name", WHERE)
def test_each_claim_says_what_it_is(name: str) -> None:
    experiment = find(name)
    assert experiment.id == name
    assert experiment.seeds >= 3
    assert not set(experiment.data) & set(BUNDLED), "scikit-learn's sets need no mention"
    for quick in (True, False):
        cells = experiment.cells(quick)
        assert len({c.name for c in cells}) == len(cells)
        assert json.loads(json.dumps([plain(c.settings) for c in cells])) == [plain(c.settings) for c in cells]
        assert experiment.setup(quick)
    if [c.settings for c in experiment.cells(True)] != [c.settings for c in experiment.cells(False)]:
        assert experiment.setup(True) != experiment.setup(False), "the set-up must say how the quick form differs"


def test_an_unknown_claim_is_named_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match=r"no claim 'X99'; there are .*X5"):
        find("X99")
    assert find("x5") is find("X5")
