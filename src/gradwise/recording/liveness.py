"""Whether the process that writes a recording still lives, decided by whoever reads it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SILENCE = 60.0
"""Seconds without a sign of life after which a writer on another machine counts as gone."""


def this_process() -> dict[str, Any]:
    """What identifies this process: machine (and process namespace, for containers), number, start."""
    return {"machine": _machine(), "pid": os.getpid(), "start": _start(os.getpid())}


def alive(writer: Mapping[str, Any], silent: float) -> bool:
    """Whether a process that `this_process` described, silent for so many seconds, still lives."""
    if writer.get("machine") != _machine():
        return silent < SILENCE
    pid = int(writer["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return _start(pid) == writer.get("start")


def _machine() -> str:
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def _start(pid: int) -> str | None:
    """When a process started, in ticks since boot; "dead" for a zombie, None where the system doesn't say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else fields[19]
