"""Copying, swapping and removing files, also for code inside the user's process: standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

_CHUNK = 1 << 24
_EXCHANGE = 2  # RENAME_EXCHANGE
_IN_USE = "in use"
# The folder of one run: what its process tells, and is told.
RUN = "gradwise-run-"


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


def hold(folder: str) -> int:
    """Take the lock that says a folder is in use: a descriptor, to be closed; the lock goes with the process.

    Raises:
        OSError: where another process holds it.
    """
    lock = os.open(os.path.join(folder, _IN_USE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def sweep(folder: str, prefixes: tuple[str, ...]) -> None:
    """Remove the folders in `folder` with such a name that were held by a process which is gone."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(prefixes) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == os.getuid() and os.path.exists(os.path.join(entry.path, _IN_USE)):
                        lock = hold(entry.path)
                        remove_tree(entry.path)
                        os.close(lock)
