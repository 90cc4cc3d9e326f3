"""The first batch that a model is given: mean, scale, and how much its features differ (for C7's checklist)."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder


class FirstInput:
    """Looks at the first floating-point input of the first module called in training mode, then takes itself away."""

    def __init__(self, torch: ModuleType, recorder: Recorder) -> None:
        self.torch, self.recorder = torch, recorder
        self._handle: Any = None

    def install(self, patches: Patches) -> None:
        """Wait for the first forward pass."""
        self._handle = self.torch.nn.modules.module.register_module_forward_pre_hook(self._see)
        patches.on_undo(self._remove)

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _see(self, module: Any, args: Any) -> None:
        if self.torch.compiler.is_compiling() or not module.training or not self.torch.is_grad_enabled():
            return
        self._remove()
        with suppress(Exception), self.torch.no_grad():
            batch = next((a for a in args if isinstance(a, self.torch.Tensor)), None)
            if batch is None or not batch.is_floating_point() or batch.numel() < 2:
                return
            # A few thousand rows say as much as all of them.
            x = batch.detach()[:4096].float()
            data = {
                "module": type(module).__name__,
                "shape": list(batch.shape),
                "mean": float(x.mean()),
                "std": float(x.std()),
                "feature_ratio": self._ratio(x),
            }
            self.recorder.event("input", data=data)

    def _ratio(self, x: Any) -> float | None:
        """The largest over the smallest standard deviation of a feature, leaving out constant ones."""
        if x.dim() != 2 or x.shape[0] < 2 or x.shape[1] < 2:
            return None
        spread = x.std(dim=0)
        spread = spread[spread > 0]
        return float(spread.max() / spread.min()) if len(spread) else None
