"""The optimizer that a configuration names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gradwise.interventions import RULES
from gradwise.optim import SGD, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop
from gradwise.optim.optimizer import Optimizer
from gradwise.search.space import OWN, SHAPES

# Rules by name: the class, and what of its settings is not the default (as `--rule` has them).
_KINDS: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (RMSprop, {}),
    "adagrad": (Adagrad, {}),
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "nadam": (NAdam, {}),
    "radam": (RAdam, {}),
}


def optimizer_of(model: nn.Module, config: Mapping[str, Any], steps: int) -> Optimizer:
    """The optimizer that a configuration names, over all of a model's parameters.

    Args:
        model: what it steps.
        config: `rule` ("sgd" where there is none), `lr`, `momentum` (β₁ of Adam's kin), `beta2`, `eps`,
            `weight_decay`, `clip`, `schedule`.
        steps: of the whole run, over which a schedule is spread.

    Raises:
        ValueError: naming what makes no sense.
    """
    rule = config.get("rule", "sgd")
    if rule not in _KINDS:
        raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
    kind, settings = _KINDS[rule]
    settings = dict(settings)
    known = inspect.signature(kind).parameters
    for name in ("eps", "weight_decay"):
        if name in config:
            if name not in known:
                raise ValueError(f"the rule {rule} has no {name}")
            settings[name] = float(config[name])
    if "betas" in known and ("momentum" in config or "beta2" in config):
        own = known["betas"].default
        settings["betas"] = (float(config.get("momentum", own[0])), float(config.get("beta2", own[1])))
    elif "momentum" in config:
        if "momentum" not in known:
            raise ValueError(f"the rule {rule} has no momentum")
        settings["momentum"] = float(config["momentum"])
    elif "beta2" in config:
        raise ValueError(f"the rule {rule} has no beta2")
    rate = float(config.get("lr", known["lr"].default))
    shape = config.get("schedule", OWN)
    if shape not in (OWN, *SHAPES):
        raise ValueError(f"there is no schedule {shape!r}; there are {', '.join(SHAPES)}")
    clip = config.get("clip", OWN)
    return kind(
        model.parameters(),
        lr=rate if shape in (OWN, "constant") else rate * SHAPES[shape](max(1, steps)),
        clip_norm=None if clip == OWN else float(clip),
        **settings,
    )
