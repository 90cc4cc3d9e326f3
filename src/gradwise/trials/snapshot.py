"""What a folder held at one moment: cheap enough to take before each watched run, enough to tell what changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_ENTRIES = 100_000
# Not looked into: nothing a training script reads its state from, and often huge.
SKIPPED = frozenset({
    ".git", ".hg", ".svn", ".gradwise", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", "__pycache__",
    "node_modules", "site-packages",
})  # fmt: skip


class Entry(NamedTuple):
    """One file as `lstat` has it."""

    kind: int
    size: int
    mtime_ns: int
    inode: int


@dataclass(slots=True)
class Snapshot:
    """Files and folders below some roots by path. `opaque`: folders not looked into; `complete`: all was seen."""

    roots: tuple[str, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)
    complete: bool = True

    @classmethod
    def take(cls, roots: Iterable[str], most: int = MOST_ENTRIES) -> Snapshot:
        """Look at all below `roots` (real paths), upper folders first, until `most` entries are known."""
        found = cls(tuple(dict.fromkeys(roots)))
        level = [root for root in found.roots if os.path.isdir(root)]
        while level:
            below: list[str] = []
            for folder in level:
                if len(found.entries) >= most:
                    found.complete = False
                    found.opaque.add(folder)
                else:
                    below += found._look(folder)
            level = below
        return found

    def _look(self, folder: str) -> list[str]:
        folders = []
        try:
            with os.scandir(folder) as scan:
                for item in scan:
                    try:
                        seen = item.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    self.entries[item.path] = Entry(
                        stat.S_IFMT(seen.st_mode), seen.st_size, seen.st_mtime_ns, seen.st_ino
                    )
                    if item.is_dir(follow_symlinks=False):
                        if item.name in SKIPPED or os.path.exists(os.path.join(item.path, "pyvenv.cfg")):
                            self.opaque.add(item.path)
                        else:
                            folders.append(item.path)
        except OSError:
            self.opaque.add(folder)
        return folders

    def files(self) -> Iterator[tuple[str, Entry]]:
        """The regular files."""
        return ((path, entry) for path, entry in self.entries.items() if stat.S_ISREG(entry.kind))

    def folders(self) -> dict[str, int]:
        """How many entries each folder that was looked into has below it, at any depth."""
        counts = {p: 0 for p, e in self.entries.items() if stat.S_ISDIR(e.kind) and p not in self.opaque}
        for path in self.entries:
            above = os.path.dirname(path)
            while above in counts:
                counts[above] += 1
                above = os.path.dirname(above)
        return counts

    def __contains__(self, path: str) -> bool:
        return path in self.entries

    def covers(self, path: str) -> bool:
        """Whether `path`, had it existed, would be known here."""
        above = os.path.dirname(path)
        return (above in self.entries or above in self.roots) and above not in self.opaque


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one snapshot to a later one. A new folder stands for all that is in it."""

    created: frozenset[str]
    changed: frozenset[str]
    removed: frozenset[str]


def compare(before: Snapshot, after: Snapshot) -> Difference:
    """What changed; folders that only one of the two looked into are left out."""
    unseen = before.opaque | after.opaque
    created = {p for p in after.entries if p not in before.entries and not _below(p, unseen)}
    removed = {p for p in before.entries if p not in after.entries and not _below(p, unseen)}
    changed = {
        path
        for path, entry in before.entries.items()
        if (now := after.entries.get(path)) is not None and _differs(entry, now)
    }
    return Difference(
        created=frozenset(p for p in created if os.path.dirname(p) not in created),
        changed=frozenset(changed),
        removed=frozenset(p for p in removed if os.path.dirname(p) not in removed or _is_file(before, p)),
    )


def _below(path: str, folders: set[str]) -> bool:
    while path not in ("", os.sep):
        path = os.path.dirname(path)
        if path in folders:
            return True
    return False


def _is_file(snapshot: Snapshot, path: str) -> bool:
    return not stat.S_ISDIR(snapshot.entries[path].kind)


def _differs(before: Entry, now: Entry) -> bool:
    if stat.S_ISDIR(before.kind) and stat.S_ISDIR(now.kind):
        return False  # its entries tell
    return before != now


def open_elsewhere(roots: Iterable[str]) -> set[str]:
    """Files below `roots` that some process has open for writing now (a log that `tee` writes, say).

    They change during the run, but it isn't the script that changes them. Linux; elsewhere nothing is found.
    """
    prefixes = tuple(os.path.join(root, "") for root in roots)
    found = set()
    for pid in _listed("/proc"):
        if pid.isdigit():
            for descriptor in _listed(f"/proc/{pid}/fd"):
                try:
                    path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    if path.startswith(prefixes) and _for_writing(pid, descriptor):
                        found.add(path)
                except OSError:
                    continue
    return found


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _for_writing(pid: str, descriptor: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{descriptor}") as file:
        for line in file:
            if line.startswith("flags:"):
                return bool(int(line.split()[1], 8) & (os.O_WRONLY | os.O_RDWR))
    return False
