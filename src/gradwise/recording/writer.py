"""Appending to a run: open blocks grow by merging, so that many small flushes still end in few large blocks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from gradwise.recording import tables
from gradwise.recording.codec import decode, encode
from gradwise.recording.frames import Declaration, Frame, Message, Points, as_json
from gradwise.recording.recording import Floats, Ints
from gradwise.recording.signals import TIME

BLOCK = 16_384
"""Values in a full block."""


@dataclass(slots=True)
class _Block:
    first: int
    steps: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(slots=True)
class _Column:
    """A series and its end that is not full yet: open blocks, each at most half as long as the one before."""

    id: int
    signal: str
    width: int
    count: int = 0
    open: list[_Block] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        return max(16, BLOCK // max(1, self.width))

    def extend(self, steps: Ints, values: Floats) -> list[_Block]:
        """The blocks to write for new points; they replace those from the first one's `first` on."""
        new = _Block(self.count, steps, values)
        self.count += len(steps)
        while self.open and len(self.open[-1]) < 2 * len(new):
            last = self.open.pop()
            new = _Block(
                last.first,
                np.concatenate((last.steps, new.steps)),
                np.concatenate((last.values, new.values)),
            )
        size = self.capacity
        cut = [
            _Block(new.first + i, new.steps[i : i + size], new.values[i : i + size]) for i in range(0, len(new), size)
        ]
        if len(cut[-1]) < size:
            self.open.append(cut[-1])
        return cut


class RunWriter:
    """The open end of one run's series; whoever holds it must drop it when a transaction of its calls fails.

    Args:
        connection: to read where the run was left off.
        run: the run's id.
    """

    def __init__(self, connection: Connection, run: str) -> None:
        self.run = run
        self._columns: dict[tuple[str, int, tuple[str, ...]], _Column] = {}
        self._numbers: dict[int, _Column] = {}
        t = tables.series
        for row in connection.execute(select(t).where(t.c.run == run)):
            column = self._resume(connection, row.id, row.signal, tuple(json.loads(row.labels)))
            self._columns[row.signal, row.source, tuple(json.loads(row.labels))] = column
            if row.number is not None:
                self._numbers[row.number] = column

    def append(self, connection: Connection, frames: Iterable[Frame]) -> list[Message]:
        """Write declarations, points and messages; gives back the messages about the run itself."""
        about_run: list[Message] = []
        points: dict[int, tuple[_Column, list[Points]]] = {}
        for frame in frames:
            if isinstance(frame, Declaration):
                self._declare(connection, frame)
            elif isinstance(frame, Points):
                column = self._numbers[frame.series]
                points.setdefault(column.id, (column, []))[1].append(frame)
            elif frame.kind in ("optimizer", "event", "place"):
                self._keep(connection, frame)
            else:
                about_run.append(frame)
        _write(connection, points.values())
        return about_run

    def _resume(self, connection: Connection, series: int, signal: str, labels: tuple[str, ...]) -> _Column:
        t = tables.blocks
        column = _Column(series, signal, len(labels))
        last_first = connection.execute(
            select(t.c.first, t.c.count).where(t.c.series == series).order_by(t.c.first.desc())
        )
        stale: list[int] = []
        for first, count in last_first:
            column.count = max(column.count, first + count)
            if count >= column.capacity:
                break
            stale.append(first)
        for first in reversed(stale):
            row = connection.execute(select(t.c.data).where(t.c.series == series, t.c.first == first)).one()
            column.open.append(_Block(first, *decode(row.data)))
        return column

    def _declare(self, connection: Connection, frame: Declaration) -> None:
        t = tables.series
        key = (frame.signal, frame.source, frame.labels)
        column = self._columns.get(key)
        if column is not None and self._numbers.get(frame.series) is column:
            return
        connection.execute(update(t).where(t.c.run == self.run, t.c.number == frame.series).values(number=None))
        if column is None:
            made = connection.execute(
                insert(t).values(
                    run=self.run,
                    signal=frame.signal,
                    source=frame.source,
                    labels=json.dumps(frame.labels),
                    number=frame.series,
                )
            ).inserted_primary_key
            assert made is not None
            column = self._columns[key] = _Column(made[0], frame.signal, len(frame.labels))
        else:
            connection.execute(update(t).where(t.c.id == column.id).values(number=frame.series))
        self._numbers[frame.series] = column

    def _keep(self, connection: Connection, message: Message) -> None:
        t = tables.messages
        about = message.data["index"] if message.kind == "optimizer" else None
        if about is not None:
            connection.execute(delete(t).where(t.c.run == self.run, t.c.kind == message.kind, t.c.about == about))
        data = as_json(message.data)
        connection.execute(insert(t).values(run=self.run, kind=message.kind, about=about, data=data))


def _write(connection: Connection, points: Iterable[tuple[_Column, Sequence[Points]]]) -> None:
    """New points of several series, in two statements however many they are."""
    t = tables.blocks
    replaced, new = [], []
    for column, parts in points:
        steps = np.concatenate([p.steps for p in parts])
        if not len(steps):
            continue
        before = column.count
        blocks = column.extend(steps, np.concatenate([p.values for p in parts]))
        if blocks[0].first < before:
            replaced.append({"its_series": column.id, "its_first": blocks[0].first})
        new += [
            {
                "series": column.id,
                "first": block.first,
                "count": len(block),
                "data": encode(block.steps, block.values, times=column.signal == TIME.name),
            }
            for block in blocks
        ]
    if replaced:
        theirs = (t.c.series == bindparam("its_series")) & (t.c.first >= bindparam("its_first"))
        connection.execute(delete(t).where(theirs), replaced)
    if new:
        connection.execute(insert(t), new)
