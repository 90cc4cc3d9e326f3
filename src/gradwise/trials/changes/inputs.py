"""Changes to what models are given: the first real-valued tensor of a call that brings data in."""

from __future__ import annotations

import weakref
from typing import Any

from gradwise.trials.changes.base import Change, Stage
from gradwise.trials.changes.calls import Call

_NO_INPUT = "the script hands no real-valued data to a module"
# Rows from which a feature's mean and spread are known well enough (to 3 %), and batches at which to stop waiting.
_ROWS, _BATCHES = 1024, 32


class _Input(Change):
    """Changes the data that comes into a model.

    Data comes in with the first call that the script makes of a module after a step, and with each other call that is
    given the same tensor. (What it hands to further modules is often what the first has made of it.)
    """

    wanting = _NO_INPUT

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._entries: weakref.WeakSet[Any] = weakref.WeakSet()
        self._open = True
        self._given: Any = None

    def install(self) -> None:
        self.stage.calls.before.append(self._called)

    def before_backward(self, tensors: list[Any]) -> list[Any]:
        self._open = True
        return tensors

    def change(self, call: Call, data: Any) -> Any:
        """What the model is given in place of `data`."""
        raise NotImplementedError

    def _called(self, call: Call) -> None:
        where, data = self._find(call)
        if data is None:
            return
        same = self._given is not None and self._given() is data
        if call.training and (self._open or same) and not data.requires_grad:
            self._entries.add(call.module)
            self._open, self._given = False, weakref.ref(data)
        if call.module in self._entries and not data.requires_grad:
            changed = self.change(call, data)
            if isinstance(where, int):
                call.args = (*call.args[:where], changed, *call.args[where + 1 :])
            else:
                call.kwargs = {**call.kwargs, where: changed}

    def _find(self, call: Call) -> tuple[Any, Any]:
        """The first real-valued tensor among a call's arguments, and where it stands."""
        for where, value in (*enumerate(call.args), *call.kwargs.items()):
            if isinstance(value, self.torch.Tensor):
                real = value.is_floating_point()
                return (where, value) if real else (None, None)
        return None, None


class CleanInputs(_Input):
    """What is not finite in the data becomes zero."""

    def change(self, call: Call, data: Any) -> Any:
        """Zero for what is not finite."""
        self.found += 1
        return self.torch.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)


class _ByFeature(_Input):
    """Knows each feature's mean and spread from the first training batches."""

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._known: weakref.WeakKeyDictionary[Any, _Features] = weakref.WeakKeyDictionary()

    def features(self, call: Call, data: Any) -> tuple[Any, Any] | None:
        """Mean and spread in the shape of `data`; None before the first training batch."""
        known = self._known.get(call.module)
        if known is None:
            if not call.training:
                return None
            known = self._known[call.module] = _Features(self.torch, _feature_dim(self.torch, call.module, data))
        if call.training:
            known.take(data)
        return known.shaped(data)


class Standardize(_ByFeature):
    """Each feature less its mean, over its spread."""

    def change(self, call: Call, data: Any) -> Any:
        """In units of each feature's spread from its mean."""
        found = self.features(call, data)
        if found is None:
            return data
        self.found += 1
        mean, spread = found
        return (data - mean) / spread


class Noise(_ByFeature):
    """Gaussian noise on the data while training, in units of each feature's spread."""

    def change(self, call: Call, data: Any) -> Any:
        """Noise while the model trains."""
        found = self.features(call, data)
        if found is None or not call.training or not call.module.training:
            return data
        self.found += 1
        noise = self.torch.empty_like(data).normal_(generator=self.stage.generator("input noise", data.device))
        return data + self.value * found[1] * noise


class _Features:
    """Running mean and variance of features, by Chan's sums, until enough rows were seen."""

    def __init__(self, torch: Any, dim: int) -> None:
        self.torch, self.dim = torch, dim
        self.rows = self.batches = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def take(self, data: Any) -> None:
        """One more training batch."""
        if self.rows >= _ROWS or self.batches >= _BATCHES:
            return
        x = data.detach().double().movedim(self.dim, -1)
        x = x.reshape(-1, x.shape[-1])
        n = len(x)
        if not n or not bool(self.torch.isfinite(x).all()):
            return
        mean = x.mean(0)
        delta, total = mean - self.mean, self.rows + n
        self.squares = self.squares + (x - mean).square().sum(0) + delta.square() * (self.rows * n / total)
        self.mean = self.mean + delta * (n / total)
        self.rows, self.batches = total, self.batches + 1

    def shaped(self, data: Any) -> tuple[Any, Any] | None:
        """Mean and standard deviation to be laid over `data`; a feature that never changes counts as of spread 1."""
        if not self.rows:
            return None
        spread = (self.squares / self.rows).sqrt()
        flat = spread <= 1e-6 * self.mean.abs() + 1e-30
        spread = self.torch.where(flat, self.torch.ones_like(spread), spread)
        shape = [1] * data.dim()
        shape[self.dim] = -1
        return self.mean.to(data.dtype).reshape(shape), spread.to(data.dtype).reshape(shape)


def _feature_dim(torch: Any, module: Any, data: Any) -> int:
    """The dimension that counts features: channels of images and of what is convolved, else the last."""
    conv = torch.nn.modules.conv._ConvNd
    first = next((m for m in module.modules() if m._parameters.get("weight") is not None), None)
    if data.dim() >= 4 or (data.dim() == 3 and isinstance(first, conv) and first.in_channels == data.shape[1]):
        return 1
    return -1
