"""The Hessian of a loss as an operator: its product with a vector, without its n² entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradwise.curvature.untouched import Luck, untouched

_NO_SECOND_DERIVATIVE = (
    "double backward",
    "derivative for",
    "checkpoint",
    "does not require grad",
    "compiled autograd",
)


class Hessian:
    """The matrix of second derivatives of a loss by the parameters, as far as one can have it: times a vector.

    H·v is the derivative of gᵀv, two backward passes for one product (Pearlmutter's trick). Vectors are flat: all
    parameters' entries one after the other, in order; `split` gives them their shapes back.

    Evaluating leaves no trace: parameters, their `.grad`, buffers (running statistics), training mode and all random
    generators are as they were. A loss that draws random numbers (dropout) draws the same ones each time. It runs in
    the mode its modules are in. Attention runs as plain mathematics, for its fused kernels have no second derivative.

    With one batch the loss's graph is kept between products, which saves the forward pass; with several, each product
    goes through all of them.

    Args:
        loss_fn: gives a scalar loss; called with a batch, and with nothing where there are none.
        parameters: a module, of which those that require a gradient are taken, or the tensors themselves; float32 or
            float64, for what is left of curvature in half precision is mostly rounding.
        batches: batches of equal weight, over which the loss is averaged; they're kept. None: the loss has its data.

    Attributes:
        parameters: the tensors.
        size: n, how many numbers they are together.
        products: how many were made.

    Raises:
        TypeError, ValueError: there is nothing to differentiate by, or the loss is no finite scalar.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hessian = Hessian(lambda: w[0] ** 2 + 3 * w[0] * w[1], [w])
        >>> hessian.product(torch.tensor([1.0, 0.0]))
        tensor([2., 3.])
        >>> hessian.gradient()
        tensor([8., 3.])

    Source:
        Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Tensor],
        parameters: nn.Module | Iterable[Tensor],
        batches: Iterable[Any] | None = None,
    ) -> None:
        self._modules = list(parameters.modules()) if isinstance(parameters, nn.Module) else []
        self.parameters = _checked(parameters)
        if not callable(loss_fn):
            raise TypeError(f"Hessian: loss_fn must be a function that gives the loss, not {_kind(loss_fn)}")
        if batches is None:
            self._losses: list[Callable[[], Tensor]] = [loss_fn]
        else:
            self._losses = [_on(loss_fn, batch) for batch in batches]
            if not self._losses:
                raise ValueError("Hessian: batches is empty; give at least one, or None if loss_fn has its data")
        self._begin(again=True)

    @classmethod
    def of_loss(cls, loss: Tensor | Sequence[Tensor], parameters: nn.Module | Iterable[Tensor]) -> Hessian:
        """The Hessian of a loss that has been computed already, whose graph is alive.

        The graph stays alive. It must have been built with attention as plain mathematics
        (`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`), and the loss can't be evaluated elsewhere: no escape from
        a saddle can be tested.

        Args:
            loss: a scalar with a graph, or several, which are averaged.
            parameters: as for the class.

        Example:
            >>> w = torch.tensor([3.0], requires_grad=True)
            >>> Hessian.of_loss((w**3).sum(), [w]).product(torch.tensor([1.0]))
            tensor([18.])
        """
        hessian = cls.__new__(cls)
        hessian._modules = list(parameters.modules()) if isinstance(parameters, nn.Module) else []
        hessian.parameters = _checked(parameters)
        losses = [loss] if isinstance(loss, Tensor) else list(loss)
        if not losses:
            raise ValueError("Hessian.of_loss: there is no loss; give at least one tensor")
        hessian._losses = [_given(each) for each in losses]
        hessian._begin(again=False)
        return hessian

    def _begin(self, again: bool) -> None:
        first = self.parameters[0]
        self.size = sum(p.numel() for p in self.parameters)
        self.dtype, self.device = first.dtype, first.device
        self.products = 0
        self.again = again  # whether the loss can be evaluated at other parameters
        self._luck = Luck(p.device for p in self.parameters)
        self._graph: tuple[list[tuple[int, int]], Tensor, list[Tensor]] | None = None

    @property
    def batches(self) -> int:
        """How many batches the loss is averaged over."""
        return len(self._losses)

    # products

    def product(self, vector: Tensor, batch: int | None = None) -> Tensor:
        """H·v, averaged over the batches.

        Args:
            vector: n numbers.
            batch: the number of one batch, to have its Hessian alone.

        Raises:
            ValueError: the vector's shape is wrong, or the loss is not a finite scalar.
            RuntimeError: an operation of the loss has no second derivative.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"Hessian.product: expected a vector of {self.size} entries, got {tuple(vector.shape)}")
        self.products += 1
        along = self.split(vector.to(self.device, self.dtype))
        numbers = range(self.batches) if batch is None else [batch]
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for number in numbers:
            with self._quietly():
                _, gradients = self._differentiated(number)
                curved = [(g, v.to(g.device)) for g, v in zip(gradients, along, strict=True) if g.requires_grad]
                if not curved:
                    continue  # linear in the parameters, piece by piece: no curvature
                slope = sum(((g * v).sum().to(self.device) for g, v in curved[1:]), (curved[0][0] * curved[0][1]).sum())
                found = torch.autograd.grad(
                    slope, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            total += self.flatten(found)
        return total / len(numbers)

    def gradient(self, batch: int | None = None) -> Tensor:
        """The gradient as a flat vector: the mean over the batches, or that of one of them."""
        numbers = range(self.batches) if batch is None else [batch]
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for number in numbers:
            with self._quietly():
                _, gradients = self._differentiated(number)
            total += self.flatten(gradients)
        return total / len(numbers)

    def losses(self) -> list[float]:
        """The loss of each batch."""
        values = []
        for number in range(self.batches):
            with self._quietly():
                kept = self._kept()
                values.append(float((self._loss(number) if kept is None else kept[0]).detach()))
        return values

    @contextmanager
    def moved(self, by: Tensor) -> Iterator[None]:
        """Evaluate elsewhere: the parameters moved by a flat vector within the block, and afterwards exactly back.

        Raises:
            RuntimeError: this is the Hessian of a loss computed before.
        """
        if not self.again:
            raise RuntimeError("Hessian.moved: a loss computed already can't be evaluated elsewhere; give a function")
        # Past autograd's count of versions: the graph kept, and any of the user's, are for where the parameters were.
        before = [p.data.clone() for p in self.parameters]
        kept, self._graph = self._graph, None
        try:
            for parameter, part in zip(self.parameters, self.split(by), strict=True):
                parameter.data.add_(part.to(parameter.device))
            yield
        finally:
            self._graph = kept
            for parameter, value in zip(self.parameters, before, strict=True):
                parameter.data.copy_(value)

    # vectors

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """One vector of tensors with the parameters' shapes."""
        return torch.cat([t.detach().reshape(-1).to(self.device) for t in tensors])

    def split(self, vector: Tensor) -> list[Tensor]:
        """A flat vector's parts with the parameters' shapes."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def random_vector(self, seed: int = 0) -> Tensor:
        """A direction that favours none: normal numbers from a generator of its own."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.size, generator=generator, dtype=torch.float64).to(self.device, self.dtype)

    # within

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            with untouched(self._luck, self._modules):
                yield
        except RuntimeError as error:
            if any(words in str(error) for words in _NO_SECOND_DERIVATIVE):
                raise RuntimeError(
                    f"Hessian: something in the loss can't be differentiated twice ({str(error).splitlines()[0]}); "
                    "leave out what is fused, compiled or checkpointed with use_reentrant=True"
                ) from error
            raise

    def _loss(self, number: int) -> Tensor:
        loss = self._losses[number]()
        where = f" of batch {number}" if self.batches > 1 else ""
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"Hessian: the loss{where} must be a tensor, but is {_kind(loss)}; don't call .item() on it"
            )
        if loss.numel() != 1:
            raise ValueError(
                f"Hessian: the loss{where} must be a scalar, but has shape {tuple(loss.shape)}; take its mean or sum"
            )
        if not math.isfinite(float(loss.detach())):
            raise ValueError(
                f"Hessian: the loss{where} is {float(loss.detach())}, and there is no curvature where it isn't finite; "
                "go back to a step at which it was"
            )
        if not loss.requires_grad:
            raise ValueError(
                f"Hessian: the loss{where} has no graph; compute it from the parameters, without no_grad() or detach()"
            )
        return loss.reshape(())

    def _kept(self) -> tuple[Tensor, list[Tensor]] | None:
        """The graph from before, if it is still the parameters' own."""
        if self._graph is None or self._graph[0] != _stamp(self.parameters):
            self._graph = None
            return None
        return self._graph[1:]

    def _differentiated(self, number: int) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient with their graph."""
        kept = self._kept()
        if kept is not None:
            return kept
        loss = self._loss(number)
        found: Sequence[Tensor | None] = torch.autograd.grad(
            loss, self.parameters, create_graph=True, allow_unused=True
        )
        if all(g is None for g in found):
            raise ValueError("Hessian: the loss depends on none of the parameters; give those it is computed from")
        if any(g is not None and g.layout is not torch.strided for g in found):
            raise ValueError("Hessian: a gradient is sparse, which can't be differentiated again; use sparse=False")
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters, strict=True)]
        if self.batches == 1:
            self._graph = _stamp(self.parameters), loss, gradients
        return loss, gradients


def _on(loss_fn: Callable[[Any], Tensor], batch: Any) -> Callable[[], Tensor]:
    return lambda: loss_fn(batch)


def _given(loss: Tensor) -> Callable[[], Tensor]:
    return lambda: loss


def _stamp(parameters: Sequence[Tensor]) -> list[tuple[int, int]]:
    return [(p.data_ptr(), p._version) for p in parameters]


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _checked(parameters: Any) -> list[Tensor]:
    """The tensors to differentiate by."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    if isinstance(parameters, nn.Module):
        found: list[Tensor] = [p for p in parameters.parameters() if p.requires_grad]
        if not found:
            raise ValueError(f"Hessian: no parameter of {_kind(parameters)} requires a gradient; unfreeze some")
    else:
        found = list({id(p): p for p in parameters}.values())
        if not found:
            raise ValueError("Hessian: parameters is empty (a generator that was used up?); give a list of tensors")
    for k, p in enumerate(found):
        if not isinstance(p, Tensor):
            raise TypeError(f"Hessian: parameters[{k}] must be a tensor, but is {_kind(p)}")
        if not p.requires_grad:
            raise ValueError(f"Hessian: parameters[{k}] of shape {tuple(p.shape)} doesn't require a gradient")
        if p.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Hessian: parameters[{k}] is {p.dtype}; measure in float32 or float64 (model.float())")
    if len({p.dtype for p in found}) > 1:
        raise ValueError("Hessian: some parameters are float32 and some float64; make them all the same")
    return found
