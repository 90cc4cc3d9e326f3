"""The pages about claims are what their stored runs say, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gradwise.lab import WHERE, find, pages
from gradwise.lab.account import read
from gradwise.report.claims import markdown, md_summary
from gradwise.report.picture import still

ROOT = Path(__file__).resolve().parent.parent.parent
CLAIMS = ROOT / "docs" / "claims"
STORED = sorted((CLAIMS / "results").glob("*.json"))


def test_the_pages_are_what_the_stored_runs_say(tmp_path: Path) -> None:
    shutil.copytree(CLAIMS / "results", tmp_path / "docs" / "claims" / "results")
    shutil.copy(ROOT / "README.md", tmp_path)
    pages.write(tmp_path / "docs" / "claims", markdown, still, md_summary)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    there = {p.relative_to(ROOT): p.read_bytes() for p in CLAIMS.rglob("*") if p.is_file()}
    there[Path("README.md")] = (ROOT / "README.md").read_bytes()
    assert sorted(made) == sorted(there)
    wrong = [str(path) for path in made if made[path] != there[path]]
    assert not wrong, "run: gradwise claims … --stored --page docs/claims"


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_stored_runs_are_those_of_the_experiment_as_it_is(path: Path) -> None:
    name, quick, runs = read(path)
    assert path.stem == name
    assert name in WHERE
    cells = {cell.name: cell for cell in find(name).cells(quick)}
    assert set(runs) <= set(cells)
    for cell, by_seed in runs.items():
        assert len(by_seed) >= 3
        for record in by_seed.values():
            assert record.settings == dict(cells[cell].settings), f"{cell} has other settings today: run it again"
            assert (record.experiment, record.quick) == (name, quick)
