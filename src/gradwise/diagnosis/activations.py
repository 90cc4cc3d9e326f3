"""Checks on activations: units that never fire, and such that sit at the flat ends of a sigmoid or tanh.

Sparse layers train well, and many a good net has units that never fire: `plight` decides whether it matters. Gates,
the output's own sigmoid and attention's softmax are at their ends by profession.
"""

from __future__ import annotations

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.depth import Look, Plight, Units, looks_of, plight
from gradwise.diagnosis.hypotheses import DOUBT, REPORT, Hypothesis, known
from gradwise.diagnosis.rates import LOWER
from gradwise.interventions import Intervention

# Half of a layer gone for good is more than the sparsity that training leaves by itself.
_DEAD, _ALL = 0.5, 0.99
# Rows within which a living unit would have fired, if only on one in a hundred; of a whole layer one would, in a few.
_ROWS, _FEW = 64, 16
# Outputs with less than a twentieth of the slope: with half of a layer there, its gradient is about halved for good,
# and with nine tenths next to nothing gets through.
_FLAT, _ALL_FLAT = 0.5, 0.9
# Steps too long: of what they promise the next batch confirms next to nothing, and the weights went several times
# their own length.
_KEPT, _TRAVEL = 0.1, 3.0


def dead(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`dead-units`: ReLU units that never fire, and a run that suffers."""
    if not looks or not state.poor:
        return None
    found = [(u, look) for look in looks[-1:] for u in look.units if u.hidden and not u.gate and u.units > 1]
    # Weights that began as zeros make units of zero, all alike: what is wrong there is that (`stuck-at-saddle`).
    zeros = {layer.name for layer in looks[0].layers if layer.weight == 0}
    found = [(u, k) for u, k in found if _gone(u, k) >= _DEAD and u.seen >= _enough(u) and u.layer not in zeros]
    if not found:
        return None
    worst, look = max(found, key=lambda pair: _gone(*pair))
    share = _gone(worst, look)
    first = next((u for u in looks[0].units if (u.layer, u.kind) == (worst.layer, worst.kind)), worst)
    grew = share > first.silent + 0.2
    if share >= _ALL:
        confidence = 0.9
    else:
        confidence = (0.75 if state.fails else 0.5) if share > 0.8 else (0.65 if state.fails else 0.35)
    how = f"{100 * first.silent:.0f} % were silent before the first step" if not grew else "they died in training"
    says = (
        f"Of the {worst.units} units behind {worst.layer}, {100 * share:.0f} % are zero on every sample seen of late: "
        f"no gradient passes through them, so that they will stay so ({how}). "
        + ("Lower the learning rate, " if grew else "Use He's initialization with biases of 0, ")
        + "or use LeakyReLU or GELU, which never shut completely."
    )
    gentle = (Intervention(activation="leaky_relu"), Intervention(activation="gelu"))
    lower = (Intervention(lr_scale=0.1), Intervention(lr_scale=0.01))
    inits = (Intervention(init="he"), Intervention(fixes=("batch-norm",)))
    candidates = (*lower[:1], *gentle, *lower[1:], *inits) if grew else (*inits, *gentle, *lower)
    facts = {
        "dead_share": share, "silent_share_at_start": first.silent, "units": float(worst.units),
        "samples": float(worst.seen), "loss_left_of_a_guess": state.remaining,
    }  # fmt: skip
    return Hypothesis(
        "dead-units", confidence, "warning", says, _since(looks, worst), known(facts), candidates,
        parameter=worst.layer, initial=not grew,
    )  # fmt: skip


def _gone(units: Units, look: Look) -> float:
    """Share of units that did not fire of late; in the first examinations, of those that never did.

    A whole layer that is silent on a batch is dead at once.
    """
    if units.silent >= _ALL:
        return units.silent
    return units.dead if look.number >= 2 else units.never


def _enough(units: Units) -> int:
    return _FEW if units.silent >= _ALL else _ROWS


def _since(looks: list[Look], worst: Units) -> int:
    """The step of the first examination in which that many units were silent."""
    for look in looks:
        for u in look.units:
            if (u.layer, u.kind) == (worst.layer, worst.kind) and u.silent >= _DEAD:
                return look.step
    return 0


def saturated(case: Case, looks: list[Look], state: Plight) -> Hypothesis | None:
    """`saturated-activations`: hidden sigmoids or tanhs at their flat ends, and a run that suffers."""
    if not looks:
        return None
    last = looks[-1]
    shares = {
        (u.layer, u.kind): [v.flat for look in looks for v in look.units if (v.layer, v.kind) == (u.layer, u.kind)]
        for u in last.units
        if u.kind in ("Sigmoid", "Tanh") and u.hidden and not u.gate
    }
    least = _FLAT if state.poor else _ALL_FLAT
    shares = {key: flats for key, flats in shares.items() if flats and flats[-1] > least}
    if not shares:
        return None
    (layer, kind), flats = max(shares.items(), key=lambda item: item[1][-1])
    share, early = flats[-1], flats[0] > _FLAT
    most = share > _ALL_FLAT
    confidence = (0.8 if most else 0.65) if state.fails else (0.5 if most and state.poor else 0.4)
    when = "from the beginning: the weights or the inputs are too large" if early else "since training drove them there"
    says = (
        f"{100 * share:.0f} % of the outputs of the {kind.lower()} behind {layer} lie at its flat ends, {when}. Hardly "
        "any gradient passes through. Initialize by Xavier's rule, standardize the inputs, or use ReLU or its kin."
    )
    e = case.e
    if not early and confidence < REPORT and e.kept_early < _KEPT and e.travel > _TRAVEL:
        # Sound at the start, driven there by steps from which the next batch gained nothing: those are the cause.
        says = (
            f"{100 * share:.0f} % of the outputs of the {kind.lower()} behind {layer} lie at its flat ends, where "
            "training drove them with steps that the next batch contradicts. Lower the learning rate and start again."
        )
        facts = {
            "flat_share": share, "flat_share_at_start": flats[0], "next_batch_confirms_early": e.kept_early,
            "travel": e.travel,
        }  # fmt: skip
        return Hypothesis("lr-too-high", max(confidence, DOUBT), "error", says, last.step, known(facts), LOWER)
    inits = (Intervention(init="xavier"), Intervention(fixes=("standardize",)), Intervention(fixes=("batch-norm",)))
    other = (Intervention(activation="relu"), Intervention(activation="leaky_relu"))
    candidates = (*inits, *other) if early else (Intervention(lr_scale=0.1), *other, *inits)
    facts = {
        "flat_share": share, "flat_share_at_start": flats[0], "layers_affected": float(len(shares)),
        "loss_left_of_a_guess": state.remaining,
    }  # fmt: skip
    return Hypothesis(
        "saturated-activations", confidence, "warning", says, 0 if early else last.step, known(facts), candidates,
        parameter=layer, initial=early,
    )  # fmt: skip


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    if case.rivals:
        return ()
    looks = looks_of(case)
    state = plight(case, looks)
    return dead(case, looks, state), saturated(case, looks, state)


CHECKS: tuple[Check, ...] = (_checks,)
