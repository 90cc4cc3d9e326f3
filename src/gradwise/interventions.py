"""Interventions: what can be changed about a training run from outside, as data (design idea 4).

An intervention can be stored, hashed, printed as advice and applied to an unmodified script (`gradwise.trials.apply`
does that). Keys that are None change nothing, so `Intervention()` is the untouched run.

    >>> Intervention(lr_scale=0.03).to_json()
    {'lr_scale': 0.03}
    >>> Intervention.from_json({"lr_scale": 0.03}) == Intervention(lr_scale=0.03)
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradwise.schedules import Schedule

RULES = ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "nadam", "radam")
INITS = ("he", "xavier", "small-last")
ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "tanh")
FIXES = {
    "zero-grad": "clear the gradients before each step's first backward pass",
    "adopt-parameters": "give the optimizer the parameters that get a gradient and that no optimizer holds",
    "unfreeze": "let gradients reach the parameters that the optimizer holds",
    "logits": "hand the loss the logits: drop the softmax or sigmoid before it",
    "match-shapes": "give predictions and targets the same shape before the loss",
    "modes": "train in training mode, evaluate in evaluation mode",
    "shuffle": "shuffle the training data every epoch",
    "standardize": "standardize the inputs by the mean and spread of the first batches",
    "batch-norm": "insert batch normalization after each hidden layer",
    "break-symmetry": "add a little noise to the initial weights, so that no two units are the same",
    "decay-weights-only": "no weight decay on biases and normalization",
    "clean-inputs": "replace what is not finite in the inputs by zero",
    "skip-non-finite": "skip steps whose gradient is not finite",
}
"""Repairs that are on or off, by name."""

_POSITIVE = ("lr_scale", "clip_norm", "eps", "loss_scale", "noise")
_FACTORS = ("decay", "decay_scale", "dropout_scale")
_SHARES = ("dropout", "momentum")
_COUNTS = ("accumulate", "stop")
_CHOICES = {"rule": RULES, "init": INITS, "activation": ACTIVATIONS}
_SCHEDULES = ("schedule", "lr")
_NUMBERS = (*_POSITIVE, *_FACTORS, *_SHARES, *_COUNTS)
_KEYS = ("optimizer", *_CHOICES, *_NUMBERS, *_SCHEDULES, "fixes")


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change to a training run.

    Args:
        lr_scale: factor on every group's own learning rate, whatever the script's schedulers make of it.
        schedule: factor of the optimizer step laid over the script's own rate (times `lr_scale`).
        clip_norm: clip the gradient's norm over all the optimizer's parameters to this value before each step.
        optimizer: index (in order of creation) of the only optimizer to change; None changes all.
        lr: the learning rate itself, as a function of the optimizer step: whatever the script's schedulers and warm-up
            make of it. It is the first parameter group's; the others keep their ratio to it.
        rule: another update rule in place of the script's own, one of `RULES`, with torch's defaults (momentum 0.9).
        momentum: momentum (beta1 of Adam's kin) in place of the script's own, below 1.
        eps: the optimizer's epsilon.
        decay: decoupled weight decay of this strength, on weights only (not on biases and normalization).
        decay_scale: factor on the optimizer's own weight decay; 0 switches it off.
        loss_scale: factor on the loss before it is differentiated.
        accumulate: make one step of the mean gradient of so many of the script's steps.
        init: draw the initial weights anew, by one of `INITS` ("small-last": the last layer's ten times smaller).
        activation: use this activation, one of `ACTIVATIONS`, in hidden layers in place of the script's.
        dropout: insert dropout with this probability after each hidden layer.
        dropout_scale: factor on the probability of every dropout there is.
        noise: add Gaussian noise to the inputs while training, in units of each feature's spread.
        stop: end the run after so many steps (early stopping).
        fixes: names out of `FIXES`.
    """

    lr_scale: float | None = None
    schedule: Schedule | None = None
    clip_norm: float | None = None
    optimizer: int | None = None
    lr: Schedule | None = None
    rule: str | None = None
    momentum: float | None = None
    eps: float | None = None
    decay: float | None = None
    decay_scale: float | None = None
    loss_scale: float | None = None
    accumulate: int | None = None
    init: str | None = None
    activation: str | None = None
    dropout: float | None = None
    dropout_scale: float | None = None
    noise: float | None = None
    stop: int | None = None
    fixes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, key) not in (None, ()) for key in _KEYS if key != "optimizer")

    def lr_factor(self, step: int) -> float:
        """The factor on the script's own rate at an optimizer step."""
        factor = 1.0 if self.lr_scale is None else self.lr_scale
        return factor if self.schedule is None else factor * self.schedule(step)

    def touches(self, optimizer: int) -> bool:
        """Whether the optimizer of that index is changed."""
        return self.optimizer is None or self.optimizer == optimizer

    def to_json(self) -> dict[str, Any]:
        """Only the keys that change something."""
        data: dict[str, Any] = {}
        for key in _KEYS:
            value = getattr(self, key)
            if value is not None and value != ():
                data[key] = value.to_json() if key in _SCHEDULES else list(value) if key == "fixes" else value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Intervention:
        """The intervention a JSON object describes.

        Raises:
            ValueError: naming the key that is unknown or the value that makes no sense.
        """
        unknown = sorted(set(data) - set(_KEYS))
        if unknown:
            raise ValueError(f"unknown intervention key {unknown[0]!r}; known: {', '.join(_KEYS)}")
        given = {key: value for key, value in data.items() if value is not None}
        for key, value in given.items():
            wrong = _wrong(key, value)
            if wrong:
                raise ValueError(f"intervention {key!r} must be {wrong}, got {value!r}")
        for key in _SCHEDULES:
            if key in given:
                given[key] = Schedule.from_json(given[key])
        return Intervention(**{**given, "fixes": tuple(given.get("fixes", ()))})

    def describe(self) -> str:
        """A few words for a table: "lr ×0.03, clip norm 1"."""
        parts = [] if self.rule is None else [f"rule {self.rule}"]
        if self.lr is not None:
            parts.append(f"lr {self.lr!r}")
        if self.lr_scale is not None:
            parts.append(f"lr ×{self.lr_scale:.3g}")
        if self.schedule is not None:
            held, rest = self.schedule.held()
            parts.append(f"lr × {rest!r}" + (f" from step {held} on" if held else ""))
        for key, words in _WORDS.items():
            value = getattr(self, key)
            if value is not None:
                parts.append(words.format(f"{value:.3g}" if isinstance(value, float) else value))
        parts += self.fixes
        if self.optimizer is not None and parts:
            parts.append(f"(optimizer {self.optimizer})")
        return ", ".join(parts) or "nothing"


_WORDS = {
    "clip_norm": "clip norm {}",
    "momentum": "momentum {}",
    "eps": "eps {}",
    "decay": "decoupled weight decay {}",
    "decay_scale": "weight decay ×{}",
    "loss_scale": "loss ×{}",
    "accumulate": "accumulate {} steps",
    "init": "{} initialization",
    "activation": "activation {}",
    "dropout": "dropout {}",
    "dropout_scale": "dropout ×{}",
    "noise": "input noise {}",
    "stop": "stop at step {}",
}


def _wrong(key: str, value: Any) -> str:
    """What a value should have been; "" for a good one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _POSITIVE:
        return "" if number and value > 0 else "a positive number"
    if key in _FACTORS:
        return "" if number and value >= 0 else "a number that is not negative"
    if key in _SHARES:
        return "" if number and 0 <= value < 1 else "a number from 0 to below 1"
    if key in _COUNTS:
        return "" if isinstance(value, int) and number and value > 0 else "a positive whole number"
    if key in _CHOICES:
        return "" if value in _CHOICES[key] else f"one of {', '.join(_CHOICES[key])}"
    if key in _SCHEDULES:
        return "" if isinstance(value, Mapping) else "a schedule, as {'constant': {}}"
    if key == "fixes":
        known = isinstance(value, list | tuple) and all(fix in FIXES for fix in value)
        return "" if known else f"a list of names out of {', '.join(FIXES)}"
    return ""
