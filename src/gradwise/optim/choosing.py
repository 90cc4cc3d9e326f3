"""Choosing a rule by what is known of a task (O11): an ordered list of cases, of which the first that applies decides.

D0 … D4 are the project's source documents; where they leave something open, a paper or *ours* is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from gradwise.optim.adam import LAMB, Adam, AdamW, Lion
from gradwise.optim.adaptive import Adagrad, RMSprop
from gradwise.optim.optimizer import Optimizer
from gradwise.optim.sgd import SGD

KINDS = ("linear", "mlp", "cnn", "rnn", "transformer", "gan")
# What "deep", "short", "large" and "many" mean here (ours; the documents give no numbers).
DEEP, SHORT, LARGE_BATCH, MANY_TRIALS = 3, 1000, 8192, 10


@dataclass(frozen=True)
class Reason:
    """Why, and who says so."""

    says: str
    source: str


@dataclass(frozen=True)
class Recommendation:
    """A rule to begin with; prints as text.

    Attributes:
        rule: name of a class in `gradwise.optim`.
        settings: its arguments, with the `lr` to start from.
        reasons: why, in order of weight, each with its source.
        alike: rules that are expected to do about as well.
    """

    rule: str
    settings: dict[str, Any]
    reasons: tuple[Reason, ...]
    alike: tuple[str, ...]

    @property
    def code(self) -> str:
        """The call that makes the optimizer."""
        return f"gradwise.optim.{self.rule}(params, {', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        why = [f"  - {r.says} [{r.source}]" for r in self.reasons]
        about = [f"  about as good: {', '.join(self.alike)}"] if self.alike else []
        return "\n".join([self.code, *why, *about])


@dataclass(frozen=True)
class Task:
    """What is known of a task; None is unknown. As in `recommend`."""

    kind: str | None = None
    layers: int | None = None
    sparse: bool = False
    unequal: bool = False
    unsteady: bool = False
    batch: int | None = None
    data: int | None = None
    steps: int | None = None
    epochs: float | None = None
    parameters: int | None = None
    memory: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"unknown kind of model: {self.kind!r} (one of {', '.join(KINDS)})")
        for name in ("layers", "batch", "data", "steps", "epochs", "parameters", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is a positive number, got {value}")
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give the budget in steps or in epochs, not both")
        if self.memory is not None and self.parameters is None:
            raise ValueError("memory needs to know the number of parameters as well")

    @property
    def budget(self) -> int | None:
        """Steps there are, if that can be told."""
        if self.steps is not None or None in (self.epochs, self.data, self.batch):
            return self.steps
        assert self.epochs is not None
        assert self.data is not None
        assert self.batch is not None
        return math.ceil(self.epochs * math.ceil(self.data / self.batch))

    @property
    def tuned(self) -> bool:
        """Whether there are trials to find a rate by, and steps to get anywhere at it."""
        return (self.trials or 0) >= MANY_TRIALS and (self.budget is None or self.budget >= SHORT)


@dataclass(frozen=True)
class _Case:
    applies: Callable[[Task], bool]
    rule: type[Optimizer]
    settings: Mapping[str, Any]
    alike: tuple[str, ...]
    reasons: tuple[Reason, ...]


_SPARSE = Reason("sparse data want a rate for each parameter: adaptive methods", "D2")
_JOINS = Reason("Adam is RMSprop with bias correction and momentum, and best overall", "D2")
_CASES = (
    _Case(
        lambda t: t.sparse and (t.kind == "linear" or t.layers == 1), Adagrad, {"lr": 0.01}, ("Adam",),
        (_SPARSE, Reason("rare features get larger steps, and a convex loss forgives that rates only fall",
                         "Duchi, Hazan & Singer 2011")),
    ),
    _Case(
        lambda t: t.sparse, Adam, {"lr": 1e-3}, ("Adagrad",),
        (_SPARSE, Reason("Adam does better than RMSprop as gradients grow sparser", "D2"),
         Reason("it takes sparse gradients, stepping only the rows they have", "ours")),
    ),
    _Case(
        lambda t: (t.batch or 0) >= LARGE_BATCH, LAMB, {"lr": 2e-3, "weight_decay": 0.01}, ("AdamW", "SGD"),
        (Reason("large batches want long steps, and each layer's made as long as its weights stands them",
                "You et al. 2020"),),
    ),
    _Case(
        lambda t: t.kind == "gan", Adam, {"lr": 2e-4, "betas": (0.5, 0.999)}, ("RMSprop",),
        (Reason("two players change each other's gradients: momentum of 0.9 oscillates, 0.5 doesn't",
                "Radford, Metz & Chintala 2016"),),
    ),
    _Case(
        lambda t: t.kind == "transformer", AdamW, {"lr": 3e-4, "weight_decay": 0.01, "clip_norm": 1.0},
        ("Lion", "LAMB", "ScheduleFreeAdamW"),
        (Reason("deep or complex networks: adaptive methods", "D2"),
         Reason("attention's gradients have heavy tails, under which SGD is slow; clip them too", "Zhang et al. 2020"),
         Reason("weight decay apart from the gradient; warm the rate up", "Loshchilov & Hutter 2019; ours")),
    ),
    _Case(
        lambda t: t.kind == "rnn", Adam, {"lr": 1e-3, "clip_norm": 1.0}, ("RMSprop", "NAdam"),
        (Reason("deep in time: adaptive methods", "D2"),
         Reason("gradients through time explode at times: clip their norm", "Pascanu, Mikolov & Bengio 2013")),
    ),
    _Case(
        lambda t: t.kind == "cnn" and t.tuned, SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}, ("AdamW",),
        (Reason("with trials to tune it and time, momentum generalizes no worse on images", "Wilson et al. 2017"),
         Reason("AdamW, tuned as well, comes as far", "Choi et al. 2019")),
    ),
    _Case(
        lambda t: t.unequal and not t.unsteady, RMSprop, {"lr": 1e-3, "alpha": 0.9}, ("Adam", "Adadelta"),
        (Reason("RMSprop is against unequal magnitudes of gradients", "D4"),
         Reason("RMSprop, Adadelta and Adam are alike in many cases", "D2")),
    ),
    _Case(
        lambda t: t.unsteady and not t.unequal, SGD, {"lr": 0.01, "momentum": 0.9}, ("Adam", "NAdam"),
        (Reason("momentum is against unsteady directions of gradients", "D4"),),
    ),
    _Case(
        lambda t: t.layers is not None and t.layers < DEEP and t.tuned and not t.unequal, SGD,
        {"lr": 0.01, "momentum": 0.9}, ("Adam",),
        (Reason("a shallow network and time: plain SGD gets to the minimum; begin at 0.01 to 0.001", "D2"),
         Reason("momentum carries over critical points that it could be trapped at", "D1, D2")),
    ),
    _Case(
        lambda t: True, AdamW, {"lr": 1e-3, "weight_decay": 0.01}, ("Adam", "NAdam", "RMSprop"),
        (_JOINS, Reason("its default rate suits most networks: it needs the least tuning", "Schmidt et al. 2021"),
         Reason("weight decay apart from the gradient", "Loshchilov & Hutter 2019")),
    ),
)  # fmt: skip
# What is taken where memory forbids the rule chosen.
_LEAN = (
    _Case(
        lambda t: True, Lion, {"lr": 1e-4, "weight_decay": 0.1}, ("SGD with momentum",),
        (Reason("the sign of one average: steps as even as Adam's for half its state", "Chen et al. 2023"),),
    ),
    _Case(
        lambda t: True, SGD, {"lr": 0.01}, (),
        (Reason("plain SGD keeps nothing; it reaches minima, but slowly, and can be trapped at saddles", "D2"),),
    ),
)  # fmt: skip


def recommend(
    *,
    kind: str | None = None,
    layers: int | None = None,
    sparse: bool = False,
    unequal: bool = False,
    unsteady: bool = False,
    batch: int | None = None,
    data: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    parameters: int | None = None,
    memory: float | None = None,
    trials: int | None = None,
) -> Recommendation:
    """Recommend an update rule, with a rate to start from, by what is known of a task.

    A list of cases in order; the first that applies decides (the page *Choose an optimizer* shows them all). It is
    where to begin, not a promise: rules listed as alike often are.

    Args:
        kind: of model: "linear", "mlp", "cnn", "rnn", "transformer" or "gan".
        layers: how many layers with weights.
        sparse: whether data or gradients are sparse (words, categories, `Embedding(sparse=True)`).
        unequal: whether gradients' magnitudes differ by orders between parameters.
        unsteady: whether gradients' directions change from step to step.
        batch: samples in a batch.
        data: samples in the training data.
        steps: budget in steps.
        epochs: budget in passes over the data.
        parameters: how many the model has.
        memory: bytes there are for the optimizer's state.
        trials: how many runs there are to tune it by.

    Returns:
        The recommendation, with reasons and sources.

    Raises:
        ValueError: for a fact that can't be, naming it.

    >>> import gradwise
    >>> print(gradwise.recommend(sparse=True, kind="linear"))
    gradwise.optim.Adagrad(params, lr=0.01)
      - sparse data want a rate for each parameter: adaptive methods [D2]
      - rare features get larger steps, and a convex loss forgives that rates only fall [Duchi, Hazan & Singer 2011]
      about as good: Adam
    """
    task = Task(kind, layers, sparse, unequal, unsteady, batch, data, steps, epochs, parameters, memory, trials)
    case = next(c for c in _CASES if c.applies(task))
    counted = []
    room = math.inf if task.memory is None else task.memory / (task.parameters or 1)
    needs = state_bytes(case.rule, case.settings)
    if needs > room:
        left = f"memory leaves {room:.3g} bytes of state a parameter, and {case.rule.__name__} needs {needs}"
        counted.append(Reason(left, "counted"))
        case = next(c for c in _LEAN if state_bytes(c.rule, c.settings) <= room)
    reasons = (*counted, *case.reasons, *_remarks(task, case.rule, case.settings))
    return Recommendation(case.rule.__name__, dict(case.settings), reasons, case.alike)


def state_bytes(rule: type[Optimizer], settings: Mapping[str, Any]) -> int:
    """Bytes of state for each float32 parameter."""
    optimizer = rule([nn.Parameter(torch.zeros(1))], **settings)
    kept = optimizer.rule.present(optimizer.settings(optimizer.param_groups[0]))
    return 4 * sum(not s.scalar for s in kept)


def _remarks(task: Task, rule: type[Optimizer], settings: Mapping[str, Any]) -> Iterator[Reason]:
    """What else the facts say, whatever the rule."""
    if task.layers is not None and task.layers >= DEEP and rule is AdamW and task.kind != "transformer":
        yield Reason(f"{task.layers} layers: deep or complex networks want adaptive methods", "D2")
    if task.budget is not None and task.budget < SHORT and rule is not SGD:
        yield Reason(f"{task.budget} steps are few: adaptive methods converge fast", "D2")
    if task.unequal and task.unsteady and issubclass(rule, Adam):
        yield Reason("momentum against unsteady directions, RMSprop against unequal magnitudes: Adam joins both", "D4")
    if task.batch is not None and task.data is not None and task.batch >= task.data:
        yield Reason("a full batch has no noise that would shake it off a critical point: try smaller ones", "D1")
    if task.budget is not None:
        falls = f"{settings['lr']:g} * schedules.cosine({task.budget}, end=0.01)"
        yield Reason(f"end a hundred times lower than you start, such as lr={falls}", "D2; Loshchilov & Hutter 2017")
