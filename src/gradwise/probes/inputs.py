"""The first batch that a model is given: mean, scale, and how much its features differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.recorder import Recorder

if TYPE_CHECKING:
    from torch import Tensor

# Operations that models begin with: which of their inputs is the data, and where autograd keeps it. Products count
# only where the other factor is a parameter.
_FIRST = {
    "AddmmBackward0": (1, "_raw_saved_mat1"),
    "MmBackward0": (0, "_raw_saved_self"),
    "LinearBackward0": (0, "_raw_saved_input"),
    "ConvolutionBackward0": (0, "_raw_saved_input"),
    "NativeBatchNormBackward0": (0, "_raw_saved_input"),
    "NativeLayerNormBackward0": (0, "_raw_saved_input"),
    "BmmBackward0": (0, "_raw_saved_self"),
    "MkldnnRnnLayerBackward0": (0, "_raw_saved_input"),
    "CudnnRnnBackward0": (0, "_raw_saved_input"),
}
_PRODUCTS = {"AddmmBackward0": 2, "MmBackward0": 1, "LinearBackward0": 1, "BmmBackward0": 1}
_VIEWS = ("TBackward0", "TransposeBackward0", "ViewBackward0", "ExpandBackward0", "ToCopyBackward0", "CloneBackward0")
# Of these the features are the channels, in second place; of all others they come last.
_CHANNELS = ("ConvolutionBackward0", "NativeBatchNormBackward0")
_NODES = 50_000
# A few thousand rows say as much as all of them; of images or long sequences, fewer.
_ROWS, _NUMBERS = 4096, 1 << 20


def first_input(torch: ModuleType, recorder: Recorder, losses: Sequence[Tensor]) -> None:
    """Record an event "input" on the data that the first loss came from, as its graph still holds it.

    Reading the graph leaves no trace in the script's modules, as a hook in them would. What is saved through hooks of
    the script's (checkpoints, offloading) is let be: to read it would call them.
    """
    with suppress(Exception), torch.no_grad():
        batch, operation = find_batch(losses)
        if batch is None or batch.numel() < 2:
            return
        x = batch.detach()[: max(1, min(_ROWS, _NUMBERS * batch.shape[0] // batch.numel()))].float()
        data = {
            "shape": list(batch.shape),
            "mean": float(x.mean()),
            "std": float(x.std()),
            "rms": float(x.square().mean().sqrt()),
            "feature_ratio": _ratio(x),
            "operation": operation.removesuffix("0").removesuffix("Backward"),
            **_features(torch, x, operation in _CHANNELS and x.dim() > 2),
        }
        recorder.event("input", data=data)


def find_batch(losses: Sequence[Tensor]) -> tuple[Tensor | None, str]:
    """The data that came in farthest from the losses, and the operation it went into."""
    found, operation = None, ""
    queue: list[Any] = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(queue)
    for node in queue:
        if len(seen) > _NODES:
            break
        at, name = _FIRST.get(node.name(), (0, ""))
        saved = getattr(node, name, None) if name and node.next_functions[at][0] is None else None
        if saved is not None and saved.unpack_hook is None and _is_data(node, saved.data):
            found, operation = saved.data, node.name()
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                queue.append(child)
    return found, operation


def _is_data(node: Any, given: Tensor) -> bool:
    """Whether an operation weighs data with a parameter; the zeros that a recurrence begins with are no data."""
    if not given.is_floating_point() or not given.numel() or not bool(given[:_ROWS].any()):
        return False
    at = _PRODUCTS.get(node.name())
    if at is None:
        return True
    other = node.next_functions[at][0]
    while other is not None and other.name() in _VIEWS:
        other = other.next_functions[0][0]
    return hasattr(other, "variable")


def _features(torch: ModuleType, x: Tensor, channels: bool) -> dict[str, float]:
    """How the features of a batch lie: the scale of the largest and of the usual one, and how far off zero they are.

    `largest` and `usual` are root mean squares, the mean included: what a first layer's gradient grows with.
    `offset` is the median of |mean| over standard deviation, of features that are not constant.
    """
    if x.dim() < 2:
        return {}
    dims = [d for d in range(x.dim()) if d != (1 if channels else x.dim() - 1)]
    variance, mean = torch.var_mean(x, dim=dims, correction=0)
    scale, spread = (variance + mean.square()).sqrt(), variance.sqrt()
    varied = spread > 1e-6 * scale
    found = {
        "features": len(scale),
        "samples": x.numel() // len(scale),
        "constant": float((~varied).float().mean()),
        "largest": float(scale.max()),
        "zeros": float((x == 0).float().mean()),
    }
    if varied.any():
        found["usual"] = float(scale[varied].median())
        found["widest"], found["wide"] = float(spread.max()), float(spread[varied].median())
        found["offset"] = float((mean.abs() / spread)[varied].median())
    return found


def _ratio(x: Tensor) -> float | None:
    """The largest over the smallest standard deviation of a feature, leaving out constant ones."""
    if x.dim() != 2 or x.shape[0] < 2 or x.shape[1] < 2:
        return None
    spread = x.std(dim=0)
    spread = spread[spread > 0]
    return float(spread.max() / spread.min()) if len(spread) else None
