"""Losses as they pass by: back-propagated ones (unscaled), and those evaluated without gradient (validation)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter

if TYPE_CHECKING:
    from torch import Tensor

LOSS_FUNCTIONS = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "ctc_loss",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss", "poisson_nll_loss",
    "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
)  # fmt: skip


class Unscaler:
    """Remembers which tensor each of GradScaler's scaled losses came from, until that loss is gone."""

    def __init__(self) -> None:
        self.scaled: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `GradScaler.scale`."""
        scaler = torch.amp.GradScaler

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def scale(this: Any, outputs: Any) -> Any:
                scaled = original(this, outputs)
                if isinstance(scaled, torch.Tensor) and scaled is not outputs:
                    key = id(scaled)
                    gone = weakref.ref(scaled, lambda _: self.scaled.pop(key, None))
                    self.scaled[key] = (gone, outputs.detach())
                return scaled

            return scale

        patches.replace(scaler, "scale", wrap)

    def original(self, loss: Tensor) -> Tensor:
        """The loss before scaling."""
        found = self.scaled.get(id(loss))
        return loss if found is None or found[0]() is not loss else found[1]


class Validation:
    """Mean of each run of losses evaluated without gradient, told apart by the call path that evaluates them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._sources: dict[Any, int] = {}
        self.open: dict[int, list[Any]] = {}

    def see(self, value: Any, rows: int) -> None:
        """One loss evaluated without gradient; `value` is its mean, a float or a tensor on a device."""
        key = places.call_key()
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= 64:
                return
            source = self._sources[key] = len(self._sources)
            if key:
                callers = [places.place(code, line) for code, line in key]
                self.recorder.validation_place(source, callers[0], callers[1:])
        total = self.open.get(source)
        if total is None:
            self.open[source] = [value * rows, rows]
        else:
            total[0] = total[0] + value * rows
            total[1] += rows

    def close(self, step: int) -> None:
        """A step follows: every open pass is complete."""
        if self.open:
            for source, (total, rows) in self.open.items():
                self.recorder.validation(source, step, float(total) / rows)
            self.open.clear()


class LossCalls:
    """Patches torch's loss functions: while training they only note their arguments, while evaluating their values."""

    def __init__(self, torch: ModuleType, validation: Validation, meter: Meter) -> None:
        self.torch, self.validation, self.meter = torch, validation, meter
        self.last: tuple[weakref.ref[Any] | None, weakref.ref[Any] | None, str] = (None, None, "")

    def install(self, patches: Patches) -> None:
        """Replace each loss function by one that looks at what passes; scripting sees the originals."""
        functional = self.torch.nn.functional
        for name in LOSS_FUNCTIONS:
            if hasattr(functional, name):
                patches.replace(functional, name, functools.partial(self._wrap, name))
        patches.hide_while(self.torch.jit, "script", functional, LOSS_FUNCTIONS)

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        compiling, see = self.torch.compiler.is_compiling, self._see

        @functools.wraps(original)
        def loss(*args: Any, **kwargs: Any) -> Any:
            out = original(*args, **kwargs)
            if not compiling():
                see(name, args, kwargs, out)
            return out

        return loss

    def _see(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        began = perf_counter()
        try:
            given = args[0] if args else next(iter(kwargs.values()), None)
            if self.torch.is_grad_enabled():
                # Weakly: a reference of ours must not keep the output alive through the backward pass.
                self.last = (_weak(given), _weak(args[1] if len(args) > 1 else kwargs.get("target")), name)
                return
            rows = int(given.shape[0]) if given.dim() else 1
            if rows:
                value = out.detach()
                if value.dim():
                    value = value.mean(dtype=self.torch.float32)
                elif kwargs.get("reduction") == "sum":
                    value = value / rows
                self.validation.see(value.item() if value.is_cpu else value, rows)
        except Exception as error:
            self.validation.recorder.event("probe-failed", data={"probe": "loss", "error": repr(error)})
        finally:
            self.meter.spent += perf_counter() - began

    def batch(self) -> int:
        """Rows the last loss call saw, 0 where its arguments are gone."""
        reference = self.last[0]
        given: Any = None if reference is None else reference()
        return 0 if given is None or not given.dim() else int(given.shape[0])


def _weak(value: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(value)
    except TypeError:
        return None
