"""Inside a trial: nothing outside its scratch copy is changed, and what would be is said.

An audit hook that lets the view (view.py) copy what is about to be written, and raises `PermissionError` before
anything is changed outside, a connection is made or an unknown program is started; below it, where the kernel has
it, Landlock (confine.py). Standard library only.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gradwise.trials import effects
from gradwise.trials.confine import confine_writes
from gradwise.trials.programs import describe, program_effects
from gradwise.trials.surroundings import caller, on_behalf_of
from gradwise.trials.view import OutsideError, View

Report = Callable[[str, dict[str, Any]], None]

_NEED_IT = frozenset({effects.REMOVE, effects.MOVE, effects.TREE, effects.TOUCH})
_DOING = {effects.REMOVE: "removes", effects.TREE: "removes", effects.MOVE: "moves", effects.TOUCH: "changes"}


class ViolationError(Exception):
    """What a trial was about to do and may not, in words that complete "the script …"."""


def install_guard(config: Mapping[str, Any], report: Report) -> Guard:
    """Guard this process and the workers it forks, from now on and for good.

    Args:
        config: what `Scratch.guard()` (sandbox.py) gave.
        report: called as `report("violation", {"what": "writes /data/x.csv …"})` at the first violation.
    """
    guard = Guard(config, report)
    sys.addaudithook(guard.hook)
    guard.confined = bool(config.get("confine", True)) and confine_writes(
        p for p in (config["top"], *config["allowed"]) if os.path.exists(p)
    )
    return guard


class Guard:
    """The guard of one trial; made by `install_guard`. `confined`: whether the kernel helps."""

    def __init__(self, config: Mapping[str, Any], report: Report) -> None:
        self.report = report
        self.confined = False
        self.view = View(config["base"], config["making"])
        self._top = os.path.join(config["top"], "")
        self._allowed = (self._top, *config["allowed"])
        self._changed = frozenset(config["changed"])
        self._below_changed = tuple(os.path.join(p, "") for p in self._changed if os.path.isdir(p))
        self._libraries = tuple({os.path.join(p, "") for p in (sys.prefix, sys.base_prefix)})
        self._log = config["log"]
        self._told = False
        self._busy = threading.local()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Called by Python for each audit event.

        Raises:
            PermissionError: to stop what would reach outside.
        """
        if event not in effects.EVENTS or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            self._check(event, args)
        except ViolationError as violation:
            what = str(violation)
        except Exception as error:  # rather no trial than one that isn't isolated
            what = f"does something that can't be isolated ({event}: {type(error).__name__}: {error})"
        else:
            return
        finally:
            self._busy.on = False
        self._violate(what)

    def _violate(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._busy.on = True
            try:
                # A worker of the script has no channel of its own to the supervisor, so there is a file too.
                log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.write(log, what.encode(errors="replace") + b"\n")
                os.close(log)
                self.report("violation", {"what": what})
            except Exception:
                pass
            finally:
                self._busy.on = False
        raise PermissionError(errno.EACCES, f"not allowed in a trial run of gradwise: the script {what}")

    def _check(self, event: str, args: tuple[Any, ...]) -> None:
        if event in effects.FILES:
            for effect in effects.file_effects(event, args):
                self._file(event, effect)
        elif event in effects.CONNECTIONS:
            address = effects.foreign_address(event, args)
            if address is not None:
                raise ViolationError(f"connects to {address}")
        elif event in effects.PROGRAMS:
            command = effects.command_of(event, args)
            files = program_effects(command)
            if files is None and on_behalf_of(caller()) == "compiler":
                files = []
            if files is None:
                raise ViolationError(f"starts another program: {describe(command)}")
            for effect in files:
                self._file(event, effect)
        elif event == effects.INPUT:
            raise ViolationError("asks its user for input")

    def _file(self, event: str, effect: effects.FileEffect) -> None:
        try:
            at = effects.absolute(effect.path, effect.dir_fd)
        except (OSError, TypeError):
            return  # no such folder or descriptor: it will fail by itself
        if effect.verb == effects.READ:
            self._read(at)
        elif at in self.view:
            self._claim(at, effect.verb)
        elif effect.verb != effects.ENTER:
            self._outside(event, at, effect.verb)

    def _read(self, at: str) -> None:
        """What the watched run left behind may not be read: a trial would go on from there."""
        if at.startswith(self._libraries) or not self._changed or at in self.view:
            return
        real = os.path.realpath(at)
        if real in self._changed or real.startswith(self._below_changed):
            raise ViolationError(f"reads {real} by its full path, which the watched run had changed")

    def _claim(self, at: str, verb: str) -> None:
        try:
            self.view.claim(at, verb)
        except OutsideError as error:
            raise ViolationError(f"writes outside its folder: {error}") from None
        except (FileNotFoundError, NotADirectoryError):
            pass  # it will fail by itself
        except OSError as error:
            if verb == effects.ENTER:
                return  # a huge folder may be looked at
            raise ViolationError(
                f"writes to {self.view.outside(at)}, which can't be copied ({error.strerror})"
            ) from None

    def _outside(self, event: str, at: str, verb: str) -> None:
        real = effects.resolved(at, verb)
        if real in self.view:
            self._claim(real, verb)
        elif not (real + os.sep).startswith(self._allowed) and not self._fails_by_itself(event, real, verb):
            raise ViolationError(
                f"{_DOING.get(verb, 'writes')} {real} by its full path, outside the copy of its folder"
            )

    def _fails_by_itself(self, event: str, real: str, verb: str) -> bool:
        """Whether nothing will come of it: such attempts are part of how programs find out what there is."""
        if real in self._changed:
            return False  # what is there now isn't what the watched run found
        if not os.path.lexists(real):
            return verb in _NEED_IT
        if event == "os.mkdir":
            return True
        return verb in (effects.WRITE, effects.REPLACE) and os.path.isdir(real)


def quiet_matplotlib(matplotlib: Any) -> None:
    """Let no script choose a backend that opens windows; the environment has chosen one that doesn't.

    Args:
        matplotlib: the module, imported just now.
    """
    try:
        matplotlib.use = lambda *args, **kwargs: None
    except Exception:
        pass
