"""Small training tasks on real data, many copies at once: what learning rates are judged on.

Every tensor of parameters has a leading axis of copies, so that a whole grid of rates and seeds trains in one pass of
batched matrix products; the copies share nothing, and one that diverges harms no other. `quadratic_deep` is DeepOBS'
(Schneider et al., 2019), the rest are networks of a few thousand weights on scikit-learn's bundled sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gradwise.lab.p01_quadratic_deep import hessian

STEPS = 700
"""The horizon: quadratic_deep's 100 epochs of 7 batches, and as many steps everywhere else."""

RULES = ("sgd", "momentum 0.9", "momentum 0.99", "adam")
Parameters = list[Tensor]


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        name: its name.
        batch: rows in a mini-batch.
        data: training and held-out rows: (x, y, x', y').
        shapes: of the parameters; a matrix starts with entries of variance 1/rows, times `gain`, a vector at zero.
        loss: (parameters, x, y) -> one mean loss per copy.
        gain: 2**0.5 for rectifiers.
        ones: start at one, and reuse one shuffled order in every epoch (quadratic_deep).
    """

    name: str
    batch: int
    data: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]
    shapes: Sequence[tuple[int, ...]]
    loss: Callable[[Parameters, Tensor, Tensor], Tensor]
    gain: float = 1.0
    ones: bool = False

    def start(self, seeds: Sequence[int]) -> Parameters:
        """The parameters of one copy per seed, ready to be trained."""
        copies = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(1000 + seed)
            copies.append([self._initial(shape, generator) for shape in self.shapes])
        return [torch.stack(each).requires_grad_() for each in zip(*copies, strict=True)]

    def _initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if self.ones:
            return torch.ones(shape)
        if len(shape) == 1:
            return torch.zeros(shape)
        return torch.randn(shape, generator=generator).mul_(self.gain / shape[0] ** 0.5)

    def order(self, seed: int, steps: int) -> Tensor:
        """The rows of each step's batch, (steps, batch); the last partial batch of an epoch is dropped."""
        rows = len(self.data()[0])
        generator = np.random.default_rng(seed)
        epochs, each = -(-steps // (rows // self.batch)), rows // self.batch * self.batch
        first = generator.permutation(rows)[:each]
        orders = [first if self.ones or not k else generator.permutation(rows)[:each] for k in range(epochs)]
        return torch.from_numpy(np.concatenate(orders).reshape(-1, self.batch)[:steps])

    def held_out(self, parameters: Parameters) -> Tensor:
        """The held-out loss of each copy."""
        with torch.no_grad():
            _, _, x, y = self.data()
            return self.loss(parameters, x[None], y[None])


def train(
    task: Task, rule: str, seeds: Sequence[int], rates: Tensor, record: bool = True, every: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train one copy per seed with rates (copies, steps).

    Losses (copies, steps), held-out losses at the end (copies,) and after each `every` steps (copies, steps // every).
    """
    steps = rates.shape[1]
    x, y, _, _ = task.data()
    unique = sorted(set(seeds))
    orders = {seed: task.order(seed, steps) for seed in unique}
    order = torch.stack([orders[seed] for seed in seeds])
    parameters = task.start(seeds)
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    losses, evaluated = [], []
    for t in range(steps):
        rows = order[:, t]
        loss = task.loss(parameters, x[rows], y[rows])
        gradients = torch.autograd.grad(loss.sum(), parameters)
        if record:
            losses.append(loss.detach())
        with torch.no_grad():
            for p, g, s in zip(parameters, gradients, state, strict=True):
                p -= rates[:, t].reshape(-1, *[1] * (p.dim() - 1)) * direction(rule, g, s, t + 1)
        if every and (t + 1) % every == 0:
            evaluated.append(task.held_out(parameters))
    final = task.held_out(parameters).numpy()
    seen, checked = (torch.stack(v, 1).numpy() if v else np.empty((len(seeds), 0)) for v in (losses, evaluated))
    return seen, final, checked


def direction(rule: str, gradient: Tensor, state: tuple[Tensor, Tensor], t: int) -> Tensor:
    """What a rule multiplies the rate by, as torch defines it, at step `t` from 1."""
    first, second = state
    if rule == "sgd":
        return gradient
    if rule.startswith("momentum"):
        return first.mul_(float(rule.split()[1])).add_(gradient)
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient * gradient, 0.001)
    return (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)


# the tasks


def _split(x: np.ndarray, y: np.ndarray, regression: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A fixed quarter is held out; inputs (and a regression's targets) are standardized by the rest."""
    order = np.random.default_rng(0).permutation(len(x))
    rest, held = order[len(x) // 4 :], order[: len(x) // 4]
    mean, scale = x[rest].mean(0), x[rest].std(0) + 1e-6
    x = (x - mean) / np.where(scale < 1e-3, 1.0, scale)
    if regression:
        y = (y - y[rest].mean()) / y[rest].std()
    targets = torch.from_numpy(y.astype(np.float32 if regression else np.int64))
    inputs = torch.from_numpy(x.astype(np.float32))
    return inputs[rest], targets[rest], inputs[held], targets[held]


@cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    return _split(*load_digits(return_X_y=True))


@cache
def _pixels() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x = load_digits().data.astype(np.float32) / 16
    x = x[np.random.default_rng(0).permutation(len(x))]
    inputs = torch.from_numpy(x)
    held = len(x) // 4
    return inputs[held:], inputs[held:], inputs[:held], inputs[:held]


@cache
def _cancer() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_breast_cancer

    return _split(*load_breast_cancer(return_X_y=True))


@cache
def _wine() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_wine

    return _split(*load_wine(return_X_y=True))


@cache
def _diabetes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return _split(x, y, regression=True)


@cache
def _gaussian() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """quadratic_deep's rows x, with their own share ½ xᵀHx of the loss as target; held out are whole batches."""
    rows = [np.random.RandomState(s).normal(0.0, 0.6, (1000, 100)).astype(np.float32) for s in (42, 43)]
    x, held = torch.from_numpy(rows[0]), torch.from_numpy(rows[1][: 1000 // 128 * 128])
    return x, _energy(x), held, _energy(held)


def _energy(x: Tensor) -> Tensor:
    return 0.5 * ((x @ hessian()) * x).sum(1)


def _quadratic(p: Parameters, x: Tensor, energy: Tensor) -> Tensor:
    """The mean of ½ (θ−x)ᵀH(θ−x), multiplied out."""
    pulled = p[0] @ hessian()
    return 0.5 * (pulled * p[0]).sum(-1) - (pulled * x.mean(-2)).sum(-1) + energy.mean(-1)


def _layer(x: Tensor, p: Parameters) -> Tensor:
    return torch.baddbmm(p[1][:, None, :], x.expand(len(p[0]), -1, -1), p[0])


def _entropy(z: Tensor, y: Tensor) -> Tensor:
    k, n, c = z.shape
    y = y.expand(k, -1)
    return F.cross_entropy(z.reshape(k * n, c), y.reshape(-1), reduction="none").reshape(k, n).mean(1)


def _softmax(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return _entropy(_layer(x, p), y)


def _mlp(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return _entropy(_layer(_layer(x, p).relu(), p[2:]), y)


def _deep(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    for k in range(0, len(p) - 2, 2):
        x = _layer(x, p[k:]).tanh()
    return _entropy(_layer(x, p[-2:]), y)


def _recurrent(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    x = x.expand(len(p[0]), -1, -1)
    rows = x.reshape(*x.shape[:2], 8, 8)
    h = torch.zeros(*x.shape[:2], p[1].shape[1])
    for k in range(8):
        h = torch.tanh(_layer(rows[:, :, k], [p[0], p[2]]) + h @ p[1])
    return _entropy(_layer(h, p[3:]), y)


def _autoencoder(p: Parameters, x: Tensor, _: Tensor) -> Tensor:
    x = x.expand(len(p[0]), -1, -1)
    code = F.layer_norm(_layer(x, p).relu(), (32,))
    return (_layer(code, p[2:]).sigmoid() - x).square().mean((1, 2))


def _regression(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return (_layer(_layer(x, p).tanh(), p[2:])[..., 0] - y.expand(len(p[0]), -1)).square().mean(1)


RELU = 2**0.5
TASKS = {
    t.name: t
    for t in (
        Task("quadratic_deep", 128, _gaussian, [(100,)], _quadratic, ones=True),
        Task("digits softmax", 64, _digits, [(64, 10), (10,)], _softmax),
        Task("digits perceptron", 32, _digits, [(64, 32), (32,), (32, 10), (10,)], _mlp, RELU),
        Task("digits deep tanh", 32, _digits, [(64, 24), (24,), *[(24, 24), (24,)] * 4, (24, 10), (10,)], _deep),
        Task("digits by rows, recurrent", 32, _digits, [(8, 24), (24, 24), (24,), (24, 10), (10,)], _recurrent),
        Task("digits autoencoder", 32, _pixels, [(64, 32), (32,), (32, 64), (64,)], _autoencoder, RELU),
        Task("breast cancer logistic", 32, _cancer, [(30, 2), (2,)], _softmax),
        Task("wine perceptron, batch 4", 4, _wine, [(13, 16), (16,), (16, 3), (3,)], _mlp, RELU),
        Task("diabetes regression", 32, _diabetes, [(10, 16), (16,), (16, 1), (1,)], _regression),
    )
}
