"""An intervention as a change to the user's own line."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwise.diagnosis.evidence import Evidence
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place

# Constructors of torch.optim by the names that rules go by.
CONSTRUCTORS = {
    "sgd": "SGD(…)", "momentum": "SGD(…, momentum=0.9)", "nesterov": "SGD(…, momentum=0.9, nesterov=True)",
    "rmsprop": "RMSprop(…)", "adagrad": "Adagrad(…)", "adam": "Adam(…)", "adamw": "AdamW(…)", "nadam": "NAdam(…)",
    "radam": "RAdam(…)",
}  # fmt: skip
_ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh"}
_INITS = {
    "he": "torch.nn.init.kaiming_normal_(layer.weight, nonlinearity='relu') and zero biases in every layer",
    "xavier": "torch.nn.init.xavier_normal_(layer.weight) and zero biases in every layer",
    "small-last": "multiply the last layer's initial weights by 0.1 and set its bias to zero",
}
# What to do about each fix, and at which of the optimizer's lines, where the finding names none itself.
_FIXES = {
    "zero-grad": ("stepped", "after the step add {optimizer}.zero_grad()"),
    "adopt-parameters": ("made", "give the optimizer all parameters: those left out train nothing (modules kept in a "
                         "plain list belong in an nn.ModuleList)"),
    "unfreeze": ("made", "let gradients through: requires_grad_(True), and no detach(), .data or no_grad in forward()"),
    "logits": ("", "drop the softmax or sigmoid before the loss: it applies that itself"),
    "match-shapes": ("", "target = target.reshape(prediction.shape) before the loss"),
    "modes": ("", "model.train() before training, model.eval() before evaluation"),
    "shuffle": ("", "DataLoader(…, shuffle=True)"),
    "standardize": ("", "standardize the inputs: (x - mean) / std of the training set, per feature"),
    "batch-norm": ("", "add nn.BatchNorm after each hidden activation"),
    "break-symmetry": ("", "draw the initial weights at random: no two units may be the same"),
    "decay-weights-only": ("made", "{optimizer}(gradwise.decay_groups(model, weight_decay={decay}), …)"),
    "clean-inputs": ("", "x = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), or find where it comes from"),
    "skip-non-finite": ("stepped", "step only if all gradients are finite"),
}  # fmt: skip


def advise(intervention: Intervention, e: Evidence, place: Place | None = None) -> str:
    """`train.py:14  SGD(…, lr=5.0) → lr=0.15`, or what to add and where.

    Args:
        intervention: the change.
        e: what is known of the optimizer.
        place: the line that the finding is about, if it is one.
    """
    return "; ".join((*_of_rates(intervention, e), *_of_settings(intervention, e), *_of_models(intervention, e, place)))


def _of_rates(intervention: Intervention, e: Evidence) -> Iterator[str]:
    optimizer = e.optimizer
    if intervention.rule is not None:
        yield f"{_at(optimizer.made)}{optimizer.kind}(…) → {CONSTRUCTORS[intervention.rule]}"
    if intervention.lr is not None:
        yield f"{_at(optimizer.made)}lr = {intervention.lr!r}"
    if intervention.lr_scale is not None:
        yield _rate(intervention.lr_scale, e)
    if intervention.schedule is not None:
        place = optimizer.scheduler or optimizer.made
        verb = "on top of the schedule:" if optimizer.scheduler else "add a schedule:"
        yield f"{_at(place)}{verb} {Intervention(schedule=intervention.schedule).describe()} (optimizer steps)"
    if intervention.clip_norm is not None:
        where = _at(optimizer.stepped)
        call = f"torch.nn.utils.clip_grad_norm_(parameters, {intervention.clip_norm:g})"
        yield f"{where}before the step add {call}"


def _of_settings(intervention: Intervention, e: Evidence) -> Iterator[str]:
    for key, before, after in settings(intervention, e.optimizer):
        was = "" if before is None else f"{key}={_shown(before)}"
        yield f"{_at(e.optimizer.made)}{e.optimizer.kind}(…{', ' * bool(was)}{was}) → {key}={_shown(after)}"
    if intervention.decay is not None:
        name = e.optimizer.kind if e.optimizer.kind == "AdamW" else "AdamW"
        yield (
            f"{_at(e.optimizer.made)}decay the weights: {name}(gradwise.decay_groups(model, "
            f"weight_decay={intervention.decay:g}), …), or multiply them by 1 - lr·{intervention.decay:g} before a step"
        )


def settings(intervention: Intervention, optimizer: OptimizerInfo) -> Iterator[tuple[str, object, object]]:
    """The constructor's arguments that an intervention changes: name, value so far (None: not known), new value."""
    group = optimizer.groups[0] if optimizer.groups else {}
    betas = group.get("betas")
    if intervention.momentum is not None:
        if isinstance(betas, list | tuple) and len(betas) > 1:
            yield "betas", tuple(betas), (intervention.momentum, *betas[1:])
        else:
            yield "momentum", group.get("momentum"), intervention.momentum
    if intervention.eps is not None:
        yield "eps", group.get("eps"), intervention.eps
    decay = group.get("weight_decay")
    if intervention.decay_scale is not None and isinstance(decay, int | float):
        yield "weight_decay", decay, decay * intervention.decay_scale


def _of_models(intervention: Intervention, e: Evidence, place: Place | None) -> Iterator[str]:
    optimizer, here = e.optimizer, _at(place)
    if intervention.loss_scale is not None:
        yield f"{here}multiply the loss by {intervention.loss_scale:.3g} before backward()"
    if intervention.accumulate is not None:
        k = intervention.accumulate
        yield f"{_at(optimizer.stepped)}(loss / {k}).backward() on every batch, step() and zero_grad() on every {k}th"
    if intervention.init is not None:
        yield f"{here}{_INITS[intervention.init]}"
    if intervention.activation is not None:
        yield f"{here}nn.{_ACTIVATIONS[intervention.activation]}() in place of the hidden layers' activations"
    if intervention.dropout is not None:
        yield f"{here}add nn.Dropout({intervention.dropout:g}) after each hidden activation"
    if intervention.dropout_scale is not None:
        scale = intervention.dropout_scale
        yield f"{here}remove the dropout" if not scale else f"{here}multiply every dropout's p by {scale:.3g}"
    if intervention.noise is not None:
        yield f"{here}while training add x.std(0) * {intervention.noise:g} * torch.randn_like(x) to the inputs"
    if intervention.stop is not None:
        yield f"{_at(optimizer.stepped)}stop after step {intervention.stop:,}"
    for fix in intervention.fixes:
        which, words = _FIXES[fix]
        line = place or {"made": optimizer.made, "stepped": optimizer.stepped}.get(which)
        decay = next((g["weight_decay"] for g in optimizer.groups if g.get("weight_decay")), 0.01)
        yield _at(line) + words.format(optimizer=optimizer.kind if which == "made" else "optimizer", decay=decay)


def _rate(scale: float, e: Evidence) -> str:
    optimizer = e.optimizer
    made = next((g["lr"] for g in optimizer.groups if isinstance(g.get("lr"), int | float)), math.nan)
    rate = made if made > 0 else e.rate(0)
    if not rate > 0:
        return f"{_at(optimizer.made)}multiply the learning rate by {scale:.3g}"
    if optimizer.kind == "manual":
        return f"{_at(optimizer.made)}lr = {rate:.3g} → {rate * scale:.3g}"
    several = " in every group" if len(optimizer.groups) > 1 else ""
    return f"{_at(optimizer.made)}{optimizer.kind}(…, lr={rate:g}) → lr={rate * scale:.3g}{several}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _at(place: Place | None) -> str:
    return f"{place}  " if place is not None else ""
