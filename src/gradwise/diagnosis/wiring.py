"""Checks on how the training is wired: gradients, ownership of parameters, modes, what the loss is given.

What these find are facts about the program. Where a fact could be meant that way it is a suspicion, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.hypotheses import Hypothesis, listed, place_in
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.recording.recording import Event

# Steps that a state of things must have lasted to be no passing phase.
_LASTING = 10
_LEAST_STEPS = 20
# A whole pretrained model beside a small head or prompt is left out on purpose; what gets lost is smaller.
_LARGE = 10.0
# Evaluations that make a habit.
_PASSES = 3


def missing_zero_grad(case: Case) -> Hypothesis | None:
    """Gradients that a step has used are still there when those of the next one are added."""
    e = case.e
    carried = case.recording.get(signals.CARRIED, e.source)
    if len(carried) < 2 or not carried.values.mean() > 0.5:
        return None
    count, found = len(carried), int(carried.values.sum())
    always = found == count
    how = "at every step" if always else f"at {found} of {count} examined steps"
    says = (
        f"The gradients that a step has used are not cleared: {how} they were still there when those of the next batch "
        "were added, so that each step follows the sum of all batches so far. Clear them before each step's first "
        "backward pass: optimizer.zero_grad()."
    )
    first = int(carried.steps[np.argmax(carried.values)])
    return Hypothesis(
        "missing-zero-grad", 0.97 if always else 0.85, "error", says, first,
        {"examined_steps": count, "gradients_carried_over": found}, _fix("zero-grad"), place=e.optimizer.stepped,
    )  # fmt: skip


def probabilities(case: Case) -> Iterator[Hypothesis]:
    """A loss that applies softmax or sigmoid itself is given probabilities."""
    for event in _run_events(case, "loss-probabilities"):
        data = event.data
        function, activation = str(data.get("loss_function")), str(data.get("activation"))
        if function == "nll_loss":
            says = (
                "nll_loss wants logarithms of probabilities and is given probabilities, straight from a softmax: its "
                "gradient does not grow where the model is wrong. Use log_softmax, or cross_entropy on the logits."
            )
        else:
            says = (
                f"{function} makes probabilities of what it is given, and is given the output of a {activation}: "
                "applied twice, they can't get near 0 or 1, and the loss has a floor. Hand it the logits."
            )
        yield Hypothesis(
            "probabilities-into-logit-loss", 0.96, "warning", says, event.step,
            {"loss_function": function, "activation": activation}, _fix("logits"), place=place_in(data),
        )  # fmt: skip


def shapes(case: Case) -> Iterator[Hypothesis]:
    """Prediction and target broadcast against each other."""
    for event in _run_events(case, "loss-shapes"):
        data = event.data
        prediction, target, result = (tuple(data.get(k, ())) for k in ("prediction", "target", "result"))
        by_hand = bool(data.get("by_hand"))
        where = "a loss written out by hand" if by_hand else str(data.get("loss_function"))
        says = (
            f"In {where} the prediction, of shape {_shape(prediction)}, meets a target of shape {_shape(target)}: they "
            f"broadcast to {_shape(result)}, so that every prediction is compared with the targets of all rows, and "
            "the best it can learn is their mean. Give both the same shape."
        )
        evidence = {"prediction": list(prediction), "target": list(target), "result": list(result)}
        yield Hypothesis(
            "loss-shape-broadcast", 0.85 if by_hand else 0.96, "error", says, event.step, evidence,
            _fix("match-shapes"), place=place_in(data),
        )  # fmt: skip


def not_optimized(case: Case) -> Hypothesis | None:
    """Parameters that get a gradient and that no optimizer has ever held."""
    event = _last(_run_events(case, "unowned"))
    if event is None or not event.data.get("tensors") or case.e.steps - event.step < _LASTING:
        return None
    data = event.data
    tensors, hidden = int(data["tensors"]), str(data.get("hidden", ""))
    elements, held = float(data.get("elements", 0)), float(data.get("held_elements", 0))
    if data.get("loaded", 0) >= tensors or _stale(case):
        return None
    confidence = 0.4
    if data.get("in_modules") and not data.get("held_in_modules"):
        return None  # an input, a prompt or the like is optimized through a model
    if hidden:
        confidence = 0.94
    elif data.get("loaded") or elements > _LARGE * held:
        confidence = 0.45
    elif "within" in data.get("standing", ()):
        confidence = 0.88
    elif "before" in data.get("standing", ()):
        # As in training a head on features that are left as they are, were these not as initialization made them.
        confidence = 0.5
    names = [str(n) for n in data.get("parameters", ())]
    why = f" They are in {hidden}, where parameters() does not find them: use nn.ModuleList." if hidden else ""
    says = (
        f"{tensors} parameter tensor(s) get a gradient from the loss, and no optimizer holds them: {listed(names)}. "
        f"They stay as they were initialized.{why}"
    )
    evidence = {
        "parameters": names,
        "elements_lost": elements,
        "elements_held": held,
        "hidden_in": hidden or None,
        "standing": list(data.get("standing", ())),
    }
    return Hypothesis(
        "parameters-not-optimized", confidence, "error", says, event.step, evidence, _fix("adopt-parameters"),
        parameter=names[0] if names else None, module=(data.get("modules") or [None])[0],
    )  # fmt: skip


def unreached(case: Case) -> Hypothesis | None:
    """Parameters that an optimizer holds and that no loss reaches."""
    event = _last([x for x in case.recording.happened("unreached") if x.source == case.e.source])
    if event is None or case.e.steps - event.step < _LASTING:
        return None
    data = event.data
    names, cut = [str(n) for n in data.get("parameters", ())], [str(n) for n in data.get("cut", ())]
    if data.get("mistyped"):
        return _mistyped(event)
    tensors, trainable = int(data.get("tensors", 0)), int(data.get("trainable", 0))
    if not tensors or data.get("loaded", 0) >= tensors:
        return None
    evidence = {"parameters": names, "tensors": tensors, "of": trainable, "modules": cut or list(data.get("ran", ()))}
    everything = tensors == trainable
    if everything and not data.get("ran") and not cut and _unowned(case):
        return _of_stale(case, event, evidence)
    ran = bool(data.get("ran"))
    if not cut and not (everything and ran):
        return None
    where = f" It is cut after {cut[-1]}." if cut else ""
    says = (
        f"No gradient reaches {tensors} of the {trainable} parameter tensors that the optimizer is to train, although "
        f"their modules run in the forward pass: {listed(names)}.{where} Look for detach(), torch.no_grad(), .data, "
        "numpy or torch.tensor(...) on the way from there to the loss."
    )
    return Hypothesis(
        "frozen-or-detached-graph", 0.92 if cut else 0.85, "error", says, event.step, evidence, _fix("unfreeze"),
        parameter=names[0] if names else None, module=cut[-1] if cut else None, place=place_in(data),
    )  # fmt: skip


def _mistyped(event: Event) -> Hypothesis:
    names = [str(n) for n in event.data["mistyped"]]
    says = (
        f"The script sets out to train {listed(names)}, but sets an attribute that torch does not read: they stay "
        "frozen. It is `requires_grad` of each parameter, or `module.requires_grad_(True)`."
    )
    return Hypothesis(
        "frozen-or-detached-graph", 0.93, "error", says, event.step, {"parameters": names}, _fix("unfreeze"),
        parameter=names[0],
    )  # fmt: skip


def _of_stale(case: Case, event: Event, evidence: Mapping[str, Any]) -> Hypothesis:
    lost = [str(n) for n in (_unowned(case) or {}).get("parameters", ())]
    says = (
        "The optimizer's steps change nothing that the model uses: the losses depend on other parameters "
        f"({listed(lost)}) than it holds. The model was made anew, or its layers were replaced, after the optimizer "
        "was made; or it was given another model's parameters."
    )
    return Hypothesis(
        "no-parameter-change", 0.95, "error", says, event.step, {**evidence, "used": lost}, _fix("adopt-parameters"),
        parameter=lost[0] if lost else None,
    )  # fmt: skip


def no_change(case: Case) -> Hypothesis | None:
    """Steps that change nothing, or no steps at all."""
    recording, e = case.recording, case.e
    if not e.steps:
        return _never_stepped(case)
    update = recording.get(signals.UPDATE, e.source)
    if e.steps < _LEAST_STEPS or len(update) < 3 or update.values.any() or not np.isfinite(update.values).all():
        return None
    gradient = recording.get(signals.GRADIENT, e.source)
    rates = e.lr.values
    cleared = [x for x in recording.happened("gradients-cleared") if x.source == e.source]
    evidence: dict[str, Any] = {"steps": e.steps, "looks": len(update), "largest_update": 0.0}
    if len(rates) and not np.abs(rates).max() > 0:
        says = f"The learning rate was 0 in all {e.steps} steps, so that no parameter changed."
        place = e.optimizer.scheduler or e.optimizer.made
        return Hypothesis("no-parameter-change", 0.95, "error", says, 0, {**evidence, "lr": 0.0}, place=place)
    if cleared and not gradient.values.any():
        says = (
            "Gradients arrive, but are cleared before the step that should use them: all of them were zero or gone at "
            f"each of {len(update)} steps looked at. Call zero_grad() before backward() or after step(), not between."
        )
        return Hypothesis("no-parameter-change", 0.96, "error", says, 0, evidence, place=e.optimizer.stepped)
    if len(gradient) and gradient.values.any():
        says = (
            f"No parameter changed in {e.steps} steps although gradients and rate are not zero: the steps are smaller "
            "than what the parameters' precision can hold."
        )
        return Hypothesis("no-parameter-change", 0.7, "error", says, 0, evidence, place=e.optimizer.stepped)
    return None


def _never_stepped(case: Case) -> Hypothesis | None:
    facts = case.recording.run.facts
    backwards = int(facts.get("backwards", 0))
    # A run cut short may have been within its first accumulation.
    if backwards < _LEAST_STEPS or case.recording.run.status not in ("finished", "running"):
        return None
    scale = case.recording.get(signals.SCALE, 0)
    falling = len(scale) > 2 and bool((np.diff(scale.values) < 0).all())
    says = f"There were {backwards} backward passes, and the optimizer never made a step"
    if falling:
        says += (
            f": the gradients were never finite, so GradScaler skipped each one and lowered its scale from "
            f"{scale.values[0]:g} to {scale.values[-1]:g}."
        )
    else:
        says += ": step() is not called, or a condition before it never holds."
    evidence = {"backward_passes": backwards, "steps": 0}
    return Hypothesis("no-parameter-change", 0.9, "error", says, 0, evidence, place=case.e.optimizer.made)


def idle_optimizers(case: Case) -> Iterator[Hypothesis]:
    """Gradients arrive for an optimizer that never makes a step, while others do."""
    recording = case.recording
    for event in _run_events(case, "gradients-unused"):
        info = next((o for o in recording.optimizers if o.index == event.source), None)
        if info is None or len(recording.get(signals.TIME, event.source)) or case.e.steps - event.step < _LEAST_STEPS:
            continue
        if recording.run.status not in ("finished", "running"):
            continue
        says = (
            f"The {info.kind} made here never makes a step in {case.e.steps} steps of another optimizer, although its "
            "parameters get gradients: its step() is not called, or a condition before it never held."
        )
        # It may be meant for a phase that this run was too short for.
        yield Hypothesis(
            "no-parameter-change", 0.65, "warning", says, event.step, {"steps": 0, "optimizer": event.source},
            parameter=info.parameters[0].name if info.parameters else None, place=info.made,
        )  # fmt: skip


def eval_mode(case: Case) -> Iterator[Hypothesis]:
    """Dropout and batch normalization are switched off while the model trains."""
    events = _run_events(case, "mode")
    for number in dict.fromkeys(x.data.get("number") for x in events):
        states = [x for x in events if x.data.get("number") == number]
        last = states[-1]
        # From one mode to the other and back, more than once, is as someone wants it.
        if last.data.get("training") or last.data.get("active") or len(states) > 2:
            continue
        if case.e.steps - last.step < _LASTING:
            continue
        switched = len(states) == 2 and bool(states[0].data.get("training"))
        unused = int(last.data.get("unused", 0))
        # To go on training a loaded model without dropout and by its old statistics is a known practice. A new one has
        # none worth keeping.
        confidence = 0.92 if switched else 0.45 if last.data.get("loaded") else 0.9 if unused else 0.65
        model, modules = last.data.get("model"), [str(n) for n in last.data.get("modules", ())]
        since = f"since step {last.step} or shortly before; it had begun in training mode" if switched else "all along"
        says = (
            f"{model} trains in evaluation mode, {since}: {listed(dict.fromkeys(modules))} do not do what they do in "
            "training. Call model.train() before each epoch, after model.eval()."
        )
        yield Hypothesis(
            "eval-mode-in-training", confidence, "warning", says, last.step,
            {"model": model, "modules": modules, "training_before": switched, "never_used": unused}, _fix("modes"),
            module=str(model), place=place_in(last.data),
        )  # fmt: skip


def evaluated(case: Case) -> Iterator[Hypothesis | None]:
    """Evaluation in training mode, by its losses or, where none are seen, by its passes."""
    by_losses: list[Hypothesis | None] = [*train_mode(case)]
    yield from by_losses or [train_mode_passes(case)]


def train_mode(case: Case) -> Iterator[Hypothesis]:
    """Losses are evaluated while dropout and batch normalization are in training mode."""
    events = _run_events(case, "evaluated")
    for source in dict.fromkeys(x.source for x in events):
        states = [x for x in events if x.source == source]
        last = states[-1]
        if not all(x.data.get("training") for x in states) or int(last.data.get("passes", 0)) < 2:
            continue
        never = not last.data.get("evals")
        # A loss at every step may be part of the training: hard examples chosen, something measured on the way.
        often = len(case.recording.get(signals.VALIDATION, source)) > 0.5 * case.e.steps
        modules = [str(n) for n in last.data.get("modules", ())]
        says = (
            f"The losses evaluated without gradient are computed in training mode: {listed(dict.fromkeys(modules))} "
            "drop units or normalize by the batch, so that they depend on chance and on which rows come together"
            + (", and batch normalization learns from the validation data" if any("Norm" in m for m in modules) else "")
            + (". model.eval() is never called." if never else ". Call model.eval() before, model.train() after.")
        )
        yield Hypothesis(
            "train-mode-in-eval", 0.5 if often else 0.9 if never else 0.75, "warning", says, last.step,
            {"modules": modules, "eval_called_elsewhere": not never}, _fix("modes"), place=place_in(last.data),
        )  # fmt: skip


def train_mode_passes(case: Case) -> Hypothesis | None:
    """What is evaluated is no loss, but computed in training mode all the same, in a script that never calls eval()."""
    event = _last(_run_events(case, "training-passes"))
    if event is None or case.rivals or event.data.get("evals"):
        return None
    passes, again = int(event.data.get("passes", 0)), int(event.data.get("again", 0))
    # Between nearly all steps it belongs to training: a teacher, a generator, an agent that acts. The same rows again
    # and again: dropout is wanted.
    if passes < _PASSES or passes > 0.2 * case.e.steps or again > 0.5 * passes:
        return None
    functions = [str(n) for n in event.data.get("functions", ())]
    norm = "batch_norm" in functions
    says = (
        f"The model is evaluated in training mode, {passes} times: {listed(functions)} "
        + ("normalizes by the batch" if norm else "drops units")
        + ", so that what is measured depends on "
        + ("which rows come together, and batch normalization learns from them" if norm else "chance")
        + ". model.eval() is never called. Call it before evaluating, and model.train() after."
    )
    return Hypothesis(
        "train-mode-in-eval", 0.85, "warning", says, event.step, {"passes": passes, "functions": functions},
        _fix("modes"), place=place_in(event.data),
    )  # fmt: skip


def _run_events(case: Case, kind: str) -> list[Event]:
    """Events on the run as a whole: told once."""
    return list(case.recording.happened(kind)) if case.main else []


def _last(events: Iterable[Event]) -> Event | None:
    return next(reversed(list(events)), None)


def _unowned(case: Case) -> Mapping[str, Any] | None:
    """What is known of parameters that no optimizer holds, None where there are none."""
    event = _last(case.recording.happened("unowned"))
    return event.data if event is not None and event.data.get("tensors") else None


def _stale(case: Case) -> bool:
    """Whether the optimizer holds nothing that is used, which explains that what is used has no optimizer."""
    found = unreached(case)
    return found is not None and found.id == "no-parameter-change"


def _fix(name: str) -> tuple[Intervention, ...]:
    return (Intervention(fixes=(name,)),)


def _shape(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def _single(check: Any) -> Check:
    def yielding(case: Case) -> Iterable[Hypothesis | None]:
        return (check(case),)

    return yielding


CHECKS: tuple[Check, ...] = (
    *(_single(check) for check in (missing_zero_grad, not_optimized, unreached, no_change)),
    probabilities, shapes, idle_optimizers, eval_mode, evaluated,
)  # fmt: skip
