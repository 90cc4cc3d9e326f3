"""Slices through a real network's loss: what a surface of two numbers shows of one of thousands.

    f(x, y) = L(θ + x·a + y·b)

The loss is that of a net with one hidden layer on scikit-learn's digits, over a fixed part of the training rows.

Source: Li, Xu, Taylor, Studer & Goldstein (2018), "Visualizing the loss landscape of neural nets", sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise import optim
from gradwise.lab.data import Split, load
from gradwise.lab.models import mlp
from gradwise.lab.surfaces import Surface
from gradwise.lab.training import fit, seeded

Weights = dict[str, Tensor]

_ROWS, _WIDTHS, _EPOCHS = 128, (64, 16, 10), 20
_AT_ONCE = 512  # points evaluated together: each has all activations of its own
_SOURCE = "Li et al. (2018), Visualizing the loss landscape of neural nets"


@lru_cache(maxsize=2)
def random_slice(seed: int = 0) -> Surface:
    """The loss about trained weights, along two random directions.

    Each direction's rows are as long as the trained weights' rows (filter normalization), so that a unit means the same
    in every layer; biases stay as they are.

    Args:
        seed: of the training and of the directions.
    """
    weights = _trained(seed)
    generator = torch.Generator().manual_seed(seed)
    a, b = (_direction(weights, generator) for _ in range(2))
    formula = _Slice(weights, a, b)
    return Surface(
        "network", formula, (-1.2, 1.2), (-1.2, 1.2), (-1.0, 0.8),
        "loss(θ + x a + y b), a and b random", f"a net trained on digits; {_SOURCE}, section 4",
    )  # fmt: skip


@lru_cache(maxsize=2)
def plane_slice(seed: int = 0) -> Surface:
    """The loss on the plane through the ends of three trainings, which lie at (0, 0), (1, 0) and (0, 1).

    Args:
        seed: of the first training; the others have the next two.
    """
    first, second, third = (_trained(seed + k) for k in range(3))
    a, b = ({name: end[name] - first[name] for name in first} for end in (second, third))
    return Surface(
        "network-plane", _Slice(first, a, b), (-0.4, 1.4), (-0.4, 1.4), (0.45, 0.45),
        "loss(θ₁ + x (θ₂ − θ₁) + y (θ₃ − θ₁))", f"three trainings on digits; {_SOURCE}, section 3",
    )  # fmt: skip


class _Slice:
    """L(θ + x·a + y·b) for many points (x, y) at once.

    The first layer's output is linear in x and y, so that its three products with the data are made once.
    """

    def __init__(self, weights: Weights, a: Weights, b: Weights) -> None:
        rows = _rows()
        data, self.y = rows.x.flatten(1), rows.y
        ends = [list(part.values()) for part in (weights, a, b)]
        self.first = [data @ w.T + bias for w, bias, *_ in ends]
        self.second = [(w.T, bias) for *_, w, bias in ends]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        points = torch.stack((torch.ones_like(x), x, y), 1).float()
        losses = [self._losses(some) for some in torch.split(points, _AT_ONCE)]
        return torch.cat(losses).double()

    def _losses(self, points: Tensor) -> Tensor:
        """Of points (n, 3), whose rows are (1, x, y)."""
        hidden = torch.tanh(_mixed(points, self.first))
        weights, biases = (_mixed(points, part) for part in zip(*self.second, strict=True))
        outputs = torch.baddbmm(biases[:, None], hidden, weights)
        classes = self.y.expand(len(points), -1)
        return F.cross_entropy(outputs.movedim(-1, 1), classes, reduction="none").mean(1)


def _mixed(points: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """For each point the sum of the parts by its coordinates."""
    return torch.einsum("nk,k...->n...", points, torch.stack(list(parts)))


def _net() -> nn.Module:
    return mlp(_WIDTHS, nn.Tanh)


def _rows() -> Split:
    return load("digits").train.first(_ROWS)


@lru_cache(maxsize=4)
def _trained(seed: int) -> Weights:
    with seeded(seed):
        net = _net()
        fit(net, optim.Adam(net.parameters(), lr=0.01), _rows(), batch=64, epochs=_EPOCHS, seed=seed)
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def _direction(weights: Mapping[str, Tensor], generator: torch.Generator) -> Weights:
    """A random direction whose rows are as long as those of the weights."""
    made = {}
    for name, w in weights.items():
        away = torch.randn(w.shape, generator=generator)
        made[name] = torch.zeros_like(w) if w.dim() < 2 else away * (_length(w) / _length(away))
    return made


def _length(w: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return length.clamp(min=math.ulp(1.0))
