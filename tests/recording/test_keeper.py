"""A keeper goes on whatever becomes of its store, and says what did."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from gradwise.recording import keeper as module
from gradwise.recording.frames import Declaration, Message, Points
from gradwise.recording.keeper import Keeper
from gradwise.recording.recording import RunInfo
from gradwise.recording.store import Store


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_QUICK", 0.01)
    monkeypatch.setattr(module, "_PATIENT", 0.3)
    monkeypatch.setattr(module, "_PAUSE", 0.0)


def points(first: int) -> list:
    return [Points(0, np.arange(first, first + 10), np.full(10, 1.0))]


def record(keeper: Keeper) -> str:
    run = keeper.begin(RunInfo("", script="train.py"))
    keeper.append(run, [Declaration(0, "loss/train", 0), *points(0)])
    keeper.append(run, points(10))
    return run


def test_what_is_kept_is_in_the_store(tmp_path):
    url = str(tmp_path / "runs.db")
    with Keeper(url) as keeper:
        run = record(keeper)
        assert keeper.finish(RunInfo(run, script="train.py", status="finished", exit=0, ended=1.0))
        assert keeper.save_report(run, {"verdict": "healthy"})
        assert keeper.problem is None
    with Store.open(url) as store:
        assert len(store.read(run, "loss/train")) == 20
        assert store.info(run).status == "finished"
        assert store.report(run) == {"verdict": "healthy"}


def test_a_locked_store_gets_all_of_it_once_it_is_free(tmp_path):
    url = str(tmp_path / "runs.db")
    Store.open(url).close()
    lock = sqlite3.connect(url, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with Keeper(url) as keeper:
        run = record(keeper)
        assert "locked" in (keeper.problem or "")
        lock.execute("ROLLBACK")
        keeper.append(run, points(20))
        assert keeper.problem is None
        assert keeper.finish(RunInfo(run, status="finished"))
    with Store.open(url) as store:
        assert store.read(run, "loss/train").steps.tolist() == list(range(30))


def test_a_store_that_stays_locked_is_given_up_with_a_reason(tmp_path):
    url = str(tmp_path / "runs.db")
    Store.open(url).close()
    lock = sqlite3.connect(url, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with Keeper(url) as keeper:
        run = record(keeper)
        assert not keeper.finish(RunInfo(run, status="finished"))
        assert not keeper.save_report(run, {})
        assert "locked" in (keeper.problem or "")
    lock.close()


@pytest.mark.parametrize("url", ["foo://nowhere", "sqlite://", "/nowhere/at/all.db", "postgresql://localhost:x/y"])
def test_an_address_that_leads_nowhere_is_one_sentence(url):
    with Keeper(url) as keeper:
        run = record(keeper)
        assert run
        assert not keeper.finish(RunInfo(run))
        assert keeper.problem
        assert "\n" not in keeper.problem


def test_a_file_that_is_no_store_is_said(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to be taken for one " * 20)
    with Keeper(str(path)) as keeper:
        record(keeper)
        assert "not a gradwise store" in (keeper.problem or "")
    assert path.read_text().startswith("not a database")


def test_a_store_that_is_deleted_while_it_is_written_is_no_error(tmp_path):
    url = str(tmp_path / "runs.db")
    with Keeper(url) as keeper:
        run = record(keeper)
        with Store.open(url) as store:
            store.delete(run)
        keeper.append(run, points(20))
        assert not keeper.finish(RunInfo(run))
        assert "deleted" in (keeper.problem or "")


def test_facts_of_a_run_are_kept(tmp_path):
    url = str(tmp_path / "runs.db")
    with Keeper(url) as keeper:
        run = keeper.begin(RunInfo(""))
        keeper.append(run, [Message("facts", {"torch": "2.13"})])
        keeper.finish(RunInfo(run, status="failed", exit=1, facts={"torch": "2.13", "steps": 3}))
    with Store.open(url) as store:
        info = store.info(run)
        assert (info.status, info.exit, dict(info.facts)) == ("failed", 1, {"torch": "2.13", "steps": 3})
