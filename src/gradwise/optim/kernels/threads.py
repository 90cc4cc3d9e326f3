"""Running a compiled kernel on several threads: on those torch itself has.

torch's OpenMP threads stand ready (and spin) after each of its parallel regions. A second pool would fight them for the
cores; handing them the work through their own runtime's entry point costs a few microseconds.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

# Below this many bytes for each thread, waking it takes longer than doing its work.
BYTES = 1 << 18

_forked = False


def _after_fork() -> None:
    # OpenMP's threads don't live on in a forked child, and its first parallel region would wait for them forever.
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


def run(address: int, job: int, size: int) -> None:
    """Call the kernel at `address` with `job`, on as many threads as `size` bytes are worth; returns when all are done.

    The kernel takes chunks of work off a counter in its job until none are left, so it may run on any number of
    threads.
    """
    threads = min(size // BYTES, torch.get_num_threads())
    fork = None if threads < 2 or _forked else _parallel()
    if fork is None:
        _serial(address)(job)
    else:
        fork(address, job, threads, 0)


@cache
def _serial(address: int) -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """`GOMP_parallel(function, data, threads, flags)` of torch's OpenMP runtime; LLVM's and Intel's have it too."""
    for name in _loaded():
        try:
            call = ctypes.CDLL(name, os.RTLD_NOW | getattr(os, "RTLD_NOLOAD", 0)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        call.restype = None
        return call
    return None


def _loaded() -> list[str]:
    """OpenMP runtimes in this process, torch's own first."""
    home = str(Path(torch.__file__).parent)
    found = {str(p) for p in Path(home, "lib").glob("lib*omp*")}
    maps = Path("/proc/self/maps")
    if maps.exists():
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text("utf-8").splitlines() if "omp" in line}
        mapped = {p for p in paths if Path(p).name.startswith(("libgomp", "libomp", "libiomp"))}
        found = mapped or found
    return sorted(found, key=lambda p: (not p.startswith(home), p))
