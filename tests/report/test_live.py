import doctest
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import Screen

from gradwise.report import live
from gradwise.report.live import LiveLine


class Terminal:
    """A pseudo-terminal: `stream` is what a program writes to, `screen` what a person sees."""

    def __init__(self, columns: int = 60, lines: int = 10) -> None:
        self.master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.screen = Screen(columns, lines)
        self.raw = ""
        self._set(columns, lines)

    def _set(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.see()
        self._set(columns, lines)
        self.screen.resize(columns, lines)

    def print(self, text: str) -> None:
        """What the script writes."""
        self.stream.write(text)
        self.stream.flush()

    def see(self) -> list[str]:
        """The rows of the screen, after all that was written."""
        data = b""
        while select.select([self.master], [], [], 0)[0]:
            try:
                data += os.read(self.master, 65536)
            except OSError:
                break
        text = data.decode("utf-8")
        self.raw += text
        self.screen.feed(text)
        return [row.rstrip() for row in self.screen.rows]

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_the_line_stays_at_the_bottom_while_the_script_prints_above_it(terminal):
    terminal.print("$ gradwise doctor train.py\n")
    with LiveLine(terminal.stream) as line:
        for epoch in range(30):
            terminal.print(f"epoch {epoch}\n")
            line.update(f"step {epoch}")
            assert terminal.see()[-1] == f"gradwise  step {epoch}"
        rows = terminal.see()
        assert rows[:-1] == [*(f"epoch {k}" for k in range(22, 30)), ""]
    rows = terminal.see()
    assert rows == [*(f"epoch {k}" for k in range(22, 30)), "", ""]
    assert terminal.screen.region == (0, 9)
    terminal.print("report\n")
    assert terminal.see()[:9] == [*(f"epoch {k}" for k in range(22, 30)), "report"]


def test_a_line_the_script_has_begun_is_not_broken(terminal):
    with LiveLine(terminal.stream) as line:
        terminal.print("loading ")
        line.update("step 1")
        terminal.print("data\n")
    assert terminal.see()[0] == "loading data"


@pytest.mark.parametrize("before", [0, 3, 9, 40])
def test_wherever_the_cursor_was_nothing_printed_is_lost(terminal, before):
    terminal.print("".join(f"old {k}\n" for k in range(before)) + "unfinished")
    with LiveLine(terminal.stream) as line:
        line.update("step 1")
        terminal.print(" now finished\n")
        seen = [row for row in terminal.see() if row]
    expected = [*(f"old {k}" for k in range(before)), "unfinished now finished", "gradwise  step 1"]
    assert seen == expected[-len(seen) :]
    assert len(seen) >= min(len(expected), 9)


@pytest.mark.parametrize("size", [(40, 7), (100, 25), (60, 8), (31, 6)])
def test_it_follows_the_size_of_the_window(terminal, size):
    with LiveLine(terminal.stream) as line:
        for k in range(20):
            terminal.print(f"epoch {k}\n")
        line.update("step 1")
        terminal.resize(*size)
        line.update("step 2 " + "·" * 200)
        terminal.print("after the change\n")
        rows = terminal.see()
        assert rows[-1].startswith("gradwise  step 2 ··")
        assert len(rows[-1]) == size[0] - 1
        assert "after the change" in rows
        assert terminal.screen.region == (0, size[1] - 2)
    assert terminal.see()[-1] == ""
    assert terminal.screen.region == (0, size[1] - 1)


def test_a_window_that_gets_too_small_loses_the_line_until_it_grows(terminal):
    with LiveLine(terminal.stream) as line:
        line.update("step 1")
        terminal.resize(60, 4)
        line.update("step 2")
        assert not any("step 2" in row for row in terminal.see())
        assert terminal.screen.region == (0, 3)
        terminal.resize(60, 12)
        line.update("step 3")
        assert terminal.see()[-1] == "gradwise  step 3"


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=300))
def test_no_text_leaves_its_row(text):
    os.environ["TERM"] = "xterm"
    terminal = Terminal(50, 8)
    try:
        with LiveLine(terminal.stream) as line:
            terminal.print("first\n")
            line.update(text)
            rows = terminal.see()
        assert rows[0] == "first"
        assert not any(rows[1:-1])
    finally:
        terminal.close()


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_nothing_is_written_to_a_terminal_that_cannot(terminal, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    with LiveLine(terminal.stream) as line:
        line.update("step 1")
    assert terminal.see() == [""] * 10
    assert terminal.raw == ""


def test_nothing_is_written_to_a_small_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for size in ((29, 20), (80, 5)):
        terminal = Terminal(*size)
        with LiveLine(terminal.stream) as line:
            line.update("step 1")
        terminal.see()
        assert terminal.raw == ""
        terminal.close()


def test_what_is_no_terminal_is_left_alone(tmp_path):
    closed = io.StringIO()
    closed.close()
    for stream in (io.StringIO(), closed, (tmp_path / "log").open("w"), object()):
        with LiveLine(stream) as line:
            line.update("step 1")
        if isinstance(stream, io.StringIO) and not stream.closed:
            assert stream.getvalue() == ""
    assert (tmp_path / "log").read_text() == ""


def test_errors_of_the_terminal_are_swallowed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with LiveLine(terminal.stream) as line:
        line.update("step 1")
        os.close(terminal.master)  # the window is closed
        line.update("step 2")
        line.update("step 3")
    terminal.stream.close()


def test_a_stopped_terminal_holds_nothing_up(terminal):
    with LiveLine(terminal.stream) as line:
        termios.tcflow(terminal.stream.fileno(), termios.TCOOFF)  # Ctrl-S
        done = threading.Event()

        def update():
            for k in range(100):
                line.update(f"step {k}" * 5)
            done.set()

        thread = threading.Thread(target=update, daemon=True)
        thread.start()
        finished = done.wait(30)
        termios.tcflow(terminal.stream.fileno(), termios.TCOON)
        thread.join(30)
    assert finished


def test_the_terminal_is_given_back_after_an_error(terminal):
    def interrupted():
        with LiveLine(terminal.stream) as line:
            line.update("step 1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.see()[-1] == ""
    assert terminal.screen.region == (0, 9)


def test_after_closing_nothing_is_shown_and_closing_again_is_harmless(terminal):
    with LiveLine(terminal.stream) as line:
        line.close()
        line.update("late")
        line.close()
    assert not any(terminal.see())


def test_handlers_of_others_stay_in_place(terminal):
    def mine(signum, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with LiveLine(terminal.stream):
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_may_hold_the_line(terminal):
    errors = []

    def use():
        try:
            with LiveLine(terminal.stream) as line:
                line.update("step 1")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == []
    terminal.see()
    assert "step 1" in terminal.raw


PROGRAM = """
import sys, time
from gradwise.report.live import LiveLine
with LiveLine(sys.stderr) as line:
    line.update("ready")
    time.sleep(60)
"""


def start(terminal) -> subprocess.Popen:
    """The program above on a terminal of its own, once its line is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stderr=terminal.stream, stdout=terminal.stream, start_new_session=True
    )
    wait_for(terminal, lambda rows: rows[-1] == "gradwise  ready")
    return process


def wait_for(terminal, condition) -> None:
    limit = time.monotonic() + 60
    while not condition(terminal.see()):
        assert time.monotonic() < limit, terminal.raw
        time.sleep(0.02)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_signals_give_the_terminal_back_and_still_end_the_process(terminal, signum):
    process = start(terminal)
    process.send_signal(signum)
    assert process.wait(60) == -signum
    terminal.see()
    assert terminal.screen.region == (0, 9)
    assert not any("ready" in row for row in terminal.see())


def test_suspending_gives_the_terminal_back_and_resuming_takes_it_again(terminal):
    process = start(terminal)
    try:
        seen = len(terminal.raw)
        # Of a process group without a parent in its session the kernel drops the stop itself: it goes straight on.
        process.send_signal(signal.SIGTSTP)
        wait_for(terminal, lambda rows: "\x1b[1;9r" in terminal.raw[seen:])
        given_back, _, taken = terminal.raw[seen:].partition("\x1b[1;9r")
        assert "\x1b[r" in given_back
        assert "\x1b[r" not in taken
    finally:
        process.kill()
        process.wait()


def test_examples_in_docstrings():
    results = doctest.testmod(live)
    assert results.attempted >= 2
    assert results.failed == 0


def test_the_first_moments_have_no_speed_yet():
    assert live.watching(0, None, None, None, 0.0) == "step 0 · 0.0 s"
    assert live.watching(3, 2.3, 5.0, 0.25, 12) == "step 3 · loss 2.3 · lr 5 · 4 s/step · 12 s"
