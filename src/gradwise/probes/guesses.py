"""The first loss beside that of a guess which knows nothing: all classes alike, or the targets' mean for every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.graph import Graph, Node
from gradwise.probes.written import written

if TYPE_CHECKING:
    from torch import Tensor

_REGRESSION = ("MseLoss", "SmoothL1Loss", "HuberLoss")
_NAMES = ("NllLoss", "NllLoss2D", "BinaryCrossEntropyWithLogits", "BinaryCrossEntropy", *_REGRESSION)
# Operations between what is differentiated and the loss function: scaling, sums with other terms.
_NEAR = 64
_NUMBERS = 1 << 16


def first_loss(torch: ModuleType, graph: Graph, losses: Sequence[Tensor] = ()) -> dict[str, Any] | None:
    """Which loss function `graph` ends in, its value (as a mean), and the value of a guess.

    Of a regression also the root mean squares of predictions and targets and the targets' spread. Of several loss
    functions it is the one nearest to what is differentiated; None where none is known: neither one of torch's, nor one
    that `losses`, what is differentiated, turn out to be written out as.
    """
    node = _find(graph)
    if node is None:
        return _by_hand(torch, losses[0]) if len(losses) == 1 else None
    given, target = node.saved("self"), node.saved("target")
    if given is None or target is None or not given.numel():
        return None
    rows = max(1, _NUMBERS * given.shape[0] // given.numel()) if given.dim() else 1
    if given.dim() and given.shape[:1] == target.shape[:1]:
        given, target = given[:rows], target[:rows]
    given = given.float()
    if node.name.startswith("NllLoss"):
        found = _classes(torch, given, target)
    elif node.name.startswith("Binary"):
        found = _binary(torch, given, target.float(), node.name.endswith("Logits"))
    else:
        found = _regression(node, given, target.float())
    return {"kind": node.name, "sum": getattr(node.fn, "_saved_reduction", 1) == 2, **found}


def _by_hand(torch: ModuleType, loss: Tensor) -> dict[str, Any] | None:
    made = written(torch, loss)
    if made is None:
        return None
    rows = max(1, _NUMBERS * made.given.shape[0] // max(made.given.numel(), 1)) if made.given.dim() else 1
    given, target = (made.given[:rows], made.target[:rows]) if made.given.dim() else (made.given, made.target)
    if made.name == "nll_loss":
        found = _classes(torch, given.float(), target)
    elif made.name == "binary_cross_entropy":
        found = _binary(torch, given.float(), target.float(), False)
    elif made.name == "mse_loss":
        found = _regression(None, given.float(), target.float())
    else:
        return None
    return {"kind": made.name, "by_hand": True, "sum": made.alone, **found}


def _find(graph: Graph) -> Node | None:
    for root in graph.roots:
        for count, node in enumerate(root.walk()):
            if node.name in _NAMES:
                return node
            if count >= _NEAR:
                break
    return None


def _classes(torch: ModuleType, log_p: Tensor, target: Tensor) -> dict[str, Any]:
    dim = 1 if log_p.dim() > 1 else 0
    classes = int(log_p.shape[dim])
    counted = (target >= 0) & (target < classes)
    chosen = -log_p.gather(dim, target.clamp(0, classes - 1).unsqueeze(dim)).squeeze(dim)
    value = float(torch.where(counted, chosen, 0.0).sum() / counted.sum().clamp(min=1))
    return {"classes": classes, "value": value, "guess": math.log(classes)}


def _binary(torch: ModuleType, given: Tensor, target: Tensor, logits: bool) -> dict[str, Any]:
    z = given if logits else torch.logit(given, eps=1e-12)
    value = z.clamp(min=0) - z * target + torch.log1p(torch.exp(-z.abs()))
    return {"classes": 2, "value": float(value.mean()), "guess": math.log(2)}


def _regression(node: Node | None, given: Tensor, target: Tensor) -> dict[str, Any]:
    fn = None if node is None else node.fn
    edge = getattr(fn, "_saved_beta", None) or getattr(fn, "_saved_delta", None)
    smooth = node is not None and node.name == "SmoothL1Loss"

    def loss(error: Tensor) -> float:
        if not isinstance(edge, float):
            return float(error.square().mean())
        size = error.abs()
        inner, outer = 0.5 * error.square(), edge * (size - 0.5 * edge)
        value = float(inner.where(size < edge, outer).mean())
        return value / edge if smooth else value

    centred = target - (target.mean(dim=0) if target.dim() and target.shape[0] > 1 else target.mean())
    return {
        "value": loss(given - target),
        "guess": loss(centred),
        "output": float(given.square().mean().sqrt()),
        "target": float(target.square().mean().sqrt()),
        "spread": float(centred.square().mean().sqrt()),
    }
