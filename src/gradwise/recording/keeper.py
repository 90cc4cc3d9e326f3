"""A store that may fail: what it can't take now waits in memory, and why it failed is kept as a sentence.

Whoever records must not be stopped by a store that is locked, full, read-only or nowhere. The database is opened at
the first write, not before: a script that is watched need not wait for that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gradwise.recording.frames import Frame
from gradwise.recording.recording import RunInfo

if TYPE_CHECKING:
    from gradwise.recording.store import Store

# While a script runs, signals wait for us: a locked store may hold us up no longer than this, then not for a while.
_QUICK = 0.3
_PAUSE = 2.0
_PATIENT = 10.0


@dataclass(slots=True)
class _Run:
    info: RunInfo
    created: bool = False
    waiting: list[Frame] = field(default_factory=list)


class Keeper:
    """Writes runs into a store as far as that is possible; no method raises.

    Args:
        url: the store, as `Store.open` takes it.

    Attributes:
        problem: why something could not be kept, as a sentence; None while all is well.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = url
        self.problem: str | None = None
        self._store: Store | None = None
        self._runs: dict[str, _Run] = {}
        self._not_before = 0.0
        self._refused = False

    def begin(self, run: RunInfo) -> str:
        """Take on a run; gives its id, which it has whether or not it can be kept."""
        from gradwise.recording.store import new_id

        run = replace(run, id=run.id or new_id())
        self._runs[run.id] = _Run(run)
        self.append(run.id, ())
        return run.id

    def append(self, run_id: str, frames: Sequence[Frame]) -> None:
        """Keep frames of a run, now or when the store lets us."""
        self._runs[run_id].waiting += frames
        if time.monotonic() >= self._not_before:
            self._attempt(lambda: self._write(self._runs[run_id]), _QUICK)

    def finish(self, run: RunInfo) -> bool:
        """The run is over and this is what is known of it; whether the store has all of it."""
        kept = self._runs.pop(run.id)

        def write() -> None:
            self._write(kept)
            self._opened().update(run.id, **_fields(run))

        return self._insist(write)

    def save_report(self, run_id: str, report: Mapping[str, Any]) -> bool:
        """Keep a run's report; whether that was possible."""
        return self._insist(lambda: self._opened().save_report(run_id, report))

    def close(self) -> None:
        """Close the store."""
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(Exception):
                store.close()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, run: _Run) -> None:
        store = self._opened()
        if not run.created:
            store.create(run.info)
            run.created = True
        store.append(run.info.id, run.waiting)
        run.waiting = []

    def _opened(self) -> Store:
        assert self._store is not None
        return self._store

    def _insist(self, action: Callable[[], None]) -> bool:
        """Try for a while, unless that has been in vain before."""
        if self._attempt(action, _QUICK):
            return True
        self._refused = self._refused or not self._attempt(action, _PATIENT)
        return not self._refused

    def _attempt(self, action: Callable[[], None], patience: float) -> bool:
        try:
            with self._waiting(patience):
                action()
        except (Exception, KeyboardInterrupt) as error:
            self.problem = str(error) or "interrupted"
            self._not_before = time.monotonic() + _PAUSE
            self.close()
            return False
        self.problem = None
        return True

    @contextlib.contextmanager
    def _waiting(self, patience: float) -> Iterator[None]:
        """The store open, for an attempt that waits so many seconds for other processes."""
        from gradwise.recording.store import Store

        if patience != _QUICK:
            self.close()
        if self._store is None:
            self._store = Store.open(self.url, timeout=patience)
        yield
        if patience != _QUICK:
            self.close()


def _fields(run: RunInfo) -> dict[str, Any]:
    return {"status": run.status, "exit": run.exit, "ended": run.ended, "facts": run.facts}
