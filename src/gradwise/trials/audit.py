"""Inside the watched script: what it does to the world outside is noted, and old content is kept before it goes.

Trials run the script again in a copy of its folder *as it was before the watched run* (sandbox.py); the notes say
whether that is enough, the kept files make it possible. Nothing here changes what the script sees: it is an audit
hook, it swallows its own errors, and files are read only. Standard library only.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gradwise.trials import effects
from gradwise.trials.files import copy_file
from gradwise.trials.surroundings import caller, on_behalf_of, shared_places

Report = Callable[[str, dict[str, Any]], None]

_COARSE = 5  # CLOCK_REALTIME_COARSE, by which file systems set their times

KEPT_BYTES = 512 << 20  # of old content, in all
_MOST_NOTES = 20_000
_PLAIN = frozenset({effects.READ, effects.ENTER, effects.TREE})  # change nothing by themselves
_NEED_IT = frozenset({effects.REMOVE, effects.MOVE, effects.TOUCH})
_LAST_NAME = frozenset({effects.REMOVE, effects.MAKE})  # after these nobody can change the content any more
_KINDS = {effects.REMOVE: "remove", effects.MOVE: "remove", effects.TOUCH: "touch"}
_CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install_audit(
    report: Report, folder: str | None = None, *, limit: int = KEPT_BYTES, ignore: Sequence[str] = ()
) -> Audit:
    """Start noting what this process does to the world outside.

    Each thing is reported once, before it is done, as `report("effect", note)`. A note's "kind" is

    - "write", "remove" or "touch" (mode, times): "path" (real), "at" (before links were resolved), "relative"
      (whether the script named it relative to its working directory), "existed" (since before the script started),
      "kept" (the name in `folder` of a copy of the old content; None where there is none), "by" (the kind of
      library at work, see `on_behalf_of`)
    - "connect": "address", "by"; "program": "command" (a list), "known" (whether it is harmless), "by"
    - "input": the script asks its user; "more": the notes stop here.

    Args:
        report: called in the script's own threads; must be quick and must not raise.
        folder: where old content is kept; None keeps none.
        limit: most bytes to keep.
        ignore: path prefixes that are not the script's doing.
    """
    audit = Audit(report, folder, limit, (*shared_places(os.environ, [os.getcwd()]), *ignore))
    sys.addaudithook(audit.hook)
    return audit


class Audit:
    """The notes of one process; made by `install_audit`."""

    def __init__(self, report: Report, folder: str | None, limit: int, ignore: Sequence[str]) -> None:
        self.report = report
        self.folder = folder
        self.limit = limit
        self.ignore = tuple(ignore)
        self.pid = os.getpid()
        self.since = time.clock_gettime_ns(_COARSE)
        self.notes = 0
        self.kept_bytes = 0
        self._kept = 0
        self._seen: set[tuple[str, ...]] = set()
        self._existed: dict[str, bool] = {}  # path -> whether it did before the script started
        self._shared: set[tuple[int, int]] = set()  # old inodes with several names
        self._settled: set[str] = set()  # paths whose old content is kept, or can't be
        self._temporary: set[str] = set()
        self._lock = threading.RLock()
        self._busy = threading.local()
        self.hook = self._make_hook()

    def _make_hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        # A closure, since it is called for every audit event there is (each import, each `id(...)`).
        events, note, getpid, pid, busy = effects.EVENTS, self._note, os.getpid, self.pid, self._busy

        def hook(event: str, args: tuple[Any, ...]) -> None:
            try:
                if event not in events or (event == "open" and not args[2] & _CREATES):
                    return
                if getpid() != pid or getattr(busy, "on", False):
                    return
                busy.on = True
                try:
                    note(event, args)
                finally:
                    busy.on = False
            except Exception:
                pass

        return hook

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event in effects.FILES:
            with self._lock:  # whoever opens it next waits until its content is kept
                for effect in effects.file_effects(event, args):
                    self._file(effect)
        elif event in effects.TEMPORARY:
            self._temporary.add(effects.resolved(effects.absolute(args[0]), effects.MAKE))
        elif event in effects.CONNECTIONS:
            address = effects.foreign_address(event, args)
            if address is not None and self._first("connect", address):
                self._tell({"kind": "connect", "address": address, "by": on_behalf_of(caller())})
        elif event in effects.PROGRAMS:
            self._program(effects.command_of(event, args))
        elif self._first("input"):
            self._tell({"kind": "input"})

    def _program(self, command: list[str]) -> None:
        from gradwise.trials.programs import program_effects

        files = program_effects(command)
        with self._lock:
            for effect in files or ():
                self._file(effect)
        if files != [] and self._first("program", *command):
            self._tell({
                "kind": "program", "command": command[:50], "known": files is not None, "by": on_behalf_of(caller())
            })  # fmt: skip

    def _file(self, effect: effects.FileEffect) -> None:
        if effect.verb in _PLAIN:
            return
        at = effects.absolute(effect.path, effect.dir_fd)
        if not self._first(effect.verb, at):
            return
        path = effects.resolved(at, effect.verb)
        if (path + os.sep).startswith(self.ignore) or "/__pycache__" in path or self._is_temporary(path):
            return
        try:
            before = os.lstat(path)
        except OSError:
            before = None
        if before is None and effect.verb in _NEED_IT:
            return  # it will fail
        if before is not None and stat.S_ISDIR(before.st_mode):
            if effect.verb == effects.MOVE:
                self._folder_goes(effect, path, at)
            return  # an existing folder can't be written or made again, and one that is removed is empty
        self._tell_file(effect, path, at, before)

    def _tell_file(self, effect: effects.FileEffect, path: str, at: str, before: os.stat_result | None) -> None:
        name = effect.path if isinstance(effect.path, int) else os.fsdecode(effect.path)
        kept = None
        existed = self._existed.setdefault(path, before is not None and self._is_old(before))
        if effect.verb != effects.TOUCH and path not in self._settled:
            if existed and before is not None:
                kept = self._keep(path, before, effect.verb)
            self._settled.add(path)
        self._tell({
            "kind": _KINDS.get(effect.verb, "write"),
            "path": path,
            "at": os.path.normpath(at),
            "relative": isinstance(name, str) and not os.path.isabs(name),
            "existed": existed,
            "kept": kept,
            "by": on_behalf_of(caller()),
        })  # fmt: skip

    def _is_old(self, before: os.stat_result) -> bool:
        """Whether a file, seen for the first time, was there when the script started and is as it was."""
        inode = (before.st_dev, before.st_ino)
        old = before.st_ctime_ns < self.since or inode in self._shared
        if old and before.st_nlink > 1:  # what is done to one name shows in the change time of the other
            self._shared.add(inode)
        return old

    def _folder_goes(self, effect: effects.FileEffect, path: str, at: str) -> None:
        """Before a folder is renamed: keep all that is in it."""
        for parent, _, files in os.walk(path):
            for file in files:
                inside = os.path.join(parent, file)
                if not self._first(effects.MOVE, inside):
                    continue
                where = os.path.join(at, os.path.relpath(inside, path))
                self._tell_file(effect, inside, where, os.lstat(inside))
                if self.notes >= _MOST_NOTES:
                    return

    def _keep(self, path: str, before: os.stat_result, verb: str) -> str | None:
        """Keep the content of a file as it is now; the name it has in the folder, or None."""
        if self.folder is None:
            return None
        name = f"{self._kept:06d}"
        copy = os.path.join(self.folder, name)
        if stat.S_ISLNK(before.st_mode):
            os.symlink(os.readlink(path), copy)
        elif not stat.S_ISREG(before.st_mode):
            return None
        elif not (verb in _LAST_NAME and before.st_nlink == 1 and _link(path, copy)):
            if self.kept_bytes + before.st_size > self.limit:
                return None
            self.kept_bytes += before.st_size
            copy_file(path, copy)
        self._kept += 1
        return name

    def _is_temporary(self, path: str) -> bool:
        frame = caller()
        if frame is not None and frame.f_code.co_name == "_get_default_tempdir":
            return True  # `tempfile` tries out where it can write
        while self._temporary and path != os.sep:
            if path in self._temporary:
                return True
            path = os.path.dirname(path)
        return False

    def _first(self, *key: str) -> bool:
        if key in self._seen or len(self._seen) > 4 * _MOST_NOTES:
            return False
        self._seen.add(key)
        return True

    def _tell(self, note: dict[str, Any]) -> None:
        self.notes += 1
        if self.notes < _MOST_NOTES:
            self.report("effect", note)
        elif self.notes == _MOST_NOTES:
            self.report("effect", {"kind": "more"})


def _link(path: str, copy: str) -> bool:
    """Keep a file that is about to lose this name by a second name; not possible across file systems."""
    try:
        os.link(path, copy, follow_symlinks=False)
    except OSError:
        return False
    return True


def watch_torch_save(torch: Any) -> None:
    """Make `torch.save` raise the audit event "open" that its writer, being C++, leaves out.

    Args:
        torch: the module, imported just now.
    """
    try:
        writer = torch.serialization._open_zipfile_writer_file
        original = writer.__init__

        @functools.wraps(original)
        def init(self: Any, name: Any, *args: Any, **kwargs: Any) -> None:
            if str(name).isascii():  # other names are opened in Python
                _announce(name)
            original(self, name, *args, **kwargs)

        writer.__init__ = init
    except Exception:
        pass
    for owner, function in ((getattr(torch, "jit", None), "save"),):
        _announce_argument(owner, function, 1)


def watch_safetensors(safetensors: Any) -> None:
    """The same for safetensors, whose writer is Rust."""
    _announce_argument(safetensors, "serialize_file", 1)


def _announce(name: Any) -> None:
    sys.audit("open", os.fspath(name), "w", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _announce_argument(owner: Any, name: str, position: int) -> None:
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        file = args[position] if len(args) > position else kwargs.get("f", kwargs.get("filename"))
        if isinstance(file, str | os.PathLike):
            _announce(file)
        return original(*args, **kwargs)

    try:
        setattr(owner, name, call)
    except Exception:
        pass
