"""X15: the documents' ranking of the optimizers, each at its own best rate, on dense, sparse, deep and uneven tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.lab.drawing import dots, lines
from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.statistics import Estimate, estimate
from gradwise.lab.sweeps import ADAPTIVE, ROWS, RULES, sweep, task
from gradwise.lab.training import finite

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLAIN = tuple(rule for rule in RULES if rule not in ADAPTIVE)
ALIKE = ("RMSprop", "Adadelta", "Adam")
# As good: less than this share of the fall of the loss apart, the yardstick that the range test has too.
AS_GOOD = 0.02
MARKS = 5


def _cells(quick: bool) -> list[Cell]:
    names = ["digits", "deep digits", "digits:5", "uneven digits"]
    if not quick:
        names += ["breast_cancer", "diabetes", "california", "fashion_mnist", "digits:17", "california:17"]
    steps = 60 if quick else 300
    return [Cell(name, {"task": name, "steps": steps}) for name in names]


def _setup(quick: bool) -> str:
    cells = _cells(quick)
    return (
        f"{len(cells)} tasks ({', '.join(c.name for c in cells)}): nets of one hidden layer of 32 ReLU units; "
        '"deep": six of 24 tanh units; ":5": 16 units on inputs coded as indicators of 5 levels each, so that nearly '
        'all inputs are zero; "uneven": each input multiplied by a power of ten from -2 to 2. '
        f"{cells[0].settings['steps']} steps on batches of 32 (of {ROWS[0]} rows at most). Each rule of "
        f"{', '.join(RULES)} at every rate of one "
        "grid, half a decade apart, widened until its best lies inside; the rate with the lowest validation loss is "
        "taken, and the test loss read for it alone. A rule's score is its fall of the loss as a share of the fall of "
        "the best rule of that task and seed; ranks are of test losses, 1 the lowest."
    )


def _measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    found = sweep(task(settings["task"], bench), list(RULES), seed, steps=settings["steps"], marks=MARKS)
    rules = {}
    for rule, swept in found.items():
        best = swept.best()
        rules[rule] = {
            "rate": float(swept.rates[best]),
            "validation": [finite(v) for v in swept.validation[best].tolist()],
            "early": finite(float(swept.validation[:, 0].min())),  # at the rate that is best for so few steps
            "train": finite(float(swept.train[best])),
            "test": finite(float(swept.test[best])),
        }
    return {"start": next(iter(found.values())).start, "rules": rules}


def scores(m: Measures, what: str = "test") -> dict[str, float]:
    """Each rule's fall of a loss ("test", "train", or "early" on validation data) as a share of the largest fall."""
    ends = {rule: m["start"] if r[what] is None else r[what] for rule, r in m["rules"].items()}
    fall = m["start"] - min(ends.values())
    return {rule: (m["start"] - end) / fall for rule, end in ends.items()}


def ranks(m: Measures) -> dict[str, float]:
    """Each rule's rank by its test loss; 1 is the lowest, equal losses share theirs."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    found = rankdata([-s for s in scores(m).values()])
    return dict(zip(m["rules"], map(float, found), strict=True))


def _of(m: Measures, rules: Sequence[str], what: str = "test") -> float:
    """The score of the rule among these that validation data would choose."""
    told = {r: m["start"] if (v := m["rules"][r]["validation"][-1]) is None else v for r in rules}
    if what == "early":
        return max(scores(m, what)[r] for r in rules)
    return scores(m, what)[min(told, key=lambda r: told[r])]


def _over(runs: Runs, tasks: Sequence[str], value: Callable[[Measures], float]) -> Estimate:
    """The mean over tasks of a value, seed by seed."""
    seeds = sorted(set.intersection(*(set(runs[name]) for name in runs)))
    return estimate([fmean(value(runs[name][seed]) for name in tasks) for seed in seeds])


def _adaptive_ahead(m: Measures, what: str = "test") -> float:
    return _of(m, ADAPTIVE, what) - _of(m, PLAIN, what)


def _judge(runs: Runs) -> Verdict:
    tasks = list(runs)
    sparse = sorted((n for n in tasks if ":" in n), key=lambda n: int(n.rpartition(":")[2]))
    deep, uneven = ([n for n in tasks if n.startswith(kind)] for kind in ("deep", "uneven"))

    def ahead(text: str, where: Sequence[str], value: Callable[[Measures], float]) -> Statement:
        found = _over(runs, where, value)
        return Statement(f"{text}: {found} of the fall of the loss.", found.above_zero)

    statements = [
        _best(runs),
        ahead("Sparse data: the best adaptive rule leads the best plain one", sparse, _adaptive_ahead),
        ahead("Deep nets: the best adaptive rule leads the best plain one", deep, _adaptive_ahead),
        ahead(f"Fast convergence (after 1/{MARKS} of the steps, all at rates for that): the best adaptive rule leads",
              tasks, lambda m: _adaptive_ahead(m, "early")),
        ahead("Plain SGD is slower: by then Adam leads it", tasks,
              lambda m: scores(m, "early")["Adam"] - scores(m, "early")["SGD"]),
        ahead(f"It gets there all the same: its fall of the training loss at the end is above {1 - AS_GOOD:.0%} of "
              "the largest, by", tasks, lambda m: scores(m, "train")["SGD"] - (1 - AS_GOOD)),
        _alike(runs),
        _sparser(runs, sparse),
        ahead("Unequal magnitudes: RMSprop leads momentum", uneven,
              lambda m: scores(m)["RMSprop"] - scores(m)["momentum"]),
    ]  # fmt: skip
    return conclude(statements, _friedman(runs))


def _best(runs: Runs) -> Statement:
    found = {rule: _over(runs, list(runs), lambda m, rule=rule: ranks(m)[rule]) for rule in RULES}  # type: ignore[misc]
    rival = min((rule for rule in RULES if rule != "Adam"), key=lambda rule: found[rule].mean)
    lead = _over(runs, list(runs), lambda m: ranks(m)[rival] - ranks(m)["Adam"])
    means = f"mean rank {found['Adam'].mean:.2f}, the best other, {rival}'s, {found[rival].mean:.2f}"
    return Statement(f"Adam is best overall: {means}; ahead by {lead} ranks.", lead.above_zero)


def _alike(runs: Runs) -> Statement:
    def apart(m: Measures) -> float:
        found = [scores(m)[rule] for rule in ALIKE]
        return max(found) - min(found)

    share = _over(runs, list(runs), lambda m: float(apart(m) <= AS_GOOD))
    many = _over(runs, list(runs), lambda m: (apart(m) <= AS_GOOD) - 0.5).above_zero
    text = f"{', '.join(ALIKE)} are alike in many cases: within {AS_GOOD:.0%} of the fall in {share.mean:.0%} of them"
    return Statement(f"{text} (more than half?).", many)


def _sparser(runs: Runs, sparse: Sequence[str]) -> Statement:
    """Adam's lead over RMSprop, on the sparsest coding of a data set less that on the plain one."""

    def lead(m: Measures) -> float:
        return scores(m)["Adam"] - scores(m)["RMSprop"]

    pairs = {n.rpartition(":")[0]: n for n in sparse if n.rpartition(":")[0] in runs}
    seeds = sorted(set.intersection(*(set(runs[name]) for name in runs)))
    found = estimate([fmean(lead(runs[s][seed]) - lead(runs[d][seed]) for d, s in pairs.items()) for seed in seeds])
    which = ", ".join(f"{d} to {s}" for d, s in pairs.items())
    text = f"Adam's lead over RMSprop grows as inputs become sparser ({which})"
    return Statement(f"{text}: by {found} of the fall of the loss.", found.above_zero)


def _friedman(runs: Runs) -> str:
    """Whether the rules differ at all: Friedman's test over tasks, each with its mean over seeds."""
    from scipy.stats import friedmanchisquare

    means = [[fmean(ranks(m)[rule] for m in cell.values()) for cell in runs.values()] for rule in RULES]
    if len(runs) < 3:
        return ""
    p = float(friedmanchisquare(*means).pvalue)
    return f"Friedman's test of all {len(RULES)} rules over {len(runs)} tasks: p = {p:.2g}."


def _tables(runs: Runs) -> Sequence[Table]:
    head = ["rule", *runs, "mean rank"]
    tables = {"Rank by test loss (mean over seeds)": ranks, "Share of the best rule's fall of the test loss": scores}
    found = []
    for title, value in tables.items():
        rows = []
        for rule in RULES:
            rank = _over(runs, list(runs), lambda m, rule=rule: ranks(m)[rule])  # type: ignore[misc]
            cells = [fmean(value(m)[rule] for m in cell.values()) for cell in runs.values()]
            rows.append([rule, *(f"{v:.2f}" if value is ranks else f"{v:.3f}" for v in cells), f"{rank.mean:.2f}"])
        found.append(Table(title, [head, *sorted(rows, key=lambda row: float(row[-1]))]))
    rates = [[rule, *(f"{_middle(cell, rule):.2g}" for cell in runs.values())] for rule in RULES]
    return [*found, Table("The rate that validation chose (geometric mean over seeds)", [head[:-1], *rates])]


def _middle(cell: Mapping[int, Measures], rule: str) -> float:
    return float(np.exp(np.mean(np.log([m["rules"][rule]["rate"] for m in cell.values()]))))


def _figures(runs: Runs) -> Mapping[str, go.Figure]:
    seeds = sorted(set.intersection(*(set(runs[name]) for name in runs)))
    overall = {rule: [fmean(ranks(runs[n][s])[rule] for n in runs) for s in seeds] for rule in RULES}
    order = sorted(RULES, key=lambda rule: fmean(overall[rule]))
    figures = {"ranks": dots("mean rank over tasks (1 is best)", {"": {rule: overall[rule] for rule in order}})}
    figures["ranks"].update_layout(showlegend=False)
    for name in list(runs)[:2]:
        drawn = {
            rule: ([100 * k / MARKS for k in range(MARKS + 1)], [_curve(m, rule) for m in runs[name].values()])
            for rule in ("SGD", "momentum", "RMSprop", "Adam")
        }
        figures[name.replace(" ", "-")] = lines("share of the run, %", f"validation loss, {name}", drawn, log_y=True)
    return figures


def _curve(m: Measures, rule: str) -> list[float]:
    return [m["start"], *(m["start"] if v is None else v for v in m["rules"][rule]["validation"])]


EXPERIMENT = Experiment(
    id="X15",
    title="The ranking of the optimizers",
    claim=(
        "Sparse data and deep nets want adaptive methods, and so does fast convergence; RMSprop, Adadelta and Adam are "
        "alike in many cases; Adam is better than RMSprop as gradients grow sparser, and best overall; plain SGD "
        "reaches minima, but slower."
    ),
    source="D2's guide to choosing, and D4's table (O11); trapped at saddles is X4's.",
    setup=_setup,
    cells=_cells,
    measure=_measure,
    judge=_judge,
    tables=_tables,
    figures=_figures,
    data=("california", "fashion_mnist"),
    minutes=(0.2, 4),
)
