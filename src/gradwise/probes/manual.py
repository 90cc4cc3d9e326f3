"""Training without an optimizer: the script changes its leaf tensors itself between backward passes."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.probes.names import Names
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter, next_due
from gradwise.probes.steps import Steps
from gradwise.probes.tracked import parameter_info
from gradwise.probes.vectors import Layout, Vector, number_of
from gradwise.recording import signals
from gradwise.recording.recording import OptimizerInfo, Place

if TYPE_CHECKING:
    from torch import Tensor

_GRAPH_LIMIT = 200_000
# Tensors of so many bytes are read at each backward pass, to see changes that torch does not count.
_WITNESS = 1 << 14
# A hand-written rule counts as a multiple of the gradient when the two point the same way to within rounding.
_STRAIGHT = 0.9999
# The first step of any rule goes downhill, in all or nearly all numbers that it changes; the inputs of an explanation
# or an attack change as they like. Where there are few numbers that happens by chance, so it isn't tried for ever.
_DOWNHILL = 0.95
_TRIES = 3


def leaves_of(roots: Sequence[Tensor]) -> list[Tensor]:
    """The leaf tensors a loss depends on, in the order in which the forward pass first used them."""
    stack: list[Any] = [t.grad_fn for t in roots if t.grad_fn is not None]
    seen = set(stack)
    used: dict[Any, tuple[int, int]] = {}
    while stack and len(seen) < _GRAPH_LIMIT:
        node = stack.pop()
        number = node._sequence_nr()
        for i, (child, _) in enumerate(node.next_functions):
            if child is None:
                continue
            if hasattr(child, "variable"):
                used[child] = min(used.get(child, (number, i)), (number, i))
            elif child not in seen:
                seen.add(child)
                stack.append(child)
    return [node.variable for node in sorted(used, key=lambda node: used[node])]


class Manual(Steps):
    """Steps made by hand: one for each time the leaves differ from what they were at the last backward pass.

    Nothing is recorded before the first: until then, they may as well belong to an optimizer yet to step.

    Args:
        record: called with each step made, and when.
        index: gives its source, when the first step is made.
        place: the line of the first backward pass.
    """

    def __init__(
        self,
        recorder: Recorder,
        names: Names,
        meter: Meter,
        record: Callable[[Steps, float], None],
        index: Callable[[], int],
        place: Place | None,
    ) -> None:
        super().__init__(recorder, 0, self.names)
        self.meter = meter
        self._names_of, self._record, self._index, self._place = names, record, index, place
        self._leaves: list[weakref.ref[Tensor]] = []
        self._values: list[Any] = []
        self._seen: Callable[[], Any] = _nothing
        self._version = -1
        self._root: Callable[[], Any] = _nothing
        self._first: tuple[Layout, Vector, Vector] | None = None
        self._rate = math.nan
        self._tries = 0

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors it changes, as far as they live."""
        return [leaf for leaf in (ref() for ref in self._leaves) if leaf is not None]

    def _hold(self, leaves: Sequence[Tensor]) -> None:
        self._leaves = [weakref.ref(leaf) for leaf in leaves]

    def names(self) -> list[str]:
        """A name for each leaf."""
        return [self._names_of(p) or f"leaf.{i}" for i, p in enumerate(self.leaves)]

    # leaves that live on and are changed in place

    def backward(self, roots: Sequence[Tensor], loss: Any, now: float) -> None:
        """A backward pass from `roots` has been made: if the leaves changed since the last one, that was a step."""
        if self.changed():
            self.finish(now)
        if not self._reached():
            self._hold(leaves_of(roots))
            self.looks.drop()
        self.add(loss)
        leaves = self.leaves
        self._look([p.grad for p in leaves], now)
        self._values = _values(leaves)

    def _reached(self) -> bool:
        """Whether all leaves live, and the gradient of the first has changed since it was asked last."""
        first = self._leaves[0]() if self._leaves else None
        gradient = None if first is None else first.grad
        if gradient is None:
            return False
        before = self._seen() is gradient and self._version == gradient._version
        self._seen, self._version = weakref.ref(gradient), gradient._version
        return not before and len(self.leaves) == len(self._leaves)

    def changed(self) -> bool:
        """Whether the leaves were changed since the last backward pass."""
        return bool(self._values) and _values(self.leaves) != self._values

    # leaves made anew by each step

    def functional(self, root: Tensor, leaves: Sequence[Tensor], gradients: Any, loss: Any, now: float) -> None:
        """Gradients with respect to `leaves` were asked for: if they came from the last ones, that was a step.

        Only the direction tells training from an explanation or an attack, which asks for the gradients of inputs.
        """
        if self._root() is root or self._tries > _TRIES:
            return  # another part of the same gradient, or no training
        self._root = weakref.ref(root)
        if self.steps or self._descended(leaves):
            self.finish(now, leaves)
        else:
            self._tries += 1
            self.backwards = 0
            layout = Layout([number_of(leaf) for leaf in leaves])
            theta, gradient = layout.gather(leaves, gradients)
            self._first = layout, theta, gradient
        self._hold(leaves)
        self.add(loss)
        if self.steps:
            self._look(gradients, now)

    def _descended(self, leaves: Sequence[Tensor]) -> bool:
        if self._first is None:
            return False
        layout, theta, gradient = self._first
        if tuple(number_of(leaf) for leaf in leaves) != layout.numbers:
            return False
        change = layout.gather(leaves)[0] - theta
        moved = change != 0
        return bool(moved.any() and np.mean(change[moved] * gradient[moved] < 0) > _DOWNHILL)

    # both

    def finish(self, now: float, leaves: Sequence[Tensor] | None = None) -> None:
        """A step was made since the last backward pass, and led to `leaves` (None: those it holds)."""
        if not self.steps:
            self._announce()
        looks = self.looks
        if looks.open_at >= 0:
            looks.close(self.leaves if leaves is None else leaves)
            straight, rate = looks.descent()
            if straight > _STRAIGHT and not abs(rate / self._rate - 1) <= 1e-3:
                self._rate = rate
                self.recorder.point(signals.LR, self.index, self.steps, (rate,))
            self._charge(now)
        self.made(now)
        self._record(self, now)
        if self.steps >= self.next_due:
            self.meter.steps = self.steps
            self.look_next = not looks.following and self.meter.affords(self.steps, now)
            self.next_due = next_due(self.steps)
        else:
            self.look_next = False

    def _announce(self) -> None:
        self.index = self.looks.source = self._index()
        held = tuple(parameter_info(n, 0, p) for n, p in zip(self.names(), self.leaves, strict=True))
        info = OptimizerInfo(self.index, "manual", parameters=held, made=self._place, stepped=self._place)
        self.recorder.optimizer(info)

    def _look(self, gradients: Sequence[Tensor | None], began: float) -> None:
        looks = self.looks
        if looks.following:
            looks.follow(self.steps, gradients, 1.0)
            self._charge(began)
            self.meter.looked(looks.cost)
        elif self.look_next:
            looks.cost = 0.0
            looks.open(self.steps, self.leaves, gradients, 1.0)
            self._charge(began)

    def _charge(self, began: float) -> None:
        cost = perf_counter() - began
        self.looks.cost += cost
        self.meter.looks += cost


def _nothing() -> None:
    return None


def _values(leaves: Sequence[Tensor]) -> list[Any]:
    """What tells whether tensors were changed: where they lie, how often that was, and what is in the smallest two."""
    import torch

    dense = [p for p in leaves if p.layout is torch.strided]
    # `p.data -= …` is not counted in a version.
    small = sorted((p for p in dense if p.is_cpu and p.nbytes <= _WITNESS), key=lambda p: p.nbytes)[:2]
    content = [p.detach().reshape(-1).view(torch.uint8).numpy().tobytes() for p in small]
    return [*((p.data_ptr(), p._version) for p in dense[:8]), *content]
