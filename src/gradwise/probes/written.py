"""Losses written out by hand, read off the graph that they leave: which function it is, of what output and target.

`((pred - y) ** 2).mean()` and `-logp[range(n), y].mean()` call no loss function of torch's, but autograd keeps what it
needs of them: the difference, the index. What was subtracted from the output is found by computing the output once more
from what its last operation kept. Whether it is the function that it looks like, its value tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.graph import Node, opened
from gradwise.probes.losses import LossCalls

if TYPE_CHECKING:
    from torch import Tensor

# Operations between what is differentiated and what was compared, and how many of them are gone through.
_LAYOUT = frozenset(
    ("Alias", "Clone", "Reshape", "ReshapeAlias", "Squeeze", "ToCopy", "UnsafeView", "Unsqueeze", "View")
)
_BETWEEN = frozenset(("Add", "Div", "Mean", "Mul", "Neg", "Rsub", "Sub", "Sum")) | _LAYOUT
_NEAR = 24
# Multiplications that computing an output once more may take.
_MOST = 1 << 22
# A function's value and the loss, in single precision.
_SAME = 1e-3
# Backward passes after which a graph that showed nothing is looked at again, at first.
_AGAIN = 64


@dataclass(frozen=True, slots=True)
class Written:
    """A loss as it was recognized.

    Attributes:
        name: the function of torch's that does the same.
        given, target: what that would be given: predictions, log-probabilities per class, or probabilities.
        value: computes its mean over these.
        alone: whether nothing else is part of what is differentiated, which then is a multiple of it.
    """

    name: str
    given: Tensor
    target: Tensor
    value: Callable[[], Tensor]
    alone: bool


class ByHand:
    """Shows losses that are written out by hand to those that listen to torch's loss functions.

    Attributes:
        due: the backward pass (counted from 0) from which on the next one is looked at.
    """

    def __init__(self, torch: ModuleType, losses: LossCalls) -> None:
        self.torch, self.losses = torch, losses
        self.due = 0
        self._scale = 0.0
        self._pause = _AGAIN
        self._held: Written | None = None

    def before(self, backward: int, losses: Sequence[Tensor], wanted: bool) -> None:
        """Look at what is about to be differentiated, if no loss function of torch's made it.

        Args:
            backward: number of the backward pass.
            losses: what is differentiated.
            wanted: whether it is examined, so that what is found is needed, and paid for.
        """
        targets = self.losses.targets
        if self.losses.called or len(losses) != 1 or (not wanted and (not self._scale or not losses[0].is_cpu)):
            self._wait(backward)  # on a device, comparing what was kept would wait for it
            return
        if not wanted and not targets.affords(self.losses.steps()):
            self.due = backward + 1 + targets.wait
            return
        began = perf_counter()
        with suppress(NotImplementedError), self.torch.no_grad():
            self._held = written(self.torch, losses[0])
            if self._held is not None:
                self._tell(self._held, losses[0])
        if not wanted:
            targets.charge(perf_counter() - began)
        if self._held is None:
            self._wait(backward)
        else:
            self.due = backward + 1

    @property
    def found(self) -> bool:
        """Whether the loss about to be differentiated was recognized."""
        return self._held is not None

    def _wait(self, backward: int) -> None:
        self.due = backward + self._pause
        self._pause *= 2

    def _tell(self, found: Written, loss: Tensor) -> None:
        if not self._scale:  # asked once: on a device it waits
            value = float(found.value())
            scale = float(loss.detach()) / value if value else math.nan
            self._scale = scale if found.alone and math.isfinite(scale) and scale > 0 else math.nan
            if abs(self._scale - 1) < _SAME:
                self._scale = 1.0
        self.losses.by_hand(found.name, found.given, found.target, self._scale)

    def after(self) -> None:
        """The backward pass is over: let go of what was recomputed."""
        self._held = None


def written(torch: ModuleType, loss: Tensor) -> Written | None:
    """The function that a loss without one of torch's loss functions computes; None where it isn't recognized."""
    if loss.grad_fn is None or loss.numel() != 1:
        return None
    near, alone = _near(opened(loss.grad_fn))
    for match in (_picked, _logarithms, _soft, _difference):
        found = next(match(torch, near, alone), None)
        if found is not None:
            return found
    return None


def _near(root: Node) -> tuple[list[Node], bool]:
    """What lies between a loss and the comparisons in it, these included; whether it is no sum of several things."""
    nodes, alone = [root], True
    seen = {id(root.fn)}
    for node in nodes:
        if node.name not in _BETWEEN or len(nodes) >= _NEAR:
            continue
        if node.name in ("Mul", "Div") and not _plain_factor(node):
            continue
        children = [child for child in node.inputs if child is not None]
        alone = alone and (len(children) < 2 or node.name not in ("Add", "Sub", "Rsub") or _is_pair(children))
        for child in children:
            if id(child.fn) not in seen:
                seen.add(id(child.fn))
                nodes.append(child)
    return nodes, alone


def _plain_factor(node: Node) -> bool:
    """Whether a product is one with a number: with a tensor, or with another result, rows may be weighted."""
    if sum(child is not None for child in node.inputs) > 1:
        return False
    at = next((i for i, child in enumerate(node.inputs) if child is not None), 0)
    other = node.saved("other" if at == 0 else "self")
    return other is None or other.numel() == 1


def _is_pair(children: list[Node]) -> bool:
    """Whether a sum is of the two halves of one function: log p and log (1 - p), or a score and its normalization."""
    names = {child.name for child in children}
    return names <= {"Mul"} or "Logsumexp" in names


def _difference(torch: ModuleType, near: list[Node], alone: bool) -> Iterator[Written]:
    """Squared and absolute differences of an output and a target."""
    for node in near:
        square = (node.name == "Pow" and getattr(node.fn, "_saved_exponent", None) == 2) or (
            node.name == "Mul" and len(node.inputs) == 2 and _same(*node.inputs)
        )
        if not square and node.name != "Abs":
            continue
        d, source = node.saved("self"), _peeled(node.inputs[0])
        if d is None or source is None or source.name not in ("Sub", "Rsub") or _number(source, "alpha") != 1:
            continue
        sides = [*source.inputs, None][:2]
        known = [side for side in sides if side is not None]
        given = output(known[0]) if len(known) == 1 else None
        if given is None or tuple(given.shape) != source.shape:
            continue
        given = given.reshape(d.shape)
        # prediction - target, or target - prediction; Rsub(a, b) is b - a
        minus = (sides[0] is not None) == (source.name == "Sub")
        target = given - d if minus else given + d
        if square:
            yield Written("mse_loss", given, target, d.square().mean, alone)
        else:
            yield Written("l1_loss", given, target, d.abs().mean, alone)


def _picked(torch: ModuleType, near: list[Node], alone: bool) -> Iterator[Written]:
    """Log-probabilities (or scores beside their log-sum-exp) of the right class, picked by indexing or gather."""
    for node in near:
        target = _chosen(torch, node)
        source = _peeled(node.inputs[0]) if target is not None else None
        if target is None or source is None:
            continue
        logs = _logs(source)
        if logs is None:
            normal = next((n for n in near if n.name == "Logsumexp" and _same(_peeled(n.inputs[0]), source)), None)
            logs = None if normal is None else normal.saved("self")
            logs = None if logs is None else logs.log_softmax(-1)
        if logs is None or logs.dim() < 2 or logs.shape[:-1] != target.shape or logs.shape[-1] < 2:
            continue
        logs, target = logs.reshape(-1, logs.shape[-1]), target.reshape(-1)
        yield Written("nll_loss", logs, target, partial(_mean_of, -logs, target), alone)


def _chosen(torch: ModuleType, node: Node) -> Tensor | None:
    """The classes picked: `logp[arange(n), y]`, `logp.gather(-1, y[..., None])`."""
    if node.name == "Gather":
        index, shape = node.saved("index"), node.inputs[0].shape if node.inputs[0] is not None else None
        if (
            index is None
            or shape is None
            or _number(node, "dim") % len(shape) != len(shape) - 1
            or index.shape[-1] != 1
        ):
            return None
        return index.squeeze(-1)
    if node.name != "Index":
        return None
    raw = getattr(node.fn, "_raw_saved_indices", None) or ()
    found: list[Tensor] = [r.data for r in raw if getattr(r, "unpack_hook", None) is None and r.data is not None]
    if len(found) != 2 or any(f.dim() != 1 or f.is_floating_point() for f in found):
        return None
    rows, classes = found
    in_turn = rows.shape == classes.shape and torch.equal(rows, torch.arange(len(rows), device=rows.device))
    return classes.detach() if in_turn and classes.dtype == torch.int64 else None


def _logarithms(torch: ModuleType, near: list[Node], alone: bool) -> Iterator[Written]:
    """`-(t * log(p) + (1 - t) * log(1 - p)).mean()`."""
    halves = []
    for node in near:
        side, t = _constant_factor(node)
        if side is None or t is None:
            continue
        if side.name == "Log" and (p := side.saved("self")) is not None:
            inner = _peeled(side.inputs[0])
            while inner is not None and inner.name in ("Add", "Clamp", "ClampMin"):  # a little for safety
                inner = _peeled(inner.inputs[0])
            halves.append((t, p, inner is not None and inner.name in ("Rsub", "Sub")))
        elif side.name == "LogSigmoid" and (z := side.saved("self")) is not None:
            inner = _peeled(side.inputs[0])
            halves.append((t, z.sigmoid(), inner is not None and inner.name == "Neg"))
    ones = [(t, p) for t, p, flipped in halves if not flipped and t.shape == p.shape]
    zeros = [(t, p) for t, p, flipped in halves if flipped and t.shape == p.shape]
    if len(ones) == 1 == len(zeros) and ones[0][0].shape == zeros[0][0].shape:
        (t, p), (rest, q) = ones[0], zeros[0]
        if bool(((t + rest - 1).abs() < 1e-6).all()):
            value = partial(_mean_of_two, t, p, rest, q)
            yield Written("binary_cross_entropy", p, t, value, alone)


def _soft(torch: ModuleType, near: list[Node], alone: bool) -> Iterator[Written]:
    """`-(y * logp).sum(1).mean()` with a share of each class in every row."""
    for node in near:
        side, y = _constant_factor(node)
        logs = None if side is None else _logs(side)
        if logs is None or y is None or y.shape != logs.shape or logs.dim() != 2 or logs.shape[1] < 2:
            continue
        if bool((y >= 0).all()) and bool(((y.sum(1) - 1).abs() < 1e-3).all()):
            yield Written("cross_entropy", logs, y, partial(_mean_over, -logs, y), alone)


def _mean_of(costs: Tensor, classes: Tensor) -> Tensor:
    return costs.gather(1, classes[:, None]).mean()


def _mean_of_two(t: Tensor, p: Tensor, rest: Tensor, q: Tensor) -> Tensor:
    return -(t * p.log() + rest * q.log()).mean()


def _mean_over(costs: Tensor, shares: Tensor) -> Tensor:
    return (costs * shares).sum(1).mean()


def _constant_factor(node: Node) -> tuple[Node | None, Tensor | None]:
    """Of a product with a tensor that needs no gradient: what was computed, and that tensor."""
    if node.name != "Mul" or len(node.inputs) != 2:
        return None, None
    at = 0 if node.inputs[0] is not None else 1
    if node.inputs[1 - at] is not None:
        return None, None
    factor = node.saved("other" if at == 0 else "self")
    return (_peeled(node.inputs[at]), factor) if factor is not None and factor.numel() > 1 else (None, None)


def _logs(node: Node) -> Tensor | None:
    """Log-probabilities that an operation made: a log-softmax, or the logarithm of a softmax."""
    if node.name == "LogSoftmax":
        return node.saved("result")
    p = node.saved("self") if node.name == "Log" else None
    return p.log() if p is not None and p.dim() > 1 and bool(((p.sum(-1) - 1).abs() < 1e-3).all()) else None


def _peeled(node: Node | None) -> Node | None:
    """The operation whose numbers these are, only laid out otherwise."""
    while node is not None and node.name in _LAYOUT and node.inputs:
        node = node.inputs[0]
    return node


def _same(a: Node | None, b: Node | None) -> bool:
    return a is not None and b is not None and a.fn == b.fn


def _number(node: Node, name: str) -> Any:
    return getattr(node.fn, f"_saved_{name}", None)


def output(node: Node | None) -> Tensor | None:
    """What an operation returned, computed from what it kept; None where that isn't enough."""
    if node is None:
        return None
    if node.parameter is not None:
        leaf: Tensor = node.parameter.detach()
        return leaf
    how = _OUTPUTS.get(node.name)
    if how is not None:
        return how(node)
    if node.name in _LAYOUT:
        inner, shape = output(node.inputs[0]), node.shape
        return None if inner is None or shape is None or inner.numel() != math.prod(shape) else inner.reshape(shape)
    return None


def _kept(node: Node) -> Tensor | None:
    return node.saved("result")


def _selected(node: Node) -> Tensor | None:
    inner, dim, index = output(node.inputs[0]), _number(node, "dim"), _number(node, "index")
    if inner is None or dim is None or index is None:
        return None
    dim, index = (int(n) - (1 << 64) if int(n) >= 1 << 63 else int(n) for n in (dim, index))
    return inner.select(dim, index)


def _factor(node: Node, at: int, name: str) -> Tensor | None:
    """A factor of a matrix product: kept for the other one's gradient, or a parameter."""
    kept = node.saved(name)
    if kept is not None:
        return kept
    source = node.inputs[at]
    turned = source is not None and source.name in ("T", "Transpose")
    leaf = source.inputs[0] if turned and source is not None else source
    if leaf is None or leaf.parameter is None or leaf.parameter.dim() > 2:
        return None
    weight: Tensor = leaf.parameter.detach()
    return weight.t() if turned else weight


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    small = a is not None and b is not None and a.numel() * (b.shape[1] if b.dim() > 1 else 1) <= _MOST
    return a @ b if small and a is not None and b is not None and a.dtype == b.dtype else None


def _added(node: Node) -> Tensor | None:
    if _number(node, "alpha") not in (1, None) or len(node.inputs) != 2:
        return None
    a, b = (output(side) for side in node.inputs)
    return None if a is None or b is None else a + b


def _addmm(node: Node) -> Tensor | None:
    if (_number(node, "alpha"), _number(node, "beta")) != (1, 1):
        return None
    product, bias = _product(_factor(node, 1, "mat1"), _factor(node, 2, "mat2")), output(node.inputs[0])
    return None if product is None or bias is None else product + bias


def _scaled(node: Node) -> Tensor | None:
    at = next((i for i, child in enumerate(node.inputs) if child is not None), 0)
    other = node.saved("other" if at == 0 else "self")
    inner = output(node.inputs[at]) if sum(child is not None for child in node.inputs) == 1 else None
    return None if inner is None or other is None else inner * other


_OUTPUTS: dict[str, Callable[[Node], Tensor | None]] = {
    **dict.fromkeys(("Tanh", "Sigmoid", "Relu", "Exp", "Sqrt", "Softmax", "LogSoftmax", "Logsumexp"), _kept),
    "Add": _added,
    "Addmm": _addmm,
    "Mm": lambda node: _product(_factor(node, 0, "self"), _factor(node, 1, "mat2")),
    "Mv": lambda node: _product(_factor(node, 0, "self"), _factor(node, 1, "vec")),
    "Mul": _scaled,
    "Select": _selected,
}
