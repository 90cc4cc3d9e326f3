"""What is put into a store comes out of it, in whatever portions it came and whoever else looks on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwise.recording import tables, writer
from gradwise.recording.builder import RecordingBuilder
from gradwise.recording.frames import Declaration, Frame, Message, Points
from gradwise.recording.recording import Event, OptimizerInfo, RunInfo, Series
from gradwise.recording.signals import LOSS, LR, TIME
from gradwise.recording.store import Store, StoreError, new_id


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> str:
    """The URL of a database on a PostgreSQL server."""
    url: str = request.getfixturevalue("postgresql").url("runs")
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    on_server = request.param == "postgresql"
    with Store.open(request.getfixturevalue("server") if on_server else str(tmp_path / "runs.db")) as opened:
        yield opened
        if on_server:
            tables.metadata.drop_all(opened._database._engine)


def losses(steps: range, series: int = 0) -> Points:
    return Points(series, np.array(steps), np.array(steps) / 8.0)


def assert_same(a: Series, b: Series) -> None:
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.values, b.values)
    assert a.labels == b.labels


FRAMES: list[Frame] = [
    Message("run", {"script": "train.py", "argv": ["--lr", "5"], "cwd": "/home/u"}),
    Declaration(0, LOSS.name, 0),
    Declaration(1, LR.name, 0, ("0", "1")),
    Message("optimizer", asdict(OptimizerInfo(0, "SGD", {"lr": 5.0}, ({"lr": 5.0},)))),
    losses(range(3)),
    Points(1, np.array([0]), np.array([[5.0, 0.1]])),
    Message("place", {"source": 0, "file": "train.py", "line": 9, "function": "", "text": "f(x)"}),
    Message("event", asdict(Event("non-finite", 2, 0, {"value": float("nan")}))),
    Message("optimizer", asdict(OptimizerInfo(0, "Adam", {"lr": 5.0}, ({"lr": 5.0},)))),
    losses(range(3, 5)),
    Message("facts", {"device": "cpu"}),
    Message("end", {"status": "failed", "exit": 1, "ended": 99.0}),
]


@pytest.mark.parametrize("portion", [1, 3, len(FRAMES)])
def test_a_loaded_run_is_the_one_its_frames_describe(store: Store, portion: int) -> None:
    run = RunInfo(new_id(), started=7.0, seed=3, parent="p", intervention={"lr_scale": 0.1})
    expected = RecordingBuilder(run).add(FRAMES).build()
    store.create(run)
    for i in range(0, len(FRAMES), portion):
        store.append(run.id, FRAMES[i : i + portion])
    loaded = store.load(run.id)
    assert loaded.run == expected.run
    assert loaded.optimizers == expected.optimizers
    assert [(e.kind, e.step, e.source) for e in loaded.events] == [("validation-place", 0, 0), ("non-finite", 2, 0)]
    assert loaded.events[0] == expected.events[0]
    assert set(loaded.series) == set(expected.series)
    for key, series in expected.series.items():
        assert_same(loaded.series[key], series)
        assert_same(store.read(run.id, *key), series)


@given(
    portions=st.lists(st.integers(0, 30), max_size=25),
    reopen=st.integers(0, 24),
    block=st.sampled_from([16, 20, 64]),
)
@settings(max_examples=30, deadline=None)
def test_points_in_any_portions_come_back_with_the_writer_replaced_between(
    portions: list[int], reopen: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "runs.db"
    with pytest.MonkeyPatch.context() as patch, Store.open(str(path)) as store:
        patch.setattr(writer, "BLOCK", block)
        run = store.create(RunInfo(""))
        store.append(run, [Declaration(0, LOSS.name, 0), Declaration(1, LR.name, 0, ("a", "b"))])
        at = 0
        for i, n in enumerate(portions):
            if i == reopen:
                store = Store.open(str(path))
            steps = np.arange(at, at + n)
            at += n
            store.append(run, [Points(0, steps, steps / 8.0), Points(1, steps, np.stack((steps, -steps), 1) / 8.0)])
        if at:
            loaded = store.load(run)
            assert_same(loaded.get(LOSS), Series(np.arange(at), np.arange(at) / 8.0))
            rows = np.stack((np.arange(at), -np.arange(at)), 1) / 8.0
            assert_same(loaded.get(LR), Series(np.arange(at), rows, ("a", "b")))


def blocks_of(store: Store) -> list[int]:
    with store._database.begin() as connection:
        rows = connection.exec_driver_sql("SELECT count FROM gradwise_blocks ORDER BY series, first")
        return [n for (n,) in rows]


def test_many_small_flushes_end_in_few_blocks(store: Store) -> None:
    run = store.create(RunInfo(""))
    store.append(run, [Declaration(0, LOSS.name, 0)])
    for step in range(1000):
        store.append(run, [losses(range(step, step + 1))])
    sizes = blocks_of(store)
    assert sum(sizes) == 1000
    assert len(sizes) <= np.log2(1000) + 1
    assert all(a >= 2 * b for a, b in pairwise(sizes))


def test_full_blocks_are_closed_whatever_the_size_of_a_flush(store: Store) -> None:
    run = store.create(RunInfo(""))
    store.append(run, [Declaration(0, LOSS.name, 0), losses(range(100_000))])
    store.append(run, [losses(range(100_000, 100_001))])
    assert blocks_of(store) == [16_384] * 6 + [1_696, 1]


def test_a_series_declared_anew_goes_on_and_one_with_new_labels_joins_it(store: Store) -> None:
    run = store.create(RunInfo(""))
    store.append(run, [Declaration(0, LOSS.name, 0), Declaration(1, LR.name, 0, ("0",))])
    store.append(run, [losses(range(2)), Points(1, np.array([0]), np.array([[0.5]]))])
    # The script started itself again (os.exec): numbers start again too, and mean something else.
    store.append(run, [Declaration(0, LR.name, 0, ("0", "1")), Declaration(1, LOSS.name, 0)])
    for s in (store, Store(store._database)):
        s.append(run, [losses(range(2, 4), series=1), Points(0, np.array([1]), np.array([[0.25, 0.75]]))])
    loaded = store.load(run)
    assert loaded.get(LOSS).steps.tolist() == [0, 1, 2, 2, 3, 3]
    assert loaded.get(LR).labels == ("0", "1")
    np.testing.assert_array_equal(loaded.get(LR).values, [[0.5, np.nan], [0.25, 0.75], [0.25, 0.75]])


def test_times_are_kept_to_the_microsecond(store: Store) -> None:
    run = store.create(RunInfo(""))
    times = np.cumsum(np.random.default_rng(0).random(5000))
    store.append(run, [Declaration(0, TIME.name, 0), Points(0, np.arange(5000), times)])
    np.testing.assert_allclose(store.read(run, TIME).values, times, rtol=0, atol=0.51e-6)


def test_a_thinned_read_keeps_ends_and_spikes(store: Store) -> None:
    run = store.create(RunInfo(""))
    values = np.sin(np.arange(100_000)).astype(np.float32).astype(float)
    values[[50_001, 77_777]] = np.nan, 40.0
    store.append(run, [Declaration(0, LOSS.name, 0), Points(0, np.arange(100_000), values)])
    for few in (store.read(run, LOSS, max_points=200), store.load(run, max_points=200).get(LOSS)):
        assert 100 <= len(few) <= 200
        assert {0, 50_001, 77_777, 99_999} <= set(few.steps.tolist())
        np.testing.assert_array_equal(few.values, values[few.steps])


@pytest.mark.parametrize(("portion", "portions"), [(7, 5), (9, 200), (40_000, 2)])
def test_the_ends_of_a_series_are_its_first_and_last_points(store: Store, portion: int, portions: int) -> None:
    run = store.create(RunInfo(""))
    store.append(run, [Declaration(0, LOSS.name, 0)])
    for i in range(portions):
        store.append(run, [losses(range(i * portion, (i + 1) * portion))])
    head, tail = store.ends(run, LOSS, points=50)
    everything = np.arange(portion * portions)
    assert_same(head, Series(everything[:50], everything[:50] / 8.0))
    assert_same(tail, Series(everything[-50:], everything[-50:] / 8.0))


def test_what_was_not_recorded_is_empty(store: Store) -> None:
    run = store.create(RunInfo(""))
    assert len(store.read(run, LOSS)) == 0
    assert [len(s) for s in store.ends(run, LOSS)] == [0, 0]
    assert store.load(run).series == {}
    assert store.report(run) is None


def test_a_failed_append_leaves_nothing_and_the_run_goes_on(store: Store) -> None:
    run = store.create(RunInfo(""))
    store.append(run, [Declaration(0, LOSS.name, 0), losses(range(5))])
    broken = Points(0, np.arange(3), np.arange(2) / 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        store.append(run, [losses(range(5, 9)), broken])
    assert len(store.read(run, LOSS)) == 5
    store.append(run, [losses(range(5, 9))])
    assert store.read(run, LOSS).steps.tolist() == list(range(9))


class TestRuns:
    def test_ids_tell_when_and_differ(self) -> None:
        ids = {new_id() for _ in range(200)}
        assert len(ids) > 190
        assert all(re.fullmatch(r"\d{8}-\d{6}-[a-z2-9]{4}", i) for i in ids)

    def test_trials_are_listed_with_their_run_only(self, store: Store) -> None:
        first = store.create(RunInfo("", started=1.0))
        second = store.create(RunInfo("", started=2.0))
        trial = store.create(RunInfo("", started=3.0, parent=first))
        assert [r.id for r in store.runs()] == [first, second]
        assert [r.id for r in store.runs(parent=first)] == [trial]
        assert store.resolve("last") == second

    def test_names_resolve_by_their_beginning(self, store: Store) -> None:
        for name in ("20260101-a", "20260102-b", "20260102-b2"):
            store.create(RunInfo(name))
        assert store.resolve("20260101") == "20260101-a"
        assert store.resolve("20260102-b") == "20260102-b"
        assert store.resolve("b2") == "20260102-b2"
        with pytest.raises(StoreError, match=r"2 runs in .* '20260102' \(20260102-b, 20260102-b2\): give more"):
            store.resolve("20260102")
        for none in ("2027", "%", "_0260101-a", "0102"):
            with pytest.raises(StoreError, match=r"no run in .*`gradwise runs`"):
                store.resolve(none)
        with pytest.raises(StoreError, match="3 runs"):
            store.resolve("")

    def test_last_of_nothing(self, store: Store) -> None:
        with pytest.raises(StoreError, match="holds no runs yet"):
            store.resolve("last")

    def test_fields_are_updated(self, store: Store) -> None:
        run = store.create(RunInfo("", facts={"a": 1}))
        store.update(run, status="stopped", exit=0)
        assert (store.info(run).status, store.info(run).exit) == ("stopped", 0)
        assert store.info(run).facts == {"a": 1}

    def test_any_argument_a_shell_can_pass_is_kept(self, store: Store) -> None:
        info = RunInfo("", script="tr\udcffin.py", argv=("\x01", "a\nb", "日本", "'; DROP TABLE"))
        back = store.info(store.create(info))
        assert (back.script, back.argv) == (info.script, info.argv)

    def test_reports_are_replaced(self, store: Store) -> None:
        run = store.create(RunInfo(""))
        store.save_report(run, {"verdict": "sick"})
        store.save_report(run, {"verdict": "healthy"})
        assert store.report(run) == {"verdict": "healthy"}

    @pytest.mark.parametrize("act", ["info", "load", "report", "delete"])
    def test_an_unknown_run_is_named(self, store: Store, act: str) -> None:
        with pytest.raises(StoreError, match="no run nix is in the store"):
            getattr(store, act)("nix")

    def test_deleting_takes_the_trials_and_all_they_had(self, store: Store) -> None:
        kept = store.create(RunInfo(""))
        store.append(kept, FRAMES)
        run = store.create(RunInfo(""))
        trial = store.create(RunInfo("", parent=run))
        for r in (run, trial):
            store.append(r, FRAMES)
            store.save_report(r, {})
        assert store.delete(run) == [run, trial]
        assert [r.id for r in store.runs()] == [kept]
        assert len(store.load(kept).series) == 2
        with store._database.begin() as connection:
            for table in ("series", "messages"):
                left = connection.exec_driver_sql(f"SELECT DISTINCT run FROM gradwise_{table}").all()
                assert left == [(kept,)]
            assert connection.exec_driver_sql("SELECT count(DISTINCT series) FROM gradwise_blocks").scalar() == 2
            assert connection.exec_driver_sql("SELECT count(*) FROM gradwise_reports").scalar() == 0

    def test_deleting_gives_the_space_back(self, store: Store, tmp_path: Path) -> None:
        if not store._database.path:
            pytest.skip("PostgreSQL's own business")
        store.create(RunInfo("", started=1.0))
        run = store.create(RunInfo(""))
        noise = np.random.default_rng(0).random(300_000)
        store.append(run, [Declaration(0, LOSS.name, 0), Points(0, np.arange(300_000), noise)])
        store._database.shrink()
        before = (tmp_path / "runs.db").stat().st_size
        store.delete(run)
        assert before > 1_000_000
        assert (tmp_path / "runs.db").stat().st_size < 200_000

    def test_a_run_deleted_while_it_is_recorded_says_so(self, store: Store) -> None:
        run = store.create(RunInfo(""))
        store.append(run, FRAMES[:5])
        store.delete(run)
        with pytest.raises(StoreError, match=f"run {run} is no longer in the store .*deleted"):
            store.append(run, [losses(range(3))])


class TestStanding:
    def test_a_run_whose_writer_lives_is_running(self, store: Store) -> None:
        assert store.info(store.create(RunInfo(""))).status == "running"

    def test_a_run_whose_writer_is_gone_is_lost(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = {"machine": "elsewhere", "pid": 1, "start": None}
        monkeypatch.setattr("gradwise.recording.store.this_process", lambda: gone)
        run = store.create(RunInfo(""))
        assert store.info(run).status == "running"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        lost = store.info(run)
        assert lost.status == "lost"
        assert lost.ended is not None
        assert [r.status for r in store.runs()] == ["lost"]
        store.append(run, [])
        assert store.info(run).status == "running"

    def test_a_run_that_ended_stays_so(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gradwise.recording.store.alive", lambda *_: False)
        run = store.create(RunInfo(""))
        store.append(run, [Message("end", {"status": "finished"})])
        assert store.info(run).status == "finished"

    def test_a_new_writer_takes_over(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        gone: dict[str, Any] = {"machine": "elsewhere", "pid": 1, "start": None}
        with monkeypatch.context() as patch:
            patch.setattr("gradwise.recording.store.this_process", lambda: gone)
            run = store.create(RunInfo(""))
        store.append(run, [])
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        assert store.info(run).status == "running"
