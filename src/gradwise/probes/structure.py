"""The layers and activations that a graph consists of, by what each operation does and what feeds it.

A layer is an operation that multiplies data with a parameter; its depth is the number of layers on the longest way
from the data to it. In an unrolled recurrence the same layer is called many times, each time deeper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gradwise.probes.graph import Graph, Node

# Operations that multiply two things, and under which names autograd keeps them: (place among the inputs, name).
_PRODUCTS = {
    "Addmm": ((1, "mat1"), (2, "mat2")),
    "Mm": ((0, "self"), (1, "mat2")),
    "Bmm": ((0, "self"), (1, "mat2")),
    "Mv": ((0, "self"), (1, "vec")),
    "Linear": ((0, "input"), (1, "weight")),
    "Convolution": ((0, "input"), (1, "weight")),
    "MkldnnRnnLayer": ((0, "input"), (1, "weight0")),
    "CudnnRnn": ((0, "input"), (1, "weight")),
}
_VIEWS = frozenset(
    ("T", "Transpose", "View", "UnsafeView", "ReshapeAlias", "Expand", "Permute", "Slice", "Select", "Clone",
     "ToCopy", "Split", "SplitWithSizes", "UnsafeSplit", "Unbind", "Unsqueeze", "Squeeze", "Alias", "Chunk")
)  # fmt: skip
_NORMS = frozenset(
    ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm",
     "BatchNormImpl")
)  # fmt: skip
RECTIFIERS = frozenset(("Relu", "Threshold", "Hardtanh", "ClampMin"))
SIGMOIDS = frozenset(("Sigmoid", "Tanh"))
OTHERS = frozenset(("LeakyRelu", "Gelu", "Silu", "Elu", "Softplus", "PreluKernel", "Mish", "Hardswish", "LogSigmoid"))

_ACTIVATIONS = RECTIFIERS | SIGMOIDS | OTHERS


@dataclass(slots=True)
class Layer:
    """A weight with the operations it takes part in, in forward order.

    Attributes:
        raw: whether the data it is multiplied with needs no gradient.
        flipped: whether its rows are inputs and its columns outputs (`x @ w`), where layers have it the other way.
    """

    weight: Any
    bias: Any
    kind: str
    raw: bool
    flipped: bool = False
    calls: list[tuple[Node, str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Activation:
    """The activations of one kind that follow one layer."""

    layer: Layer
    kind: str
    calls: list[tuple[Node, int]] = field(default_factory=list)
    hidden: bool = False
    gate: bool = False


@dataclass(slots=True)
class Structure:
    """What a graph consists of."""

    layers: list[Layer]
    activations: list[Activation]
    norms: list[int]


def structure(graph: Graph) -> Structure:
    """The layers, activations and depths of normalizations of a graph, in forward order."""
    layers: dict[int, Layer] = {}
    activations: dict[tuple[int, str], Activation] = {}
    norms: list[int] = []
    # Of each operation its depth and the layer whose output it carries.
    known: dict[Node, tuple[int, Layer | None]] = {}
    at: set[Node] = set()
    for node in graph.nodes:
        if node.parameter is not None:
            continue
        deep, mine = 0, None
        for child in node.inputs:
            if child in known:
                below, owner = known[child]
                deep = max(deep, below)
                mine = mine or owner
        name = node.name
        if name in _PRODUCTS:
            if (found := _product(node)) is None:
                # A weight that is itself computed (normalized, pruned, generated): no longer the output of that layer.
                known[node] = deep, None
                continue
            weight, bias, raw, saved, flipped = found
            deep += 1
            mine = layers.setdefault(id(weight), Layer(weight, bias, name, raw, flipped))
            mine.calls.append((node, saved, deep))
            mine.raw = mine.raw and raw
            at.add(node)
        elif name in _NORMS:
            norms.append(deep)
        elif name in _ACTIVATIONS and mine is not None:
            key = id(mine.weight), name
            if key not in activations:
                activations[key] = Activation(mine, name)
            activations[key].calls.append((node, deep))
        known[node] = deep, mine
    _mark(graph, list(activations.values()), at)
    return Structure(list(layers.values()), list(activations.values()), norms)


def _mark(graph: Graph, activations: Sequence[Activation], layers: set[Node]) -> None:
    """Tell which activations feed a further layer, and which only weigh something else (gates)."""
    feeds: set[Node | None] = set()
    gates: set[Node | None] = set()
    for node in reversed(graph.nodes):
        if node in layers or node in feeds:
            feeds.update(node.inputs)
        if node.name == "Mul" and len(node.inputs) == 2:
            sides = [_source(child) for child in node.inputs]
            if all(side is not None and side.parameter is None for side in sides):
                gates.update(sides)
    for activation in activations:
        activation.hidden = any(node in feeds for node, _ in activation.calls)
        activation.gate = any(node in gates for node, _ in activation.calls)


def _product(node: Node) -> tuple[Any, Any, bool, str, bool] | None:
    """Weight, bias, whether the data needs no gradient, under what name it is kept, and whether the weight is flipped.

    None for what is no product of data with a parameter.
    """
    (first, name), (second, other) = _PRODUCTS[node.name]
    if len(node.inputs) <= second:
        return None
    a, b = node.inputs[first], node.inputs[second]
    left, right = _leaf(a), _leaf(b)
    if (left is None) == (right is None):
        return None
    bias = node.inputs[0] if node.name == "Addmm" else node.inputs[2] if node.name == "Convolution" else None
    leaf = None if bias is None else bias.parameter
    matrix = node.name in ("Addmm", "Mm", "Bmm")
    if left is None:
        return right, leaf, a is None, name, matrix and not _turned(b)
    return left, leaf, b is None, other, matrix and _turned(a)


def _leaf(node: Node | None) -> Any:
    """The parameter that a tensor is a view or a copy of."""
    return getattr(_source(node), "parameter", None)


def _source(node: Node | None) -> Node | None:
    """What a tensor is a view or a copy of."""
    while node is not None and node.name in _VIEWS and len(node.inputs) == 1:
        node = node.inputs[0]
    return node


def _turned(node: Node | None) -> bool:
    """Whether the views on the way from a parameter turn it, as `w.T` does."""
    turns = 0
    while node is not None and node.name in _VIEWS and len(node.inputs) == 1:
        turns += node.name in ("T", "Transpose", "Permute")
        node = node.inputs[0]
    return turns % 2 == 1
