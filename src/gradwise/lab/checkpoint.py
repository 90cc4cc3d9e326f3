"""The state of a training on disk, as arrays and JSON: nothing is unpickled when it is read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.lab.writing import replacing


def save(path: Path, state: Any) -> None:
    """Write nested dicts and lists of tensors, numbers and text; the file is replaced as a whole or not at all."""
    tensors: list[Tensor] = []
    text = json.dumps(_coded(state, tensors))
    arrays = {f"t{k}": t.detach().cpu().numpy() for k, t in enumerate(tensors)}
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, state=np.array(text), **arrays)


def load(path: Path) -> Any:
    """What was saved; `None` where there is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _decoded(json.loads(str(arrays["state"])), arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _coded(value: Any, tensors: list[Tensor]) -> Any:
    """JSON with numbers of tensors in place of tensors; dicts as pairs, since their keys may be numbers."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": [[key, _coded(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_coded(item, tensors) for item in value]}
    return value


def _decoded(value: Any, arrays: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return torch.from_numpy(arrays[f"t{inner}"])
    if kind == "dict":
        return {key: _decoded(item, arrays) for key, item in inner}
    items = [_decoded(item, arrays) for item in inner]
    return tuple(items) if kind == "tuple" else items
