"""One optimizer under watch: the losses that led to its next step, its rates as used, what it holds."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradwise.probes.recorder import Recorder
from gradwise.probes.steps import Steps
from gradwise.recording import signals
from gradwise.recording.recording import OptimizerInfo, ParameterInfo, Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

# Calls of `step()` after which it is known whether the optimizer is stepped by another one.
LEARNING = 8
_UNKNOWN = object()  # no setting of a group is this one


class Tracked(Steps):
    """An optimizer the script made. Nothing here keeps it, its parameters or their gradients alive.

    Attributes:
        made_at, stepped_at, scheduler_at: where in the source it was made, stepped first, given its last scheduler.
        calls: how often its `step()` was called, as far as counted (`LEARNING`).
        inner: whether it is stepped by another optimizer, whose step counts.
        repeats: whether its `step()` calls a `step()` of its own (a subclass that calls its base class').
        closure: whether it is given a closure that evaluates the loss.
        inside: whether it is within a step with a closure; `evaluated`, whether that has been called.
        alert: whether there is something to do before its next step.
    """

    __slots__ = (
        "_held", "_known", "_momenta", "_names_of", "_probe", "_rates", "_rows", "_seen", "_version", "alert", "calls",
        "closure", "evaluated", "inner", "inside", "made_at", "ref", "repeats", "scheduler_at", "stepped_at",
    )  # fmt: skip

    def __init__(
        self, optimizer: Optimizer, index: int, recorder: Recorder, names: Callable[[Any], str | None]
    ) -> None:
        super().__init__(recorder, index, self.names)
        self.ref = weakref.ref(optimizer)
        self.made_at: Place | None = None
        self.stepped_at: Place | None = None
        self.scheduler_at: Place | None = None
        self.calls = 0
        self.alert = True
        self.inner = self.repeats = self.closure = self.inside = self.evaluated = False
        self._held = _references(self.parameters())
        self._names_of = names
        self._probe: Callable[[], Any] = _nothing
        self._seen: Callable[[], Any] = _nothing
        self._version = -1
        self._known: list[tuple[Any, str, Any]] = []
        self._rates: list[Any] = []
        self._momenta: list[Any] = []
        self._rows = -1

    # what it is

    def parameters(self) -> list[Tensor]:
        """The tensors it holds now."""
        optimizer = self.ref()
        return [] if optimizer is None else [p for g in optimizer.param_groups for p in g["params"]]

    def holds(self, tensors: Iterable[Any]) -> bool:
        """Whether these are the tensors it held when it was last described."""
        return {id(p) for p in (ref() for ref in self._held)} == {id(p) for p in tensors}

    def names(self) -> list[str]:
        """A name for each of them: the module's, else group.position; no two the same."""
        optimizer = self.ref()
        groups = () if optimizer is None else optimizer.param_groups
        names: dict[str, None] = {}
        for i, group in enumerate(groups):
            for j, parameter in enumerate(group["params"]):
                name = self._names_of(parameter)
                names[name if name and name not in names else f"{i}.{j}"] = None
        return list(names)

    def describe(self) -> None:
        """Record what the optimizer is and holds now."""
        optimizer = self.ref()
        if optimizer is None:
            return
        self._held = _references(self.parameters())
        groups = optimizer.param_groups
        numbers = [i for i, group in enumerate(groups) for _ in group["params"]]
        held = zip(self.names(), numbers, self.parameters(), strict=True)
        self.recorder.optimizer(
            OptimizerInfo(
                index=self.index,
                kind=type(optimizer).__name__,
                defaults=plain(getattr(optimizer, "defaults", {})),
                groups=tuple(plain({k: v for k, v in g.items() if k != "params"}) for g in groups),
                parameters=tuple(parameter_info(name, group, p) for name, group, p in held),
                made=self.made_at,
                stepped=self.stepped_at,
                scheduler=self.scheduler_at,
            )
        )

    # which losses lead to its next step

    def after_backward(self, loss: Any) -> bool:
        """Take `loss` as pending if the backward pass changed this optimizer's gradients; whether it did.

        One parameter stands for all. Autograd adds to a gradient in place, which raises its version by one; any other
        change since the last time means that the gradients were reset, and with them the losses that had led to them.
        """
        probe = self._probe()
        gradient = None if probe is None else probe.grad
        if gradient is None:
            gradient = self._choose_probe()
            if gradient is None:
                return False
        version = gradient._version
        added = False
        if gradient is not self._seen():
            self._seen = weakref.ref(gradient)
        elif version == self._version:
            return False
        else:
            added = version == self._version + 1
        self._version = version
        if self.inside:
            # A closure may be evaluated several times within one step (LBFGS): the loss at its start is the step's.
            if self.evaluated:
                return False
            self.evaluated = True
        if not added:
            self.backwards = 0
        self.add(loss)
        return True

    def _choose_probe(self) -> Any:
        """Let a parameter that has a gradient now stand for all when gradients are looked for; its gradient."""
        held = (p for p in self.parameters() if p.grad is not None)
        probe = min(held, key=lambda p: p.numel(), default=None)
        if probe is None:
            return None
        self._probe = weakref.ref(probe)
        return probe.grad

    # its step

    def wants_attention(self) -> bool:
        """Whether there is something to do before its next step."""
        looks = self.looks
        return looks.following or self.look_next or self.closure or self.repeats or self.calls < LEARNING

    def check_settings(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Record each group's rate and momentum where they differ from the step before's."""
        known = self._known
        if len(known) == len(groups):
            for group, (rate, key, momentum) in zip(groups, known):  # noqa: B905 - on every step's path
                if group.get("lr") is not rate or group.get(key) is not momentum:
                    break
            else:
                return
        elif known:
            self.describe()
        self._record_settings(groups)

    def _record_settings(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self._known = [_settings(group) for group in groups]
        # What lies on a device is read only where a look has waited for it anyway.
        sync = self.looks.following
        rates = [_number(group.get("lr"), sync) for group in groups]
        if rates != self._rates and _Later not in rates:
            self._rates = rates
            self._write(signals.LR, rates)
        momenta = [_number(_momentum(group), sync) for group in groups]
        if momenta != self._momenta and _Later not in momenta:
            self._momenta = momenta
            self._write(signals.MOMENTUM, momenta)

    def _write(self, signal: signals.Signal, values: Sequence[Any]) -> None:
        numbers = [math.nan if v is None else v for v in values]
        if not all(math.isnan(v) for v in numbers):
            labels = tuple(str(i) for i in range(len(numbers))) if len(numbers) > 1 else ()
            self.recorder.point(signal, self.index, self.steps, numbers, labels)

    def record_batch(self, rows: int) -> None:
        """Record the rows the loss function was given where they differ from the last look's."""
        if rows and rows != self._rows:
            self._rows = rows
            self.recorder.point(signals.BATCH, self.index, self.steps, (rows,))


class _Later:
    """In place of a number that lies on a device and can't be read now."""


def _nothing() -> None:
    return None


def _references(tensors: Iterable[Any]) -> list[weakref.ref[Any]]:
    return [weakref.ref(p) for p in tensors]


def _settings(group: Mapping[str, Any]) -> tuple[Any, str, Any]:
    """A group's rate and momentum as they lie in it, to tell by identity that nothing changed."""
    rate, key = group.get("lr"), "momentum" if group.get("momentum") is not None else "betas"
    # A tensor may be changed in place, so it is never known to be as it was.
    return _UNKNOWN if hasattr(rate, "item") else rate, key, group.get(key)


def _momentum(group: Mapping[str, Any]) -> Any:
    momentum, betas = group.get("momentum"), group.get("betas")
    if momentum is None and isinstance(betas, list | tuple) and betas:
        return betas[0]
    return momentum


def _number(value: Any, sync: bool) -> Any:
    if hasattr(value, "item"):
        if not sync and not getattr(value, "is_cpu", True):
            return _Later
        value = value.item() if getattr(value, "ndim", 0) == 0 else None
    return float(value) if isinstance(value, int | float) else None


def parameter_info(name: str, group: int, parameter: Any) -> ParameterInfo:
    """What is known of a tensor without reading it."""
    return ParameterInfo(
        name,
        tuple(parameter.shape),
        group,
        str(parameter.device),
        str(parameter.dtype).removeprefix("torch."),
        bool(parameter.requires_grad),
    )


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
