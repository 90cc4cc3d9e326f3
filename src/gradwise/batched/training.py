"""A training as data, so that many configurations of it can train at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gradwise.batched.settings import optimizer_of
from gradwise.batched.stack import Loss
from gradwise.search.splits import Split

if TYPE_CHECKING:
    from gradwise.batched.engine import Batched
    from gradwise.search.methods import Method

Config = Mapping[str, Any]
Part = tuple[Tensor, Tensor]
MakeOptimizer = Callable[[nn.Module, Config], Any]

ROWS = 64
"""How many configurations train at once at most, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of one configuration.

    Attributes:
        value: the validation score after the last epoch; None where it isn't finite.
        history: the validation score after each epoch.
        start: before the first step.
        steps: optimizer steps made.
        diverged: whether parameters or the score are no longer finite.
        state: the trained model's, for `load_state_dict`.
        stopped: whether it was ended before its last epoch.
    """

    value: float | None
    history: tuple[float, ...]
    start: float | None = None
    steps: int = 0
    diverged: bool = False
    state: dict[str, Tensor] = field(default_factory=dict, repr=False)
    stopped: bool = False


class Training:
    """A model, its loss and its data: what `gradwise.tune` searches settings for, many configurations at once.

    All configurations of one architecture, batch size and number of epochs train in one `torch.func.vmap`, a row each,
    with a learning rate, momentum, decay, … of its own. Without dropout a row does what it would do alone, to rounding.

    Args:
        model: makes a model for `model(config)`.
        loss: `loss(outputs, targets)`, a mean over the batch; such as `torch.nn.functional.cross_entropy`.
        data: what `gradwise.split` gives, or (training, validation) or (training, validation, test); each part is
            `(inputs, targets)`, or inputs alone, which are then their own targets.
        optimizer: makes one of `gradwise.optim` for `optimizer(model, config)`. By default the configuration says:
            `rule` ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "nadam", "radam"), `lr`,
            `momentum`, `beta2`, `eps`, `weight_decay` (as the optimizer of that name has it), `clip`, `schedule`.
        epochs: passes over the training data, unless the configuration has `epochs`.
        batch_size: items in a step, unless the configuration has `batch_size`.
        score: what to select on, a mean over a batch like the loss, the lower the better unless `tune` maximizes;
            None is the loss.
        rows: how many configurations train at once at most; 1 trains one after another.
        device: where to train.

    Raises:
        ValueError: data that is not of this form.

    Example:
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> training = Training(
        ...     lambda config: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)),
        ...     nn.functional.mse_loss, [(part, part.sum(1, keepdim=True)) for part in (x[:100], x[100:])], epochs=3,
        ... )
        >>> slow, fast = training.train([{"lr": 0.001}, {"lr": 0.1}])
        >>> fast.value < slow.value
        True
    """

    def __init__(
        self,
        model: Callable[[Config], nn.Module],
        loss: Loss,
        data: Any,
        *,
        optimizer: MakeOptimizer | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        score: Loss | None = None,
        rows: int = ROWS,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("rows", rows)):
            if value < 1 or value != int(value):
                raise ValueError(f"Training: {name} must be a whole number from 1, not {value!r}")
        self.model, self.loss, self.score = model, loss, score or loss
        self.epochs, self.batch_size, self.rows = epochs, batch_size, rows
        self.device = torch.device(device)
        parts = tuple(data) if isinstance(data, Split | Sequence) else (data,)
        if len(parts) not in (2, 3):
            raise ValueError(
                f"Training: the data must be (training, validation) or (training, validation, test), as "
                f"gradwise.split gives them; got {len(parts)} part{'s' * (len(parts) != 1)}"
            )
        names = ("training", "validation", "test")
        made = [_part(p, name, self.device) for p, name in zip(parts, names, strict=False)]
        self.data, self.held, self.tested = made[0], made[1], made[2] if len(made) > 2 else None
        self._optimizer = optimizer

    def __call__(self, config: Config, seed: int = 0, report: Callable[[int, float], None] | None = None) -> float:
        """Train one configuration by itself: the validation score."""
        from gradwise.batched.loop import alone

        return _number(alone(self, config, seed, report or (lambda epoch, value: None)).value)

    def train(self, configs: Sequence[Config], seeds: Sequence[int] | int = 0) -> list[Trained]:
        """Train many configurations at once.

        Args:
            configs: what to train.
            seeds: of initial weights and of the order of the data: one for all, or one for each.

        Raises:
            BatchError: they can't train in one batch, and why.
            Exception: what a configuration itself raises.
        """
        from gradwise.batched.loop import Run, together

        given = [seeds] * len(configs) if isinstance(seeds, int) else list(seeds)
        if len(given) != len(configs):
            raise ValueError(f"train: {len(given)} seeds for {len(configs)} configurations")
        runs = [Run(config, seed) for config, seed in zip(configs, given, strict=True)]
        made = []
        for each in together(self, runs, lambda k, epoch, value: False):
            if isinstance(each, Exception):
                raise each
            made.append(each)
        return made

    def test(self, config: Config, seed: int = 0) -> float:
        """Train one configuration by itself: the test score."""
        from gradwise.batched.loop import alone, tested

        return tested(self, config, alone(self, config, seed, lambda epoch, value: None).state)

    def engine(self, method: Method, baseline: Config | None, maximize: bool) -> Batched | None:
        """What makes runs of it for `gradwise.tune`; None where one after another is asked for."""
        from gradwise.batched.engine import Batched

        return Batched(self, method, baseline, maximize) if self.rows > 1 else None

    # what a run consists of

    def build(self, config: Config, seed: int) -> nn.Module:
        """The model of a configuration as it is before training."""
        seeded(self.device, seed)
        model = self.model(dict(config))
        if not isinstance(model, nn.Module):
            raise TypeError(f"model(config) gave {type(model).__name__}, which is no torch.nn.Module")
        return model.to(self.device)

    def optimizer(self, model: nn.Module, config: Config) -> Any:
        """The optimizer of a configuration."""
        if self._optimizer is not None:
            return self._optimizer(model, config)
        return optimizer_of(model, config, self.steps(config))

    def lasts(self, config: Config) -> tuple[int, int]:
        """Batch size and epochs of a configuration."""
        size, epochs = int(config.get("batch_size", self.batch_size)), int(config.get("epochs", self.epochs))
        if size < 1 or epochs < 1:
            raise ValueError(f"batch_size and epochs must be at least 1, not {size} and {epochs}")
        return min(size, len(self.data[0])), epochs

    def steps(self, config: Config) -> int:
        """Optimizer steps of a whole run."""
        size, epochs = self.lasts(config)
        return epochs * math.ceil(len(self.data[0]) / size)


def seeded(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed` where it matters; that takes milliseconds, for devices that aren't there."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _part(part: Any, name: str, device: torch.device) -> Part:
    columns = part if isinstance(part, tuple | list) else (part,)
    if len(columns) not in (1, 2) or not all(isinstance(c, Tensor | np.ndarray) for c in columns):
        raise ValueError(
            f"Training: the {name} data must be (inputs, targets) as tensors or arrays; a dataset becomes such by "
            f"next(iter(DataLoader(dataset, batch_size=len(dataset))))"
        )
    inputs, targets = (torch.as_tensor(c).to(device) for c in (columns[0], columns[-1]))
    if len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"Training: the {name} data has {len(inputs)} inputs and {len(targets)} targets")
    return inputs, targets


def _number(value: float | None) -> float:
    return math.nan if value is None else value
