"""Data cut into three: to fit on, to select on, to judge by once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# More classes than this share of the data, and what looks like classes are numbers to predict.
_MOST_CLASSES = 0.2
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts that have nothing in common, each of the kind the data was.

    Attributes:
        train: to fit on.
        validation: to select on.
        test: to judge the one that was selected, once.
        indices: of each part in the data.
    """

    train: Any
    validation: Any
    test: Any
    indices: tuple[Indices, Indices, Indices]

    def __iter__(self) -> Any:
        return iter((self.train, self.validation, self.test))


def split(data: Any, seed: int = 0, *, shares: Sequence[float] = (0.6, 0.2, 0.2), labels: Any = None) -> Split:
    """Cut data into a training, a validation and a test part.

    Classes get equal shares in all parts: those of `labels`, or of the second of two arrays where that has few
    different whole numbers.

    Args:
        data: an array, tensor or list; a tuple of such with equal lengths; or a dataset, which becomes `Subset`s.
        seed: the same seed gives the same parts.
        shares: of the three parts.
        labels: a class for each item.

    Raises:
        ValueError: shares that don't add up to 1, parts of unequal length, or a part that would be empty.

    Example:
        >>> train, validation, test = split(list(range(10)), seed=1)
        >>> len(train), len(validation), len(test), sorted(train + validation + test) == list(range(10))
        (6, 2, 2, True)
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"split: three shares that add up to 1 are wanted, got {shares}")
    columns: Sequence[Any] = data if isinstance(data, tuple) else (data,)
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"split: all parts of the data must be equally long, got {sorted(lengths)}")
    count = lengths.pop()
    if labels is None and len(columns) == 2:
        labels = columns[1] if _classes(columns[1]) else None
    kinds = (
        np.zeros(count, np.int64) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
    )
    if len(kinds) != count:
        raise ValueError(f"split: {len(kinds)} labels for {count} items")
    parts = _parts(kinds, np.random.default_rng(seed), shares)
    if not all(len(part) for part in parts):
        raise ValueError(f"split: {count} items are too few for shares of {shares}")
    made = [tuple(_taken(column, part) for column in columns) for part in parts]
    one, two, three = made if isinstance(data, tuple) else [each[0] for each in made]
    return Split(one, two, three, parts)


def _parts(kinds: Indices, luck: np.random.Generator, shares: Sequence[float]) -> tuple[Indices, Indices, Indices]:
    """Shuffled indices, such that each class is spread over the parts as all are."""
    order = luck.permutation(len(kinds))
    # Each item's place within its class, from 0 to 1: cutting all by it takes the same share of each class.
    place = np.empty(len(kinds))
    for kind in np.unique(kinds):
        members = order[kinds[order] == kind]
        place[members] = (np.arange(len(members)) + luck.random()) / len(members)
    ranked = order[np.argsort(place[order], kind="stable")]
    cuts = np.round(np.cumsum(shares[:2]) * len(kinds)).astype(int)
    one, two, three = np.split(ranked, cuts)
    return luck.permutation(one), luck.permutation(two), luck.permutation(three)


def _classes(labels: Any) -> bool:
    """Whether labels are classes rather than numbers to predict."""
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iubUO":
        return False
    return len(np.unique(found)) <= max(2, _MOST_CLASSES * len(found))


def _taken(column: Any, part: Indices) -> Any:
    if isinstance(column, list):
        return [column[k] for k in part]
    if isinstance(column, range):
        return [column[k] for k in part]
    if hasattr(column, "shape"):
        return column[part]
    from torch.utils.data import Subset

    return Subset(column, part.tolist())
