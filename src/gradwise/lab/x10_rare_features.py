"""X10: Adagrad's rates of rare and frequent features, and what becomes of them in the long run, on text."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise import optim
from gradwise.finder import range_test
from gradwise.lab.data import DataError, load
from gradwise.lab.drawing import dots, lines
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
from gradwise.lab.statistics import Estimate, estimate, paired
from gradwise.lab.training import seeded

if TYPE_CHECKING:
    import plotly.graph_objects as go

BATCH = 64
RULES: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": optim.SGD,
    "Adagrad": optim.Adagrad,
    "RMSprop": lambda params, lr: optim.RMSprop(params, lr=lr, alpha=0.9),
    "Adam": optim.Adam,
}
DEFAULT = 0.01  # the rate that D2 says to begin with, and torch's for Adagrad
LONG = {"0.01": DEFAULT, "own": None}
# Below this share of what fresh rates learn, nothing to speak of is learnt.
LITTLE = 0.1
# Rates that fall as this power of the step or faster are on their way to zero; constant gradients make it -0.5.
FALLING = -0.25


@dataclass(frozen=True)
class Text:
    """Pairs of letters, by number, and the letter after each."""

    pairs: Tensor
    letters: Tensor
    kinds: int
    alphabet: int

    def net(self, seed: int) -> nn.Sequential:
        """A row of weights for each kind of pair, its feature; then one layer."""
        with seeded(seed):
            return nn.Sequential(nn.Embedding(self.kinds, 16), nn.Tanh(), nn.Linear(16, self.alphabet))


@lru_cache(maxsize=2)
def _text(name: str, bench: Bench) -> Text:
    if name == "tinyshakespeare":
        codes = load(name, bench.data_dir).train.x
    else:
        try:
            from sklearn import datasets  # type: ignore[import-untyped]
        except ImportError:
            raise DataError("the bundled texts come with scikit-learn: pip install 'gradwise[lab]'") from None
        names = ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud")
        told = "".join(getattr(datasets, f"load_{n}")().DESCR for n in names)
        code = {letter: k for k, letter in enumerate(sorted(set(told)))}
        codes = torch.tensor([code[letter] for letter in told])
    alphabet = int(codes.max()) + 1
    kinds, pairs = torch.unique(codes[:-2] * alphabet + codes[1:-1], return_inverse=True)
    return Text(pairs, codes[2:], len(kinds), alphabet)


def cells(quick: bool) -> list[Cell]:
    """Rates and steps by rule; the long run of Adagrad by rate."""
    text, steps, long, new = ("bundled", 300, 640, 160) if quick else ("tinyshakespeare", 2000, 9600, 2000)
    found = [
        Cell(f"features, {rule}", {"part": "features", "text": text, "rule": rule, "steps": steps}) for rule in RULES
    ]
    run = {"part": "long", "text": text, "steps": long, "new": new}
    return [*found, *(Cell(f"long, {rate} rate", {**run, "rate": rate}) for rate in LONG)]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    """One part for one seed."""
    text = _text(settings["text"], Bench(data_dir=bench.data_dir))
    return {"features": _features, "long": _long}[settings["part"]](settings, seed, text)


def _own_rate(text: Text, rule: str, seed: int, steps: int) -> float:
    """What the range test finds for this rule, the default where it finds none."""
    net, random = text.net(seed), torch.Generator().manual_seed(seed)
    rows = torch.randint(len(text.letters), (40, BATCH), generator=random)
    optimizer = RULES[rule](net.parameters(), lr=DEFAULT)
    batches = [(text.pairs[r], text.letters[r]) for r in rows]
    return range_test(net, batches, F.cross_entropy, optimizer=optimizer, budget=200, horizon=steps).rate or DEFAULT


def _train(net: nn.Module, optimizer: optim.Optimizer, text: Text, steps: int, seed: int, see: Any = None) -> None:
    """Some steps; `see` is called with the pairs of a batch, before and after its step."""
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(text.letters), (BATCH,), generator=random)
        optimizer.zero_grad()
        F.cross_entropy(net(text.pairs[rows]), text.letters[rows]).backward()  # type: ignore[no-untyped-call]
        if see:
            see(step, text.pairs[rows], False)
        optimizer.step()
        if see:
            see(step, text.pairs[rows], True)


def _rates(optimizer: optim.Optimizer, p: Tensor) -> Tensor:
    """Effective rates; NaN where there has been no gradient, for η/ε says nothing."""
    rates, second = optimizer.effective_lr(p), optimizer.moments(p).second
    return rates if second is None else torch.where(second > 0, rates, torch.nan)


@torch.no_grad()
def _loss(net: nn.Module, text: Text) -> float:
    rows = torch.arange(0, len(text.letters), max(1, len(text.letters) // 20_000))
    return float(F.cross_entropy(net(text.pairs[rows]), text.letters[rows]))


def _features(settings: Mapping[str, Any], seed: int, text: Text) -> Measures:
    """By how much the rarest quarter of the features has larger rates and steps than the most frequent quarter.

    Steps are those of the run's later half, of features in the batch; quarters are of the features seen there.
    """
    rule, steps = settings["rule"], settings["steps"]
    net, rate = text.net(seed), _own_rate(text, rule, seed, steps)
    optimizer = RULES[rule](net.parameters(), lr=rate)
    table: Tensor = net[0].weight  # type: ignore[assignment]
    count, moved, late = (torch.zeros(text.kinds) for _ in range(3))
    before = table.detach().clone()

    def see(step: int, pairs: Tensor, after: bool) -> None:
        nonlocal before
        there = torch.unique(pairs)
        if not after:
            before = table.detach()[there].clone()
            return
        count[there] += 1
        if 2 * step >= steps:
            moved[there] += (table.detach()[there] - before).square().mean(1)
            late[there] += 1

    _train(net, optimizer, text, steps, seed, see)
    seen = late > 0
    by_feature = _rates(optimizer, table).log().nanmean(1)
    seen &= ~by_feature.isnan()
    low, high = torch.quantile(count[seen], torch.tensor([0.25, 0.75]))
    rare, frequent = seen & (count <= low), seen & (count >= high)
    lengths = (moved / late).sqrt().log()
    slope = np.polyfit(count[seen].log().numpy(), by_feature[seen].numpy(), 1)[0]
    spread = {"seen": [float(low), float(high)], "rate": rate, "slope": float(slope)}
    ratios = {
        name: float((values[rare].nanmean() - values[frequent].nanmean()).exp())
        for name, values in (("rates", by_feature), ("steps", lengths))
    }
    return {**spread, **ratios, "loss": _loss(net, text)}


def _long(settings: Mapping[str, Any], seed: int, text: Text) -> Measures:
    """Loss and mean rate of a long run at doubling steps; then the letters are exchanged, and it has to learn anew.

    The mean is over the weights that have had a gradient by the first of these steps.
    """
    rate = LONG[settings["rate"]] or _own_rate(text, "Adagrad", seed, settings["steps"])
    net = text.net(seed)
    optimizer = optim.Adagrad(net.parameters(), lr=rate)
    marks = [settings["steps"] >> k for k in range(6, -1, -1)]
    losses, rates, done = [_loss(net, text)], list[float](), 0
    early: Tensor | None = None
    for mark in marks:
        _train(net, optimizer, text, mark - done, 1000 * seed + mark)
        done = mark
        losses.append(_loss(net, text))
        of_all = torch.cat([_rates(optimizer, p).flatten() for p in net.parameters()])
        early = ~of_all.isnan() if early is None else early  # later ones would begin with high rates of their own
        rates.append(float(of_all[early].log().mean().exp()))
    exchange = torch.randperm(text.alphabet, generator=torch.Generator().manual_seed(seed))
    other = Text(text.pairs, exchange[text.letters], text.kinds, text.alphabet)
    fresh = copy.deepcopy(net)
    before = _loss(net, other)
    _train(net, optimizer, other, settings["new"], seed)
    _train(fresh, optim.Adagrad(fresh.parameters(), lr=rate), other, settings["new"], seed)
    new = {"before": before, "old rates": _loss(net, other), "fresh rates": _loss(fresh, other)}
    return {"rate": rate, "steps": marks, "rates": rates, "losses": losses, "new": new}


# From here on: pure functions of what was measured.


def _logs(runs: Runs, cell: str, key: str) -> list[float]:
    return [math.log10(value) for value in measured(runs, cell, key)]


def _times(log: Estimate) -> str:
    return f"{10**log.mean:.2g} [{10**log.low:.2g}, {10**log.high:.2g}] times"


def _power(runs: Runs, rate: str) -> Estimate:
    """The power of the step with which rates fall over the last two doublings."""
    runs_of = runs[f"long, {rate} rate"].values()
    return estimate(
        [math.log(m["rates"][-1] / m["rates"][-3]) / math.log(m["steps"][-1] / m["steps"][-3]) for m in runs_of]
    )


def _last(runs: Runs, rate: str) -> Estimate:
    """By how much the last doubling of steps lowers the loss."""
    return estimate([m["losses"][-2] - m["losses"][-1] for m in runs[f"long, {rate} rate"].values()])


def _anew(runs: Runs, rate: str) -> Estimate:
    """What is learnt anew with the old rates, as a share of what is with fresh ones."""
    news = [m["new"] for m in runs[f"long, {rate} rate"].values()]
    return estimate([(n["before"] - n["old rates"]) / (n["before"] - n["fresh rates"]) for n in news])


def judge(runs: Runs) -> Verdict:
    """Rare features, and the long run in four readings, at two rates."""
    return conclude([*_rare(runs), *(s for rate in LONG for s in _decaying(runs, rate))])


def _rare(runs: Runs) -> list[Statement]:
    adagrad, sgd = "features, Adagrad", "features, SGD"
    rates, steps = (estimate(_logs(runs, adagrad, key)) for key in ("rates", "steps"))
    beyond = paired(_logs(runs, adagrad, "steps"), _logs(runs, sgd, "steps"))
    slope = estimate([m["slope"] for m in runs[adagrad].values()])
    signs = (steps.above_zero, beyond.above_zero)
    return [
        Statement(
            f"Adagrad gives rare features larger rates: the rarest quarter {_times(rates)} those of the most frequent "
            f"one; rates go as occurrences to the power {slope}",
            rates.above_zero,
        ),
        Statement(
            f"It makes larger steps with rare features where they occur: {_times(steps)} as long as with frequent "
            f"ones, a ratio {_times(beyond)} that of SGD",
            False if False in signs else None if None in signs else True,
        ),
    ]


def _decaying(runs: Runs, rate: str) -> list[Statement]:
    where = f"at rate {rate}" if rate != "own" else "at the range test's rate"
    power, last, anew = _power(runs, rate), _last(runs, rate), _anew(runs, rate)
    ended = None if last.above_zero is None else not last.above_zero
    share = f"after an exchange of letters it learns {_percent(anew)} of what it does with fresh rates"
    return [
        Statement(
            f"Its rates decay towards zero ({where}): as the step to the power {power} over the last two doublings",
            True if power.high < FALLING else False if power.low > FALLING else None,
        ),
        Statement(
            f"... until it no longer learns ({where}): the last doubling of steps lowers the loss by {last}", ended
        ),
        Statement(
            f"... until it could no longer learn anything else ({where}): {share}",
            True if anew.high < LITTLE else False if anew.low > LITTLE else None,
        ),
        Statement(
            f"... so that it learns more slowly ({where}): {share}",
            True if anew.high < 1 else False if anew.low > 1 else None,
        ),
    ]


def _percent(share: Estimate) -> str:
    return f"{share.mean:.0%} [{share.low:.0%}, {share.high:.0%}]"


def tables(runs: Runs) -> list[Table]:
    """Ratios by rule; the long run."""
    features = [
        [
            "",
            "learning rate",
            "rates, rare over frequent",
            "steps, rare over frequent",
            "rate ~ occurrences to the",
            "loss",
        ]
    ]
    for rule in RULES:
        cell = f"features, {rule}"
        own, loss, slope = (fmean(m[key] for m in runs[cell].values()) for key in ("rate", "loss", "slope"))
        ratios = [_times(estimate(_logs(runs, cell, key))) for key in ("rates", "steps")]
        features.append([rule, f"{own:.2g}", *ratios, f"{slope:.2f}", f"{loss:.3g}"])
    marks = next(iter(runs[f"long, {next(iter(LONG))} rate"].values()))["steps"]
    long = [["", *(f"after {mark:,}" for mark in marks)]]
    for rate in LONG:
        seeds = runs[f"long, {rate} rate"].values()
        long.append(
            [f"loss, {rate} rate", *(f"{fmean(m['losses'][k + 1] for m in seeds):.3f}" for k in range(len(marks)))]
        )
        long.append(
            [f"mean rate, {rate} rate", *(f"{fmean(m['rates'][k] for m in seeds):.2g}" for k in range(len(marks)))]
        )
    anew = [["", "before", "with the old rates", "with fresh rates"]]
    for rate in LONG:
        news = [m["new"] for m in runs[f"long, {rate} rate"].values()]
        anew.append(
            [f"{rate} rate", *(f"{fmean(n[key] for n in news):.3f}" for key in ("before", "old rates", "fresh rates"))]
        )
    return [
        Table("The rarest and the most frequent quarter of the features", features),
        Table("Adagrad in the long run (means over seeds)", long),
        Table("The loss after letters were exchanged", anew),
    ]


def figures(runs: Runs) -> dict[str, go.Figure]:
    """Rare over frequent by rule; rate and loss in the long run."""
    ratios = {
        what: {rule: [m[key] for m in runs[f"features, {rule}"].values()] for rule in RULES}
        for what, key in (("effective rates", "rates"), ("steps where they occur", "steps"))
    }
    rates, losses = {}, {}
    for rate in LONG:
        seeds = list(runs[f"long, {rate} rate"].values())
        rates[f"learning rate: {rate}"] = (seeds[0]["steps"], [m["rates"] for m in seeds])
        losses[f"learning rate: {rate}"] = (seeds[0]["steps"], [m["losses"][1:] for m in seeds])
    return {
        "rare-features": dots("rare over frequent features", ratios, log_y=True),
        "rates": lines("step", "mean effective rate", rates, log_x=True, log_y=True),
        "losses": lines("step", "loss", losses, log_x=True),
    }


def _setup(quick: bool) -> str:
    text = "the descriptions of scikit-learn's bundled data (15,000 letters)" if quick else "tiny Shakespeare"
    steps, long, new = ("300", "640", "160") if quick else ("2,000", "9,600", "2,000")
    return (
        f"The next letter from the two before it, in {text}: each pair of letters is a feature with 16 weights, then "
        f"tanh and one layer; batches of {BATCH}. Each rule at the range test's rate for {steps} steps; rates are the "
        "optimizer's effective ones, steps those that a feature makes when it is in the batch. "
        f"Adagrad for {long} steps at {DEFAULT:g} and at the range test's rate; then the letters to be predicted are "
        f"exchanged, and it goes on for {new} steps with the rates it has, and with fresh ones."
    )


EXPERIMENT = Experiment(
    id="X10",
    title="Adagrad: rare features, and rates that decay",
    claim=("Adagrad gives rare features larger steps. Its rate decays towards zero, until it no longer learns."),
    source="D0; Duchi, Hazan & Singer (2011); for the decay Zeiler (2012), section 2.1",
    setup=_setup,
    cells=cells,
    measure=measure,
    judge=judge,
    tables=tables,
    figures=figures,
    data=("tinyshakespeare",),
    minutes=(0.2, 3),
)
