"""One optimizer under watch: the losses that led to its next step, its rates as used, the looks at its tensors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gradwise.probes.recorder import Recorder
from gradwise.probes.vectors import Layout, Vector, number_of
from gradwise.recording import signals
from gradwise.recording.recording import OptimizerInfo, ParameterInfo, Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


@dataclass(slots=True)
class Pending:
    """Losses back-propagated since the last step: their sum (a tensor where reading it now would wait for a GPU)."""

    total: Any = 0.0
    count: int = 0

    def add(self, loss: Any) -> None:
        """One more backward pass reached the optimizer's gradients."""
        self.total = self.total + loss if self.count else loss
        self.count += 1

    def clear(self) -> None:
        """The gradients were used or reset, so these losses have no part in the next step."""
        self.count = 0


class Looks:
    """Norms, promised progress and cosines of one set of tensors, at the steps that are looked at.

    A look at step n gathers the parameters and gradients before the step and the parameters after it. The gradient of
    the step that follows is compared with it: whether it points the same way, and what it says of the change made.
    """

    def __init__(self, recorder: Recorder, source: int, names: Callable[[], Sequence[str]]) -> None:
        self.recorder, self.source, self._names_now = recorder, source, names
        self.names: tuple[str, ...] = ()
        self.layout: Layout | None = None
        self.numbers: tuple[int, ...] = ()
        self.open_at = -1
        self.following = False
        self.bad_gradients: list[int] = []
        self.theta: Vector | None = None
        self.gradient: Vector | None = None
        self.change: Vector | None = None
        self._start: Vector | None = None

    def open(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], scale: float) -> None:
        """Before step `step`: gather parameters and gradients (divided by `scale`)."""
        numbers = tuple(number_of(p) for p in parameters)
        if numbers != self.numbers or self.layout is None:
            self.layout, self.numbers, self._start = Layout(numbers), numbers, None
            self.names = tuple(self._names_now())
        self.following = False
        self.theta = self.layout.gather(parameters)
        if self._start is None:
            self._start = self.theta
        self.gradient = self._gather(gradients, scale)
        self.open_at = step

    def close(self, parameters: Sequence[Tensor]) -> None:
        """After the step: gather the parameters again and record what the step did."""
        layout, step = self.layout, self.open_at
        self.open_at = -1
        if layout is None or self.theta is None or len(parameters) != len(self.numbers):
            return
        with np.errstate(all="ignore"):
            self.change = layout.gather(parameters) - self.theta
            self._measure(step, layout, self.theta, self.change)
        self.following = self.gradient is not None
        self.theta = None

    def follow(self, step: int, gradients: Sequence[Tensor | None], scale: float) -> None:
        """Before the step after a look: compare its gradient with the look's."""
        self.following = False
        layout, before, change = self.layout, self.gradient, self.change
        if layout is None or before is None or change is None or len(gradients) != len(self.numbers):
            return
        after = self._gather(gradients, scale)
        if after is not None:
            with np.errstate(all="ignore"):
                self.recorder.point(signals.COSINE, self.source, step, (layout.cosine(after, before),))
                self.recorder.point(signals.KEPT, self.source, step, (-layout.dot(after, change),))

    def _gather(self, gradients: Sequence[Tensor | None], scale: float) -> Vector | None:
        if self.layout is None or all(g is None for g in gradients):
            return None
        gradient = self.layout.gather(gradients)
        return gradient / np.float32(scale) if scale != 1.0 else gradient

    def _measure(self, step: int, layout: Layout, theta: Vector, change: Vector) -> None:
        put, source, names = self.recorder.point, self.source, self.names
        assert self._start is not None
        moved = theta - self._start
        put(signals.PARAMETER, source, step, np.sqrt(layout.sums(theta * theta)).tolist(), names)
        put(signals.UPDATE, source, step, np.sqrt(layout.sums(change * change)).tolist(), names)
        put(signals.TRAVEL, source, step, np.sqrt(layout.sums(moved * moved)).tolist(), names)
        gradient = self.gradient
        if gradient is None:
            return
        squares = layout.sums(gradient * gradient)
        put(signals.GRADIENT, source, step, np.sqrt(squares).tolist(), names)
        put(signals.PROGRESS, source, step, (-layout.sums(gradient * change)).tolist(), names)
        if not np.isfinite(squares.sum()):
            self.bad_gradients = layout.bad(gradient)


class Tracked:
    """An optimizer the script made, with everything recorded about it."""

    def __init__(
        self, optimizer: Optimizer, index: int, recorder: Recorder, names: Callable[[Any], str | None]
    ) -> None:
        self.ref = weakref.ref(optimizer)
        self._held = [weakref.ref(p) for g in optimizer.param_groups for p in g["params"]]
        self.index, self.recorder = index, recorder
        self.steps = 0
        self.pending = Pending()
        self.made: Place | None = None
        self.stepped: Place | None = None
        self.scheduler: Place | None = None
        self.inside = self.inner = self.closure = False
        self.probe: Tensor | None = None
        self._seen: Tensor | None = None
        self._version = -1
        self._raw: list[Any] = []
        self._rates: list[Any] = []
        self._momenta: list[Any] = []
        self._count = self._rows = -1
        self.losses = recorder.channel(signals.LOSS, index)
        self.times = recorder.channel(signals.TIME, index)
        self._names_of = names
        self.looks = Looks(recorder, index, self.names)
        self.look_next = True

    # what it is

    def parameters(self) -> list[Tensor]:
        """The tensors it holds now."""
        optimizer = self.ref()
        return [] if optimizer is None else [p for g in optimizer.param_groups for p in g["params"]]

    def holds(self, tensors: Iterable[Any]) -> bool:
        """Whether these are the tensors it held when it was made."""
        return {id(p) for p in (ref() for ref in self._held) if p is not None} == {id(p) for p in tensors}

    def names(self) -> list[str]:
        """A name for each of them: the module's, else group.position."""
        optimizer = self.ref()
        if optimizer is None:
            return []
        groups = enumerate(optimizer.param_groups)
        return [self._names_of(p) or f"{i}.{j}" for i, g in groups for j, p in enumerate(g["params"])]

    def info(self) -> OptimizerInfo:
        """The optimizer as data."""
        optimizer = self.ref()
        assert optimizer is not None
        names = iter(self.names())
        held = [
            ParameterInfo(
                next(names),
                tuple(p.shape),
                i,
                str(p.device),
                str(p.dtype).removeprefix("torch."),
                bool(p.requires_grad),
            )
            for i, group in enumerate(optimizer.param_groups)
            for p in group["params"]
        ]
        return OptimizerInfo(
            index=self.index,
            kind=type(optimizer).__name__,
            defaults=plain(getattr(optimizer, "defaults", {})),
            groups=tuple(plain({k: v for k, v in g.items() if k != "params"}) for g in optimizer.param_groups),
            parameters=tuple(held),
            made=self.made,
            stepped=self.stepped,
            scheduler=self.scheduler,
        )

    # which losses lead to its next step

    def after_backward(self, loss: Any) -> None:
        """Take `loss` as pending if the backward pass changed this optimizer's gradients.

        One parameter stands for all. Autograd adds to a gradient in place, which raises its version by one; any other
        change since the last time means that the gradients were reset, and with them the losses that had led to them.
        """
        gradient = None if self.probe is None else self.probe.grad
        if gradient is None:
            self.choose_probe()
            gradient = None if self.probe is None else self.probe.grad
            if gradient is None:
                return
        version = gradient._version
        same, last = gradient is self._seen, self._version
        if same and version == last:
            return
        self._seen, self._version = gradient, version
        if self.pending.count and not (same and version == last + 1):
            # A closure is evaluated several times within one step (LBFGS): the loss at its start is the step's loss.
            if self.inside:
                return
            self.pending.clear()
        if not (self.inside and self.pending.count):
            self.pending.add(loss)

    def choose_probe(self) -> None:
        """A parameter that has a gradient now stands for all when gradients are looked for."""
        # The smallest, because the gradient last seen is kept: its identity must not pass to another tensor meanwhile.
        held = (p for p in self.parameters() if p.grad is not None)
        self.probe = min(held, key=lambda p: p.numel(), default=None)

    # its step

    def record_rates(self, groups: Sequence[Mapping[str, Any]], sync: bool) -> None:
        """Record each group's rate and momentum where they differ from the step before's; `sync` may read a GPU."""
        # The settings are compared as they lie in the groups, so that an unchanged step costs one comparison.
        raw = [g.get(key) for g in groups for key in ("lr", "momentum", "betas")]
        if raw == self._raw and not any(hasattr(v, "is_cuda") for v in raw):
            return
        self._raw = raw
        rates, momenta = (
            raw[0::3],
            [m if m is not None else (b or (None,))[0] for m, b in zip(raw[1::3], raw[2::3], strict=True)],
        )
        if not sync and any(getattr(r, "is_cuda", False) for r in rates):
            return
        rates = [r.item() if r is not None and hasattr(r, "item") else r for r in rates]
        if rates != self._rates:
            self._rates = rates
            self._write(signals.LR, rates)
        if momenta != self._momenta:
            self._momenta = momenta
            self._write(signals.MOMENTUM, momenta)

    def _write(self, signal: signals.Signal, values: Sequence[Any]) -> None:
        numbers = [float(v) if isinstance(v, int | float) else math.nan for v in values]
        if not all(math.isnan(v) for v in numbers):
            labels = tuple(str(i) for i in range(len(numbers))) if len(numbers) > 1 else ()
            self.recorder.point(signal, self.index, self.steps, numbers, labels)

    def record_batch(self, rows: int) -> None:
        """Record the rows the loss function was given where they differ from the last look's."""
        if rows and rows != self._rows:
            self._rows = rows
            self.recorder.point(signals.BATCH, self.index, self.steps, (rows,))

    def record_counts(self, count: int) -> None:
        """Record the number of backward passes where it differs from the step before's."""
        if count != self._count:
            self._count = count
            self.recorder.point(signals.BACKWARDS, self.index, self.steps, (count,))


class _Nowhere:
    """A recorder for points that nobody wants."""

    def point(self, *_: Any) -> None:
        """Forget it."""


def warm_up() -> None:
    """Look once at nothing, before training starts: a first look costs several times what later ones do."""
    import torch

    tensors = [torch.zeros(4), torch.zeros(2)]
    looks = Looks(cast(Recorder, _Nowhere()), 0, lambda: ("", ""))
    looks.open(0, tensors, tensors, 1.0)
    looks.close(tensors)
    looks.follow(1, tensors, 1.0)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON: numbers, strings, booleans and lists of them; a tensor of one element as its number."""

    def convert(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [convert(v) for v in value]
        if hasattr(value, "numel") and value.numel() == 1 and value.device.type == "cpu":
            return float(value)
        return type(value).__name__

    return {str(k): convert(v) for k, v in values.items()}
