"""What lies around a script: places that belong to no run, and whose code is at work.

Standard library only and light: it is imported inside the user's process before the script starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

_CACHE_VARIABLES = (
    "CUDA_CACHE_PATH", "HF_DATASETS_CACHE", "HF_HOME", "HF_HUB_CACHE", "KAGGLEHUB_CACHE", "MIOPEN_USER_DB_PATH",
    "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "PYTHONPYCACHEPREFIX", "SCIKIT_LEARN_DATA", "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR", "TORCH_HOME", "TRANSFORMERS_CACHE", "TRITON_CACHE_DIR", "XDG_CACHE_HOME",
)  # fmt: skip
_CACHE_FOLDERS = (
    ".cache", ".config/matplotlib", ".config/miopen", ".keras", ".matplotlib", ".nv", ".torch", ".triton",
    "nltk_data", "scikit_learn_data",
)  # fmt: skip

# Trackers are switched off in trials (environment.py), so what they do in the watched run is no reason against one.
_TRACKERS = frozenset({"wandb", "comet_ml", "neptune", "neptune_scale", "clearml", "mlflow", "swanlab", "sentry_sdk"})
# What a downloader fetched in the watched run stays, so that a trial has nothing left to fetch.
_FETCHERS = (
    "torch/hub.py", "torchvision/datasets/", "torchaudio/datasets/", "torchaudio/_internal/", "torchtext/",
    "huggingface_hub/file_download.py", "huggingface_hub/_snapshot_download.py", "datasets/download/",
    "sklearn/datasets/", "kagglehub/", "gdown/", "pooch/", "nltk/downloader.py", "medmnist/", "openml/",
)  # fmt: skip

# What compiles kernels starts compilers, and programs of its own to try out what they made.
_COMPILERS = ("torch/_inductor/", "torch/utils/cpp_extension.py", "triton/", "numba/", "pytorch_triton/")

_PACKAGES = ("/site-packages/", "/dist-packages/")
_STDLIB = os.path.join(os.path.dirname(os.__file__), "")
_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_libraries: dict[str, str] = {}


def folder_prefix(path: str) -> str:
    """The real path of a directory, ending in "/", for use with `str.startswith`."""
    return os.path.join(os.path.realpath(path), "")


def temporary_folders() -> tuple[str, ...]:
    """Prefixes of the folders for temporary files (`tempfile` isn't asked: that would settle its own answer)."""
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    return tuple(dict.fromkeys(folder_prefix(p) for p in (*named, "/tmp", "/var/tmp")))


def shared_places(env: Mapping[str, str], keep: Sequence[str] = ()) -> tuple[str, ...]:
    """Path prefixes that belong to no run: devices, the process file system, the caches of libraries.

    Args:
        env: the environment, which may move caches elsewhere.
        keep: directories that never count as such a place, whatever `env` says (the script's own).
    """
    home = os.path.expanduser("~")
    caches = [os.path.join(home, folder) for folder in _CACHE_FOLDERS]
    caches += [env[name] for name in _CACHE_VARIABLES if env.get(name)]
    kept = [folder_prefix(p) for p in (home, *keep)]
    prefixes = dict.fromkeys(folder_prefix(cache) for cache in caches)
    found = [p for p in prefixes if not any(k.startswith(p) for k in kept)]
    return ("/dev/", "/proc/", "/sys/", *found, *(folder + "torchinductor_" for folder in temporary_folders()))


def library_of_file(filename: str) -> str:
    """The top-level package a source file belongs to; "python" for the standard library, "" for the user's own."""
    inside = _in_package(filename)
    if inside:
        return inside.split("/", 1)[0].split(".", 1)[0]
    if filename.startswith(_OURS):
        return "gradwise"
    return "python" if filename.startswith((_STDLIB, "<frozen")) else ""


def library_of(frame: FrameType) -> str:
    """The same for the code that runs in a frame."""
    filename = frame.f_code.co_filename
    name = _libraries.get(filename)
    if name is None:
        name = _libraries[filename] = library_of_file(filename)
    return name


def on_behalf_of(frame: FrameType | None) -> str:
    """Which kind of library is at work in `frame`: a "tracker", a downloader ("fetch"), a "compiler", else "".

    The search ends at the script's own code: what a dataset's transform writes isn't what the dataset fetches.
    """
    while frame is not None and (name := library_of(frame)):
        if name in _TRACKERS:
            return "tracker"
        if name != "python":
            inside = _in_package(frame.f_code.co_filename)
            if inside.startswith(_FETCHERS):
                return "fetch"
            if inside.startswith(_COMPILERS):
                return "compiler"
        frame = frame.f_back
    return ""


def caller() -> FrameType | None:
    """The innermost frame that isn't gradwise's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and library_of(frame) == "gradwise":
        frame = frame.f_back
    return frame


def _in_package(filename: str) -> str:
    """The file's path from its package on ("torch/hub.py"); "" where it is in none."""
    for mark in _PACKAGES:
        if mark in filename:
            return filename.rsplit(mark, 1)[1]
    return ""
