"""Checks on gradients from layer to layer, call to call and tensor to tensor: they vanish, explode, or differ (C11)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from gradwise.diagnosis.case import Case
from gradwise.diagnosis.depth import Layer, Look, Plight
from gradwise.diagnosis.hypotheses import Hypothesis
from gradwise.diagnosis.rates import overshoots
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.recording.recording import Floats, Series

# From output to input the gradient's norm stays what it was where weights are drawn by He's or Xavier's rule, give or
# take a factor of ten in sound nets: a thousandth leaves the first layers with nothing, whatever the rate.
_VANISHED, _LEAST_LAYERS = 1e-3, 4
# Over time a recurrence forgets as a matter of course, and needs to look back only so far.
_FORGOTTEN = 1e-4
_EXPLODED = 1e3
# A gradient above a hundred times the usual one takes a hundred usual steps back at once.
_SPIKE = 100.0
# Calls of a recurrence from which on a factor a little above one per call makes a burst.
_LONG = 10
_SPREAD = 1e3
# A tensor hardly moved if it went less than a hundredth of its own length.
_HARDLY = 0.01
_LOOKS = 5
_ONE_RATE = ("sgd", "asgd", "momentum", "nesterov", "manual")


def one_rate(case: Case) -> bool:
    """Whether the optimizer's steps are the gradient times one rate, so that they differ as gradients do."""
    return case.e.optimizer.kind.lower() in _ONE_RATE


def vanishing(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`vanishing-gradients`: they die on the way to the input, or to the start of a sequence, and the run suffers."""
    if not looks or not state.poor:
        return None
    first, last = looks[0], looks[-1]
    ratios = [r for r in (_ratio(first), _ratio(last)) if r is not None]
    if ratios and max(ratios) < _VANISHED:
        chain = first.chain
        early, late = _moved(case, chain[0].name), _moved(case, chain[-1].name)
        still = one_rate(case) and early < max(_HARDLY, 0.03 * late)
        factor = ratios[0] ** (1 / (len(chain) - 1))
        confidence = (0.9 if still else 0.6) if state.fails else (0.5 if still else 0.35)
        if _unnormalizing(case):
            confidence = min(confidence, 0.45)
        says = (
            f"On the way from {chain[-1].name} back to {chain[0].name} the gradient shrinks to {ratios[0]:.1g} of its "
            f"size, by a factor of {factor:.2g} with each of {len(chain)} layers"
            + (f"; {chain[0].name} has moved by {early:.2g} of its length." if math.isfinite(early) else ".")
            + " Use ReLU or its kin, normalization, residual connections, and He's or Xavier's initialization."
        )
        candidates = (
            *_without_saturation(looks),
            Intervention(fixes=("batch-norm",)),
            Intervention(init="he"),
            Intervention(init="xavier"),
            Intervention(rule="adam"),
        )
        facts = {"gradient_input_over_output": ratios[0], "factor_per_layer": factor, "moved_first_layer": early,
                 "moved_last_layer": late}  # fmt: skip
        initial = first.step == 0 and ratios[0] < _VANISHED
        return _hypothesis(
            "vanishing-gradients", confidence, says, facts, candidates, state, chain[0].name, initial=initial
        )
    layer = _forgetful(first)
    if layer is None or _forgetful(last) is None:
        return None
    ratio = layer.gradients[0] / layer.gradients[-1]
    says = (
        f"From the last to the first of {layer.calls} calls of {layer.name} the gradient shrinks to {ratio:.1g} of its "
        "size: what the beginning of a sequence had to do with the loss can't be learned. Initialize the recurrent "
        "weights orthogonally, use an LSTM or GRU, or shorten the way back."
    )
    candidates = (Intervention(init="he"), Intervention(init="xavier"), Intervention(activation="relu"))
    facts = {"gradient_first_over_last_call": ratio, "calls": float(layer.calls)}
    confidence = 0.65 if state.fails else 0.35
    initial = first.step == 0
    return _hypothesis("vanishing-gradients", confidence, says, facts, candidates, state, layer.name, initial=initial)


def _unnormalizing(case: Case) -> bool:
    """Whether the model trains in evaluation mode: its normalizations then don't, which may be all that is wrong."""
    return any(
        e.data.get("training") is False and any("Norm" in name for name in e.data.get("modules", ()))
        for e in case.recording.happened("mode")
    )


def _ratio(look: Look) -> float | None:
    """The gradient's norm at the first layer over that at the last, where it falls all along the way."""
    norms = [layer.gradients[-1] for layer in look.chain]
    if len(norms) < _LEAST_LAYERS or not min(norms) >= 0 or norms[-1] <= 0:
        return None
    falling = sum(a < b for a, b in itertools.pairwise(norms))
    return norms[0] / norms[-1] if falling >= 0.75 * (len(norms) - 1) else None


def _forgetful(look: Look) -> Layer | None:
    """A recurrent layer whose gradient dies over its calls."""
    for layer in look.layers:
        g = layer.gradients
        if layer.recurrent and len(g) > 3 and g[-1] > 0 and g[0] < _FORGOTTEN * g[-1] and g[1] < 0.1 * g[-1]:
            return layer
    return None


def _without_saturation(looks: list[Look]) -> tuple[Intervention, ...]:
    kinds = {units.kind for units in looks[0].units if units.hidden and not units.gate}
    return (Intervention(activation="relu"),) if kinds & {"Sigmoid", "Tanh"} else ()


def exploding(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`exploding-gradients`: they grow towards the input or the beginning of a sequence, or burst now and then."""
    if not looks or not state.poor:
        return None
    clip = _usual(case)
    candidates = (
        *((Intervention(clip_norm=clip),) if clip is not None else ()),
        *((Intervention(clip_norm=1.0),) if clip is None or clip > 1.5 else ()),
        Intervention(fixes=("batch-norm",)),
        Intervention(init="xavier"),
        Intervention(lr_scale=0.1),
    )
    grown = max(((_growth(look), look) for look in looks), key=lambda pair: pair[0][0])
    (ratio, name, way), look = grown
    burst, step = max(_burst(case), _jump(case))
    recurrent = next((layer for layer in looks[0].layers if layer.recurrent and layer.calls >= _LONG), None)
    facts = {"largest_growth": ratio, "largest_over_usual_norm": burst, "usual_norm": clip or math.nan}
    # Steps of a hundredth of the weights are moderate; what throws far then is not the rate.
    calm = case.e.update[0] < _HARDLY
    if ratio > _EXPLODED:
        says = (
            f"On the way back {way} the gradient grows {ratio:.2g}-fold (seen at step {look.step}). Clip its norm; "
            "normalization or smaller recurrent weights take the growth away."
        )
        # Before the first step no rate can be to blame; after steps that were too long it is.
        initial = look.step == 0
        confidence = (0.9 if initial else 0.75 if calm else 0.4) if state.fails else 0.4
        return _hypothesis(
            "exploding-gradients", confidence, says, facts, candidates, state, name, look.step, initial=initial
        )
    if burst > _SPIKE and calm:
        says = (
            f"About step {step} a step was {burst:.2g} times as long as those before, at a moderate learning rate: the "
            "gradient burst"
            + (f" on its way back over {recurrent.calls} calls of {recurrent.name}" if recurrent else "")
            + ". One such step undoes what many have gained. Clip the gradient's norm."
        )
        confidence = (0.8 if recurrent else 0.5) if state.fails else 0.45
        name = recurrent.name if recurrent else None
        return _hypothesis("exploding-gradients", confidence, says, facts, candidates, state, name, step)
    c = case.e.curve
    if recurrent and state.fails and c is not None and overshoots(case.e, c) >= 0.4:
        says = (
            f"Hardly anything of what the steps promise is paid, and gradients come back over {recurrent.calls} calls "
            f"of {recurrent.name}, along which they may burst: clip their norm, or lower the learning rate."
        )
        # Nothing bounds a recurrence of ReLUs: a gain a little above one per call is a burst over all of them.
        unbounded = any(u.layer == recurrent.name and u.kind == "Relu" for u in looks[0].units)
        confidence = 0.65 if unbounded else 0.5
        return _hypothesis("exploding-gradients", confidence, says, facts, candidates, state, recurrent.name)
    return None


def _growth(look: Look) -> tuple[float, str | None, str]:
    """By how much the gradient grows on its way back, in which layer it ends up, and what way that is."""
    best: tuple[float, str | None, str] = (0.0, None, "")
    chain = look.chain
    if len(chain) >= _LEAST_LAYERS and chain[-1].gradients[-1] > 0:
        ratio = chain[0].gradients[-1] / chain[-1].gradients[-1]
        best = max(best, (ratio, chain[0].name, f"from {chain[-1].name} to {chain[0].name}"), key=lambda b: b[0])
    for layer in look.layers:
        g = layer.gradients
        if layer.recurrent and len(g) > 3 and g[-1] > 0 and math.isfinite(g[0]):
            best = max(best, (g[0] / g[-1], layer.name, f"over {layer.calls} calls of {layer.name}"),
                       key=lambda b: b[0])  # fmt: skip
    return best


def _norms(case: Case) -> Series:
    series = case.recording.get(signals.GRADIENT, case.e.source)
    with np.errstate(all="ignore"):
        total = np.sqrt((np.atleast_2d(series.values.T) ** 2).sum(axis=0))
    good = np.isfinite(total)
    return Series(series.steps[good], total[good])


def _usual(case: Case) -> float | None:
    norms = _norms(case).values
    usual = float(np.median(norms)) if len(norms) else 0.0
    return float(f"{usual:.2g}") if usual > 0 else None


def _burst(case: Case) -> tuple[float, int]:
    """The largest gradient after the beginning over the usual one up to then, and its step."""
    norms = _norms(case)
    if len(norms) < _LOOKS:
        return 0.0, 0
    worst = 3 + int(np.argmax(norms.values[3:]))
    usual = float(np.median(norms.values[:worst]))
    return (float(norms.values[worst]) / usual if usual > 0 else 0.0), int(norms.steps[worst])


def _jump(case: Case) -> tuple[float, int]:
    """How far one step between two looks must have gone at least, over the steps looked at; and where.

    Steps that are not looked at are seen by where they led: the weights can't have gone farther than all steps
    together, were they as long as those before and after.
    """
    travel, update = (case.recording.get(s, case.e.source) for s in (signals.TRAVEL, signals.UPDATE))
    if len(travel) < 3 or len(travel) != len(update) or travel.values.ndim == 1:
        return 0.0, 0
    best = 0.0, 0
    with np.errstate(all="ignore"):
        for i in range(2, len(travel)):
            went = np.abs(travel.values[i] - travel.values[i - 1])
            steps = int(travel.steps[i] - travel.steps[i - 1])
            usual = np.max(update.values[: i + 1], axis=0)
            beyond = np.where(usual > 0, (went - steps * usual) / usual, 0.0)
            if len(beyond) and math.isfinite(float(np.max(beyond))):
                best = max(best, (float(np.max(beyond)), int(travel.steps[i - 1])))
    return best


@dataclass(frozen=True, slots=True)
class _Tensor:
    """How one tensor fared: rms of its gradient, how far it moved over its length, how straight its way was.

    `pull` is its gradient's norm over its own: how much of its length a step at a rate of 1 would be.
    `worth` is what its gradient promises for a move by its own length, over all that the run's loss fell.
    """

    name: str
    gradient: float
    pull: float
    moved: float
    straight: float
    worth: float


def _tensors(case: Case) -> list[_Tensor]:
    get, source = case.recording.get, case.e.source
    norms, theta, update, travel = (
        get(s, source) for s in (signals.GRADIENT, signals.PARAMETER, signals.UPDATE, signals.TRAVEL)
    )
    c = case.e.curve
    if c is None or min(map(len, (norms, theta, update, travel))) < _LOOKS or norms.values.ndim == 1:
        return []
    if not norms.labels == theta.labels == update.labels == travel.labels:
        return []
    numel = {p.name: math.prod(p.shape) for p in case.e.optimizer.parameters}
    found = []
    with np.errstate(all="ignore"):
        for i, name in enumerate(norms.labels):
            g, t = norms.values[:, i], theta.values[:, i]
            size = float(max(t[0], t[-1]))
            way = float(np.trapezoid(update.values[:, i], update.steps))
            late = float(np.median(g[len(g) // 2 :]))
            moved = float(travel.values[-1, i])
            found.append(
                _Tensor(
                    name,
                    float(np.median(g)) / math.sqrt(max(numel.get(name, 1), 1)),
                    float(np.median(g)) / size if size > 0 else math.inf,
                    moved / size if size > 0 else math.inf,
                    moved / way if way > 0 else 1.0,
                    late * size / c.fall if c.fall > 0 else math.inf,
                )
            )
    return found


def disparity(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`gradient-scale-disparity`: one rate for tensors whose gradients differ by orders.

    By itself that is no fault: small gradients may belong to what needs no change. It is one where a tensor has gone
    straight on all along, hardly got anywhere, and still has much to give, while another goes round in circles.
    """
    if not one_rate(case) or not case.main:
        return None
    tensors = [t for t in _tensors(case) if t.gradient > 0 and math.isfinite(t.gradient)]
    if len(tensors) < 2:
        return None
    settled = [t for t in tensors if t.straight < 0.3 and math.isfinite(t.pull)]
    if not settled:
        return None
    strong = max(settled, key=lambda t: t.pull)
    slow = [t for t in tensors if t.pull * _SPREAD < strong.pull and t.moved < _HARDLY and t.worth > 0.1]
    starved = [t for t in slow if t.straight > 0.9]
    if not slow:
        return None
    weak = min(starved or slow, key=lambda t: t.pull)
    ratio = strong.gradient / weak.gradient
    if starved:
        confidence = 0.75 if state.fails else 0.65
    elif state.fails:
        confidence = 0.45
    else:
        return None
    sources = disparity_sources(case, looks)
    source = max(sources, key=lambda name: abs(math.log(sources[name])), default="")
    because = {
        "input_scale": "the inputs' scale (standardizing them mends that)",
        "depth": "the depth: it changes from layer to layer (initialization helps early on, normalization after)",
        "weight_over_bias": "weights against biases: a weight's gradient is multiplied by the layer's input",
        "": "what the parameters stand for: they are of different units",
    }[source if source and abs(math.log(sources[source])) > math.log(30) else ""]
    says = (
        f"The gradient of {strong.name} is {ratio:.2g} times as large as that of {weak.name} (rms), "
        f"{strong.pull / weak.pull:.2g} times for their lengths. {weak.name} has moved by {weak.moved:.1g} of its "
        f"length, {strong.name} goes to and fro. The source is {because}. One learning rate can't serve "
        "both: RMSprop or Adam give each its own, parameter groups give rates by hand."
    )
    facts = {
        "gradient_rms_ratio": ratio,
        "ratio_for_their_lengths": strong.pull / weak.pull,
        "moved": weak.moved,
        "straightness": weak.straight,
        "straightness_of_largest": strong.straight,
        **{f"source_{name}": value for name, value in sources.items()},
    }
    candidates = (Intervention(rule="adam"), Intervention(rule="rmsprop"), Intervention(fixes=("standardize",)))
    return _hypothesis("gradient-scale-disparity", confidence, says, facts, candidates, state, weak.name)


def disparity_sources(case: Case, looks: list[Look]) -> dict[str, float]:
    """C11's three sources, each as the ratio that it accounts for; what was not seen is left out."""
    sources: dict[str, float] = {}
    if not looks:
        return sources
    raw = [layer.rms for layer in looks[0].layers if layer.raw and layer.rms > 0]
    if raw:
        sources["input_scale"] = max(raw, key=lambda rms: abs(math.log(rms)))
    chain = [layer for layer in looks[0].chain if layer.gradients[-1] > 0]
    if len(chain) > 1:
        sources["depth"] = chain[-1].gradients[-1] / chain[0].gradients[-1]
    rms = {t.name: t.gradient for t in _tensors(case)}
    pairs = [
        rms[layer.name] / rms[layer.bias]
        for layer in looks[0].layers
        if layer.bias is not None and rms.get(layer.name, 0.0) > 0 and rms.get(layer.bias, 0.0) > 0 and not layer.raw
    ]
    if pairs:
        sources["weight_over_bias"] = float(np.exp(np.median(np.log(pairs))))
    return sources


def _moved(case: Case, name: str) -> float:
    """How far a tensor got from where it began, over its length then; NaN where that wasn't looked at."""
    theta, travel = (case.recording.get(s, case.e.source) for s in (signals.PARAMETER, signals.TRAVEL))
    if name not in travel.labels or travel.labels != theta.labels or not len(travel):
        return math.nan
    at = travel.labels.index(name)
    values: Floats = theta.values[:, at]
    return float(travel.values[-1, at] / values[0]) if values[0] > 0 else math.inf


def _hypothesis(
    cause: str,
    confidence: float,
    says: str,
    facts: dict[str, float],
    candidates: tuple[Intervention, ...],
    state: Plight,
    parameter: str | None,
    step: int = 0,
    *,
    initial: bool = False,
) -> Hypothesis:
    known = {k: v for k, v in {**facts, "loss_left_of_a_guess": state.remaining}.items() if math.isfinite(v)}
    return Hypothesis(cause, confidence, "warning", says, step, known, candidates, parameter=parameter, initial=initial)
