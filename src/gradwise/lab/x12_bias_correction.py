"""X12: Adam's moments begin at zero. How near to it they are, what bias correction does about that, for how long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradwise.lab.data import load
from gradwise.lab.drawing import lines
from gradwise.lab.experiment import (
    Bench,
    Cell,
    Experiment,
    Measures,
    Runs,
    Statement,
    Table,
    Verdict,
    conclude,
    measured,
)
from gradwise.lab.models import mlp, weights
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.training import fit, seeded
from gradwise.optim import Adam, Optimizer, rule
from gradwise.optim.rules.scalars import ema, scaled

if TYPE_CHECKING:
    import plotly.graph_objects as go

RATE, BETA1, EPS = 1e-3, 0.9, 1e-8
EARLY = 10  # the first steps: as many as the first moment's window holds
FADED = 0.01  # a correction that changes a step by less than this has faded
WITH, WITHOUT = "with correction", "without correction"


@rule("exp_avg", "exp_avg_sq")
def uncorrected(p: Any, g: Any, m: Any, v: Any, lr: Any, beta1: Any, beta2: Any, eps: Any) -> Any:
    """Adam as it is but for the correction: θ ← θ − η m/(√v + ε)."""
    m = ema(m, g, beta1)
    v = ema(v, g * g, beta2)
    return p - lr * scaled(m, v, eps), m, v


def cells(quick: bool) -> list[Cell]:
    """With the correction and without it, until it has faded."""
    reduced = {"hidden": 16, "beta2": 0.99, "steps": 500}
    settings = reduced if quick else {"hidden": 128, "beta2": 0.999, "steps": 20_000}
    return [Cell(name, {"corrected": name == WITH, **settings}) for name in (WITH, WITHOUT)]


def marks(steps: int) -> list[int]:
    """The steps that are looked at: all of the first ten, then some of each decade."""
    return sorted({*range(1, EARLY + 1), *(round(10 ** (k / 6)) for k in range(6, int(6 * math.log10(steps)) + 1))})


def setup(quick: bool) -> str:
    """Model, data, rule, what is measured."""
    settings = cells(quick)[0].settings
    return (
        f"A net of one hidden layer of {settings['hidden']} units on scikit-learn's digits, batches of 32, Adam with "
        f"η {RATE}, β₁ {BETA1}, β₂ {settings['beta2']}{' (0.999 in full)' if quick else ''}, {settings['steps']:,} "
        "steps; the rule without correction is the same formula less the correction, from the same weights with the "
        "same batches. The moments are compared with what they are meant to estimate: the plain mean of all gradients "
        "so far, and of their squares. Shares are sums over all weights: v / mean g², and m · mean g / ‖mean g‖². "
        "Beyond the window of 1/(1−β) steps an average forgets and the plain mean doesn't, so only the first "
        f"{EARLY} steps are judged by them."
    )


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """Train; at the marks, what the moments are of what they estimate, and how long the step was."""
    data, steps = load("digits"), settings["steps"]
    with seeded(seed):
        net = mlp([64, settings["hidden"], 10])
    optimizer = _optimizer(net, settings["corrected"], settings["beta2"])
    seen = {name: [torch.zeros_like(p) for p in net.parameters()] for name in ("g", "g²")}
    looked = set(marks(steps))
    found: dict[str, Any] = {"marks": sorted(looked), "m": [], "v": [], "m̂": [], "v̂": [], "step": [], "factor": []}
    before = weights(net)

    def look(step: int) -> None:
        nonlocal before
        for p, g, g2 in zip(net.parameters(), seen["g"], seen["g²"], strict=True):
            assert p.grad is not None
            g.add_(p.grad)
            g2.addcmul_(p.grad, p.grad)
        if step in looked or step + 1 in looked:
            now = weights(net)
            if step in looked:
                for name, value in _shares(optimizer, net, seen, step).items():
                    found[name].append(value)
                found["step"].append(float((now - before).norm()) / (RATE * len(now) ** 0.5))
            before = now
            bench.progress(step / steps)

    history = fit(net, optimizer, data.train, batch=32, steps=steps, seed=seed, each_step=look)
    losses = torch.tensor(history.losses)
    return {**found, "early loss": float(losses[:50].mean()), "later loss": float(losses[300:500].mean())}


def _optimizer(net: nn.Module, corrected: bool, beta2: float) -> Optimizer:
    if corrected:
        return Adam(net.parameters(), lr=RATE, betas=(BETA1, beta2), eps=EPS)
    return Optimizer(net.parameters(), uncorrected, {"lr": RATE, "betas": (BETA1, beta2), "eps": EPS})


def _shares(optimizer: Optimizer, net: nn.Module, seen: Mapping[str, Sequence[Tensor]], step: int) -> dict[str, float]:
    """What raw and corrected moments are of the plain means; and the factor of the correction on a step."""
    parameters = list(net.parameters())
    g, g2 = (_flat(seen[name]) / step for name in ("g", "g²"))
    m, v = (_flat([optimizer.state[p][name] for p in parameters]) for name in ("exp_avg", "exp_avg_sq"))
    raw = {"m": float(m @ g / (g @ g)), "v": float(v.sum() / g2.sum())}
    if not isinstance(optimizer, Adam):
        return raw
    first, second = (_flat(each) for each in zip(*map(optimizer.moments, parameters), strict=True))
    factor = float((first.norm() / m.norm()) / (second.sum() / v.sum()).sqrt())
    return {**raw, "m̂": float(first @ g / (g @ g)), "v̂": float(second.sum() / g2.sum()), "factor": factor}


def _flat(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors if t is not None]).double()


# From here on: pure functions of what was measured.


def _miss(runs: Runs, what: str) -> list[float]:
    """How far a moment is off over the first steps, in decades, seed by seed."""
    return [
        sum(abs(math.log10(max(share, 1e-6))) for share in shares[:EARLY]) / EARLY
        for shares in measured(runs, WITH, what)
    ]


def _mended(runs: Runs, what: str) -> Estimate:
    """How many decades nearer the corrected moment is to what it estimates."""
    return paired(_miss(runs, what), _miss(runs, f"{what}̂"))


def _longer(runs: Runs) -> list[list[float]]:
    """Steps without the correction over those with it, by seed and mark."""
    with_, without = measured(runs, WITH, "step"), measured(runs, WITHOUT, "step")
    return [[b / a for a, b in zip(ours, theirs, strict=False)] for ours, theirs in zip(with_, without, strict=True)]


def faded(marks: Sequence[int], factors: Sequence[float]) -> int | None:
    """The first mark from which on the correction changes a step by less than `FADED`; None if it never does.

    >>> faded([1, 10, 100], [0.3, 0.995, 1.0]), faded([1, 10], [1.0, 0.9])
    (10, None)
    """
    late = [k for k, factor in enumerate(factors) if abs(factor - 1) >= FADED]
    after = late[-1] + 1 if late else 0
    return marks[after] if after < len(marks) else None


def judge(runs: Runs) -> Verdict:
    """Three sentences, and what the correction does to the steps."""
    first = {what: estimate([shares[0] for shares in measured(runs, WITH, what)]) for what in ("m", "v")}
    near = estimate(
        [max(m[0], v[0]) - 0.5 for m, v in zip(measured(runs, WITH, "m"), measured(runs, WITH, "v"), strict=True)]
    )
    ends = [faded(at, f) for at, f in zip(measured(runs, WITH, "marks"), measured(runs, WITH, "factor"), strict=True)]
    statements = [
        Statement(
            f"Early moments are near zero: after the first step m is {first['m'].mean:.3g} of the gradient and v "
            f"{first['v'].mean:.3g} of its square.",
            None if near.above_zero is None else not near.above_zero,
        ),
        *(
            Statement(
                f"Correction mends {what}: over the first {EARLY} steps it brings it nearer to {meant} by "
                f"{_mended(runs, what)} decades, from {estimate(_miss(runs, what)).mean:.2f} off to "
                f"{estimate(_miss(runs, f'{what}̂')).mean:.2f}.",
                _mended(runs, what).above_zero,
            )
            for what, meant in (("m", "the mean gradient"), ("v", "the mean square"))
        ),
        Statement(
            f"It fades: it changes steps by less than {100 * FADED:.0f} % from step "
            f"{', '.join('never' if end is None else f'{end:,}' for end in sorted(set(ends), key=str))} on.",
            all(end is not None for end in ends),
        ),
    ]
    longer = _longer(runs)
    at_first, most = estimate([r[0] for r in longer]), estimate([max(r) for r in longer])
    return conclude(
        statements,
        f"What it mends is not that steps are too short. v is nearer to zero than m and stands under a root: without "
        f"the correction the first step is {at_first} times as long, and the longest exceeds its counterpart {most} "
        f"times. The mean loss of the first 50 steps without it, less that with it: {_harm(runs, 'early loss')}; of "
        f"steps 300 to 500: {_harm(runs, 'later loss')}.",
    )


def _harm(runs: Runs, what: str) -> Estimate:
    return paired(measured(runs, WITHOUT, what), measured(runs, WITH, what))


def tables(runs: Runs) -> Sequence[Table]:
    """The shares at some steps, and steps and losses without the correction."""
    at = measured(runs, WITH, "marks")[0]
    rows = [["step", "m", "m corrected", "v", "v corrected", "factor on the step", "step without / with"]]
    longer = _longer(runs)
    for step in (1, 2, 3, 5, 10, 100, 1000, at[-1]):
        k = at.index(step) if step in at else None
        if k is None:
            continue
        shares = [f"{estimate([s[k] for s in measured(runs, WITH, what)]).mean:.3g}" for what in ("m", "m̂", "v", "v̂")]
        ratio = f"{estimate([r[k] for r in longer]).mean:.3g}" if k < min(map(len, longer)) else "–"
        rows.append([f"{step:,}", *shares, f"{measured(runs, WITH, 'factor')[0][k]:.3g}", ratio])
    losses = [["mean loss of", WITH, WITHOUT, "without − with, 95 % interval"]]
    for what, name in (("early loss", "steps 1 to 50"), ("later loss", "steps 300 to 500")):
        means = [f"{estimate(measured(runs, cell, what)).mean:.4f}" for cell in (WITH, WITHOUT)]
        losses.append([name, *means, str(_harm(runs, what))])
    return [Table("Moments as a share of the plain means", rows), Table("What leaving it out does to the loss", losses)]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    """The shares, and the lengths of steps."""
    at = measured(runs, WITH, "marks")[0]
    drawn = {
        f"{what}{', corrected' if '̂' in what else ''}": (at, measured(runs, WITH, what))
        for what in ("m", "m̂", "v", "v̂")
    }
    shares = lines("step", "moment / plain mean", drawn, log_x=True, log_y=True)
    shares.update_layout(title="The moments as a share of what they estimate")
    few = min(map(len, measured(runs, WITHOUT, "step")))
    lengths = {
        cell: (at[:few], [steps[:few] for steps in measured(runs, cell, "step")]) for cell in (WITH, WITHOUT)
    }  # fmt: skip
    steps = lines("step", "root mean square of a weight's step / η", lengths, log_x=True, log_y=True)
    steps.update_layout(title="How long steps are")
    return {"moments": shares, "steps": steps}


EXPERIMENT = Experiment(
    id="X12",
    title="Bias correction",
    claim="Adam's first moments and second moments are near zero early on; bias correction mends that and fades.",
    source="D0 and D3, on Adam; Kingma & Ba, Adam: a method for stochastic optimization, 2015, section 3",
    setup=setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    minutes=(0.1, 3),
)
