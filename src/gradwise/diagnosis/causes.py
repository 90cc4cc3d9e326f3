"""Which cause explains which: a small graph, argued from how training works, in which roots fold their symptoms in.

An edge says: where the first is true, the second is what one would see. Faults of the wiring come first, since nothing
that the dynamics show means anything while the wrong thing is being optimized; then what the data and the initial
weights do to activations and gradients; then the rate, whose limits those set; then what is left at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from gradwise.diagnosis.hypotheses import REPORT, Hypothesis

_RATES = ("lr-too-high", "lr-too-low", "late-lr-too-high", "late-divergence")
_ENDS = ("underfitting", "overfitting", "noisy-small-batch")

# Cause -> what it brings about directly; what follows from that follows from the cause.
LEADS_TO: dict[str, tuple[str, ...]] = {
    # the wiring
    "missing-zero-grad": (*_RATES, "exploding-gradients", "non-finite-loss", *_ENDS),
    "no-parameter-change": ("lr-too-low", "underfitting", "stuck-at-saddle", "frozen-or-detached-graph"),
    "frozen-or-detached-graph": (
        "no-parameter-change", "underfitting", "lr-too-low", "late-lr-too-high", "vanishing-gradients",
    ),
    "parameters-not-optimized": ("underfitting", "lr-too-low", "late-lr-too-high"),
    "probabilities-into-logit-loss": (
        "lr-too-low", "late-lr-too-high", "vanishing-gradients", "saturated-activations", "underfitting",
    ),
    "loss-shape-broadcast": ("underfitting", "labels-mismatched", "late-lr-too-high", "noisy-small-batch"),
    "labels-mismatched": ("underfitting", "overfitting", "late-lr-too-high", "noisy-small-batch"),
    "eval-mode-in-training": ("overfitting", "lr-too-high", "exploding-gradients", "vanishing-gradients"),
    "train-mode-in-eval": ("overfitting", "underfitting"),
    "unshuffled-data": ("late-lr-too-high", "late-divergence", "overfitting", "underfitting", "noisy-small-batch"),
    "eps-dominated-updates": ("lr-too-low", "underfitting"),
    # data, initial weights, activations
    "unnormalized-inputs": (
        "gradient-scale-disparity", "lr-too-high", "lr-too-low", "saturated-activations", "dead-units",
        "exploding-gradients", "late-lr-too-high", "bad-initialization",
    ),
    "bad-initialization": (
        "lr-too-high", "exploding-gradients", "vanishing-gradients", "saturated-activations", "dead-units",
        "gradient-scale-disparity", "late-lr-too-high",
    ),
    "saturated-activations": ("vanishing-gradients", "lr-too-low", "underfitting"),
    "dead-units": (
        "vanishing-gradients", "underfitting", "lr-too-low", "frozen-or-detached-graph", "no-parameter-change",
    ),
    # where only the last layers learn, they bounce at rates that the whole would bear
    "vanishing-gradients": (
        "lr-too-low", "lr-too-high", "late-lr-too-high", "underfitting", "gradient-scale-disparity", "stuck-at-saddle",
    ),
    "exploding-gradients": ("lr-too-high", "late-divergence", "non-finite-loss", "dead-units"),
    "gradient-scale-disparity": ("lr-too-high", "lr-too-low", "late-lr-too-high", "underfitting"),
    "stuck-at-saddle": ("underfitting", "lr-too-low", "vanishing-gradients"),
    # the rate (exploding gradients are claimed only where no step's length can be to blame for them)
    "lr-too-high": (
        "non-finite-loss", "late-divergence", "late-lr-too-high", "dead-units", "saturated-activations",
        "noisy-small-batch", "underfitting",
    ),
    "late-divergence": ("non-finite-loss", "late-lr-too-high", "dead-units"),
    "lr-decayed-too-early": ("lr-too-low", "underfitting"),
    "lr-too-low": ("underfitting",),
    "late-lr-too-high": ("underfitting", "noisy-small-batch"),
    "noisy-small-batch": ("late-lr-too-high", "underfitting"),
    "over-regularized": ("underfitting", "vanishing-gradients"),
    # numbers that ended
    "non-finite-loss": ("late-divergence", "late-lr-too-high", "underfitting", "no-parameter-change"),
    # what nothing here follows from
    "overfitting": (),
    "underfitting": (),
    "decay-on-bias-or-norm": (),
}  # fmt: skip


@cache
def symptoms(cause: str) -> frozenset[str]:
    """All that a cause can bring about, directly or through what it brings about."""
    found: set[str] = set()
    waiting = [cause]
    while waiting:
        for effect in LEADS_TO.get(waiting.pop(), ()):
            if effect not in found and effect != cause:
                found.add(effect)
                waiting.append(effect)
    return frozenset(found)


def weigh(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The hypotheses that nothing stronger explains, most probable root first.

    A cause folds another in where it leads to it and is at least as sure, or sure enough to be a finding by itself.
    Where each could explain the other, the surer one is the root. What is only worth knowing (info) takes no part.
    """
    told = [h for h in hypotheses if h.severity == "info"]
    rivals = sorted((h for h in hypotheses if h.severity != "info"), key=lambda h: -_rank(h))
    roots = [h for h in rivals if not any(_explains(other, h) for other in rivals if other is not h)]
    result = []
    for root in roots:
        folded = [h.id for h in rivals if h.id != root.id and h not in roots and h.id in symptoms(root.id)]
        if folded:
            root = replace(root, evidence={**root.evidence, "explains": [*dict.fromkeys(folded)]})
        result.append(root)
    return [*result, *told]


def _explains(cause: Hypothesis, effect: Hypothesis) -> bool:
    if not _leads(cause, effect):
        return False
    mutual = _leads(effect, cause)
    if mutual and _rank(cause) == _rank(effect):
        return cause.id < effect.id
    return _rank(cause) >= _rank(effect) if mutual else cause.confidence >= min(effect.confidence, REPORT)


def _leads(cause: Hypothesis, effect: Hypothesis) -> bool:
    # No length of steps explains what was so before the first one.
    if effect.initial and cause.id in _RATES:
        return False
    return effect.id in symptoms(cause.id)


def _rank(h: Hypothesis) -> float:
    # That a loss is not finite is as sure as can be, but a run-away that leads there comes first.
    return h.confidence - (0.4 if h.id == "non-finite-loss" else 0.0)
