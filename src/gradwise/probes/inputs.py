"""The first batch that a model is given: mean, scale, and how much its features differ (for C7's checklist)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.recorder import Recorder

if TYPE_CHECKING:
    from torch import Tensor

# Operations that models begin with: which of their inputs is the data, and where autograd keeps it.
_FIRST = {
    "AddmmBackward0": (1, "_raw_saved_mat1"),
    "MmBackward0": (0, "_raw_saved_self"),
    "LinearBackward0": (0, "_raw_saved_input"),
    "ConvolutionBackward0": (0, "_raw_saved_input"),
    "NativeBatchNormBackward0": (0, "_raw_saved_input"),
    "NativeLayerNormBackward0": (0, "_raw_saved_input"),
    "BmmBackward0": (0, "_raw_saved_self"),
}
_NODES = 50_000
# A few thousand rows say as much as all of them; of images or long sequences, fewer.
_ROWS, _NUMBERS = 4096, 1 << 20


def first_input(torch: ModuleType, recorder: Recorder, losses: Sequence[Tensor]) -> None:
    """Record an event "input" on the data that the first loss came from, as its graph still holds it.

    Reading the graph leaves no trace in the script's modules, as a hook in them would. What is saved through hooks of
    the script's (checkpoints, offloading) is let be: to read it would call them.
    """
    with suppress(Exception), torch.no_grad():
        batch = find_batch(losses)
        if batch is None or batch.numel() < 2:
            return
        x = batch.detach()[: max(1, min(_ROWS, _NUMBERS * batch.shape[0] // batch.numel()))].float()
        data = {
            "shape": list(batch.shape),
            "mean": float(x.mean()),
            "std": float(x.std()),
            "feature_ratio": _ratio(x),
        }
        recorder.event("input", data=data)


def find_batch(losses: Sequence[Tensor]) -> Tensor | None:
    """The data that came in farthest from the losses."""
    found = None
    queue: list[Any] = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(queue)
    for node in queue:
        if len(seen) > _NODES:
            break
        at, name = _FIRST.get(node.name(), (0, ""))
        saved = getattr(node, name, None) if name and node.next_functions[at][0] is None else None
        if saved is not None and saved.unpack_hook is None and saved.data.is_floating_point():
            found = saved.data
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                queue.append(child)
    return found


def _ratio(x: Tensor) -> float | None:
    """The largest over the smallest standard deviation of a feature, leaving out constant ones."""
    if x.dim() != 2 or x.shape[0] < 2 or x.shape[1] < 2:
        return None
    spread = x.std(dim=0)
    spread = spread[spread > 0]
    return float(spread.max() / spread.min()) if len(spread) else None
