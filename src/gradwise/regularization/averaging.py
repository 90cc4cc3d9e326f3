"""Averages of weights over training: exponential (EMA) or with equal weights (SWA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn


class Average(AveragedModel):
    """A running average of a model's weights: torch's `AveragedModel`, with running statistics averaged too.

    It is called like the model; `average.module` is the averaged model, `n_averaged` how many went into it.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        formula = get_swa_multi_avg_fn() if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(model, multi_avg_fn=formula)
        self.decay = decay
        self.module.requires_grad_(False)

    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average; the first time they are the average."""
        self.update_parameters(model)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """The same as `update`, by torch's name."""
        before = [(b, b.clone()) for b in _statistics(self.module)]
        seen = int(self.n_averaged)
        super().update_parameters(model)  # which copies all buffers
        weight = 1 / (seen + 1) if self.decay is None or not seen else 1 - self.decay
        for buffer, old in before:
            buffer.copy_(old.lerp(buffer, weight))

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """Within the block the model has the averaged weights and buffers; after it, its own again.

        Args:
            model: the model, which must not be trained within.

        Raises:
            RuntimeError: nothing has been averaged yet.
        """
        if not int(self.n_averaged):
            raise RuntimeError("average: nothing has been averaged yet: call update(model) after optimizer steps")
        own = [tensor.detach().clone() for tensor in _tensors(model)]
        _copy(_tensors(self.module), _tensors(model))
        try:
            yield model
        finally:
            _copy(own, _tensors(model))


def average(model: nn.Module, decay: float | None = 0.999) -> Average:
    """An average of the model's weights, to be updated after optimizer steps.

    Exponential: w̄ ← decay·w̄ + (1 − decay)·w, which looks back about 1/(1 − decay) updates. With equal weights: w̄ ←
    w̄ + (w − w̄)/(n + 1), the mean of all updates; begin late in training. Running means and variances of batch
    normalization are averaged likewise, other buffers copied; after equal weights it is better still to compute them
    anew with `torch.optim.swa_utils.update_bn`.

    Args:
        model: the model, on its device; a copy of it is made.
        decay: of the exponential average, in [0, 1]; None weighs all alike.

    Returns:
        `Average`, a module: `update(model)` after a step, `with average.applied_to(model):` for evaluation,
        `state_dict()` for checkpoints.

    Raises:
        ValueError: a decay outside [0, 1].

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = average(model, decay=0.5)
        >>> for value in (0.0, 1.0, 1.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     ema.update(model)
        >>> with ema.applied_to(model):
        ...     print(model.weight.item())
        0.75
        >>> model.weight.item()
        1.0

    Source:
        Polyak & Juditsky, Acceleration of stochastic approximation by averaging, 1992; Izmailov et al., Averaging
        weights leads to wider optima and better generalization, UAI 2018.
    """
    if decay is not None and not 0 <= decay <= 1:
        raise ValueError(f"average: decay must be from 0 to 1, or None for equal weights; got {decay!r}")
    return Average(model, decay)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances; no other buffers, which may hold infinities (masks) or counts."""
    names = ("running_mean", "running_var")
    return [b for n, b in model.named_buffers() if n.rpartition(".")[2] in names and b.is_floating_point()]


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for old, new in zip(source, target, strict=True):
        new.copy_(old)
