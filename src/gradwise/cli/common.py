"""What the commands share: options, the script they are given, how they end and how they complain."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gradwise.recording.folder import FOLDER

if TYPE_CHECKING:
    from gradwise.trials.process import Target
    from gradwise.trials.runner import Intake

# The first word that is no option of ours is the script; what follows is the script's, `--help` and `--` included.
PASSED_ON = {"allow_interspersed_args": False}

ScriptArgument = Annotated[str, typer.Argument(metavar="SCRIPT", help="The script, as one would give it to python.")]
RestArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="The script's own arguments: everything after SCRIPT is its."),
]
ModuleOption = Annotated[
    bool, typer.Option("-m", help="SCRIPT is a module's name, as in `python -m`.", show_default=False)
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where recordings are kept: a SQLite file or a SQLAlchemy URL (or set GRADWISE_STORE).",
        show_default=".gradwise/runs.db",
    ),
]


STUDIES = f"{FOLDER}/tune.db"
"""Where studies are kept unless the user says otherwise."""


def study_url(store: str | None) -> str:
    """The database of studies as a URL: one as given, or a file."""
    from sqlalchemy.engine import URL

    if store is not None and "://" in store:
        return store
    return URL.create("sqlite", database=str(Path(store or STUDIES).absolute())).render_as_string()


def say(words: str) -> None:
    """One line to the user, on standard error; where that is gone, to nobody."""
    from gradwise.legible import printable

    with suppress(OSError, ValueError):
        print(printable(f"gradwise: {words}", sys.stderr.encoding or "ascii"), file=sys.stderr, flush=True)


def refuse(words: str) -> NoReturn:
    """Say what the user got wrong, and end with the status for that."""
    say(words)
    raise SystemExit(2)


def target_of(script: str, argv: list[str] | None, module: bool) -> Target:
    """The script to run; ends the command where there is none."""
    from gradwise.trials.process import Target

    target = Target(script, tuple(argv or ()), module)
    problem = target.problem()
    if problem:
        refuse(problem)
    return target


def writable(path: Path | None, option: str) -> None:
    """Refuse a report's path before the run rather than after it."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        refuse(f"{option} {path} is a folder: name the file to write")
    if not folder.is_dir():
        refuse(f"there is no folder {folder} to write {option} {path.name} to: make it, or name another")
    if not os.access(path if path.exists() else folder, os.W_OK):
        refuse(f"{option} {path} cannot be written (no permission): name another file")


def pattern(regex: str | None, option: str) -> re.Pattern[str] | None:
    """A compiled regular expression of the user's."""
    if regex is None:
        return None
    try:
        return re.compile(regex, re.MULTILINE)
    except re.error as error:
        refuse(f"{option} {regex!r} is no regular expression: {error}")


def leave(exit_status: int) -> NoReturn:
    """End as the script ended: by its status, or (where negative) by the same signal."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    if exit_status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the script has left its own
        with suppress(OSError, ValueError):
            signal.signal(-exit_status, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_status)
    raise SystemExit(exit_status if exit_status >= 0 else 128 - exit_status)


@contextmanager
def speaking_plainly(end: bool = True) -> Iterator[None]:
    """Turn an error of gradwise's own into one sentence; `end` says whether to end the command too, with status 70."""
    try:
        yield
    except Exception as error:
        if os.environ.get("GRADWISE_DEBUG") == "1":
            traceback.print_exc()
        what = " ".join(f"{type(error).__name__}: {error}".split())
        say(
            f"an error of gradwise's own, not of your script ({what}); please report it to the gradwise project, "
            "with what GRADWISE_DEBUG=1 gradwise … prints"
        )
        if end:
            raise SystemExit(70) from None


def live_ticker(line: Any, began: float) -> Callable[[Intake], None]:
    """What shows a run's progress on the live line."""
    from gradwise.recording.signals import LOSS, LR
    from gradwise.report.live import watching

    marks: list[tuple[float, int]] = []

    def tick(intake: Intake) -> None:
        now, rate = time.monotonic(), None
        if intake.step:
            marks.append((now, intake.step))
            del marks[:-25]
            then, before = marks[0]
            rate = (intake.step - before) / (now - then) if now > then else None
        line.update(watching(intake.step, intake.now.get(LOSS.name), intake.now.get(LR.name), rate, now - began))

    return tick
