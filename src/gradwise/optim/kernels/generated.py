"""Machine code of generated kernels, kept in the user's cache folder.

A kernel is the text of a module with C callbacks. Numba compiles it once; the object code goes to disk under a hash of
the text and of all that decides what comes out of it, so that two rules, or one that was edited, never get each other's
code. From there LLVM loads it in a few hundredths of a second, without importing Numba.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# What object code may call: these are in every process that runs Python.
_LIBM = {f + kind for f in ("exp", "log", "pow", "sqrt", "fmod", "fma") for kind in ("", "f")}
_MAGIC = b"gradwise kernel 1\n"
_kept: list[Any] = []


def cache_folder() -> Path:
    """What can be made again is kept here: `GRADWISE_CACHE`, else `gradwise/` in the user's cache folder."""
    home = os.environ.get("GRADWISE_CACHE")
    return Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradwise"


def folder() -> Path:
    """Where kernels are kept."""
    return cache_folder() / "kernels"


@cache
def addresses(name: str, text: str, entries: tuple[str, ...]) -> Mapping[str, int]:
    """Where the callbacks `entries` of a module of this text lie in memory, once it is compiled or loaded."""
    key = hashlib.sha256("\0".join((text, *_surroundings())).encode()).hexdigest()[:20]
    path = folder() / f"{name}-{key}.kernel"
    symbols, code = _read(path)
    if not code:
        symbols, code, found = _compile(name, text, entries)
        if code:
            _write(path, symbols, code)
        return found
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(binding))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return {entry: int(engine.get_function_address(symbols[entry])) for entry in entries}


def _compile(name: str, text: str, entries: Sequence[str]) -> tuple[dict[str, str], bytes, dict[str, int]]:
    """Names of the entries in the object code, that code (empty if it can't stand alone), and their addresses."""
    namespace: dict[str, Any] = {"__name__": f"gradwise_{name}"}
    exec(compile(text, f"<kernel {name}>", "exec"), namespace)  # generated from the rule's source
    made = {entry: namespace[entry] for entry in entries}
    _kept.append(made)
    found = {entry: int(callback.address) for entry, callback in made.items()}
    try:
        libraries = [callback._library for callback in made.values()]
        if len(libraries) > 1 or not all(map(_alone, libraries)):
            return {}, b"", found
        return {e: c._wrapper_name for e, c in made.items()}, libraries[0]._get_compiled_object(), found
    except AttributeError:  # a Numba that keeps these things elsewhere: compiled by each process
        return {}, b"", found


def _alone(library: Any) -> bool:
    """Whether its code calls nothing but what is in every process."""
    called = (f.name for f in library._final_module.functions if f.is_declaration)
    return all(f.startswith("llvm.") or f in _LIBM for f in called)


@cache
def _machine(binding: Any) -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine()


@cache
def _surroundings() -> tuple[str, ...]:
    """What the same text may become other code by."""
    from llvmlite import binding

    memory = Path(__file__).with_name("memory.py").read_text("utf-8")
    processor = (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), binding.get_default_triple())
    return memory, version("numba"), version("llvmlite"), *processor


def _read(path: Path) -> tuple[dict[str, str], bytes]:
    """Symbols and code from a file of ours; nothing if there is none, or another user could have put it there."""
    try:
        if path.stat().st_uid != os.getuid() or path.stat().st_mode & 0o022:
            return {}, b""
        magic, header, code = path.read_bytes().split(b"\n", 2)
        told = json.loads(header)
        if magic + b"\n" != _MAGIC or told["sha256"] != hashlib.sha256(code).hexdigest():
            return {}, b""
        return dict(told["symbols"]), code
    except (OSError, ValueError, KeyError):
        return {}, b""


def _write(path: Path, symbols: Mapping[str, str], code: bytes) -> None:
    """Keep it; where that can't be (read-only, full), each process compiles for itself."""
    header = json.dumps({"symbols": symbols, "sha256": hashlib.sha256(code).hexdigest()}).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + header + b"\n" + code)
        os.replace(scratch, path)  # another process never sees half of it
    except OSError:
        return
