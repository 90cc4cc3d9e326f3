"""One line at the bottom of the terminal that says how things stand while the script prints above it.

The script writes to the same terminal, so the bottom row is taken out of the scrolling region (DECSTBM),
as apt does: whatever the script prints scrolls above it. Where standard error is no such terminal nothing
happens.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import IO, Any

from rich.cells import set_cell_size

from gradwise.legible import duration, number, printable

_SAVE, _RESTORE, _DOWN, _UP, _ALL = "\x1b7", "\x1b8", "\x1bD", "\x1b[A", "\x1b[r"
_PLAIN, _BOLD, _ERASE, _ERASE_REST = "\x1b[m", "\x1b[1m", "\x1b[2K", "\x1b[K"
_NAME = "gradwise  "
_SMALLEST = os.terminal_size((30, 6))
_ENDING = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, n))


def watching(step: int, loss: float | None, lr: float | None, rate: float | None, seconds: float) -> str:
    """The line while the script runs; `rate` in steps per second, None where not yet known.

    >>> watching(12480, 0.2313, 1e-3, 312.4, 41.2)
    'step 12,480 · loss 0.231 · lr 0.001 · 312 steps/s · 41 s'
    """
    speed = None if not rate else f"{number(rate)} steps/s" if rate >= 1 else f"{number(1 / rate)} s/step"
    parts = (
        f"step {step:,}",
        None if loss is None else f"loss {number(loss)}",
        None if lr is None else f"lr {number(lr)}",
        speed,
        duration(seconds),
    )
    return " · ".join(p for p in parts if p)


def trying(what: str, pair: int, pairs: int, seconds: float, budget: float) -> str:
    """The line while a remedy is tried.

    >>> trying("lr ×0.03", 2, 3, 41.2, 120)
    'trying lr ×0.03 · pair 2 of 3 · 41 s of 2 min 00 s'
    """
    return f"trying {what} · pair {pair} of {pairs} · {duration(seconds)} of {duration(budget)}"


class LiveLine:
    """The bottom line of a terminal, held for one status text; a harmless no-op where there is none.

        with LiveLine() as live:
            live.update(watching(...))

    Follows changes of the terminal's size at each update. Gives the terminal back when the block ends, when a
    signal ends the process (where nobody else handles that signal), and while it is suspended.

    Args:
        stream: where to show it; standard error by default.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        self._fd = _terminal(stream)
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        self._size: os.terminal_size | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> LiveLine:
        self._reserve()
        if self._fd is not None and threading.current_thread() is threading.main_thread():
            handlers = dict.fromkeys(_ENDING, self._end) | {signal.SIGTSTP: self._suspend}
            self._handlers = {s: h for s, h in handlers.items() if signal.getsignal(s) is signal.SIG_DFL}
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, text: str) -> None:
        """Show `text`, cut to the width of the terminal."""
        if self._fd is None:
            return
        size = _size(self._fd)
        if size != self._size:
            self._size = None
            self._reserve()
        if self._size is None:
            return
        room = size.columns - 1 - len(_NAME)
        body = printable(text, self._encoding)
        shown = set_cell_size(body, room).rstrip()
        self._write(f"{_SAVE}{_at(size.lines)}{_PLAIN}{_BOLD}{_NAME}{_PLAIN}{shown}{_ERASE_REST}{_RESTORE}")

    def close(self) -> None:
        """Give the line back; nothing is shown any more."""
        self._release()
        self._fd = None
        for signum, handler in self._handlers.items():
            if signal.getsignal(signum) == handler:
                signal.signal(signum, signal.SIG_DFL)
        self._handlers = {}

    def _reserve(self) -> None:
        """Take the bottom row out of the scrolling region without moving the cursor in the text."""
        if self._fd is None or not _in_foreground(self._fd):
            return
        size = _size(self._fd)
        if size.columns < _SMALLEST.columns or size.lines < _SMALLEST.lines:
            return
        # Setting a region sends the cursor home, hence save and restore; down and up keep it inside.
        if self._write(f"{_DOWN}{_SAVE}\x1b[1;{size.lines - 1}r{_RESTORE}{_UP}"):
            self._size = size

    def _release(self) -> None:
        if self._fd is None or self._size is None:
            return
        # After a change of size nobody knows where our line went, and erasing one of the script's is worse.
        wipe = f"{_at(self._size.lines)}{_ERASE}" if _size(self._fd) == self._size else ""
        self._write(f"{_SAVE}{_ALL}{wipe}{_RESTORE}", patience=1.0)
        self._size = None

    def _write(self, sequence: str, patience: float = 0.0) -> bool:
        """One write, so that nothing of the script's gets into its middle; False if it could not be made."""
        if self._fd is None:
            return False
        try:
            # A terminal stopped by Ctrl-S takes no more, and waiting for it would hold up everything else.
            if not select.select([], [self._fd], [], patience)[1]:
                return False
            os.write(self._fd, sequence.encode(self._encoding, "replace"))
        except (OSError, ValueError):
            self._fd = None
            return False
        return True

    def _end(self, signum: int, frame: FrameType | None) -> None:
        self.close()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    def _suspend(self, signum: int, frame: FrameType | None) -> None:
        self._release()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)  # stands still here until continued
        signal.signal(signum, self._suspend)
        self._reserve()


def _terminal(stream: IO[str]) -> int | None:
    """The descriptor of a terminal that understands cursor movement; None where `stream` isn't one."""
    try:
        if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown") or not stream.isatty():
            return None
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _size(fd: int) -> os.terminal_size:
    try:
        return os.get_terminal_size(fd)
    except OSError:
        return os.terminal_size((0, 0))


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal, so no job control either


def _at(row: int) -> str:
    return f"\x1b[{row};1H"
