"""Checks on scales: of inputs, of initial weights, of gradients from layer to layer (C7, C11, C12).

What they look for is common in nets that train well, so that all but equal units is held against a run only if it
suffers (`gradwise.diagnosis.depth.plight`); where that is in doubt it stays a suspicion, for a trial to decide.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.depth import Layer, Look, Plight, guess_of, looks_of, plight
from gradwise.diagnosis.gradients import disparity, exploding, vanishing
from gradwise.diagnosis.hypotheses import Hypothesis, known
from gradwise.diagnosis.rates import too_high
from gradwise.interventions import Intervention
from gradwise.recording.recording import Recording

_NORMALIZED = ("NativeBatchNorm", "NativeLayerNorm")
# A first layer's gradient grows with its inputs' rms, and the curvature along it with the square: beyond 10 the
# largest bearable rate is a hundredth of what standardized inputs would bear. A whole row shorter than 0.1 (one entry
# of 1 makes it 1, however many zeros there are) does not get through against the biases.
_LARGE, _SMALL = 10.0, 0.1
# One feature against the usual one: a thousandth of the rate's effect is left at a ratio of 30. Where most entries are
# zero (counts, indicators), rare features are narrow by nature.
_RATIO, _SPARSE = 30.0, 0.5
# Features whose mean is ten times their spread: the weights' common direction is a hundred times as curved.
_OFFSET = 10.0
# Rows from which on a feature's spread is known well enough.
_ROWS = 16
# The first loss over that of a guess: thrice is being wrong with conviction (the right class gets C^-3).
WRONG = 3.0
# Signals that grow or shrink by this from first layer to last, and weights this far off He's and Xavier's rules.
_GROWTH = 100.0
_GAIN_LOW, _GAIN_HIGH = 0.4, 3.0
# He's rule makes a weight's gain 1.4, and a small layer's by chance a little more.
_BY_RULE, _DEEP = 1.6, 4
# A tenth of the run, for a tenth of what was learned.
_LOST = 0.1
# Just under a finding: the rate or the weights alone could do that too.
_SUSPECTED = 0.59
# Behind the first layer nearly all sigmoids or tanhs at their flat ends, from the beginning on.
_SHUT = 0.9
_STANDARDIZE = (Intervention(fixes=("standardize",)), Intervention(fixes=("batch-norm",)))
_INITS = (Intervention(init="he"), Intervention(init="xavier"), Intervention(init="small-last"))


@dataclass(frozen=True, slots=True)
class Inputs:
    """How the first batch's features lie (event "input"); NaN where it doesn't tell.

    Attributes:
        usual, largest: size of the usual feature and of the largest (root mean squares, the mean included).
        offset: how many times its spread the usual feature lies away from zero.
        wide: the widest feature's spread over the usual one's.
        reasons: in words, what a first layer can't take well.
        extreme: whether that is so by orders.
    """

    usual: float
    largest: float
    offset: float
    wide: float
    reasons: tuple[str, ...]
    extreme: bool


def inputs_of(recording: Recording) -> Inputs | None:
    """What was seen of the data that goes into the first layer; None where nothing was, or it is normalized there."""
    seen = recording.happened("input")
    if not seen or seen[0].data.get("operation") in _NORMALIZED:
        return None
    data = {k: float(v) for k, v in seen[0].data.items() if isinstance(v, int | float)}
    usual, largest, offset = (data.get(k, math.nan) for k in ("usual", "largest", "offset"))
    enough = data.get("samples", 0) >= _ROWS
    wide = data.get("widest", 0.0) / data["wide"] if data.get("wide", 0.0) > 0 else 1.0
    row = data.get("rms", math.nan) * math.sqrt(data.get("features", math.nan))
    reasons = []
    if usual > _LARGE:
        reasons.append(f"its features are of size {usual:.3g}")
    elif largest > _LARGE and largest / usual > _RATIO:
        reasons.append(f"one feature is of size {largest:.3g}, most are of size {usual:.3g}")
    elif row < _SMALL:
        reasons.append(f"its features are of size {usual:.2g}")
    elif enough and wide > _RATIO and data.get("features", 0) > 1 and data.get("zeros", 0.0) < _SPARSE:
        reasons.append(f"the spread of its features differs {wide:.3g}-fold")
    if enough and offset > _OFFSET:
        reasons.append(f"they lie {offset:.3g} times their spread away from zero")
    extreme = largest > _LARGE**2 or row < _SMALL**2 or offset > _OFFSET**2 or wide > _RATIO**2
    return Inputs(usual, largest, offset, wide, tuple(reasons), extreme)


def unnormalized(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`unnormalized-inputs`: the scale of the data is wrong for the first layer, or differs between features."""
    inputs = inputs_of(case.recording) if case.main else None
    # Of a loss that is not torch's own no guess is known to compare with: there inputs that are wrong by orders are
    # suspected where one sees what they bring about.
    suspected = (
        inputs is not None and inputs.extreme and math.isnan(state.remaining)
        and (too_high(case.e) is not None or _shut(looks))
    )  # fmt: skip
    if not (state.poor or suspected):
        return None
    raw = [layer for look in looks[:1] for layer in look.layers if layer.raw]
    if inputs is None or not inputs.reasons or not raw:
        return None  # what looked like data may not be what a layer is given
    confidence = (0.85 if inputs.extreme else 0.7) if state.fails else (0.5 if inputs.extreme else 0.4)
    if suspected:
        confidence = max(confidence, _SUSPECTED)
    says = (
        f"The data goes into the first layer as it is, and {' and '.join(inputs.reasons)}. Gradient and curvature of "
        "that layer grow with it, so that no one learning rate suits all weights. Standardize the inputs: subtract the "
        "mean of the training data, divide by its standard deviation."
    )
    facts = {
        "input_size": inputs.usual, "largest_input_size": inputs.largest, "mean_over_spread": inputs.offset,
        "feature_spread_ratio": inputs.wide, "loss_left_of_a_guess": state.remaining,
    }  # fmt: skip
    first = min(raw, key=lambda layer: layer.depth)
    return Hypothesis(
        "unnormalized-inputs", confidence, "warning", says, 0, known(facts), _STANDARDIZE, parameter=first.name,
        initial=True,
    )  # fmt: skip


def _shut(looks: list[Look]) -> bool:
    """Whether what follows the data's own layer was at its flat ends before the first step."""
    return any(
        u.kind in ("Sigmoid", "Tanh") and u.hidden and u.depth == 1 and u.flat > _SHUT
        for look in looks[:1]
        for u in look.units
        if not look.step
    )


def initialization(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`bad-initialization`: the first loss is far above a guess' for the weights' size, or signals grow or die."""
    if not looks or looks[0].step:
        return None
    first = looks[0]
    signal = signal_of(first)
    wrong, text = first_loss_of(first)
    if signal is None and not wrong >= WRONG:
        return None
    if signal is None and state.poor and (grown := _grown(first)) > WRONG:
        return _of_depth(first, wrong, grown, text, state)
    lost, gain_at_end = _unlearned(case, looks) if wrong >= WRONG else (0.0, 0.0)
    large = any(layer.raw and layer.rms > WRONG for layer in first.layers)
    if not state.poor and (large or not wrong >= WRONG**2):
        return None  # large inputs make large outputs, whatever the weights
    parts, candidates = [], _INITS
    facts = {"first_loss_over_a_guess": wrong, "loss_left_of_a_guess": state.remaining}
    named: Layer | None = None
    if signal is not None:
        factor, named, gain = signal
        facts |= {"signal_factor_per_layer": factor, "weight_times_root_fan_in": gain}
        grows = "grows" if factor > 1 else "shrinks"
        parts.append(
            f"What differs from sample to sample {grows} {max(factor, 1 / factor):.3g}-fold with each layer, since the "
            f"initial weights are too {'large' if factor > 1 else 'small'} (rms × √fan_in is {gain:.2g}; He's rule "
            "makes it 1.4, Xavier's 1)."
        )
    if wrong >= WRONG:
        parts.append(text)
        if signal is None:
            candidates = (_INITS[2], *_INITS[:2])
    confidence = (0.75 if state.fails else 0.5) if state.poor else 0.35
    if lost > _LOST and gain_at_end > _LOST and not large:
        confidence = max(confidence, 0.7)
        facts |= {"share_of_run_above_a_guess": lost, "gain_of_the_last_as_many_steps": gain_at_end}
        parts.append(
            f"It took {100 * lost:.0f} % of the run to come down to that guess, and the last as many steps brought "
            f"{100 * gain_at_end:.0f} % of all that was learned beyond it: so much there would be to gain."
        )
    return Hypothesis(
        "bad-initialization", confidence, "warning", " ".join(parts), 0, known(facts), candidates,
        parameter=named.name if named else None, initial=True,
    )  # fmt: skip


def _unlearned(case: Case, looks: list[Look]) -> tuple[float, float]:
    """What a wrong beginning cost: the share of the run above a guess' loss, and what the last as many steps brought.

    From a sound beginning the run would have had those steps at its end. What the last ones gained, over all that was
    gained beyond the guess, is about what that would be worth: nothing where it has settled.
    """
    c, guess = case.e.curve, guess_of(case, looks)
    if c is None or c.bad_at_end or not c.end < guess:
        return 0.0, 0.0
    above = int(np.argmax(c.level < guess))
    then = float(np.median(c.level[max(len(c.level) - 1 - above, 0) :][: max(len(c.level) // 10, 1)]))
    return above / len(c.level), (then - c.end) / (guess - c.end)


def _grown(first: Look) -> float:
    """By how much signals grow from layer to layer though weights are drawn by the rules; 0 where they aren't."""
    chain = [layer for layer in first.chain if layer.rms > 0 and layer.gain > 0]
    if len(chain) < _DEEP or first.norms or max(layer.gain for layer in chain) > _BY_RULE:
        return 0.0
    return chain[-1].rms / chain[0].rms


def _of_depth(first: Look, wrong: float, grown: float, text: str, state: Plight) -> Hypothesis:
    """`exploding-gradients`: each layer's weights are sound, and what they add up to grows with the depth."""
    chain = first.chain
    facts = {
        "first_loss_over_a_guess": wrong, "input_of_last_layer_over_first": grown,
        "gradient_input_over_output": chain[0].gradients[-1] / max(chain[-1].gradients[-1], 1e-300),
        "loss_left_of_a_guess": state.remaining,
    }  # fmt: skip
    says = (
        f"From {chain[0].name} to {chain[-1].name} signals grow {grown:.3g}-fold, and gradients on their way back, "
        f"though no layer's weights are larger than He's rule makes them: the depth adds up. {text} Normalize, or "
        "scale down what each residual block adds."
    )
    candidates = (Intervention(fixes=("batch-norm",)), _INITS[2], Intervention(clip_norm=1.0), _INITS[1])
    return Hypothesis(
        "exploding-gradients", 0.75 if state.fails else 0.5, "warning", says, 0, known(facts), candidates,
        parameter=chain[-1].name, initial=True,
    )  # fmt: skip


def first_loss_of(first: Look) -> tuple[float, str]:
    """The first loss over a guess', and what to say of it."""
    loss = first.loss
    value, guess = loss.get("value", math.nan), loss.get("guess", math.nan)
    if "classes" in loss:
        return value / guess, (
            f"The first loss is {value:.4g}, while giving all {loss['classes']} classes the same chance makes "
            f"{guess:.3g}: the initial outputs are far too large."
        )
    output, target = loss.get("output", math.nan), loss.get("target", math.nan)
    # The ratio of predictions to targets, made comparable: a regression's outputs often are a few times too large.
    return (output / (3 * target) if target > 0 else math.nan), (
        f"The first predictions are of size {output:.3g}, the targets of size {target:.3g}."
    )


def signal_of(first: Look) -> tuple[float, Layer, float] | None:
    """By what factor a layer changes the signal, which layer's weights are furthest off, and their gain; or None.

    The signal is what differs from row to row. It also shrinks, slowly, in deep nets of soundly drawn weights: that is
    the depth's doing, and `vanishing-gradients` tells of it.
    """
    chain = [layer for layer in first.chain if layer.spread > 0]
    if len(chain) < 3 or any(norm > 0 for norm in first.norms):
        return None
    steps = [b.spread / a.spread for a, b in itertools.pairwise(chain)]
    total = chain[-1].spread / chain[0].spread
    hidden = [layer for layer in chain[:-1] if layer.fan_in > 1 and layer.gain > 0]
    if not hidden:
        return None
    gain = sorted(layer.gain for layer in hidden)[len(hidden) // 2]
    if total > _GROWTH and gain > _GAIN_HIGH and min(steps) > 1:
        worst = max(hidden, key=lambda layer: layer.gain)
    elif total < 1 / _GROWTH and gain < _GAIN_LOW and max(steps) < 1:
        worst = min(hidden, key=lambda layer: layer.gain)
    else:
        return None
    return total ** (1 / len(steps)), worst, worst.gain


def symmetric(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`stuck-at-saddle`, by construction: units that begin equal get equal gradients, and so remain one unit.

    Where only what goes into them is equal, they still move along one line.
    """
    if not looks or looks[0].step:
        return None
    first, last = looks[0], looks[-1]
    for layer in first.layers:
        behind = [other for other in first.layers if other.depth == layer.depth + 1]
        beside = [other for other in first.layers if other.depth == layer.depth]
        if layer.rows < 2 or not layer.alike[0] or len(beside) > 1 or not behind or layer.calls > 1:
            continue
        outwards = all(other.alike[1] for other in behind)
        remain = any(other.name == layer.name and other.alike[0] for other in last.layers)
        if outwards and (remain or state.poor):
            confidence = 0.9 if remain and len(looks) > 1 else 0.7 if state.fails else 0.5
        elif layer.weight > 0:
            confidence = 0.65 if state.poor else 0.5
        else:
            continue  # zeros that a branch begins with, beside others or not
        says = (
            f"All {layer.rows} units of {layer.name} begin with equal weights"
            + (f", and {behind[0].name} takes them alike: they get equal gradients and stay one unit." if outwards else
               ": their weights get gradients along one line, and remain on it.")
            + " Draw the initial weights at random."
        )  # fmt: skip
        facts = {"equal_units": float(layer.rows), "loss_left_of_a_guess": state.remaining}
        candidates = (Intervention(fixes=("break-symmetry",)), *_INITS[:2])
        return Hypothesis(
            "stuck-at-saddle",
            confidence,
            "error",
            says,
            0,
            known(facts),
            candidates,
            parameter=layer.name,
            initial=True,
        )
    return None


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    if case.rivals:
        return ()
    looks = looks_of(case)
    state = plight(case, looks)
    checks = (unnormalized, initialization, symmetric, vanishing, exploding, disparity)
    return tuple(check(case, looks, state) for check in checks)


CHECKS: tuple[Check, ...] = (_checks,)
