"""Places where training gets stuck, in real networks: a saddle that is known exactly, and minima of different depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradwise.lab.data import Split
from gradwise.lab.models import mlp
from gradwise.lab.training import seeded


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
        net[-1].bias.copy_((counts.double() / len(train)).log())  # type: ignore[union-attr, operator]
    return net


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
        shapes = {"w1": (inputs, hidden), "b1": (1, hidden), "w2": (hidden, 1), "b2": (1, 1)}
        for name, shape in shapes.items():
            fan_in = inputs if name.endswith("1") else hidden
            drawn = 2 * torch.rand(starts, *shape, generator=random) - 1
            setattr(self, name, nn.Parameter(drawn / math.sqrt(fan_in)))

    def forward(self, x: Tensor) -> Tensor:
        """From (rows, inputs) to (starts, rows, 1)."""
        hidden: Tensor = torch.tanh(x @ self.w1 + self.b1)
        output: Tensor = hidden @ self.w2 + self.b2
        return output

    def losses(self, split: Split) -> Tensor:
        """The mean squared error of each net; the gradient of their sum is each net's own."""
        return (self(split.x) - split.y).square().mean((1, 2))

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
