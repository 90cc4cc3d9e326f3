"""Where a loss that is not finite came from, as far as the moment it appears can tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def origin(
    torch: ModuleType,
    loss: float,
    parameters: Iterable[tuple[str, Tensor]],
    given: Sequence[Tensor | None],
    loss_name: str,
) -> dict[str, Any]:
    """What is finite and what isn't when the first non-finite loss appears.

    `stage` is "parameters" (the update before left them non-finite), "target" or "output" (what the loss function was
    given), "loss" (given finite things, the loss function returned none), or "forward" where nothing more is known.
    """
    with torch.no_grad():
        bad = [name for name, p in parameters if not _finite(torch, p)]
        output, target = ["gone" if t is None else "fine" if _finite(torch, t) else "broken" for t in given]
    if bad:
        stage = "parameters"
    elif target == "broken":
        stage = "target"
    elif output == "broken":
        stage = "output"
    elif output == "fine":
        stage = "loss"
    else:
        stage = "forward"
    return {
        "what": "loss",
        "value": "nan" if math.isnan(loss) else ("inf" if loss > 0 else "-inf"),
        "stage": stage,
        "parameters": bad[:64],
        "bad_parameters": len(bad),
        "loss_function": loss_name,
    }


def _finite(torch: ModuleType, tensor: Any) -> bool:
    local = getattr(tensor, "to_local", None)
    value = tensor if local is None else local()
    if not (value.is_floating_point() or value.is_complex()):
        return True
    return bool(torch.isfinite(value.detach()).all())
