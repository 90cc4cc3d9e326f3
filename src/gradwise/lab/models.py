"""Small models that several experiments train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def mlp(
    widths: Sequence[int], activation: Activation = nn.ReLU, *, norm: bool = False, dropout: float = 0.0
) -> nn.Sequential:
    """Fully connected layers; images are flattened first.

    Args:
        widths: of the input, the hidden layers and the output.
        activation: makes what follows each hidden layer.
        norm: batch normalization before each activation.
        dropout: the share of hidden units dropped in training.

    >>> [tuple(p.shape) for p in mlp([4, 8, 3]).parameters()]
    [(8, 4), (8,), (3, 8), (3,)]
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after))
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers.append(activation())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def lenet5(channels: int = 3, classes: int = 10, side: int = 32, activation: Activation = nn.ReLU) -> nn.Sequential:
    """LeNet-5 as it is built today: two convolutions of 5×5 with 6 and 16 channels, each pooled, then 120, 84, classes.

    Sides of 28 and 32 are convolved without padding at 32 (28 is padded to it); 8×8 images take convolutions of 3×3
    padded, since nothing would be left of them otherwise.

    >>> sum(p.numel() for p in lenet5().parameters())
    62006

    Source: LeCun, Bottou, Bengio & Haffner (1998), figure 2, with maxima for the sub-sampling and full connections.
    """
    if side == 8:
        first, second, left = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, 16, 3, padding=1), 2
    else:
        first, second, left = nn.Conv2d(channels, 6, 5, padding=(32 - side) // 2), nn.Conv2d(6, 16, 5), 5
    return nn.Sequential(
        first, activation(), nn.MaxPool2d(2),
        second, activation(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * left * left, 120), activation(),
        nn.Linear(120, 84), activation(),
        nn.Linear(84, classes),
    )  # fmt: skip


def convnet(channels: int = 1, classes: int = 10, width: int = 16, *, norm: bool = False) -> nn.Sequential:
    """A small convolutional net for images of any size: three 3×3 convolutions, pooled twice, then averaged.

    >>> sum(p.numel() for p in convnet().parameters())
    14378
    """

    def block(before: int, after: int) -> list[nn.Module]:
        bias = [nn.Conv2d(before, after, 3, padding=1)]
        return [*bias, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width), nn.MaxPool2d(2),
        *block(width, 2 * width), nn.MaxPool2d(2),
        *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )  # fmt: skip


def weights(model: nn.Module) -> Tensor:
    """All parameters as one vector, a copy: for distances between paths."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()
