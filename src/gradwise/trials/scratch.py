"""One trial's copy of a script's surroundings, as they were before the watched run (see sandbox.py)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradwise.trials import effects
from gradwise.trials.environment import compiled_kernels, trial_environment
from gradwise.trials.files import copy_file, remove_tree
from gradwise.trials.snapshot import Snapshot
from gradwise.trials.surroundings import shared_places
from gradwise.trials.view import View

SMALL = 1 << 20  # bytes
MOST_COPIES = 1000
_MOST_REAL_ENTRIES = 20_000  # links made per trial at most; whole folders beyond that are one link

# Lists of places to look things up in, not to write to; and what `trial_environment` sees to itself.
NOT_MOVED = frozenset({
    "CONDA_EXE", "CONDA_PREFIX", "HOME", "LD_LIBRARY_PATH", "OLDPWD", "PATH", "PWD", "PYENV_ROOT", "PYTHONHOME",
    "SHELL", "TEMP", "TMP", "TMPDIR", "VIRTUAL_ENV", "_",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """What a trial starts from. Paths are real and absolute, but for `script`, which is as the user gave it.

    Args:
        cwd, script, argv, env: how the script was run.
        roots: the folders that are its own.
        snapshot: what these held before.
        created: what the watched run made: it is left out.
        restored: path -> copy of its former content; "" for a folder.
        changed: all paths that are not as they were.
        touched: all paths that the watched run did something to, as it named them.
    """

    cwd: str
    script: str | None
    argv: Sequence[str]
    env: Mapping[str, str]
    roots: Sequence[str]
    snapshot: Snapshot
    created: Iterable[str] = ()
    restored: Mapping[str, str] = field(default_factory=dict)
    changed: Iterable[str] = ()
    touched: Iterable[str] = ()


class Scratch:
    """One trial's copy of the surroundings: `cwd`, `script` and `argv` to run, `environment` to run them in."""

    def __init__(self, origin: Origin, top: str) -> None:
        self.origin = origin
        self.top = top
        self.temporary = os.path.join(top, "tmp")
        self.base = os.path.join(top, "root")
        self.making = os.path.join(top, "making")
        self._log = os.path.join(top, "violations")
        self.cwd = self._moved(origin.cwd)
        self.script = None if origin.script is None else self.map(origin.script)
        self.argv = tuple(self.map_word(word) for word in origin.argv)
        self.environment = self._environment()

    def map(self, path: str) -> str:
        """Where a path is found in the scratch; relative ones are the same there.

        Only what belongs to the run is moved: its folders, and what it wrote. All else is left where it is.
        """
        if not os.path.isabs(path):
            return path
        plain = os.path.normpath(path)
        own = inside(plain, self.origin.roots) or inside(os.path.realpath(plain), self.origin.roots)
        return self._moved(path) if own or holds(plain, self.origin.touched) else path

    def map_word(self, word: str) -> str:
        """An argument with the paths in it mapped: `/a/b`, `--out=/a/b`.

        >>> paths_in("--out=/a/b"), paths_in("3e-4")
        (['/a/b'], [])
        """
        for path in paths_in(word):
            word = word[: len(word) - len(path)] + self.map(path)
        return word

    def guard(self) -> dict[str, Any]:
        """The orders for `install_guard` in the trial (JSON)."""
        keep = [*self.origin.roots, self.top]
        shared = [p for p in shared_places(self.environment, keep) if not p.startswith(self.top)]
        return {
            "top": self.top,
            "base": self.base,
            "making": self.making,
            "log": self._log,
            "allowed": shared,
            "changed": sorted(self.origin.changed),
        }

    def violation(self) -> str | None:
        """The first thing the guard had to stop, in words that complete "the script …"; None where all went well."""
        try:
            with open(self._log, encoding="utf-8") as file:
                return file.readline().strip() or None
        except OSError:
            return None

    def build(self) -> None:
        """Make the view; called once."""
        os.makedirs(self.temporary)
        kernels = compiled_kernels(self.origin.env)
        if os.path.isdir(kernels):
            os.symlink(kernels, os.path.join(self.temporary, os.path.basename(kernels)))
        view = View.make(self.base, self.making)
        for root in self.origin.roots:
            view.claim(view.inside(root), effects.TREE, sparse=True)
        for folder in self._real_folders():
            view.claim(view.inside(folder), effects.TREE)
        for path in self.origin.created:
            self._forget(view, path)
        for path, copy in self.origin.restored.items():
            self._restore(view, path, copy)
        for path in self._small_files():
            view.claim(view.inside(path), effects.WRITE)

    def _moved(self, path: str) -> str:
        return self.base + os.path.normpath(path)

    def _environment(self) -> dict[str, str]:
        env = trial_environment(self.origin.env, self.temporary)
        for name, value in self.origin.env.items():
            if os.path.isabs(value) and name in env and name not in NOT_MOVED and env[name] == value:
                env[name] = os.pathsep.join(self.map(part) for part in value.split(os.pathsep))
        env["PWD"] = self.cwd
        return env

    def _real_folders(self) -> list[str]:
        """Folders to show as real ones, since `rglob`, `os.walk` and the like don't follow links.

        Smaller trees first; what is too big, unless there is code in it, stays one link as high up as can be, where
        whoever starts at it or above with a name still finds everything.
        """
        snapshot = self.origin.snapshot
        counts = snapshot.folders()
        children: dict[str, list[str]] = {}
        for folder in counts:
            children.setdefault(os.path.dirname(folder), []).append(folder)
        with_code = _ancestors(path for path, _ in snapshot.files() if path.endswith(".py"))
        left = _MOST_REAL_ENTRIES
        chosen: list[str] = []
        open_ended = list(self.origin.roots)
        while open_ended:
            for folder in sorted(children.get(open_ended.pop(0), ()), key=counts.__getitem__):
                if counts[folder] <= left:
                    left -= counts[folder]
                    chosen += _with_all_below(folder, children)
                elif folder in with_code:
                    chosen.append(folder)
                    open_ended.append(folder)
        return [folder for folder in chosen if os.path.isdir(folder)]

    def _small_files(self) -> list[str]:
        """Files to copy right away: code, so that `__file__` leads into the scratch, then whatever is small."""
        known = self.origin.restored
        small = [
            path
            for path, entry in self.origin.snapshot.files()
            if entry.size <= SMALL and path not in known and os.path.isfile(path)
        ]
        small.sort(key=lambda p: (not p.endswith(".py"), p.count(os.sep)))
        return small[: max(0, MOST_COPIES - len(known))]

    def _forget(self, view: View, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            remove_tree(view.claim(view.inside(path), effects.REMOVE))

    def _restore(self, view: View, path: str, copy: str) -> None:
        at = view.claim(view.inside(path), effects.MAKE, sparse=True)
        os.makedirs(os.path.dirname(at) if copy else at, exist_ok=True)
        if not copy:
            return
        if os.path.lexists(at):
            remove_tree(at)
        if os.path.islink(copy):
            os.symlink(view.retarget(os.readlink(copy)), at)
        else:
            copy_file(copy, at)


def _with_all_below(folder: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    found = [folder]
    for each in found:  # grows meanwhile
        found += children.get(each, ())
    return found


def _ancestors(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        while (path := os.path.dirname(path)) not in found and path != os.sep:
            found.add(path)
    return found


def inside(path: str, folders: Iterable[str]) -> bool:
    """Whether `path` is one of `folders` or lies below one."""
    return any(path == folder or path.startswith(os.path.join(folder, "")) for folder in folders)


def holds(path: str, others: Iterable[str]) -> bool:
    """Whether one of `others` is `path` or lies below it."""
    below = os.path.join(path, "")
    return any(other == path or other.startswith(below) for other in others)


def paths_in(word: str) -> list[str]:
    """The absolute path an argument is or ends with."""
    if os.path.isabs(word):
        return [word]
    value = word.partition("=")[2]
    return [value] if os.path.isabs(value) else []
