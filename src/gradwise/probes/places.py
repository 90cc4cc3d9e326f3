"""Which line of the user's source is running: the innermost frame that is neither torch's, Python's nor ours."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
from dataclasses import asdict
from types import CodeType, FrameType
from typing import Any

from gradwise.recording.recording import Place

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple(
    {
        os.path.join(form, "")
        for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
        if path
        for form in (path, os.path.realpath(path))
    }
)
_MARKS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_kinds: dict[str, int] = {}
_BACKWARD = re.compile(r"\b(?:backward|scale)\((\w+)\)|\b(\w+)\.backward\(")
# Lines above a call in which what it is about is looked for.
_ABOVE = 60
_USER, _PACKAGE, _INSIDE = 2, 1, 0


def _kind(name: str) -> int:
    """0 for files of Python, torch and gradwise themselves, 1 for other installed packages, 2 for the user's own."""
    kind = _kinds.get(name)
    if kind is None:
        if name.startswith((_OURS, "<frozen", "<string>", "<torch", "<eval_with_key")):
            kind = _INSIDE
        elif any(mark in name for mark in _MARKS):
            after = next(name.split(mark, 1)[1] for mark in _MARKS if mark in name)
            kind = _INSIDE if after.split(os.sep, 1)[0] == "torch" else _PACKAGE
        else:
            kind = _INSIDE if name.startswith((*_LIBRARY, _torch())) else _USER
        _kinds[name] = kind
    return kind


def _torch() -> str:
    """Where torch lies (a build of one's own need not lie in site-packages)."""
    file = getattr(sys.modules.get("torch"), "__file__", None)
    return os.path.join(os.path.dirname(file), "") if file else _OURS


def user_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame from `frame` outwards in the user's own files, else in a package that isn't torch."""
    package = None
    while frame is not None:
        kind = _kind(frame.f_code.co_filename)
        if kind == _USER:
            return frame
        if kind == _PACKAGE and package is None:
            package = frame
        frame = frame.f_back
    return package


def is_users(file: str) -> bool:
    """Whether a source file is the user's own."""
    return _kind(file) == _USER


def here() -> Place | None:
    """The user's line that led to the caller."""
    frame = user_frame(sys._getframe(1))
    return None if frame is None else place_of(frame)


def assigned() -> Place | None:
    """Where the loss that is differentiated by the user's line was computed, as far as its text tells; else that line.

    A tensor doesn't know the line that made it. `loss.backward()` says what it is called, and the nearest line above
    that assigns to this name in the same function is where it was made.
    """
    frame = user_frame(sys._getframe(1))
    if frame is None:
        return None
    code, line = frame.f_code, frame.f_lineno
    called = _BACKWARD.search(linecache.getline(code.co_filename, line))
    if called is not None:
        assignment = re.compile(rf"^\s*{called[1] or called[2]}\s*(:[^=]*)?=[^=]")
        for above in range(line - 1, max(code.co_firstlineno, line - _ABOVE) - 1, -1):
            if assignment.match(linecache.getline(code.co_filename, above)):
                return place(code, above)
    return place(code, line)


def callers(levels: int = 3) -> list[FrameType]:
    """The innermost `levels` user frames, which tell one call path from another."""
    found: list[FrameType] = []
    frame = user_frame(sys._getframe(1))
    while frame is not None and len(found) < levels:
        if not found or _kind(frame.f_code.co_filename) == _USER:
            found.append(frame)
        frame = frame.f_back
    return found


def place(code: CodeType, line: int) -> Place:
    """A `Place` with its file as the user would write it: relative to the working directory if inside it."""
    path = code.co_filename
    text = linecache.getline(path, line).strip()
    name = getattr(code, "co_qualname", code.co_name)
    return Place(shown(path), line, "" if name == "<module>" else name, text[:200])


def shown(path: str) -> str:
    """A file as the user would write it."""
    if not os.path.isabs(path):
        return path
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return path
    return path if relative.startswith(os.pardir) else relative


def place_of(frame: FrameType) -> Place:
    """The place at which a frame stands."""
    return place(frame.f_code, frame.f_lineno)


def described(place: Place | None) -> dict[str, Any] | None:
    """A place as JSON, for an event's data."""
    return None if place is None else asdict(place)
