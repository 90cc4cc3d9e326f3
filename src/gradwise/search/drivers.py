"""Who works on a study, and whether they still do.

Each driver keeps a number in the study that it raises every few seconds. Whether another machine's driver is gone is
decided by whoever looks on, by its own clock alone: its number has stood still for a minute in which the database could
be read. So clocks need not agree, and nobody is given up for a database that was away.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from gradwise.recording.liveness import SILENCE, alive, this_process

PULSE = 10.0
"""Seconds between two signs of life."""
PREFIX = "driver "


class Drivers:
    """This driver's pulse, and that of others.

    Args:
        write: keeps a value under a key in the study; may raise.
    """

    def __init__(self, write: Callable[[str, Any], None]) -> None:
        self.me = uuid.uuid4().hex[:12]
        self._write, self._beats = write, 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Show that this driver is there, from now on."""
        self._beat()
        self._thread = threading.Thread(target=self._go_on, name="gradwise-pulse", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Show nothing any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * PULSE)
            self._thread = None

    def look(self, notes: Mapping[str, Any]) -> None:
        """Take what the study says of drivers just now."""
        now = time.monotonic()
        for key, note in notes.items():
            if key.startswith(PREFIX) and note is not None:
                who, beats = key.removeprefix(PREFIX), int(note["beats"])
                if who not in self._seen or self._seen[who][0] != beats:
                    self._seen[who] = beats, now

    def forget(self) -> None:
        """Begin to watch anew: while nothing could be read, nobody could write either."""
        self._seen.clear()

    def gone(self, who: str, notes: Mapping[str, Any]) -> bool:
        """Whether a driver has ended, or died."""
        note = notes.get(PREFIX + who)
        if who == self.me:
            return False
        if note is None:
            return True
        silent = time.monotonic() - self._seen[who][1] if who in self._seen else 0.0
        return not alive(note["process"], silent)

    @property
    def patience(self) -> float:
        """Seconds of silence after which a driver of another machine is gone."""
        return SILENCE

    def _beat(self) -> None:
        self._beats += 1
        self._write(PREFIX + self.me, {"beats": self._beats, "process": this_process()})

    def _go_on(self) -> None:
        while not self._over.wait(PULSE):
            try:
                self._beat()
            except Exception:  # the database is away: the driver itself will say so
                continue
