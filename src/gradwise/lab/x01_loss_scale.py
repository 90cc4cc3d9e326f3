"""X1, with E1 and E3: the loss times a constant, and the learning rate times it, on a real network, in pairs.

Everything is in double precision: paths that are the same on paper then differ by rounding only, some 1e-15, and what
training makes of that stays far below the effect of any ε. In single precision rounding begins at 1e-7, where the
effects of ε lie too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwise import optim
from gradwise.lab.data import Split, load
from gradwise.lab.drawing import lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.models import mlp, weights
from gradwise.lab.statistics import estimate
from gradwise.lab.training import fit, seeded
from gradwise.optim.equivalence import GroupEquivalence, equivalent

if TYPE_CHECKING:
    import plotly.graph_objects as go

FACTORS = (0.1, 10.0)
# Rates and settings are the ones that the documents name, else torch's own.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient descent, all rows": ("SGD", {"lr": 0.01}),
    "SGD, one row": ("SGD", {"lr": 0.01}),
    "SGD, mini-batches": ("SGD", {"lr": 0.01}),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "momentum, η inside": ("SGD", {"lr": 0.01, "momentum": 0.9, "convention": "keras"}),
    "momentum, averaged": ("SGD", {"lr": 0.01, "momentum": 0.9, "convention": "ema"}),
    "Nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"lr": 0.01}),
    "root-mean-square Adagrad": ("Adagrad", {"lr": 0.01, "accumulator": "mean", "eps": 0.0}),
    "Adadelta": ("Adadelta", {"lr": 1.0}),
    "RMSprop": ("RMSprop", {"lr": 0.001, "alpha": 0.9}),
    "Adam": ("Adam", {"lr": 0.001}),
    "AdamW": ("AdamW", {"lr": 0.001, "weight_decay": 0.01}),
}
ROWS = {"gradient descent, all rows": 10**9, "SGD, one row": 1}
LINEAR = tuple(rule for rule, (kind, _) in RULES.items() if kind == "SGD")
ADAPTIVE = ("Adagrad", "RMSprop", "Adam")  # those that D0 names
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "coupled decay": {"weight_decay": 0.01},
    "clipping": {"clip_norm": 0.5},
    "ε = 0.01": {"eps": 1e-2},
    "ε = 1e-30": {"eps": 1e-30},
}
# Paths are the same if they are no further apart than this many times what another rounding of the first weights does.
SAME = 1000.0
ROUNDING = 2.0**-50


def _steps(quick: bool) -> int:
    return 8 if quick else 100


def cells(quick: bool) -> list[Cell]:
    """Each rule as it is and under the terms that may break it; the reduced form tries terms on four rules only."""
    tried = ("momentum", *ADAPTIVE) if quick else tuple(rule for rule in RULES if rule not in ROWS)
    found = []
    for rule, (kind, _) in RULES.items():
        for variant, terms in VARIANTS.items():
            # Root-mean-square Adagrad has no ε; Adadelta begins to move by its ε alone; AdamW's decay is its own.
            without = {"root-mean-square Adagrad": ("eps",), "AdamW": ("weight_decay",)}.get(rule, ())
            without = ("eps",) if kind == "SGD" else without
            odd = any(term in without for term in terms) or (rule, variant) == ("Adadelta", "ε = 1e-30")
            if variant == "as it is" or (rule in tried and not odd):
                settings = {
                    "rule": rule,
                    "variant": variant,
                    "steps": _steps(quick),
                    "hidden": [32] if quick else [64, 64],
                }
                found.append(Cell(f"{rule}, {variant}", settings))
    return found


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """Train as it is, with the loss times c and with the rate times c, from the same weights on the same batches."""
    rule, steps = settings["rule"], settings["steps"]
    kind, options = RULES[rule][0], {**RULES[rule][1], **VARIANTS[settings["variant"]]}
    data = load("digits").train
    train = Split(data.x.double(), data.y)

    def path(loss: float = 1.0, rate: float = 1.0, nudge: float = 0.0) -> torch.Tensor:
        with seeded(seed):
            net = mlp([64, *settings["hidden"], 10], nn.Tanh).double()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1 + nudge)
        optimizer = getattr(optim, kind)(net.parameters(), **{**options, "lr": rate * options["lr"]})
        been = [weights(net)]
        fit(
            net, optimizer, train, batch=min(ROWS.get(rule, 32), len(train)), steps=steps, seed=seed,
            loss=lambda output, y: loss * nn.functional.cross_entropy(output, y),
            each_step=lambda step: been.append(weights(net)),
        )  # fmt: skip
        return torch.stack(been)

    before = path()
    found: dict[str, Any] = {"rounding": _apart(before, path(nudge=ROUNDING))[-1], "steps": _marks(steps)}
    for c in FACTORS:
        scaled, faster = path(loss=c), path(rate=c)
        first = [float((p[1] - p[0]).norm()) for p in (before, faster)]
        found[f"{c:g}"] = {
            "as rate": _apart(scaled, faster),
            "unscaled": _apart(scaled, before),
            "first step": first[1] / (c * first[0]),
        }
    foretold = _foretold(kind, tuple(options.items()))
    for question, verdict in (("as rate", foretold.as_lr), ("unscaled", foretold.as_before)):
        found[f"foretold {question}"] = verdict.answer
        found[f"because {question}"] = list(verdict.because)
    return found


def _marks(steps: int) -> list[int]:
    """Steps at which distances are kept, closer together at the beginning."""
    return sorted({round(steps ** (k / 12)) for k in range(13)})


def _apart(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """The distance of two paths at the marks, relative to the longer way from the start."""
    marks = _marks(len(a) - 1)
    way = torch.maximum((a - a[0]).norm(dim=1), (b - b[0]).norm(dim=1))
    distance = ((a - a[0]) - (b - b[0])).norm(dim=1)
    return [float(distance[k] / way[k]) if way[k] > 0 else 0.0 for k in marks]


@lru_cache(maxsize=256)
def _foretold(kind: str, options: tuple[tuple[str, Any], ...]) -> GroupEquivalence:
    return equivalent(getattr(optim, kind)([nn.Parameter(torch.zeros(1))], **dict(options)), FACTORS[0]).groups[0]


# From here on: pure functions of what was measured.


def _same(runs: Runs, cell: str, question: str) -> bool | None:
    """Whether two paths are the same: by an interval over the seeds; None where that leaves it open."""
    verdicts = []
    for c in FACTORS:
        rounds = [max(m["rounding"], ROUNDING) for m in runs[cell].values()]
        ends = [max(m[f"{c:g}"][question][-1], 1e-20) for m in runs[cell].values()]
        verdicts.append(estimate([math.log10(d / (SAME * r)) for d, r in zip(ends, rounds, strict=True)]).above_zero)
    return False if True in verdicts else None if None in verdicts else True


def _ends(runs: Runs, names: Sequence[str], question: str) -> list[float]:
    return [m[f"{c:g}"][question][-1] for cell in names for m in runs[cell].values() for c in FACTORS]


def _all(answers: Sequence[bool | None]) -> bool | None:
    """Whether all are true; None where none is false and some can't be told."""
    return False if False in answers else None if None in answers else True


def _other(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _breaking(runs: Runs, rules: Sequence[str], question: str) -> str:
    """Which terms break it for all these rules, as a condition."""
    terms = [
        term
        for term in ("coupled decay", "clipping")
        if _all([_other(_same(runs, f"{rule}, {term}", question)) for rule in rules])
    ]
    each = ": each breaks it" if len(terms) > 1 else ""
    return f"without {' and '.join(terms)}{each}" if terms else ""


def judge(runs: Runs) -> Verdict:
    """E1's sentences, what breaks them, and whether `gradwise.equivalent` foretold each pair."""
    linear, adaptive = ([f"{rule}, as it is" for rule in rules] for rules in (LINEAR, ADAPTIVE))
    tiny, large = ([f"{rule}, ε = {eps}" for rule in ADAPTIVE] for eps in ("1e-30", "0.01"))
    firsts = [abs(m[f"{c:g}"]["first step"] - 1) for cell in adaptive for m in runs[cell].values() for c in FACTORS]
    farthest = [max(_ends(runs, names, "unscaled")) for names in (tiny, adaptive, large)]
    hits, asked = _foreseen(runs)
    return conclude([
        Statement(
            "For SGD, with momentum or without, loss × c is rate × c: paths end at most "
            f"{max(_ends(runs, linear, 'as rate')):.1g} of their length apart, which is rounding",
            _all([_same(runs, cell, "as rate") for cell in linear]),
            _breaking(runs, ["momentum"], "as rate"),
        ),
        Statement(
            "For Adagrad, RMSprop and Adam it isn't: paths end "
            f"{min(_ends(runs, adaptive, 'as rate')):.2g} of their length apart or more",
            _all([_other(_same(runs, cell, "as rate")) for cell in adaptive]),
        ),
        Statement(
            "Their updates don't depend on the loss's scale, up to ε: paths end at most "
            f"{farthest[0]:.1g} apart with ε = 1e-30, {farthest[1]:.1g} with the usual, {farthest[2]:.1g} with 0.01",
            _all([_same(runs, cell, "unscaled") for cell in tiny]),
            _breaking(runs, ADAPTIVE, "unscaled"),
        ),
        Statement(
            "Their updates are proportional to the rate: the first step under rate × c is c times that under the rate, "
            f"to {max(firsts):.1g}",
            max(firsts) < 1e-9,
        ),
        Statement(
            f"gradwise.equivalent foretold of {hits} of {asked} pairs of paths whether they are the same", hits == asked
        ),
    ])  # fmt: skip


def _foreseen(runs: Runs) -> tuple[int, int]:
    """How many pairs it said exactly the same, or not, as they turned out; and of how many that could be told."""
    hits = asked = 0
    for cell in runs:
        first = next(iter(runs[cell].values()))
        for question in ("as rate", "unscaled"):
            same = _same(runs, cell, question)
            asked += same is not None
            hits += same is not None and same == (first[f"foretold {question}"] == "exact")
    return hits, asked


def tables(runs: Runs) -> list[Table]:
    """Where the paths ended, and what was foretold."""
    against = [(question, c) for question in ("as rate", "unscaled") for c in FACTORS]
    head = ["", *(f"loss × {c:g} from {f'rate × {c:g}' if q == 'as rate' else 'as it is'}" for q, c in against)]
    rows = [[*head, "foretold: as rate × c", "foretold: as it is", "broken by"]]
    for cell, seeds in runs.items():
        first = next(iter(seeds.values()))
        ends = [median(m[f"{c:g}"][question][-1] for m in seeds.values()) for question, c in against]
        why = "; ".join(dict.fromkeys(first["because as rate"] + first["because unscaled"]))
        rows.append([cell, *(f"{v:.1g}" for v in ends), first["foretold as rate"], first["foretold unscaled"], why])
    return [Table("Distance of two paths at their ends, relative to their length (median over seeds)", rows)]


def figures(runs: Runs) -> dict[str, go.Figure]:
    """Distances over training, of the rules as they are."""
    shown, c = ("momentum", *ADAPTIVE, "Adadelta"), f"{FACTORS[1]:g}"
    found = {}
    for question, other in (("as rate", f"rate × {c}"), ("unscaled", "training as it is")):
        drawn = {}
        for rule in shown:
            seeds = runs[f"{rule}, as it is"].values()
            drawn[rule] = (next(iter(seeds))["steps"], [m[c][question] for m in seeds])
        title = f"loss × {c}: distance from {other}"
        found[question.replace(" ", "-")] = lines("step", title, drawn, log_x=True, log_y=True)
    return found


def _setup(quick: bool) -> str:
    net = "A net of 32 hidden tanh units" if quick else "A net of two hidden layers of 64 tanh units"
    return (
        f"{net} on handwritten digits in double precision, {_steps(quick)} steps of 32 rows (one rule takes all rows, "
        "one a single row). Rates: 0.01 for SGD and Adagrad, 1 for Adadelta, 0.001 for the others, the defaults that "
        "the documents name. Trained as it is, with the loss times c and with the rate times c, from the same weights "
        "on the same batches, for c = 0.1 and 10. Two paths are the same where they end no further apart than a "
        "thousand times what another rounding of the first weights does to a path."
    )


EXPERIMENT = Experiment(
    id="X1",
    title="The loss times a constant, and the rate times it",
    claim=(
        "For SGD and momentum, loss × c equals learning rate × c. For Adagrad, RMSprop and Adam it doesn't: their "
        "update is (up to ε) invariant to the loss's scale, and proportional to the rate."
    ),
    source="D0; for Adam's invariance Kingma & Ba (2015), section 2.1",
    setup=_setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.3, 4),
)
