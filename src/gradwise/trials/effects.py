"""What an audit event of Python does to the world outside the process: one reading, for the audit and the guard.

Standard library only and light: it is imported inside the user's process before the script starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from gradwise.trials.surroundings import temporary_folders

# What a file effect does to its path.
READ = "read"  # opens it for reading
WRITE = "write"  # changes the content in place, or makes the file
REPLACE = "replace"  # throws the content away while opening
MAKE = "make"  # puts something new under the name
REMOVE = "remove"  # takes the name away, and mostly the content with it
MOVE = "move"  # takes the name away, the content lives on under another
TREE = "tree"  # is about to remove all that is below
TOUCH = "touch"  # changes mode, times, owner or attributes
ENTER = "enter"  # makes it the working directory

ON_NAME = frozenset({MAKE, REMOVE, MOVE})  # these don't follow a symbolic link at the end of the path


class FileEffect(NamedTuple):
    """One thing done to one path, given as the event has it: relative, bytes, PathLike, a descriptor."""

    verb: str
    path: Any
    dir_fd: int | None = None


_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _open(path: Any, _mode: Any, flags: int) -> tuple[FileEffect, ...]:
    if isinstance(path, int):  # a descriptor: whatever opened it was seen
        return ()
    if not flags & _CHANGES:
        return (FileEffect(READ, path),)
    return (FileEffect(REPLACE if flags & os.O_TRUNC else WRITE, path),)


def _sqlite(database: Any) -> tuple[FileEffect, ...]:
    name = os.fsdecode(database)
    if name.startswith("file:"):
        name, _, query = name[5:].partition("?")
        if "mode=memory" in query or "mode=ro" in query or "immutable=1" in query:
            return ()
        name = re.sub("^//(localhost)?(?=/)", "", name)
    if name in ("", ":memory:"):
        return ()
    return tuple(FileEffect(WRITE, name + end) for end in ("", "-wal", "-shm", "-journal"))


# event -> its effects. An `os.open` relative to a descriptor doesn't say so: such a path is read as relative to the
# working directory.
_FILES: dict[str, Callable[..., tuple[FileEffect, ...]]] = {
    "open": _open,
    "os.remove": lambda path, fd=-1: (FileEffect(REMOVE, path, fd),),
    "os.rmdir": lambda path, fd=-1: (FileEffect(REMOVE, path, fd),),
    "os.rename": lambda a, b, a_fd=-1, b_fd=-1: (FileEffect(MOVE, a, a_fd), FileEffect(MAKE, b, b_fd)),
    "os.mkdir": lambda path, mode=0, fd=-1: (FileEffect(MAKE, path, fd),),
    "os.symlink": lambda a, b, fd=-1: (FileEffect(MAKE, b, fd),),
    # A hard link shares its content with the original: who writes to the one writes to the other.
    "os.link": lambda a, b, a_fd=-1, b_fd=-1: (FileEffect(WRITE, a, a_fd), FileEffect(MAKE, b, b_fd)),
    "os.truncate": lambda path, length=0: (FileEffect(WRITE, path),),
    "os.chmod": lambda path, mode=0, fd=-1: (FileEffect(TOUCH, path, fd),),
    "os.chown": lambda path, uid=0, gid=0, fd=-1: (FileEffect(TOUCH, path, fd),),
    "os.utime": lambda path, times=None, ns=None, fd=-1: (FileEffect(TOUCH, path, fd),),
    "os.setxattr": lambda path, *rest: (FileEffect(TOUCH, path),),
    "os.removexattr": lambda path, *rest: (FileEffect(TOUCH, path),),
    "os.chdir": lambda path: (FileEffect(ENTER, path),),
    "shutil.rmtree": lambda path, fd=None: (FileEffect(TREE, path, fd),),
    "sqlite3.connect": _sqlite,
}

_PROGRAMS: dict[str, Callable[..., Any]] = {
    "subprocess.Popen": lambda executable, args, cwd=None, env=None: args,
    "os.system": lambda command: command,
    "os.exec": lambda path, args, env=None: args,
    "os.posix_spawn": lambda path, argv, env=None: argv,
    "os.spawn": lambda mode, path, args, env=None: args,
    "pty.spawn": lambda argv: argv,
    "webbrowser.open": lambda url: ["web browser", url],
}

FILES = frozenset(_FILES)
PROGRAMS = frozenset(_PROGRAMS)
CONNECTIONS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
INPUT = "builtins.input"
TEMPORARY = frozenset({"tempfile.mkstemp", "tempfile.mkdtemp"})
EVENTS = FILES | PROGRAMS | CONNECTIONS | TEMPORARY | {INPUT}


def file_effects(event: str, args: tuple[Any, ...]) -> tuple[FileEffect, ...]:
    """What a file event (one of `FILES`) is about to do.

    >>> file_effects("os.rename", ("a", "b", -1, -1))[0]
    FileEffect(verb='move', path='a', dir_fd=-1)
    """
    return _FILES[event](*args)


def absolute(path: Any, dir_fd: int | None = None) -> str:
    """The path an effect is about, absolute, links and ".." unresolved.

    Raises:
        OSError: where the working directory or the descriptor is gone.
        TypeError: where it is no path at all.
    """
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)
    if os.path.isabs(name):
        return name
    base = os.getcwd() if dir_fd is None or dir_fd < 0 else os.readlink(f"/proc/self/fd/{dir_fd}")
    return os.path.join(base, name)


def resolved(path: str, verb: str) -> str:
    """The real path that an effect with this verb changes."""
    if verb in ON_NAME:
        head, tail = os.path.split(path.rstrip(os.sep) or os.sep)
        if tail not in (os.curdir, os.pardir, ""):
            return os.path.join(os.path.realpath(head), tail)
    return os.path.realpath(path)


def command_of(event: str, args: tuple[Any, ...]) -> list[str]:
    """The command line a program event (one of `PROGRAMS`) starts; a shell command as `["sh", "-c", command]`."""
    command = _PROGRAMS[event](*args)
    if event == "os.system" or isinstance(command, str | bytes):
        return ["sh", "-c", os.fsdecode(command)]
    return [os.fsdecode(part) for part in command]


def foreign_address(event: str, args: tuple[Any, ...]) -> str | None:
    """Where a connection (one of `CONNECTIONS`) leads, in words; None where it stays among the script's processes.

    Loopback ports of the ephemeral range and sockets in temporary folders are how workers talk to each other; a
    fixed port on this machine is a service (a database, a tracking server) that remembers what it is told.
    """
    from socket import AF_INET, AF_INET6, SOCK_DGRAM  # loaded already: there is a socket

    sock, address = args[0], args[1] if len(args) > 1 else None
    if event == "socket.connect" and sock.type & 0xF == SOCK_DGRAM:
        return None  # sends nothing: the usual way to learn one's own address
    if isinstance(address, str | bytes):
        path = os.fsdecode(address)
        local = path[:1] in ("", "\0") or not os.path.isabs(path) or path.startswith(temporary_folders())
        return None if local else f"the local service at {path}"
    if not isinstance(address, tuple) or len(address) < 2 or sock.family not in (AF_INET, AF_INET6):
        return None
    host = os.fsdecode(address[0]) if isinstance(address[0], bytes) else str(address[0])
    port = address[1]
    if host in ("localhost", "::1") or host.startswith("127."):
        return None if isinstance(port, int) and port >= _ephemeral() else f"the local service at {host}:{port}"
    return f"{host}:{port}"


def _ephemeral() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError):
        return 32768
