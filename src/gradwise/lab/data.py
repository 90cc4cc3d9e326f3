"""The data sets that the experiments train on, split and standardized in one place.

scikit-learn's bundled sets need nothing; the larger ones are read from a folder of the user's (`lab/files.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.lab import files
from gradwise.lab.files import DataError

__all__ = ["BUNDLED", "LARGER", "Data", "DataError", "Split", "load"]

BUNDLED = ("digits", "breast_cancer", "wine", "diabetes")
LARGER = ("mnist", "fashion_mnist", "cifar10", "tinyshakespeare", "california")
_SPLIT_SEED = 0  # one split for all experiments and seeds: what a seed changes is the training, not the rows


@dataclass(frozen=True)
class Split:
    """Rows and their targets.

    Args:
        x: (rows, features), (rows, channels, height, width), or (characters,) for text.
        y: (rows,) classes, (rows, 1) standardized values, or (characters,) the characters that follow.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def first(self, rows: int) -> Split:
        """The first rows; they are in random order already."""
        return Split(self.x[:rows], self.y[:rows])

    def windows(self, length: int) -> Split:
        """Text as rows of `length` characters one after another; what is left at the end is dropped."""
        rows = len(self) // length
        return Split(*(part[: rows * length].view(rows, length) for part in (self.x, self.y)))


@dataclass(frozen=True)
class Data:
    """A data set in three parts. Inputs, and targets that are values, are standardized by the training rows' figures.

    Args:
        name: what it is called here.
        classes: how many there are; 0 where targets are values.
        train: for training.
        validation: for choosing: rates, schedules, when to stop. Held out of what the set gives for training.
        test: read once, at the end.
        note: what must be said of it wherever its figures are shown; "" for nothing.
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    note: str = ""

    def first(self, rows: int) -> Data:
        """The same with only the first `rows` training rows, for a reduced form."""
        return replace(self, train=self.train.first(rows))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input row."""
        return tuple(self.train.x.shape[1:])


@lru_cache(maxsize=4)
def load(name: str, data_dir: Path | None = None) -> Data:
    """A data set by name.

    scikit-learn's (`digits` as 1×8×8 images, `breast_cancer`, `wine`, `diabetes`): a fifth of the rows is for testing
    and a fifth for validation, each class in proportion. Images: standardized by one mean and deviation per channel, a
    tenth of the training rows held out for validation. `tinyshakespeare`: characters as numbers, the last tenth of the
    text for testing, the tenth before it for validation. `california`: predict a block's house value, split like the
    bundled ones.

    Args:
        name: one of `BUNDLED` or `LARGER`.
        data_dir: where the larger sets are; without it, torchvision downloads what it can, where it is installed.

    Raises:
        DataError: the set isn't there or can't be read; says where it was looked for and what to do.

    >>> data = load("digits")
    >>> data.classes, data.shape, len(data.train), len(data.validation), len(data.test)
    (10, (1, 8, 8), 1079, 359, 359)
    """
    if name in BUNDLED:
        return _bundled(name)
    if name == "tinyshakespeare":
        return _text(files.text(data_dir))
    if name == "california":
        return _table(name, *files.california(data_dir), classes=0)
    if name in LARGER:
        return _images(name, files.images(name, data_dir))
    raise DataError(f"there is no data set {name!r}; there are {', '.join((*BUNDLED, *LARGER))}")


def _bundled(name: str) -> Data:
    try:
        from sklearn import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"{name} comes with scikit-learn, which isn't installed: pip install 'gradwise[lab]'") from None
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        x = x.reshape(-1, 1, 8, 8)
    return _table(name, x, y, classes=0 if name == "diabetes" else int(y.max()) + 1)


def _table(name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], classes: int) -> Data:
    """A fifth of the rows for testing, a fifth for validation."""
    parts = _parts(y if classes else np.zeros(len(y)), (0.2, 0.2))
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    mean, spread = x[parts[0]].mean(axes, keepdims=True), x[parts[0]].std(axes, keepdims=True)
    inputs = (x - mean) / np.where(spread > 0, spread, 1)
    if not classes:
        y = ((y - y[parts[0]].mean()) / y[parts[0]].std())[:, None]
    train, test, validation = (_split(inputs[rows], y[rows], classes) for rows in parts)
    return Data(name, classes, train, validation, test)


def _images(name: str, raw: files.Images) -> Data:
    rest, held = _parts(raw.train_y, (0.1,))
    x, y = torch.from_numpy(raw.train_x), raw.train_y
    spread, mean = torch.std_mean(x[rest].float(), (0, 2, 3), keepdim=True, correction=0)

    def split(images: Tensor, labels: np.ndarray[Any, Any]) -> Split:
        return Split((images.float() - mean) / spread, torch.from_numpy(labels.astype(np.int64)))

    test = split(torch.from_numpy(raw.test_x), raw.test_y)
    return Data(name, int(y.max()) + 1, split(x[rest], y[rest]), split(x[held], y[held]), test, raw.note)


def _text(text: str) -> Data:
    letters = sorted(set(text))
    code: Mapping[str, int] = {letter: k for k, letter in enumerate(letters)}
    codes = torch.tensor([code[letter] for letter in text])
    a, b = int(0.8 * len(codes)), int(0.9 * len(codes))
    train, validation, test = (Split(part[:-1], part[1:]) for part in (codes[:a], codes[a:b], codes[b:]))
    return Data("tinyshakespeare", len(letters), train, validation, test)


def _parts(labels: np.ndarray[Any, Any], shares: tuple[float, ...]) -> list[np.ndarray[Any, Any]]:
    """Rows in random order: the rest first, then one part for each share, in which each class has its share."""
    generator = np.random.default_rng(_SPLIT_SEED)
    parts: list[list[np.ndarray[Any, Any]]] = [[] for _ in (None, *shares)]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum([round(share * len(rows)) for share in shares])
        *given, rest = np.split(rows, cuts)
        for part, chosen in zip(parts, (rest, *given), strict=True):
            part.append(chosen)
    return [generator.permutation(np.concatenate(part)) for part in parts]


def _split(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], classes: int) -> Split:
    return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64 if classes else torch.float32))
