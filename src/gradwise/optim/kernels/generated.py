"""Kernels as source files in the user's cache folder, one for each rule, driver and number type.

Compilers cache by file; what a closure or a global holds is no part of their key, so two rules made from one file
would get each other's code. The name of each file is a hash of all that is in it and of what compiles it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType


def folder() -> Path:
    """Where kernels are kept: `GRADWISE_CACHE`, else `gradwise/` in the user's cache folder."""
    home = os.environ.get("GRADWISE_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradwise"
    return base / "kernels"


def load(name: str, text: str, *versions: str) -> ModuleType:
    """The module of this source: from the cache, else written there first (or to a temporary folder)."""
    key = hashlib.sha256("\0".join((text, sys.version, *versions)).encode()).hexdigest()[:16]
    module = f"gradwise_{name}_{key}"
    if module in sys.modules:
        return sys.modules[module]
    path = _written(f"{module}.py", text)
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[module]
        raise
    return made


def _written(name: str, text: str) -> Path:
    try:
        return _write(folder(), name, text)
    except OSError:  # read-only or full: compiled anew by each process then
        return _write(Path(tempfile.gettempdir()) / f"gradwise-kernels-{os.getuid()}", name, text)


def _write(where: Path, name: str, text: str) -> Path:
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    if where.stat().st_uid != os.getuid():
        raise PermissionError(f"{where} belongs to another user: what lies there would be run")
    path = where / name
    if not path.exists() or path.read_text("utf-8") != text:
        handle, scratch = tempfile.mkstemp(dir=where, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)  # another process never sees half of it
    return path
