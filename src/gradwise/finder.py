"""`gradwise.range_test`: the learning rate for training in this very process, a notebook's or a loop of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.diagnosis.suggestion import Suggestion
from gradwise.recording.recording import Series
from gradwise.schedules import Schedule
from gradwise.search.rates import HIGH, LOW, Budget, HaltedError, Run
from gradwise.search.rates import range_test as _range_test

# How often a run at a constant rate is evaluated on held-out data.
_EVALUATIONS = 12

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer


def range_test(
    train: Module | Callable[..., Any],
    batches: Iterable[Any] | None = None,
    loss: Callable[..., Any] | None = None,
    *,
    optimizer: Optimizer,
    validation: Iterable[Any] | Callable[[], Any] | None = None,
    budget: int = 1200,
    horizon: int | None = None,
    low: float = LOW,
    high: float = HIGH,
) -> Suggestion:
    """Find the learning rate by trying: a ramp, then short runs at constant rates with the same batches.

    Afterwards the optimizer's parameters, its state, the model's buffers and torch's random numbers are as before.

    Args:
        train: a model, whose loss is `loss(model(x), y)` for each batch (x, y); or a function that makes one whole step
            of training, `optimizer.step()` included, on a batch (on nothing, without `batches`) and returns its loss.
        batches: a loader, or anything that can be gone through again and again.
        loss: from outputs and targets; only for a model.
        optimizer: whose rate it is: that of its first group; the others keep their ratio to it.
        validation: held-out batches (x, y), for a model, which is put in evaluation mode for them; or a function
            without arguments that returns the held-out loss. Then the rate with the lowest *held-out* loss is forecast,
            from twelve evaluations of each run at a constant rate: where a network learns its rows by heart, the
            training loss can't tell. None goes by the training loss.
        budget: steps of all runs together.
        horizon: the length in steps of the training that the rate is for; None is that of the runs.
        low: where the ramp begins.
        high: where it ends.

    Returns:
        The rate, an interval, the horizon and why; `gradwise.figures.range_figure` draws it.

    Raises:
        TypeError: a model without batches or loss; validation batches without a model; an optimizer whose groups have
            no rate.
        ValueError: a budget too small for a ramp.

    Example:
        >>> import torch, gradwise
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> x = torch.randn(256, 8)
        >>> batches = list(zip(x.split(32), x.sum(1, keepdim=True).split(32)))
        >>> model = torch.nn.Linear(8, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> found = gradwise.range_test(model, batches, torch.nn.functional.mse_loss, optimizer=optimizer)
        >>> 0.02 < found.rate < 0.5, found.confirmed
        (True, True)

    Source: Smith (2017), "Cyclical learning rates for training neural networks", for the ramp.
    """
    import torch

    if budget < 60:
        raise ValueError(f"range_test: a budget of {budget} steps is too small: 60 at least")
    if not all("lr" in group for group in optimizer.param_groups):
        raise TypeError(f"range_test: the groups of {type(optimizer).__name__} have no learning rate to find")
    if isinstance(train, torch.nn.Module) and (batches is None or loss is None):
        raise TypeError(
            "range_test: a model needs batches and a loss; a function that makes a whole step needs neither"
        )
    step = _training(train, loss, optimizer) if isinstance(train, torch.nn.Module) else train
    model = train if isinstance(train, torch.nn.Module) else None
    track = _Track(step, batches, optimizer, model, _validating(validation, model, loss))
    try:
        return _range_test(track, Budget(budget, horizon, low, high))
    finally:
        track.restore()


def _training(model: Any, loss: Any, optimizer: Any) -> Callable[[Any], Tensor]:
    def step(batch: Any) -> Any:
        x, y = batch
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def _validating(validation: Any, model: Any, loss: Any) -> Callable[[], float] | None:
    if validation is None or (callable(validation) and not isinstance(validation, Iterable)):
        return None if validation is None else lambda: float(validation())
    if model is None or not isinstance(validation, Iterable):
        raise TypeError(
            "range_test: validation is held-out batches (x, y) for a model, or a function that returns a held-out loss"
        )

    def evaluate() -> float:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            total, rows = 0.0, 0
            for x, y in validation:
                total, rows = total + float(loss(model(x), y)) * len(x), rows + len(x)
        finally:
            for module, training in modes:
                module.training = training
        if not rows:
            raise ValueError("range_test: validation has no batches")
        return total / rows

    return evaluate


class _Track:
    """Runs in this process, each from the same start (`gradwise.search.rates.Track`)."""

    def __init__(
        self,
        step: Callable[..., Any],
        batches: Any,
        optimizer: Any,
        model: Any,
        validate: Callable[[], float] | None = None,
    ) -> None:
        import torch

        self.validate = validate
        self.torch, self.step, self.batches, self.optimizer, self.model = torch, step, batches, optimizer, model
        self.values = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]
        self.buffers = {} if model is None else {k: v.clone() for k, v in model.state_dict().items()}
        self.state = copy.deepcopy(optimizer.state_dict())
        self.random, self.legacy = torch.get_rng_state(), np.random.get_state()
        self.generator = getattr(batches, "generator", None)
        self.order = None if self.generator is None else self.generator.get_state()
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.shares = [rate / rates[0] if rates[0] > 0 else 1.0 for rate in rates]

    def restore(self) -> None:
        """Everything as it was at the start."""
        with self.torch.no_grad():
            if self.model is not None:
                self.model.load_state_dict(self.buffers)
            for group, values in zip(self.optimizer.param_groups, self.values, strict=True):
                for parameter, value in zip(group["params"], values, strict=True):
                    parameter.copy_(value)
                    parameter.grad = None
        self.optimizer.load_state_dict(copy.deepcopy(self.state))
        self.torch.set_rng_state(self.random)
        np.random.set_state(self.legacy)
        if self.generator is not None:
            self.generator.set_state(self.order)

    def run(self, lr: Schedule, steps: int, what: str) -> Run:
        """One run; it ends where the loss is no longer finite."""
        self.restore()
        losses: list[float] = []
        feed = None if self.batches is None else _again(self.batches)
        rates = lr(np.arange(steps))
        # The ramp shows where to look; only runs at a constant rate are judged.
        every = max(1, steps // _EVALUATIONS) if self.validate and rates.min() == rates.max() else 0
        seen: list[tuple[int, float]] = []
        for rate in rates:
            for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
                group["lr"] = float(rate) * share
            losses.append(float(self.step() if feed is None else self.step(next(feed))))
            if not np.isfinite(losses[-1]):
                break
            if every and len(losses) % every == 0:
                seen.append((len(losses), self._validated()))
        at, values = np.array([s for s, _ in seen], np.int64), np.array([v for _, v in seen], np.float64)
        momentum = _momentum(self.optimizer.param_groups[0])
        return Run(np.array(losses), momentum=momentum, validation=Series(at, values))

    def _validated(self) -> float:
        """The held-out loss; random numbers are as before."""
        assert self.validate is not None
        random, legacy = self.torch.get_rng_state(), np.random.get_state()
        with self.torch.no_grad():
            value = self.validate()
        self.torch.set_rng_state(random)
        np.random.set_state(legacy)
        return value


def _again(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise HaltedError("there are no batches")


def _momentum(group: dict[str, Any]) -> float:
    momentum = group.get("momentum")
    return float(group.get("betas", (0.0,))[0] if momentum is None else momentum)
