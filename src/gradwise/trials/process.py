"""Run a script in a child process under orders, and receive its recording while it runs.

Python runs the script itself; gradwise comes in through `sitecustomize` (see `inject/`). The supervisor never imports
torch. It outlives whatever the script does: the recording lies in a file that survives the child's death.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from gradwise.recording.frames import Frame
from gradwise.recording.wire import SpoolError, SpoolReader
from gradwise.trials.child import INJECT, Orders
from gradwise.trials.files import RUN, hold

POLL = 0.2
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_KERNEL = 0x80  # si_code of a signal from the terminal: the child, in the same process group, has had it too
_PATIENCE = 5.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Target:
    """What to run, as one would type it after `python`: a script's path, or a module's name with `module`."""

    script: str
    argv: tuple[str, ...] = ()
    module: bool = False
    cwd: str = field(default_factory=os.getcwd)

    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, *(["-m"] if self.module else []), self.script, *self.argv]

    def problem(self) -> str | None:
        """One sentence on why this cannot run, None where it can be tried."""
        if self.module:
            return None
        path = Path(self.cwd, self.script)
        if not path.exists():
            return f"there is no script {self.script!r} in {self.cwd}: check the path"
        if path.is_dir() and not (path / "__main__.py").exists():
            return f"{self.script!r} is a folder without a __main__.py: name the script in it"
        return None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: `exit` as `subprocess` has it (negative for a signal), what it printed where captured.

    `told` is the signal by which the user, or whoever runs this, told it to end (Ctrl-C is SIGINT); 0 if none did.
    `processor` is what it and its own children took of the processor, in seconds; 0 where that isn't known.
    """

    exit: int
    seconds: float
    timed_out: bool = False
    told: int = 0
    stdout: str = ""
    stderr: str = ""
    problem: str = ""
    processor: float = 0.0


def used() -> float:
    """What this process' ended children took of the processor so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Interrupted(Exception):
    """The user pressed Ctrl-C, or the supervisor was told to stop, while a trial ran."""


class NotStarted(Exception):
    """The script could not be started under watch, for a reason that isn't the script's."""


def watch(
    target: Target,
    orders: Mapping[str, Any],
    on_frames: Callable[[Sequence[Frame]], None],
    on_tick: Callable[[], None] = lambda: None,
    max_time: float | None = None,
) -> Ended:
    """Run the user's script as the user's own process: its terminal, its signals, its exit status.

    Args:
        target: what to run.
        orders: fields of `Orders` beside `spool`.
        on_frames: takes the recording, piece by piece.
        on_tick: called every `POLL` seconds.
        max_time: seconds after which a script that does not come to a step is interrupted (as by Ctrl-C).

    Raises:
        NotStarted: where the script has not been started (no room for temporary files, say).
    """
    return _Run(target, orders, on_frames, on_tick, None, max_time).run()


def trial(
    target: Target,
    orders: Mapping[str, Any],
    on_frames: Callable[[Sequence[Frame]], None],
    environment: Mapping[str, str],
    timeout: float,
    on_tick: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a script out of the user's sight: no input, output captured, own session, killed after `timeout` seconds.

    Raises:
        Interrupted: on Ctrl-C or a request to terminate; the trial has been killed then.
        NotStarted: as in `watch`.
    """
    return _Run(target, orders, on_frames, on_tick, environment, timeout).run()


class _Run:
    def __init__(
        self,
        target: Target,
        orders: Mapping[str, Any],
        on_frames: Callable[[Sequence[Frame]], None],
        on_tick: Callable[[], None],
        environment: Mapping[str, str] | None,
        limit: float | None,
    ) -> None:
        self.target, self.on_frames, self.on_tick, self.limit = target, on_frames, on_tick, limit
        self.own = environment is not None
        self.environment = dict(os.environ if environment is None else environment)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=RUN))
            self._lock = hold(str(self.folder))
        except OSError as error:
            raise NotStarted(f"no folder for temporary files can be made ({error.strerror})") from error
        self.orders = Orders(**{**orders, "spool": str(self.folder / "spool")})
        self.reader = SpoolReader(self.orders.spool)
        self.problem = ""
        self.timed_out = False
        self.told = 0
        self.asked: float | None = None

    def run(self) -> Ended:
        began, before = time.monotonic(), used()
        try:
            with contextlib.ExitStack() as stack:
                # Blocked, so that they wait to be received with word of who sent them; the child gets the old mask.
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_HANDLED, signal.SIGCHLD))
                stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
                try:
                    out, err = (stack.enter_context(open(self.folder / n, "wb+")) for n in ("out", "err"))
                    child = self._start(mask, out, err)
                except OSError as why:
                    raise NotStarted(f"{why.strerror}: {why.filename or self.folder}") from why
                try:
                    self._supervise(child, began)
                except BaseException:
                    self._kill(child)
                    raise
                finally:
                    self._receive()
                printed, complained = _tail(out), _tail(err)
            error = Path(str(self.folder / "orders") + ".error")
            if error.exists():
                self.problem = f"gradwise could not start inside the script: {error.read_text()[:300]}"
            seconds = time.monotonic() - began
            return Ended(
                child.returncode, seconds, self.timed_out, self.told, printed, complained, self.problem, used() - before
            )
        finally:
            os.close(self._lock)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, mask: set[int | signal.Signals], out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
        orders = str(self.folder / "orders")
        self.orders.write(orders)
        environment = self.environment
        before = environment.get("PYTHONPATH")
        environment["GRADWISE_CHILD"] = orders
        environment["PYTHONPATH"] = INJECT if before is None else INJECT + os.pathsep + before
        if before is not None:
            environment["GRADWISE_PYTHONPATH"] = before
        supervisor = os.getpid()

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            die_with(supervisor)

        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err} if self.own else {}
        return subprocess.Popen(
            self.target.command(),
            cwd=self.target.cwd,
            env=environment,
            preexec_fn=prepare,
            start_new_session=self.own,
            close_fds=self.own,
            **streams,
        )

    def _supervise(self, child: subprocess.Popen[bytes], began: float) -> None:
        due = time.monotonic() + POLL
        while child.poll() is None:
            received = _await((*_HANDLED, signal.SIGCHLD), max(0.0, min(due - time.monotonic(), POLL)))
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._signalled(child, received)
            if time.monotonic() >= due:
                due = time.monotonic() + POLL
                self._receive()
                self.on_tick()
                self._limit(child, time.monotonic() - began)
        # What came too late for the child must not reach us once our mask is lifted.
        while (received := _await(_HANDLED, 0.0)) is not None:
            self._signalled(child, received)
        # What the script leaves running in a trial must not outlive it.
        if self.own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)

    def _signalled(self, child: subprocess.Popen[bytes], received: Any) -> None:
        if self.own:
            self._kill(child)
            raise Interrupted(signal.Signals(received.si_signo).name)
        if received.si_signo in _ENDING:
            self.told = received.si_signo
        if received.si_code != _KERNEL:
            child.send_signal(received.si_signo)

    def _limit(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        if self.limit is None or seconds < self.limit:
            return
        self.timed_out = True
        if self.own:
            self._kill(child)
        elif seconds > self.limit + _PATIENCE and self.asked is None:
            # It makes no steps, at which it would have been ended: the user's own way to end it cleanly.
            self.asked = seconds
            child.send_signal(signal.SIGINT)

    def _receive(self) -> None:
        if self.problem:
            return
        try:
            frames = self.reader.read()
        except SpoolError as error:
            self.problem = str(error)
            return
        if frames:
            self.on_frames(frames)

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.own:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
        child.wait()


def die_with(supervisor: int) -> None:
    """Let the kernel end the child if the supervisor is killed, as closing its terminal would."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            os.kill(os.getpid(), signal.SIGTERM)


def _await(signals: Sequence[signal.Signals], timeout: float) -> Any:
    """The next of these signals within so many seconds, or None.

    Where the wait is interrupted (we were stopped and continued: Ctrl-Z, fg) and its time is over by then, Python
    returns what it never filled in.
    """
    received = signal.sigtimedwait(signals, timeout)
    return received if received is not None and received.si_signo in signals else None


def _tail(file: IO[bytes], most: int = 1 << 22) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - most))
    return file.read().decode("utf-8", "replace")


def moved(target: Target, cwd: str, script: str, argv: Sequence[str]) -> Target:
    """The same target run elsewhere."""
    return replace(target, cwd=cwd, script=script, argv=tuple(argv))
