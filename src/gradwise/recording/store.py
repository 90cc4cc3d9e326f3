"""The store: every recording, in one database that outlives whoever writes it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from gradwise.recording import tables
from gradwise.recording.builder import RecordingBuilder, run_info, updated
from gradwise.recording.codec import decode
from gradwise.recording.downsample import envelope
from gradwise.recording.engine import DEFAULT, Database, NoStoreError, StoreError
from gradwise.recording.frames import Declaration, Frame, Message, Points, as_json
from gradwise.recording.liveness import alive, this_process
from gradwise.recording.recording import EMPTY, Recording, RunInfo, Series
from gradwise.recording.signals import Signal
from gradwise.recording.writer import RunWriter

__all__ = ["NoStoreError", "Store", "StoreError"]

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"


class Store:
    """Recordings in a database; make one with `Store.open`.

    Each run has one writer at a time; any number of readers may look on. Every method raises `StoreError`,
    with a sentence for the user, where the database can't do what is asked.

        with Store.open() as store:
            run = store.create(RunInfo("", script="train.py"))
            store.append(run, reader.read())
            recording = store.load(run)
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writers: dict[str, RunWriter] = {}

    @staticmethod
    def open(url: str | None = None, *, create: bool = True, timeout: float = 10.0) -> Store:
        """The store at a SQLAlchemy URL or a SQLite file's path.

        Args:
            url: where; by default `GRADWISE_STORE`, else `.gradwise/runs.db` in the working directory.
            create: make it where there is none; without, `NoStoreError` is raised there.
            timeout: seconds to wait where another process has it locked.
        """
        return Store(Database(url or os.environ.get("GRADWISE_STORE") or DEFAULT, create, timeout))

    @property
    def where(self) -> str:
        """The store's address as a user would write it, without a password."""
        return self._database.where

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # writing

    def create(self, run: RunInfo) -> str:
        """Begin a run; gives its id (made from the time, unless `run` has one)."""
        run = replace(run, id=run.id or new_id(), started=run.started or time.time())
        with self._database.begin(write=True) as connection:
            connection.execute(
                insert(tables.runs).values(
                    id=run.id,
                    parent=run.parent,
                    started=run.started,
                    info=_text(run),
                    writer=json.dumps(this_process()),
                    heartbeat=time.time(),
                )
            )
        return run.id

    def append(self, run_id: str, frames: Iterable[Frame]) -> None:
        """Add frames to a run, all or none of them; none at all still tells readers that the writer lives."""
        t = tables.runs.c
        try:
            with self._database.begin(write=True) as connection:
                writer = self._writers.get(run_id)
                new = {} if writer else {"writer": json.dumps(this_process())}
                beat = update(tables.runs).where(t.id == run_id).values(heartbeat=time.time(), **new)
                if not connection.execute(beat).rowcount:
                    raise StoreError(f"run {run_id} is no longer in the store {self.where}: it was deleted")
                writer = writer or RunWriter(connection, run_id)
                about_run = writer.append(connection, frames)
                if about_run:
                    run = run_info(json.loads(self._row(connection, run_id).info))
                    for message in about_run:
                        run = updated(run, message)
                    self._replace(connection, run)
        except BaseException:
            self._writers.pop(run_id, None)
            raise
        self._writers[run_id] = writer

    def update(self, run_id: str, **fields: Any) -> None:
        """Replace fields of a run's `RunInfo`."""
        with self._database.begin(write=True) as connection:
            run = run_info(json.loads(self._row(connection, run_id).info))
            self._replace(connection, replace(run, **fields))

    def save_report(self, run_id: str, report: Mapping[str, Any]) -> None:
        """Keep a run's report (a JSON object), in place of an earlier one."""
        t = tables.reports
        with self._database.begin(write=True) as connection:
            self._row(connection, run_id)
            connection.execute(delete(t).where(t.c.run == run_id))
            connection.execute(insert(t).values(run=run_id, data=as_json(report)))

    def delete(self, run_id: str) -> list[str]:
        """Delete a run with its trials; gives the ids of all that went."""
        t = tables
        with self._database.begin(write=True) as connection:
            self._row(connection, run_id)
            gone, new = [run_id], [run_id]
            while new:
                new = list(connection.scalars(select(t.runs.c.id).where(t.runs.c.parent.in_(new))))
                gone += new
            theirs = select(t.series.c.id).where(t.series.c.run.in_(gone))
            connection.execute(delete(t.blocks).where(t.blocks.c.series.in_(theirs)))
            for table in (t.series, t.messages, t.reports):
                connection.execute(delete(table).where(table.c.run.in_(gone)))
            connection.execute(delete(t.runs).where(t.runs.c.id.in_(gone)))
        self._database.shrink()
        return gone

    # reading

    def resolve(self, name: str) -> str:
        """The id of the run that "last", an id, its beginning or its last part ("x7k2") means."""
        t = tables.runs.c
        with self._database.begin() as connection:
            if name == "last":
                newest = select(t.id).where(t.parent.is_(None)).order_by(t.started.desc(), t.id.desc()).limit(1)
                latest: str | None = connection.scalar(newest)
                if latest is None:
                    raise StoreError(f"the store {self.where} holds no runs yet: record one first")
                return latest
            like = t.id.startswith(name, autoescape=True) | t.id.endswith(f"-{name}", autoescape=True)
            found: list[str] = list(connection.scalars(select(t.id).where(like).order_by(t.id)))
        if name in found:
            return name
        if len(found) == 1 and name:
            return found[0]
        if not found:
            raise StoreError(f"no run in {self.where} has an id like {name!r}: `gradwise runs` lists them")
        raise StoreError(
            f"{len(found)} runs in {self.where} have an id like {name!r} "
            f"({', '.join(found[:3])}{', …' if len(found) > 3 else ''}): give more of it"
        )

    def info(self, run_id: str) -> RunInfo:
        """What run it is, and how it stands."""
        with self._database.begin() as connection:
            return _info(self._row(connection, run_id))

    def runs(self, parent: str | None = None) -> list[RunInfo]:
        """The runs, oldest first: those a user started, or the trials of one of them."""
        t = tables.runs
        whose = t.c.parent.is_(None) if parent is None else t.c.parent == parent
        with self._database.begin() as connection:
            rows = connection.execute(select(t).where(whose).order_by(t.c.started, t.c.id)).all()
        return [_info(row) for row in rows]

    def load(self, run_id: str, max_points: int | None = None) -> Recording:
        """A whole run, each of its series thinned to `max_points` where given."""
        with self._database.begin() as connection:
            builder = RecordingBuilder(_info(self._row(connection, run_id)))
            t = tables.messages
            for row in connection.execute(select(t).where(t.c.run == run_id).order_by(t.c.id)):
                builder.add([Message(row.kind, json.loads(row.data))])
            builder.add(self._points(connection, run_id, max_points))
        recording = builder.build()
        thin = {key: _thin(series, max_points) for key, series in recording.series.items()}
        return replace(recording, series=thin)

    def read(self, run_id: str, signal: Signal | str, source: int = 0, max_points: int | None = None) -> Series:
        """One series of a run, thinned to `max_points` where given; empty where nothing was recorded."""
        name = signal if isinstance(signal, str) else signal.name
        t = tables.series.c
        with self._database.begin() as connection:
            self._row(connection, run_id)
            frames = self._points(connection, run_id, max_points, t.signal == name, t.source == source)
            series = RecordingBuilder().add(frames).build().series.get((name, source), EMPTY)
        return _thin(series, max_points)

    def report(self, run_id: str) -> dict[str, Any] | None:
        """The report kept for a run."""
        t = tables.reports.c
        with self._database.begin() as connection:
            self._row(connection, run_id)
            text = connection.scalar(select(t.data).where(t.run == run_id))
        report: dict[str, Any] | None = None if text is None else json.loads(text)
        return report

    def ends(self, run_id: str, signal: Signal | str, source: int = 0, points: int = 100) -> tuple[Series, Series]:
        """The first and the last `points` points of a series (all, twice, of a short one), quick however long it is."""
        name = signal if isinstance(signal, str) else signal.name
        t = tables.series.c
        with self._database.begin() as connection:
            self._row(connection, run_id)
            frames = self._points(connection, run_id, None, t.signal == name, t.source == source, edge=points)
            series = RecordingBuilder().add(frames).build().series.get((name, source), EMPTY)
        return (
            Series(series.steps[:points], series.values[:points], series.labels),
            Series(series.steps[-points:], series.values[-points:], series.labels),
        )

    def _points(
        self, connection: Connection, run_id: str, max_points: int | None, *which: Any, edge: int | None = None
    ) -> Iterator[Frame]:
        """The series `which` selects; where they are to be thinned, each block already is, to a finer grain.

        With `edge`, only the blocks that hold the first or last so many points.
        """
        s, b = tables.series, tables.blocks
        for row in connection.execute(select(s).where(s.c.run == run_id, *which).order_by(s.c.id)).all():
            yield Declaration(row.id, row.signal, row.source, tuple(json.loads(row.labels)))
            mine = b.c.series == row.id
            total = int(connection.scalar(select(func.sum(b.c.count)).where(mine)) or 0)
            if edge is not None:
                mine &= (b.c.first < edge) | (b.c.first + b.c.count > total - edge)
            for first, data in connection.execute(select(b.c.first, b.c.data).where(mine).order_by(b.c.first)):
                try:
                    block = Series(*decode(data))
                except ValueError as error:
                    raise StoreError(
                        f"run {run_id} in {self.where} is damaged: {row.signal} from its point {first} on is "
                        f"{error}; delete the run or restore the store"
                    ) from None
                share = max_points and max(4, 4 * max_points * len(block) // total)
                block = _thin(block, share)
                yield Points(row.id, block.steps, block.values)

    def _row(self, connection: Connection, run_id: str) -> Row[Any]:
        row = connection.execute(select(tables.runs).where(tables.runs.c.id == run_id)).one_or_none()
        if row is None:
            raise StoreError(f"no run {run_id} is in the store {self.where}: `gradwise runs` lists them")
        return row

    def _replace(self, connection: Connection, run: RunInfo) -> None:
        t = tables.runs
        values = {"info": _text(run), "parent": run.parent, "started": run.started}
        connection.execute(update(t).where(t.c.id == run.id).values(values))


def new_id() -> str:
    """An id that tells when (UTC), sorts by it and can be read out: "20261121-094501-x7k2"."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-" + "".join(secrets.choice(_LETTERS) for _ in range(4))


def _thin(series: Series, max_points: int | None) -> Series:
    return series if max_points is None else envelope(series, max_points)


def _info(row: Row[Any]) -> RunInfo:
    run = run_info(json.loads(row.info))
    if run.status == "running" and not alive(json.loads(row.writer), time.time() - row.heartbeat):
        return replace(run, status="lost", ended=row.heartbeat)
    return run


def _text(run: RunInfo) -> str:
    return as_json(run.to_json())
