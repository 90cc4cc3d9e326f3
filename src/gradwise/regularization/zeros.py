"""How many weights are exactly zero, and which inputs no longer matter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from gradwise.regularization.roles import BIAS, NORM, parameters


@dataclass(frozen=True)
class LayerZeros:
    """The zeros of one weight.

    Attributes:
        name: the parameter's name.
        zeros: how many of its elements are exactly zero.
        total: how many elements it has.
        inputs: how many inputs (features, channels) it reads; None where that can't be told.
        dropped: those of them that all its weights are zero for, counted from 0.
    """

    name: str
    zeros: int
    total: int
    inputs: int | None = None
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sparsity:
    """What `sparsity` found, weight by weight from input to output; prints as a table."""

    layers: tuple[LayerZeros, ...]

    @property
    def zeros(self) -> int:
        """Elements that are exactly zero, of all weights."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def total(self) -> int:
        """Elements of all weights."""
        return sum(layer.total for layer in self.layers)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Inputs of the first layer that no longer matter: the features that were not selected."""
        return next((layer.dropped for layer in self.layers if layer.inputs is not None), ())

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=0)
        lines = [f"{layer.name:{width}}  {_share(layer.zeros, layer.total)}{_inputs(layer)}" for layer in self.layers]
        return "\n".join([*lines, f"{'all':{width}}  {_share(self.zeros, self.total)}"])


def sparsity(model: nn.Module) -> Sparsity:
    """Count the exact zeros of every weight, and find the inputs whose weights are all zero.

    Args:
        model: the model; biases and normalization are left out.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = model[0].weight.data[:, 1].zero_()
        >>> print(sparsity(model))
        0.weight  2 of 6 zero (33.3 %), 1 of 3 inputs dropped: 1
        2.weight  0 of 2 zero (0 %), 0 of 2 inputs dropped
        all       2 of 8 zero (25 %)
        >>> sparsity(model).dropped
        (1,)
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = []
    for p in parameters(model):
        if {BIAS, NORM}.isdisjoint(p.roles):
            owner, _, name = p.name.rpartition(".")
            used = _used(modules[owner], name, p.tensor.detach())
            dropped = () if used is None else tuple((~used).nonzero().flatten().tolist())
            zeros = int((p.tensor.detach() == 0).sum())
            layers.append(LayerZeros(p.name, zeros, p.tensor.numel(), None if used is None else len(used), dropped))
    return Sparsity(tuple(layers))


def _used(module: nn.Module, name: str, weight: Tensor) -> Tensor | None:
    """Which inputs of a weight have one that isn't zero; None where it reads none or it can't be told."""
    taken = weight != 0
    if isinstance(module, _ConvTransposeNd):
        return taken.flatten(1).any(1)
    if isinstance(module, _ConvNd):
        groups = module.groups
        return taken.reshape(groups, -1, *taken.shape[1:]).transpose(1, 2).flatten(2).any(2).flatten()
    reads = isinstance(module, nn.Linear | nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention)
    return taken.any(0) if reads and weight.ndim == 2 and "_hh" not in name else None


def _share(zeros: int, total: int) -> str:
    return f"{zeros:,} of {total:,} zero ({100 * zeros / max(total, 1):.3g} %)"


def _inputs(layer: LayerZeros) -> str:
    if layer.inputs is None:
        return ""
    shown = ", ".join(map(str, layer.dropped[:20])) + (", …" if len(layer.dropped) > 20 else "")
    return f", {len(layer.dropped):,} of {layer.inputs:,} inputs dropped{': ' if shown else ''}{shown}"
