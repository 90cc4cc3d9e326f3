r"""The spool: an append-only file that carries a recording out of a process which may die at any moment.

    b"gradwise spool 1\n"  then frames:  kind (1 byte), length (4 bytes), payload

A message or declaration is JSON; points are series and count (4 bytes each), steps (int64), values (float64),
in the machine's byte order: a spool stays on its machine. A frame that is not complete does not exist yet.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any

from gradwise.recording.frames import Declaration, Frame, Message, Points, as_json

if TYPE_CHECKING:
    from os import PathLike

MAGIC = b"gradwise spool 1\n"
MESSAGE, DECLARATION, POINTS = 1, 2, 3
_HEAD = Struct("=BI")
_POINTS = Struct("=II")
_FULL = 1 << 20


class SpoolError(Exception):
    """A spool that can't be read: what is wrong and where."""


class SpoolSink:
    """Writes a recording to a spool; a `gradwise.recording.sink.Sink`.

    Frames wait in memory until `flush` (or 1 MiB of them) and leave in one system call. Nothing raises into
    the script: after an `OSError` (disk full, descriptor closed by the script) the sink is quiet and `error`
    says why. A process forked from the script writes nothing.

    Args:
        path: the file; made where it does not exist, continued where it does.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.error: Exception | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._numbers = count()
        self._widths: dict[int, int] = {}
        self._fd = -1
        try:
            # Not O_APPEND: a pwrite repeated after an interrupt lands where it did the first time.
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            status = os.fstat(self._fd)
            self._file, self._end = (status.st_dev, status.st_ino), status.st_size
            if not self._end:
                self._buffer += MAGIC
        except OSError as error:
            self._give_up(error)

    def message(self, kind: str, data: Mapping[str, Any]) -> None:
        """A rare fact, as JSON; what JSON does not know is kept as its text."""
        self._json(MESSAGE, [kind, data])

    def series(self, signal: str, source: int, labels: Sequence[str] = ()) -> int:
        """Declare a series and get its number."""
        number = next(self._numbers)
        self._widths[number] = max(1, len(labels))
        self._json(DECLARATION, [number, signal, source, list(labels)])
        return number

    def points(self, series: int, steps: array[int], values: array[float]) -> None:
        """Points of a declared series; points that do not fit its labels are dropped and `error` says so."""
        if self._fd < 0 or os.getpid() != self._pid:
            return
        n = len(steps)
        if len(values) != n * self._widths.get(series, -1) or steps.typecode + values.typecode != "qd":
            self.error = ValueError(f"series {series}: {len(values)} values do not fit {n} steps")
            return
        length = _POINTS.size + 8 * (n + len(values))
        # One operation, so that another thread's frame or a signal handler's can't come in between.
        self._buffer += b"".join(
            (_HEAD.pack(POINTS, length), _POINTS.pack(series, n), steps.tobytes(), values.tobytes())
        )
        if len(self._buffer) > _FULL:
            self.flush()

    def flush(self) -> None:
        """Write everything taken so far, unless a flush is already under way."""
        self._flush(blocking=False)

    def close(self) -> None:
        """Flush a last time and close the file."""
        self._flush(blocking=True)
        if self._fd >= 0 and os.getpid() == self._pid:
            self._shut()

    def _json(self, kind: int, data: Any) -> None:
        if self._fd < 0 or os.getpid() != self._pid:
            return
        try:
            payload = as_json(data).encode()
            self._buffer += _HEAD.pack(kind, len(payload)) + payload
        except Exception as error:
            self.error = error

    def _flush(self, blocking: bool) -> None:
        if self._fd < 0 or os.getpid() != self._pid:
            return
        # A signal handler of the script may come here in the middle of a flush: it must not wait for itself.
        if not self._lock.acquire(blocking, 1.0 if blocking else -1):
            return
        try:
            status = os.fstat(self._fd)
            if (status.st_dev, status.st_ino) != self._file:
                raise OSError("the script closed the spool's descriptor and reused its number")
            while self._buffer:
                written = os.pwrite(self._fd, bytes(self._buffer), self._end)
                # No call from here to the end of the line below, hence no interrupt between the two.
                self._end += written
                del self._buffer[:written]
        except Exception as error:
            self._give_up(error)
        finally:
            self._lock.release()

    def _give_up(self, error: Exception) -> None:
        self.error = error
        self._buffer.clear()
        self._shut()

    def _shut(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._file:
                os.close(fd)
        except OSError:
            pass


class SpoolReader:
    """Reads a spool while it is being written.

    Args:
        path: the file; it need not exist yet.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._position = 0
        self._rest = b""
        self._widths: dict[int, int] = {}

    def read(self) -> list[Frame]:
        """The frames completed since the last call.

        Raises:
            SpoolError: the file is not a spool, is damaged, or can't be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = self._rest + file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SpoolError(f"cannot read the spool {self.path}: {error.strerror}") from None
        at, start = 0, self._position - len(self._rest)
        self._position = start + len(data)
        if start == 0:
            if data[: len(MAGIC)] != MAGIC[: len(data)]:
                raise SpoolError(f"{self.path} is not a spool of this version of gradwise")
            at = len(MAGIC)
        frames: list[Frame] = []
        while at + _HEAD.size <= len(data):
            kind, length = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            if begin + length > len(data):
                break
            frames.append(self._frame(kind, data[begin : begin + length], start + at))
            at = begin + length
        self._rest = data[at:] if at <= len(data) else data
        return frames

    def _frame(self, kind: int, payload: bytes, offset: int) -> Frame:
        import numpy as np

        try:
            if kind == MESSAGE:
                return Message(*json.loads(payload))
            if kind == DECLARATION:
                number, signal, source, labels = json.loads(payload)
                self._widths[number] = len(labels)
                return Declaration(number, signal, source, tuple(labels))
            if kind == POINTS:
                series, n = _POINTS.unpack_from(payload)
                steps = np.frombuffer(payload, np.int64, n, _POINTS.size)
                values = np.frombuffer(payload, np.float64, -1, _POINTS.size + 8 * n)
                width = self._widths[series]
                return Points(series, steps, values.reshape(n, width) if width else values)
        except (ValueError, TypeError, KeyError, StructError) as error:
            raise SpoolError(f"{self.path} is damaged at byte {offset}: {error}") from None
        raise SpoolError(f"{self.path} is damaged at byte {offset}: no frame is of kind {kind}")
