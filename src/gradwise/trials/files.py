"""Copying and swapping files, for code that runs inside the user's process as well: standard library only."""

from __future__ import annotations

import os
import stat

_CHUNK = 1 << 24
_EXCHANGE = 2  # RENAME_EXCHANGE


def copy_file(source: str, target: str, *, content: bool = True) -> None:
    """Make `target`, which must not exist, a copy of a regular file, with its mode and times.

    Args:
        source: the file; a symbolic link is followed.
        target: the copy; its owner can always write it.
        content: False makes it empty (what is opened for overwriting needs no content).

    Raises:
        OSError: as the system gives it; nothing is left under `target` then.
    """
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        before = os.fstat(reading)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while content and _transfer(writing, reading):
                pass
            os.fchmod(writing, stat.S_IMODE(before.st_mode) | stat.S_IWUSR)
        except BaseException:
            os.unlink(target)
            raise
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


def _transfer(writing: int, reading: int) -> int:
    try:
        return os.sendfile(writing, reading, None, _CHUNK)
    except OSError:  # not between these file systems
        data = os.read(reading, _CHUNK)
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
        return len(data)


def exchange(a: str, b: str) -> None:
    """Swap two names at once, so that nobody sees either missing; one after the other where the system can't."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        here = -100  # AT_FDCWD
        if libc.renameat2(here, os.fsencode(a), here, os.fsencode(b), _EXCHANGE) == 0:
            return
    except (ImportError, OSError, AttributeError):
        pass
    aside = b + ".aside"
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)


def remove_tree(path: str) -> None:
    """Remove a folder and all in it, also where modes forbid; symbolic links are removed, never followed."""
    if os.path.islink(path) or not os.path.isdir(path):
        try:
            os.unlink(path)
        except OSError:
            pass
        return
    try:
        os.chmod(path, 0o700)  # a real folder, so this follows no link
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            try:
                os.unlink(entry.path)
            except OSError:
                pass
    try:
        os.rmdir(path)
    except OSError:
        pass
