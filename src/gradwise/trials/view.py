"""A copy-on-write view of the file system, made of symbolic links and, where something is written, of copies.

Below `base` every path of the machine can be found: `base/home/ann/run` stands for `/home/ann/run`. What nobody
wrote yet is a *stand-in*, a symbolic link to the original, be it one file or a whole tree; it is known by leading
out of the view, into which all other links are led. `View.claim` turns the stand-ins on the way to a path into real
folders (full of stand-ins) and real files, so that writing to it touches nothing of the original. The supervisor
builds a view with it, the guard inside a trial claims before each write.

Because the view has the shape of the file system, `../data` or the folder of `__file__` lead where they led before.
Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from gradwise.trials import effects
from gradwise.trials.files import copy_file, exchange

HIDDEN = frozenset({".gradwise"})  # never in a view: a trial has no business with recordings
_MOST_ENTRIES = 50_000
_MOST_LINKS = 40  # as the kernel has it


class OutsideError(Exception):
    """A path climbs out of the view."""


class View:
    """The view below the folder `base`, which is real and has no links in its own path.

    `making` is a folder of the same file system for what is being made.
    """

    def __init__(self, base: str, making: str) -> None:
        self.base = base
        self.making = making
        self._prefix = os.path.join(base, "")
        self._names = (f"{os.getpid()}-{n}" for n in itertools.count())

    @classmethod
    def make(cls, base: str, making: str) -> View:
        """A fresh view: nothing but stand-ins for what lies in the root folder."""
        os.makedirs(making)
        view = cls(base, making)
        view._fill(base, os.sep)
        return view

    def inside(self, path: str) -> str:
        """Where an absolute path of the machine is found in the view."""
        return self.base + (path if path != os.sep else "")

    def outside(self, path: str) -> str:
        """What a path in the view stands for."""
        return path[len(self.base) :] or os.sep

    def __contains__(self, path: str) -> bool:
        return path == self.base or path.startswith(self._prefix)

    def claim(self, path: str, verb: str = effects.WRITE, *, sparse: bool = False) -> str:
        """Make it safe to do `verb` to a path in the view; the path with its links resolved.

        Verbs in `ON_NAME` are about the name, so what it points to may stay a stand-in; `REPLACE` needs no content.
        With `sparse`, a folder on the way that holds too much to be listed shows only the entry that is needed.

        Raises:
            OutsideError: where it climbs out of the view.
            OSError: where a copy can't be made (no space, no permission, a folder with too many entries).
        """
        here = self.base
        todo = _parts(path[len(self.base) :])
        links = 0
        while todo:
            part = todo.pop()
            if part == os.pardir:
                if here == self.base:
                    raise OutsideError(path)
                here = os.path.dirname(here)
                continue
            here = os.path.join(here, part)
            try:
                target = os.readlink(here)
            except OSError:  # real already, or not there
                continue
            if not todo and verb in effects.ON_NAME:
                return here
            if os.path.isabs(target) and target not in self:
                only = todo[-1] if sparse and todo else None
                self._own(here, content=bool(todo) or verb != effects.REPLACE, only=only)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if os.path.isabs(target):
                here, target = self.base, target[len(self.base) :]
            else:
                here = os.path.dirname(here)
            todo += _parts(target)
        return here

    def _own(self, link: str, *, content: bool, only: str | None) -> None:
        """Replace a stand-in by a real folder of stand-ins, or by a copy of the file."""
        with self._locked():
            try:
                real = os.readlink(link)
            except OSError:  # another process of the trial was quicker
                return
            try:
                mode = os.stat(real).st_mode
            except FileNotFoundError:
                os.unlink(link)
                return
            made = os.path.join(self.making, next(self._names))
            if stat.S_ISDIR(mode):
                self._fill(made, real, only)
                exchange(made, link)
                os.unlink(made)
            elif stat.S_ISREG(mode):
                copy_file(real, made, content=content)
                os.replace(made, link)

    def _fill(self, folder: str, real: str, only: str | None = None) -> None:
        """Make `folder` hold a stand-in for each entry of `real`."""
        os.mkdir(folder)
        for name, target in self._entries(real, only):
            if name not in HIDDEN:
                stand_in = os.path.join(real, name) if target is None else self.retarget(target)
                os.symlink(stand_in, os.path.join(folder, name))

    def _entries(self, real: str, only: str | None) -> list[tuple[str, str | None]]:
        """Names in a folder, and where those that are links point to."""
        try:
            with os.scandir(real) as scan:
                entries = list(itertools.islice(scan, _MOST_ENTRIES + 1))
                found = [(e.name, os.readlink(e.path) if e.is_symlink() else None) for e in entries]
        except PermissionError:  # may be passed through, not listed
            found = [] if only is None else [(only, None)]
        if len(found) > _MOST_ENTRIES:
            if only is None:
                raise OSError(errno.EFBIG, f"it holds more than {_MOST_ENTRIES} entries", real)
            found = [(name, target) for name, target in found if name == only] or [(only, None)]
        return found

    def retarget(self, target: str) -> str:
        """Where a link of the user's points to in the view: relative ones hold there too."""
        if not os.path.isabs(target):
            return target
        inside = self.inside(os.path.normpath(target))
        return target if os.path.lexists(target) and not os.path.lexists(inside) else inside

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(os.path.join(self.making, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _parts(path: str) -> list[str]:
    """The components of a path, last first."""
    return [part for part in reversed(path.split(os.sep)) if part not in ("", os.curdir)]
