"""The autograd graph of a loss, read before the backward pass frees it: which operations, on which parameters.

Reading it leaves no trace in the script's modules, as hooks in them would, and shows operations wherever they were
called: in a module, as a function, in a loss written out by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MOST = 20_000


@dataclass(slots=True, eq=False)
class Node:
    """One operation of the forward pass.

    Attributes:
        fn: autograd's node; it dies with the graph, so keep it no longer than the examination lasts.
        name: autograd's name without "Backward" and number: "Addmm", "Relu", "MseLoss", "AccumulateGrad".
        inputs: the operations its inputs came from, None for an input that needs no gradient.
        parameter: the leaf tensor, of an AccumulateGrad node.
    """

    fn: Any
    name: str
    inputs: list[Node | None] = field(default_factory=list)
    parameter: Any = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of its (first) output; None where autograd doesn't tell."""
        if self.parameter is not None:
            return tuple(self.parameter.shape)
        try:
            return tuple(self.fn._input_metadata[0].shape)
        except (AttributeError, IndexError, RuntimeError, TypeError):
            return None

    def saved(self, name: str) -> Tensor | None:
        """A tensor it saved ("self", "result", "mat1"…), detached; None where there is none or a hook keeps it.

        What is saved through hooks of the script's (checkpoints, offloading) is let be: to read it would call them.
        """
        raw = getattr(self.fn, f"_raw_saved_{name}", None)
        try:
            if raw is None or getattr(raw, "unpack_hook", None) is not None:
                return None
            data = getattr(raw, "data", None)
            if data is None:  # an output of this very node is only handed out by the accessor
                data = getattr(self.fn, f"_saved_{name}", None)
            return None if data is None else data.detach()
        except (RuntimeError, AttributeError):
            return None

    def walk(self) -> Iterator[Node]:
        """This operation and all that led to it, nearest first."""
        seen, queue = {id(self)}, [self]
        for node in queue:
            yield node
            for child in node.inputs:
                if child is not None and id(child) not in seen:
                    seen.add(id(child))
                    queue.append(child)


@dataclass(slots=True)
class Graph:
    """The graph of what is differentiated.

    Attributes:
        roots: the operations that made the losses.
        nodes: all operations in the order of the forward pass: inputs before what uses them.
        whole: whether all of it was read (`MOST` operations at most).
    """

    roots: list[Node]
    nodes: list[Node]
    whole: bool = True

    def leaves(self) -> list[Any]:
        """The leaf tensors that the loss depends on."""
        return [node.parameter for node in self.nodes if node.parameter is not None]


def read(losses: Sequence[Tensor]) -> Graph:
    """The graph that `losses` hang on."""
    known: dict[Any, Node] = {}

    def known_as(fn: Any) -> Node:
        node = known[fn] = Node(fn, _plain(fn.name()), parameter=getattr(fn, "variable", None))
        return node

    roots = [known.get(t.grad_fn) or known_as(t.grad_fn) for t in losses if t.grad_fn is not None]
    order: list[Node] = []
    whole = True
    # Depth first without recursion: a node is done when all its inputs are.
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    begun: set[int] = set()
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
            continue
        if id(node) in begun:
            continue
        begun.add(id(node))
        stack.append((node, True))
        for fn, _ in node.fn.next_functions:
            if fn is None:
                node.inputs.append(None)
                continue
            child = known.get(fn)
            if child is None:
                if len(known) >= MOST:
                    whole = False
                    node.inputs.append(None)
                    continue
                child = known_as(fn)
            node.inputs.append(child)
            if id(child) not in begun:
                stack.append((child, False))
    return Graph(roots, order, whole)


def opened(fn: Any) -> Node:
    """An operation whose inputs are read when they are asked for: for who needs only what lies near a loss."""
    return _Opened(fn, _plain(fn.name()), parameter=getattr(fn, "variable", None))


class _Opened(Node):
    """A node that reads its inputs the first time they are asked for."""

    __slots__ = ("_inputs",)
    _inputs: list[Node | None]

    @property
    def inputs(self) -> list[Node | None]:
        if not self._inputs:
            self._inputs = [None if fn is None else opened(fn) for fn, _ in self.fn.next_functions]
        return self._inputs

    @inputs.setter
    def inputs(self, value: list[Node | None]) -> None:
        self._inputs = value


def _plain(name: str) -> str:
    """The operation: Addmm of AddmmBackward0, AccumulateGrad of torch::autograd::AccumulateGrad."""
    name = name.rpartition("::")[2].rstrip("0123456789")
    return name.removesuffix("Backward")
