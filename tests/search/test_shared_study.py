"""A study in PostgreSQL: whoever is killed, database, driver or worker, no finished trial is lost or made twice."""

from __future__ import annotations

import signal
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from gradwise.search import drivers, study
from gradwise.search.jobs import InProcess, Job, Result
from gradwise.search.methods import Method
from gradwise.search.protocol import Plan, tune
from gradwise.search.space import Space
from gradwise.search.storage import AwayError, StudyError
from gradwise.search.study import Study
from search.driven import Drive, answer, finished, kill
from servers import PostgreSQL, free_port

pytestmark = pytest.mark.xdist_group("postgresql")

SPACE = Space.of({}, {"n": "1..12"})
GRID = Method("grid", trials=12, points=12)


def test_the_database_is_killed_and_comes_back(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.url("away")
    drive = Drive(tmp_path, {"store": url, "jobs": 2}, trials=30, seconds=0.2)
    first = drive.start()
    drive.until(10)
    postgresql.kill()
    # What was under way goes on, and what it gives is kept in a file.
    drive.until(drive.marks("begin").total())
    (kept,) = drive.kept()
    kill(first)
    postgresql.start()
    before = finished(url) | kept
    second = drive.start()
    drive.until(20)
    postgresql.kill()
    drive.kept()  # not back before it was missed
    postgresql.start()
    found = answer(second)
    assert "is away" in found["said"]
    assert "is back" in found["said"]
    assert sorted(t["config"]["n"] for t in found["trials"]) == list(range(1, 31))
    assert {t["state"] for t in found["trials"]} == {"complete"}
    assert found["config"] == {"n": 7}
    assert finished(url) == set(range(1, 31))
    begun = drive.marks("begin")
    assert before
    assert all(begun[n] == 1 for n in before)
    assert drive.marks("end") == begun  # nobody was ended in the middle
    assert not list(tmp_path.glob(".gradwise/pending-*"))


def test_drivers_share_a_study_and_take_over_from_one_that_dies(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.url("shared")
    drive = Drive(tmp_path, {"store": url, "jobs": 2}, trials=30)
    first, second = drive.start(), drive.start()
    drive.until(20)
    second.send_signal(signal.SIGSTOP)  # or it has made something again before we have looked
    kill(first)
    before = finished(url)
    second.send_signal(signal.SIGCONT)
    found = answer(second)
    assert [t for t in found["trials"] if t["state"] != "complete"] == []
    assert sorted(t["config"]["n"] for t in found["trials"]) == list(range(1, 31))
    begun = drive.marks("begin")
    assert all(begun[n] == 1 for n in before)
    # Only what the dead one had under way was made again.
    assert 30 <= begun.total() <= 30 + 2


def test_workers_hold_no_connection(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.url("connections")
    drive = Drive(tmp_path, {"store": url, "jobs": 4}, trials=4, seconds=3.0)
    started = drive.start()
    drive.until(4, "begin")
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        count = sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gradwise tune'")
        assert connection.scalar(count) <= 3
    engine.dispose()
    assert len(answer(started)["trials"]) == 4


def test_two_threads_never_claim_the_same(postgresql: PostgreSQL) -> None:
    url = postgresql.url("claims")
    taken: list[int] = []

    def work() -> None:
        mine = Study(url, "tune", SPACE, GRID)
        while (row := mine.ask(12)) is not None:
            taken.append(int(row.config["n"]))
            mine.tell(row.number, Result(float(row.config["n"])))
        mine.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 13))


def test_another_machines_driver_is_given_up_only_when_its_pulse_stops(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.url("pulse")
    monkeypatch.setattr(drivers, "PULSE", 0.1)
    silences: list[float] = []
    patience = 60.0

    def heard(process: Any, silent: float) -> bool:  # as of another machine
        silences.append(silent)
        return silent < patience

    monkeypatch.setattr(drivers, "alive", heard)
    theirs = Study(url, "tune", SPACE, GRID)
    row = theirs.ask()
    assert row is not None
    ours = Study(url, "tune", SPACE, GRID)
    while sum(after < before for before, after in pairwise(silences)) < 3:  # until its pulse was felt three times
        assert ours.ask(1) is None
        drivers.time.sleep(0.05)
    theirs._drivers.end()  # as when its machine is cut off
    patience = 1.0
    while (again := ours.ask(1)) is None:
        drivers.time.sleep(0.05)
    assert silences[-1] >= patience
    assert again.config == row.config
    # When it comes back, its trial is another's, and counts once.
    theirs.tell(row.number, Result(5.0))
    ours.tell(again.number, Result(5.0))
    assert [r.state for r in ours.rows()] == ["lost", "complete"]
    theirs.close()
    ours.close()


def test_only_one_driver_confirms_the_winner(postgresql: PostgreSQL) -> None:
    url = postgresql.url("confirmed")
    made: list[Job] = []

    def go() -> None:
        def evaluate(job: Job, on_value: Any) -> Result:
            made.append(job)
            return Result(3.0 if job.config is None else float(job.config["n"]) / 12)

        tune(Study(url, "tune", SPACE, GRID), InProcess(evaluate), Plan(12), Result(3.0))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([job for job in made if job.seed == 0]) == 12
    assert len([job for job in made if job.seed]) == 6


def test_nothing_is_asked_for_while_it_is_away(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgresql.url("asked")
    monkeypatch.setattr(study, "_AGAIN_IN", 0.05)
    said: list[str] = []
    mine = Study(url, "tune", SPACE, Method("random", "median", evaluations=3), on_words=said.append)
    row = mine.ask()
    assert row is not None
    postgresql.kill()
    with pytest.raises(AwayError):
        mine.ask()
    assert not mine.report(row.number, 1, 3.0)
    mine.tell(row.number, Result(2.0))
    assert [r.state for r in mine.rows()] == ["complete"]
    back = threading.Timer(0.5, postgresql.start)
    back.start()
    mine.settle()
    back.join()
    assert mine.noted("nothing") is None
    assert [("away" in words, "back" in words) for words in said] == [(True, False), (False, True)]
    mine.close()
    assert [r.result for r in Study(url, "tune", SPACE, GRID).rows()] == [Result(2.0)]


def test_an_address_that_is_wrong_is_said_at_once(postgresql: PostgreSQL) -> None:
    for url, words in (
        (f"postgresql://gradwise:secret@127.0.0.1:{free_port()}/x", "cannot be used: .*refused"),
        (postgresql.url("right").replace("/right", "/wrong"), 'cannot be used: .*"wrong" does not exist'),
        ("postgresql://gradwise:secret@h:port/x", "no database URL"),
        ("nothing://gradwise:secret@h/x", "no database of the kind"),
    ):
        with pytest.raises(StudyError, match=words) as caught:
            Study(url, "tune", SPACE, GRID)
        assert "secret" not in str(caught.value)
