"""Models of one architecture as one, their parameters and buffers stacked; forward by `torch.func.vmap`."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[..., Tensor]


class BatchError(ValueError):
    """Models or optimizers that can't train in one batch: what stands against it, and what to do."""


def architecture(model: nn.Module) -> tuple[Any, ...]:
    """What models have in common that compute the same function of inputs, parameters and buffers.

    Modules by name and class, with all their attributes; of parameters and buffers the shapes. An attribute that can't
    be compared is taken for another one in each model.
    """
    modules = [
        (name, type(module), tuple((k, _frozen(v)) for k, v in sorted(vars(module).items()) if k not in _KEPT))
        for name, module in model.named_modules(remove_duplicate=False)
    ]
    tensors = [
        (name, tuple(t.shape), t.dtype, t.device, t.requires_grad)
        for name, t in (*model.named_parameters(), *model.named_buffers())
    ]
    shared = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return (tuple(modules), tuple(tensors), tuple(shared))


_KEPT = {"_parameters", "_buffers", "_modules"}


def _frozen(value: Any) -> Any:
    """A value that compares equal where the original means the same."""
    if isinstance(value, bool | int | float | str | bytes | torch.dtype | torch.device | type) or value is None:
        return (type(value), value)
    if isinstance(value, list | tuple):
        return (type(value), tuple(map(_frozen, value)))
    if isinstance(value, set | frozenset):
        return (type(value), frozenset(map(_frozen, value)))
    if isinstance(value, dict):
        return (type(value), tuple((_frozen(k), _frozen(v)) for k, v in value.items()))
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().view(-1)
        return (tuple(value.shape), value.dtype, plain.view(torch.uint8).numpy().tobytes())
    if isinstance(value, functools.partial):
        return (functools.partial, _frozen(value.func), _frozen(value.args), _frozen(value.keywords))
    if isinstance(value, types.FunctionType):
        cells = tuple(_frozen(c.cell_contents) for c in value.__closure__ or ())
        return (value.__code__, cells, _frozen(value.__defaults__), id(value.__globals__))
    return (type(value), id(value))


class Stack:
    """Models of one architecture with their tensors stacked.

    Args:
        models: of equal `architecture`.
        loss: of outputs and targets, a mean over the batch.
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss) -> None:
        self._base = copy.deepcopy(models[0])
        self.names = [name for name, _ in models[0].named_parameters()]
        rows = [dict(m.named_parameters()) for m in models]
        self.params = [
            torch.stack([row[name].detach() for row in rows]).requires_grad_(rows[0][name].requires_grad)
            for name in self.names
        ]
        held = [dict(m.named_buffers()) for m in models]
        self.buffers = {name: torch.stack([row[name].detach() for row in held]) for name in held[0]}
        self._loss = loss
        self._saved = _names(self._base)
        self._within: Mapping[str, Tensor] = {}
        self._base.register_forward_hook(self._check)

    def __len__(self) -> int:
        return len(self.params[0]) if self.params else 0

    def training(self, inputs: Tensor, targets: Tensor, each: bool) -> tuple[Tensor, list[Tensor | None]]:
        """Every row's loss on a batch, and its gradients.

        Args:
            inputs: of one batch for all rows, or stacked, of one for each.
            targets: likewise.
            each: whether each row has a batch of its own.

        Raises:
            BatchError: the models do what can't be done for many rows at once.
        """
        self._base.train()
        trained = [p for p in self.params if p.requires_grad]
        try:
            losses = self._mapped(self._loss, inputs, targets, each)
            found = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
        except RuntimeError as error:
            raise _explained(error) from error
        grads = iter(found)
        return losses.detach(), [next(grads) if p.requires_grad else None for p in self.params]

    @torch.no_grad()
    def evaluate(self, measure: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
        """What a measure gives for every row on a batch, in evaluation mode."""
        self._base.eval()
        try:
            return self._mapped(measure, inputs, targets, False)
        except RuntimeError as error:
            raise _explained(error) from error

    def _mapped(self, measure: Loss, inputs: Tensor, targets: Tensor, each: bool) -> Tensor:
        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            self._within = buffers
            return measure(functional_call(self._base, (params, buffers), (x,)), y)

        data = 0 if each else None
        given = dict(zip(self.names, self.params, strict=True))
        mapped = vmap(one, in_dims=(0, 0, data, data), randomness="different")
        with _mappable(inputs.device):
            found: Tensor = mapped(given, self.buffers, inputs, targets)
        if found.dim() != 1:
            shape = tuple(found.shape[1:])
            raise BatchError(f"the loss must be one number for a batch, its mean; it has the shape {shape}")
        return found

    def _check(self, module: nn.Module, args: Any, output: Any) -> None:
        """What a forward pass does to a buffer must be done in place: that is where the rows are."""
        there = dict(module.named_buffers())
        lost = next((name for name, buffer in self._within.items() if there.get(name) is not buffer), None)
        if lost is not None:
            raise BatchError(
                f"the model puts another tensor in place of its buffer {lost} where many rows need it written in place "
                f"(self.{lost}.copy_(…)); rows=1 trains one after another"
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        chosen = torch.as_tensor(rows)
        self.params = [_taken(p.detach(), chosen).requires_grad_(p.requires_grad) for p in self.params]
        self.buffers = {k: _taken(b, chosen) for k, b in self.buffers.items()}

    def finite(self) -> list[bool]:
        """Of each row, whether all its parameters are finite."""
        found = torch.ones(len(self), dtype=torch.bool)
        for p in self.params:
            found &= p.detach().reshape(len(p), -1).isfinite().all(1).cpu()
        return found.tolist()

    def state(self, row: int) -> dict[str, Tensor]:
        """A row's parameters and buffers, for `load_state_dict`."""
        tensors = dict(zip(self.names, self.params, strict=True)) | self.buffers
        return {name: tensors[first][row].detach().clone() for name, first in self._saved.items()}


def _names(model: nn.Module) -> dict[str, str]:
    """The names under which a model's tensors are saved, and the first name of each, which is another if it is tied."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        first.setdefault(id(tensor), name)
    return {name: first[id(t)] for name, t in model.state_dict(keep_vars=True).items() if id(t) in first}


@contextmanager
def _mappable(device: torch.device) -> Iterator[None]:
    """Without kernels on the CPU that vmap could only call for one row after another."""
    if device.type != "cpu":
        yield
        return
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _taken(stacked: Tensor, chosen: Tensor) -> Tensor:
    return stacked.index_select(0, chosen.to(stacked.device))


def _explained(error: RuntimeError) -> BatchError:
    """What stands against one batch, and what to do."""
    words = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    if "Batching rule not implemented" in words or "vmap" in words:
        return BatchError(
            f"the model or the loss does what torch.func.vmap can't do for many rows at once ({words}); "
            "rows=1 trains one after another"
        )
    raise error
