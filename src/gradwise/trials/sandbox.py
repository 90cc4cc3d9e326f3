"""The supervisor's side of isolation: the folder as it was before the watched run, fresh for each trial.

    with Workspace.before(cwd, script, argv) as workspace:
        ...                                  # the watched run, its audit's notes go to workspace.note(...)
        workspace.after()
        if workspace.isolation().possible:
            with workspace.scratch() as scratch:
                ...                          # a trial in scratch.cwd, with scratch.environment, scratch.guard()

A scratch is a view (view.py) in which files that the watched run made don't exist and files that it changed have
their old content: else a trial would resume from the checkpoint of the run it is to be compared with.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from gradwise.trials.files import RUN, copy_file, hold, remove_tree, sweep
from gradwise.trials.programs import describe
from gradwise.trials.scratch import MOST_COPIES, NOT_MOVED, SMALL, Origin, Scratch, holds, inside, paths_in
from gradwise.trials.snapshot import Entry, Snapshot, compare, open_elsewhere
from gradwise.trials.surroundings import temporary_folders

_SCRATCH, _KEPT = "gradwise-trial-", "gradwise-kept-"
# People go on editing while a run lasts; trials take the code and settings it started with.
_CODE = (".py", ".yaml", ".yml", ".toml", ".json", ".ini", ".cfg", ".sh", ".txt", ".ipynb")
_PROJECT = (".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether a trial can be kept from touching anything of the user's; `reasons` say what stands against it."""

    possible: bool
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.reasons)


class Workspace:
    """The surroundings of one watched run; make it with `Workspace.before`."""

    def __init__(self, cwd: str, script: str | None, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.cwd = os.path.realpath(cwd)
        self.script = script
        self.argv = tuple(argv)
        self.env = dict(env)
        folders = [self.cwd] if script is None else [self.cwd, _folder_of(os.path.join(self.cwd, script))]
        self.roots = tuple(r for r in dict.fromkeys(folders) if not inside(r, [f for f in folders if f != r]))
        self.folder = tempfile.mkdtemp(prefix=_KEPT)
        self._lock: int | None = hold(self.folder)
        self.notes: list[Mapping[str, Any]] = []
        self.snapshot = Snapshot()
        self.created: set[str] = set()
        self.restored: dict[str, str] = {}
        self.lost: set[str] = set()
        self.changed: set[str] = set()
        self._elsewhere: set[str] = set()
        self._code: dict[str, str] = {}

    @classmethod
    def before(
        cls, cwd: str, script: str | None = None, argv: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Workspace:
        """Look at the folders a script starts in, right before it starts.

        Args:
            cwd: its working directory.
            script: its path (relative to `cwd` or absolute); None for `-m module`.
            argv: its arguments: paths among them say where it may write.
            env: its environment; this process' by default.

        Raises:
            OSError: where there is no room for what has to be kept.
        """
        sweep(tempfile.gettempdir(), (_SCRATCH, _KEPT, RUN))
        workspace = cls(cwd, script, argv, os.environ if env is None else env)
        workspace.snapshot = Snapshot.take(workspace.roots)
        workspace._elsewhere = open_elsewhere(workspace.roots)
        workspace._keep_code()
        return workspace

    def audit(self) -> dict[str, Any]:
        """The keyword arguments for `install_audit` in the watched script (JSON)."""
        kept = os.path.join(self.folder, "kept")
        os.makedirs(kept, exist_ok=True)
        return {"folder": kept, "ignore": [os.path.join(self.folder, "")]}

    def note(self, note: Mapping[str, Any]) -> None:
        """Take one note of the audit ("effect" message)."""
        self.notes.append(note)

    def after(self) -> None:
        """Look again, right after the watched run, and settle what it made, changed and removed."""
        difference = compare(self.snapshot, Snapshot.take(self.roots))
        notes = list(self._files())
        fetched = {note["path"] for note in notes if note.get("by") == "fetch"}
        kept = {note["path"]: self._kept(note["kept"]) for note in notes if note.get("kept") is not None}
        # Where the snapshots look they know better than the notes, which are of what was about to be done.
        noted = {n["path"]: n for n in notes if n["kind"] != "touch" and not self.snapshot.covers(n["path"])}
        self.created = {p for p in difference.created if not holds(p, fetched)}
        self.created |= {p for p, note in noted.items() if not note["existed"] and p not in fetched}
        self.restored, self.lost = {}, set()
        for path, note in noted.items():
            # What moved into a new folder was old already, but not there.
            if note["existed"] and path not in fetched and not inside(os.path.dirname(path), self.created):
                self._restore_from(path, kept.get(path))
        for path in (difference.changed | difference.removed) - fetched - self._elsewhere - self._only_touched():
            entry = self.snapshot.entries[path]
            copy = kept.get(path)
            if stat.S_ISDIR(entry.kind):
                self.restored[path] = ""
            else:
                self._restore_from(path, copy if copy and _same(copy, entry) else self._code.get(path))
        self.changed = self.created | self.lost | set(self.restored)
        for path, copy in self._code.items():  # also what is edited only while the trials run
            self.restored.setdefault(path, copy)

    def _restore_from(self, path: str, copy: str | None) -> None:
        if copy is None:
            self.lost.add(path)
        else:
            self.restored[path] = copy

    def _only_touched(self) -> set[str]:
        """Files of which only the mode or the times were changed."""
        kinds: dict[str, set[str]] = {}
        for note in self._files():
            kinds.setdefault(note["path"], set()).add(note["kind"])
        return {path for path, found in kinds.items() if found == {"touch"}}

    def isolation(self) -> Isolation:
        """Whether trials can be isolated, judged by what the watched run did; the guard has the last word."""
        outside: list[str] = []
        reasons: list[str] = []
        for note in self.notes:
            kind, by = note.get("kind"), note.get("by", "")
            if kind in ("write", "remove", "touch") and by != "fetch" and not self._mirrored(note):
                outside.append(note["path"])
            elif kind == "connect" and not by:
                reasons.append(f"it connects to {note['address']}")
            elif kind == "program" and not note["known"] and by not in ("tracker", "compiler"):
                reasons.append(f"it starts another program: {describe(note['command'])}")
            elif kind == "input":
                reasons.append("it asks its user for input")
            elif kind == "more":
                reasons.append("it changes too many files to keep track of")
        if outside:
            reasons.insert(0, f"it writes outside its folder: {_listed(outside)}")
        if self.lost:
            reasons.append(f"the former content of files it changed could not be kept: {_listed(sorted(self.lost))}")
        reasons = list(dict.fromkeys(reasons))
        return Isolation(not reasons, tuple(reasons))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """A fresh copy of the surroundings for one trial, removed afterwards whatever happens.

        Raises:
            OSError: where it can't be made (no space, no permission).
        """
        top, lock = self._make_top()
        try:
            scratch = Scratch(self._origin(), top)
            scratch.build()
            yield scratch
        finally:
            remove_tree(top)
            os.close(lock)

    def _origin(self) -> Origin:
        return Origin(
            cwd=self.cwd,
            script=self.script,
            argv=self.argv,
            env=self.env,
            roots=self.roots,
            snapshot=self.snapshot,
            created=self.created,
            restored=self.restored,
            changed=self.changed,
            touched=self.created | set(self.restored) | {note["at"] for note in self._files()},
        )

    def _make_top(self) -> tuple[str, int]:
        """A folder for a scratch, and the lock that says it is in use.

        Trials of one script find themselves in the same place again, as far as they don't run at once: torch.compile
        keeps what it made by, among other things, the path of the source.
        """
        what = "\0".join([*self.roots, str(os.getuid())])
        name = _SCRATCH + hashlib.sha256(os.fsencode(what)).hexdigest()[:10]
        folder = os.path.realpath(tempfile.gettempdir())
        for number in itertools.count():
            top = os.path.join(folder, f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                os.mkdir(top, 0o700)
                return top, hold(top)
        raise AssertionError  # never: there is always a next number

    def close(self) -> None:
        """Forget what was kept."""
        remove_tree(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _files(self) -> Iterator[Mapping[str, Any]]:
        return (note for note in self.notes if note.get("kind") in ("write", "remove", "touch"))

    def _kept(self, name: str) -> str:
        return os.path.join(self.folder, "kept", name)

    def _keep_code(self) -> None:
        """Copy code and settings before the run, which may last for days."""
        os.makedirs(os.path.join(self.folder, "code"))
        small = [p for p, e in self.snapshot.files() if e.size <= SMALL and p.endswith(_CODE)]
        small.sort(key=lambda p: (not p.endswith(".py"), p.count(os.sep)))
        for number, path in enumerate(small[:MOST_COPIES]):
            copy = os.path.join(self.folder, "code", str(number))
            try:
                copy_file(path, copy)
            except OSError:
                continue
            self._code[path] = copy

    def _mirrored(self, note: Mapping[str, Any]) -> bool:
        """Whether the same write would, in a trial, most likely end in its scratch.

        It does where the script names the path relative to its working directory, or in an argument, or as a
        neighbour of its own file (the project it lies in), or asks for the folder for temporary files.
        """
        at = note["at"]
        return (
            bool(note["relative"])
            or inside(at, [*self.roots, *self._projects(), *self._named()])
            or at.startswith(temporary_folders())
        )

    def _projects(self) -> list[str]:
        """The projects the working directory and the script belong to."""
        found = []
        home = os.path.realpath(os.path.expanduser("~"))
        for root in self.roots:
            folder = root
            while folder not in (os.sep, home):
                if any(os.path.exists(os.path.join(folder, mark)) for mark in _PROJECT):
                    found.append(folder)
                    break
                folder = os.path.dirname(folder)
        return found

    def _named(self) -> list[str]:
        """Absolute paths among the arguments and in the environment, which a trial is given changed."""
        values = [part for word in self.argv for part in paths_in(word)] + [
            value for name, value in self.env.items() if os.path.isabs(value) and name not in NOT_MOVED
        ]
        return [os.path.normpath(value) for value in values if os.path.normpath(value) != os.sep]


def _folder_of(script: str) -> str:
    """The folder Python takes as `sys.path[0]`: of a link, that of what it points to."""
    real = os.path.realpath(script)
    return real if os.path.isdir(real) else os.path.dirname(real)


def _same(copy: str, entry: Entry) -> bool:
    try:
        kept = os.lstat(copy)
    except OSError:
        return False
    if stat.S_ISLNK(entry.kind):
        return stat.S_ISLNK(kept.st_mode)
    return stat.S_ISREG(entry.kind) and kept.st_size == entry.size and kept.st_mtime_ns == entry.mtime_ns


def _listed(paths: Sequence[str]) -> str:
    unique = list(dict.fromkeys(paths))
    more = f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return ", ".join(unique[:_SHOWN]) + more
