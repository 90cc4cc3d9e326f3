"""Places where training gets stuck, in real networks: a saddle that is known exactly, and minima of different depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.finder import range_test
from gradwise.lab.data import Split
from gradwise.lab.models import mlp
from gradwise.lab.training import seeded
from gradwise.optim import SGD


def at_saddle(train: Split, width: int, seed: int, *, biases: bool) -> nn.Sequential:
    """A net of one hidden layer at a critical point that is no minimum: it says how frequent the classes are, no more.

    All weights are zero, so no output depends on the input, and the output's biases are the best there are: the
    gradient over all rows is zero to rounding. Over some rows it isn't, for classes are not as frequent there. With
    hidden biases as drawn this moves the second layer's weights too, from where the way leads down. With hidden biases
    of zero all hidden units are zero, and only the output's biases have a gradient, in any batch.

    Args:
        train: rows with classes.
        width: how many hidden (tanh) units.
        seed: of the biases.
        biases: as drawn, or zero.

    >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 2, 0, 1])
    >>> net = at_saddle(Split(x, y), 3, 0, biases=True)
    >>> net(x)[0].exp()
    tensor([0.5000, 0.3333, 0.1667], grad_fn=<ExpBackward0>)
    """
    counts = torch.bincount(train.y)
    with seeded(seed):
        net = mlp([math.prod(train.x.shape[1:]), width, len(counts)], nn.Tanh).to(train.x.dtype)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("weight") or not biases:
                p.zero_()
        net[-1].bias.copy_((counts.double() / len(train)).log())  # type: ignore[operator]
    return net


def ordinary_rate(train: Split, batch: int, seed: int, otherwise: float, hidden: int = 32) -> float:
    """What the range test finds for plain descent from ordinary weights with batches of that size.

    Args:
        train: rows with classes.
        batch: how many of them in a step.
        seed: of weights and batches.
        otherwise: the rate where it finds none.
        hidden: how many tanh units.
    """
    with seeded(seed):
        net = mlp([math.prod(train.x.shape[1:]), hidden, int(train.y.max()) + 1], nn.Tanh).to(train.x.dtype)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    batches = [(train.x[rows], train.y[rows]) for rows in torch.split(order, batch)]
    optimizer = SGD(net.parameters(), lr=otherwise)
    return range_test(net, batches, F.cross_entropy, optimizer=optimizer, budget=200, horizon=500).rate or otherwise


class Starts(nn.Module):
    """Small nets of one hidden layer from many starts, trained side by side on values: every one for itself.

    So few units fit the rows only roughly, and where a start ends depends on where it began.

    Args:
        inputs: how many.
        hidden: tanh units.
        starts: how many nets.
        seed: of all their first weights, drawn as `nn.Linear` does.

    >>> Starts(4, 3, starts=5, seed=0)(torch.zeros(7, 4)).shape
    torch.Size([5, 7, 1])
    """

    def __init__(self, inputs: int, hidden: int, starts: int, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)

        def drawn(fan_in: int, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(starts, *shape, generator=random) - 1) / math.sqrt(fan_in))

        self.w1, self.b1 = drawn(inputs, inputs, hidden), drawn(inputs, 1, hidden)
        self.w2, self.b2 = drawn(hidden, hidden, 1), drawn(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (rows, inputs) to (starts, rows, 1)."""
        return torch.tanh(x @ self.w1 + self.b1) @ self.w2 + self.b2

    def losses(self, split: Split) -> Tensor:
        """The mean squared error of each net; the gradient of their sum is each net's own."""
        return (self.forward(split.x) - split.y).square().mean((1, 2))

    def train_on(self, split: Split, optimizer: torch.optim.Optimizer, steps: int, batch: int, seed: int) -> Starts:
        """Some steps on batches drawn by the seed, the same for all nets; on all rows if there are no more."""
        random = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(split), (steps, batch), generator=random) if batch < len(split) else None
        for step in range(steps):
            optimizer.zero_grad()
            part = split if rows is None else Split(split.x[rows[step]], split.y[rows[step]])
            self.losses(part).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return self
