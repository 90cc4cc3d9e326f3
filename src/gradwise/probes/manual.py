"""Training without an optimizer: the script changes its leaf tensors itself between backward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradwise.probes.recorder import Recorder
from gradwise.probes.tracked import Looks, Pending
from gradwise.recording import signals
from gradwise.recording.recording import OptimizerInfo, ParameterInfo, Place

if TYPE_CHECKING:
    from torch import Tensor

# A hand-written rule counts as a multiple of the gradient when the two point the same way to within rounding.
_ALONG = 0.9999
_GRAPH_LIMIT = 200_000


def leaves_of(roots: Sequence[Tensor]) -> list[Tensor]:
    """The leaf tensors a loss depends on, in the order the forward pass first used them (as far as the graph tells)."""
    found: list[Tensor] = []
    stack = [t.grad_fn for t in roots if t.grad_fn is not None]
    seen = set(stack)
    while stack and len(seen) < _GRAPH_LIMIT:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    return found[::-1]


class Manual:
    """Steps made by hand: one for each time the leaves differ from what they were at the last backward pass."""

    index = 0

    def __init__(self, recorder: Recorder, names: Any, leaves: list[Tensor], here: Place | None) -> None:
        self.recorder = recorder
        self.leaves = leaves
        self.steps = 0
        self.pending = Pending()
        self.losses = recorder.channel(signals.LOSS, self.index)
        self.times = recorder.channel(signals.TIME, self.index)
        labels = [names(p) or f"leaf.{i}" for i, p in enumerate(leaves)]
        self.looks = Looks(recorder, self.index, lambda: labels)
        self._marks: list[tuple[int, int, float]] = []
        self._rate: float | None = None
        held = tuple(
            ParameterInfo(n, tuple(p.shape), 0, str(p.device), str(p.dtype).removeprefix("torch."))
            for n, p in zip(labels, leaves, strict=True)
        )
        recorder.optimizer(OptimizerInfo(self.index, "manual", parameters=held, made=here, stepped=here))

    def record_counts(self, count: int) -> None:
        """Nothing to count: a step by hand follows its backward passes."""

    def changed(self) -> bool:
        """Whether the leaves were changed since `mark`."""
        return bool(self._marks) and self._fingerprint() != self._marks

    def mark(self) -> None:
        """Remember the leaves as they are after a backward pass."""
        self._marks = self._fingerprint()

    def _fingerprint(self) -> list[tuple[int, int, float]]:
        # `p.data -= …` does not raise the version, so two small tensors are looked at as well.
        small = sorted(self.leaves, key=lambda p: p.numel())[:2]
        sums = [(id(p), 0, float(p.detach().double().sum())) for p in small if not p.is_cuda and p.numel() <= 4096]
        return [(p.data_ptr(), p._version, 0.0) for p in self.leaves[:8]] + sums

    def estimate_rate(self, step: int) -> None:
        """The rate of a hand-written step that goes straight down the gradient: <-dx, g>/<g, g>."""
        gradient, change, layout = self.looks.gradient, self.looks.change, self.looks.layout
        if gradient is None or change is None or layout is None or not layout.cosine(-change, gradient) > _ALONG:
            return
        rate = float(-(gradient @ change) / (gradient @ gradient))
        if self._rate is None or abs(rate / self._rate - 1) > 1e-3:
            self._rate = rate
            self.recorder.point(signals.LR, self.index, step, (rate,))
