"""Tensors of one group that are stepped together on a GPU, with the host never waiting for what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.optim.batch import AVERAGE, MASTER, Addressed, Held, Totals
from gradwise.optim.kernels import gpu, reference
from gradwise.optim.kernels.reference import Around

_ONE = (1.0,)


class Fused(Addressed):
    """By the GPU kernel: dense parameters of float32, float64, bfloat16 or float16.

    A step has two halves: `prepare` sends what it needs, `launch` makes it as far as the device finds it should.
    """

    def __init__(
        self, held: Held, params: Sequence[Tensor], places: Sequence[int], names: Sequence[str], fresh: bool
    ) -> None:
        super().__init__(held, params, places, names, fresh)
        self.device = params[0].device
        for name, tensors in zip(names, self.states, strict=True):
            strays = [s.device for s in tensors if s.device != self.device]
            if strays:
                raise RuntimeError(
                    f"state {name!r} is on {strays[0]} but its parameter on {self.device}: move the model before the "
                    "optimizer is made, or load the optimizer's state dict after"
                )
        first = [
            tensors[0].dtype.to_real() for name, tensors in zip(names, self.states, strict=True) if name in self.kept
        ]
        dtypes = (self.dtype, self.dtype, *first)
        average = self.states[self.names.index(AVERAGE)][0].dtype.to_real() if AVERAGE in names else self.dtype
        self.kernel = gpu.compiled(held.rule.name, self.formula, dtypes, average, MASTER in names)
        columns = [self._pointers, *(self.addresses(n) for n in (*self.kept, AVERAGE, MASTER))]
        self.job = gpu.Job(columns, self.sizes, self.formula.count, self.device)
        self.there = any(c.there for c in held.counters.values())
        index = self.index
        self._index = index if isinstance(index, slice) else gpu.sent(index, self.device)
        self._rows: list[dict[str, Any]] = []
        # Whether no step was made yet: known to the device alone, where that decides about steps.
        self._new = torch.ones((), dtype=torch.bool, device=self.device) if fresh and not held.counters else None

    def numbers(self) -> list[dict[str, Any]]:
        """`t`, `first` and scalar states; tensors on the device if they are kept there."""
        if not self.there:
            return super().numbers()
        row: dict[str, Any] = {name: c.flat[self._index].double() for name, c in self._scalar}
        row["t"] = row.pop("step") + 1 if "step" in row else 1
        row["first"] = row["t"] == 1 if isinstance(row["t"], Tensor) else False
        return [row]

    def prepare(self, settings: Mapping[str, Any], around: Around) -> None:
        """Send addresses and coefficients. Settings may be tensors on the device."""
        rows = self.numbers()
        if self._new is not None:
            rows = [{**row, "first": self._new} for row in rows]
        coefficients, self._scalars = self.coefficients(settings, rows, _ONE)
        self._made_of = settings, around, rows
        with gpu.guard(self.device):
            if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                self.held.captured.append(self)
            self.job.send(self.gradients, [(*around, *c) for c in coefficients], self.held.rule.layerwise)

    def norms(self) -> Tensor:
        """Σg² and the number of non-finite gradients, of all tensors together."""
        with gpu.guard(self.device):
            return self.job.norms(self.dtype)

    def launch(self, control: Tensor, want: bool, decided: bool) -> Totals | None:
        """One step of all tensors; `control` as for `gpu.Job.step`, `decided` whether it may say no."""
        settings, around, rows = self._made_of
        with gpu.guard(self.device):
            by_chance = self.held.bf16_stochastic and self.dtype == torch.bfloat16
            seed = torch.randint(1 << 31, (1,), device=self.device) if by_chance else self.job.gradients
            flags = gpu.WANT * want | gpu.BY_CHANCE * by_chance
            if self.held.rule.layerwise:
                self.job.step(self.kernel, control, seed, gpu.WANT | gpu.DRY)
                lengths = self.job.totals()[:, 1:3].sqrt()
                trusts = reference.trust(lengths[:, 0], lengths[:, 1], settings["lr"])
                coefficients, self._scalars = self.coefficients(settings, rows, [trusts] if len(rows) == 1 else trusts)
                self.job.put([(*around, *c) for c in coefficients])
            self.job.step(self.kernel, control, seed, flags)
            self._count(rows, control[2] != 0 if decided else None)
        return Totals(self.places, lambda: self.job.totals().cpu().numpy()) if want else None

    def _count(self, rows: list[dict[str, Any]], go: Tensor | None) -> None:
        if not self.there:
            self.count(rows, self._scalars)
        for name, counter in self._scalar if self.there else ():
            old = counter.flat[self._index]
            new = old + 1 if name == "step" else self._scalars[0][name].to(old.dtype)
            counter.flat[self._index] = new if go is None else torch.where(go, new, old)
        if self._new is not None:
            if go is None:
                self._new = None
            else:
                self._new &= ~go
        self.fresh = False

    @torch.no_grad()
    def measure(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Σg² and the number of non-finite gradients, of all tensors together; waits for the device."""
        self.job.send(self.gradients, [(0.0,) * self.job.width], False)
        return self.norms().cpu().numpy()[None]

    @torch.no_grad()
    def step(self, settings: Mapping[str, Any], around: Around, want: bool) -> Totals | None:
        """One step of all tensors."""
        self.prepare(settings, around)
        return self.launch(_control(self.device), want, False)


@torch.no_grad()
def step_there(
    work: Sequence[tuple[Fused, Mapping[str, Any], Around]],
    scale: Tensor | None,
    found: Tensor | None,
    clip_norm: float | None,
    finite_only: bool,
    want: bool,
) -> tuple[list[Totals], Tensor | None]:
    """A step of several batches, each with its settings; what decides about it is computed where the batches are.

    Args:
        work: the batches.
        scale: what gradients were scaled by.
        found: above 0 where the step is not to be made.
        clip_norm: scales gradients down when their norm, over all batches, is above this.
        finite_only: whether to make no step where a gradient isn't finite.
        want: whether totals are wanted.

    Returns:
        What each batch found, and 1 on the device if the step was not made (None: it always is).
    """
    for batch, settings, around in work:
        batch.prepare(settings, around)
    home = work[0][0].device
    control = _control(home)
    decided = found is not None or finite_only
    if decided or scale is not None or clip_norm is not None:
        unscale, clip, go = control.unbind()
        if scale is not None:
            unscale = 1.0 / _at(scale, home)
        if clip_norm is not None or finite_only:
            squares, bad = sum(_at(batch.norms(), home) for batch, *_ in work).unbind()  # type: ignore[union-attr]
            if clip_norm is not None:
                clip = (clip_norm / (squares.sqrt() * unscale + 1e-6)).clamp(max=1.0)
            if finite_only:
                go = (bad == 0).double()
        if found is not None:
            go = go * (_at(found, home) == 0)
        control = torch.stack((unscale, clip, go))
    totals = [batch.launch(_at(control, batch.device), want, decided) for batch, *_ in work]
    return [t for t in totals if t is not None], 1 - control[2] if decided else None


def _at(value: Tensor, device: torch.device) -> Tensor:
    value = value.double().to(device, non_blocking=True)
    return value.reshape(()) if value.numel() == 1 else value


_CONTROLS: dict[torch.device, Tensor] = {}


def _control(device: torch.device) -> Tensor:
    """A step with nothing special about it: gradients as they are, to be made."""
    if device not in _CONTROLS:
        _CONTROLS[device] = torch.ones(3, dtype=torch.float64, device=device)
    return _CONTROLS[device]
