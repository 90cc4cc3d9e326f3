"""Small trainings for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradwise.batched import Training


@contextmanager
def double() -> Iterator[None]:
    """Double precision by default, in which rounding is small."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def classes(*shape: int) -> list[tuple[Tensor, Tensor]]:
    """Three parts of inputs of a shape, with classes that can be learned of them."""
    luck = torch.Generator().manual_seed(0)
    parts = []
    for count in (72, 40, 24):
        x = torch.randn(count, *shape, generator=luck)
        parts.append((x, (x.flatten(1)[:, :3]).argmax(1)))
    return parts


def mlp(config: Mapping[str, Any]) -> nn.Module:
    units = config.get("hidden", 8)
    return nn.Sequential(nn.Linear(6, units), nn.Tanh(), nn.Linear(units, 3))


def training(model: Callable[..., nn.Module] = mlp, *shape: int, **options: Any) -> Training:
    data = classes(*(shape or (6,)))
    return Training(model, nn.functional.cross_entropy, data, **{"epochs": 3, "batch_size": 16, **options})
