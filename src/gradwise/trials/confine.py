"""The kernel's own guard: Landlock, which lets a process and all its children write only below given folders.

It catches what no audit event tells of: writes from C, from helper programs, from spawned workers. Linux 5.19 and
later, no privileges needed; elsewhere `confine_writes` does nothing and says so. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_FILE = 1 << 1  # write to a file
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE = sum(1 << bit for bit in range(6, 13))  # devices, folders, files, sockets, pipes, links
_REFER = 1 << 13  # move between folders; without it (version 1) moving would fail altogether
_TRUNCATE = 1 << 14  # version 3
_MOST_BASIC = 2


def confine_writes(folders: Iterable[str]) -> bool:
    """Let this thread, and all it will start, write only below `folders`; whether the kernel took it on.

    Call it early: threads that run already are not bound. It can't be taken back. What is open stays open.
    """
    try:
        return _confine(folders)
    except (OSError, AttributeError):
        return False


def _confine(folders: Iterable[str]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(number: int, *args: object) -> int:
        result = libc.syscall(ctypes.c_long(number), *args)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(result)

    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    if version < _MOST_BASIC:
        return False
    for_files = _FILE | (_TRUNCATE if version >= 3 else 0)
    everything = for_files | _REMOVE_DIR | _REMOVE_FILE | _MAKE | _REFER
    handled = struct.pack("=Q", everything)
    rules = call(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0))
    try:
        for folder in folders:
            try:
                below = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                rights = everything if os.path.isdir(folder) else for_files
                rule = struct.pack("=Qi", rights, below)
                call(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
            finally:
                os.close(below)
        if libc.prctl(_NO_NEW_PRIVILEGES, *(ctypes.c_ulong(v) for v in (1, 0, 0, 0))) != 0:
            return False
        call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    return True
