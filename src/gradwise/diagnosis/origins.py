"""`non-finite-loss` once a replay has traced it: the finding rewritten with the first operation that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradwise.diagnosis.advice import advise
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.findings import Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.legible import number
from gradwise.recording.recording import Place, Recording

# Momentum and averages may hold back for a step or two what an update did.
_HELD_BACK = 3
_SKIP = Intervention(fixes=("skip-non-finite",))
_SMALLER = (Intervention(clip_norm=1.0), Intervention(lr_scale=0.1))
_CLEAN = (Intervention(fixes=("clean-inputs",)), _SKIP)

_LOGS = frozenset({"log", "log2", "log10", "log1p", "xlogy", "logit", "special_xlogy", "binary_cross_entropy"})
_ROOTS = frozenset({"sqrt", "rsqrt", "pow", "norm", "linalg_vector_norm", "std", "cdist", "std_mean"})
_SPREADS = frozenset({"std", "var", "std_mean", "var_mean"})
_DIVISIONS = frozenset({"div", "reciprocal", "true_divide", "remainder", "fmod", "rsqrt", "addcdiv"})
_EXPONENTIALS = frozenset({"exp", "exp2", "expm1", "cosh", "sinh"})
_SOFTMAXES = frozenset({"softmax", "log_softmax", "logsumexp", "scaled_dot_product_attention"})
_ARCS = frozenset({"acos", "asin", "atanh", "acosh", "erfinv"})
# Products and sums pass the largest float only if what goes in is a good part of the way there: half of its digits.
_HUGE = {"float16": 2.0**8, "bfloat16": 2.0**64, "float32": 2.0**64, "float64": 2.0**512}


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of failure it was: what happened, what to write, and what may help from outside."""

    says: str
    write: str
    candidates: tuple[Intervention, ...] = (_SKIP,)


def located(finding: Finding, data: Mapping[str, Any], recording: Recording) -> Finding:
    """The finding with what a trace found: its place, evidence, explanation, and cures that suit.

    Args:
        finding: `non-finite-loss`.
        data: of the event "non-finite-origin" (`gradwise.trials.trace.Trace`).
        recording: the watched run.
    """
    nature, place = nature_of(data), data.get("place") or {}
    e = evidence_of(recording, finding.source)
    shown = int(finding.evidence.get("first_bad_step", finding.where.step or 0))
    step = int(data.get("step", shown))
    # A run that draws other numbers each time fails elsewhere, in the same way.
    elsewhere = not shown - _HELD_BACK <= step <= shown
    candidates = [replace(c, optimizer=finding.source or None) for c in nature.candidates]
    where = Where(
        file=place.get("file") or finding.where.file,
        line=place.get("line") if place.get("file") else finding.where.line,
        parameter=data.get("parameter") if _named(data) else None,
        module=data.get("module"),
        step=shown if elsewhere else step,
    )
    # The data are cleaned where they are read; what is skipped is a step of the optimizer.
    read = data.get("stage") == "data" and place.get("file")
    at = Place(place["file"], int(place["line"])) if read else None
    first = finding.explanation.split(":")[0].rstrip(".")
    repeated = f" When the run was repeated with other random numbers, it was at step {step}." if elsewhere else ""
    says = f"{first}.{repeated} {nature.says}{_then(data)}" + (f" {nature.write}" if nature.write else "")
    evidence = {
        **{k: v for k, v in finding.evidence.items() if k not in ("parameters", "stage")},
        "stage": data.get("stage"),
        "operation": operation(data) or None,
        "module": data.get("module"),
        "origin_step": step,
        **{f"input_{k}": _range(told) for k, told in enumerate(data.get("inputs", ()), 1)},
        "columns": data.get("columns") or None,
    }
    return replace(
        finding,
        where=where,
        explanation=says,
        evidence={k: v for k, v in evidence.items() if v is not None},
        remedies=tuple(
            Remedy(c, advise(c, e, at if "clean-inputs" in c.fixes else None), reason="not tried") for c in candidates
        ),
    )


def operation(data: Mapping[str, Any]) -> str:
    """The operation as people call it: `log`, or on the way back that whose gradient failed."""
    node = str(data.get("node") or "")
    if node:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node).lower()
    return str(data.get("operation") or "").strip("_").removeprefix("foreach_")


def nature_of(data: Mapping[str, Any]) -> Nature:
    """What went wrong, and what to do about it."""
    stage, at = str(data.get("stage", "")), _where(data)
    if stage == "data":
        return _of_data(data, at)
    if stage in ("parameter", "buffer", "computed"):
        return _of_given(data, stage)
    if stage == "update":
        held = f" of {data['parameter']}" if data.get("parameter") else ""
        return Nature(
            f"The update{held} at step {data.get('step')} did it: gradient and parameters were finite before, what "
            "the optimizer made of them was not.",
            "Lower the learning rate or clip the gradient.",
            _SMALLER,
        )
    back, name = stage == "backward", operation(data)
    inputs = list(data.get("inputs", ()))
    subject = f"The gradient of `{name}`" if back else f"`{name}`"
    told = _edge(name, back, inputs, data)
    if told is not None:
        what, write, candidates = told
        return Nature(f"{subject}{at} {what}.", write, candidates)
    ranges = _given(inputs)
    if data.get("kind") == "inf":
        return Nature(
            f"{subject}{at} overflowed{ranges}.",
            "What goes in has grown too large: lower the learning rate or clip the gradient."
            if _huge(inputs)
            else "Keep what goes in within bounds.",
            (*_SMALLER, _SKIP),
        )
    if data.get("masked"):
        return Nature(
            f"{subject}{at} made NaN of an infinite value that was put there on purpose{ranges}.",
            "Use a large finite number in its place.",
        )
    return Nature(f"{subject}{at} made NaN of finite numbers{ranges}.", "Keep what goes in within its domain.")


def _edge(
    name: str, back: bool, inputs: list[Mapping[str, Any]], data: Mapping[str, Any]
) -> tuple[str, str, tuple[Intervention, ...]] | None:
    """An operation at the edge of its domain: what it did there, what to write instead, and what may help."""
    given = _given(inputs)
    if not back and any(0 in told.get("size", ()) for told in inputs):
        return "was given an empty tensor", "Leave out batches and groups that hold nothing.", (_SKIP,)
    if name in _LOGS:
        what = "is infinite or undefined at zero" if back else f"took the logarithm of what is not positive{given}"
        write = "Keep its input away from zero, `x.clamp(min=1e-8)`, or use a loss that takes logits."
        return what, write, (_SKIP,)
    if name in _DIVISIONS and ((back and name != "rsqrt") or _zero(inputs[-1:])):
        what = "divided by zero" if back else f"divided by zero{given}"
        return what, "Add a small number to the divisor, `x / (d + 1e-8)`.", (_SKIP,)
    if name in _ROOTS and back:
        write = "Keep what goes into it away from zero, `(x + 1e-12).sqrt()`."
        return "is infinite or undefined at zero, for its slope is", write, (_SKIP,)
    if name in _SPREADS and data.get("kind") == "nan":
        return f"took the spread of a single value{given}", "Leave out groups of one, or `correction=0`.", (_SKIP,)
    if name in _ROOTS and (_low(inputs) < 0 if data.get("kind") == "nan" else _zero(inputs[:1])):
        return f"is not defined there{given}", "Keep its input positive, `x.clamp(min=1e-12)`.", (_SKIP,)
    if name in _EXPONENTIALS and data.get("kind") == "inf":
        write = (
            "Subtract the maximum first, as `torch.softmax`, `torch.logsumexp` and the losses that take logits do, or "
            "bound its input, `x.clamp(max=30)`."
        )
        return f"overflowed{given}: float32 ends at exp(88.7), float16 at exp(11.1)", write, (*_SMALLER, _SKIP)
    if name in _SOFTMAXES and data.get("masked"):
        write = "Leave one entry of each row unmasked, or mask with a large finite number such as -1e4."
        return "was given a row that is masked from end to end: all of it is -inf", write, (_SKIP,)
    if name in _ARCS:
        return f"is not defined there, or its slope is infinite{given}", "Clamp its input inside (-1, 1).", (_SKIP,)
    return None


def _of_data(data: Mapping[str, Any], at: str) -> Nature:
    name, columns = operation(data), data.get("columns") or []
    if name:
        told = _edge(name, False, list(data.get("inputs", ())), data)
        what = told[0] if told else f"made what is not finite{_given(data.get('inputs', ()))}"
        write = told[1] if told else ""
        return Nature(f"The data is at fault: `{name}`{at}, which prepares it, {what}.", write, _CLEAN)
    read: Mapping[str, Any] = next(iter(data.get("inputs", ())), {})
    many = f"{read['bad']:,} of {_count(read):,} values" if read.get("bad") and read.get("size") is not None else "some"
    where = f" (column{'s' if len(columns) > 1 else ''} {', '.join(map(str, columns))})" if columns else ""
    return Nature(
        f"The data is at fault: {many}{where} of what is read{at} are not finite.",
        "Find out why, and drop or replace them before training.",
        _CLEAN,
    )


def _of_given(data: Mapping[str, Any], stage: str) -> Nature:
    name = data.get("parameter") or "a tensor"
    if stage == "parameter":
        return Nature(f"The parameter {name} was not finite already some steps before.", "", _SMALLER)
    if stage == "buffer":
        return Nature(f"The buffer {name} (a running statistic) was not finite already.", "", _CLEAN)
    return Nature(
        f"It came from code of its own{_where(data)}, none of torch's operations: a kernel or an extension.", ""
    )


def _where(data: Mapping[str, Any]) -> str:
    place, module = data.get("place") or {}, data.get("module")
    line = f" at {place['file']}:{place['line']}" if place.get("file") else ""
    return line + (f" (in module {module})" if module else "")


def _then(data: Mapping[str, Any]) -> str:
    """What became of an Inf."""
    then = data.get("then")
    if not then:
        return ""
    return f" The Inf became NaN in `{operation(then)}`{_where(then)}."


def _given(inputs: Any) -> str:
    """What it was given, in a few words."""
    parts = [_range(told) for told in inputs]
    return f" (given {'; '.join(p for p in parts if p)})" if any(parts) else ""


def _range(told: Mapping[str, Any]) -> str | None:
    if "value" in told:
        return number(told["value"])
    if "min" not in told:
        return None
    text = f"{number(told['min'])} to {number(told['max'])}"
    zeros, bad = told.get("zeros", 0), told.get("bad", 0)
    return text + (f", {zeros:,} zero" if zeros else "") + (f", {bad:,} not finite" if bad else "")


def _zero(inputs: list[Mapping[str, Any]]) -> bool:
    return any(told.get("zeros") or 0 in (told.get("value"), told.get("min"), told.get("max")) for told in inputs)


def _low(inputs: list[Mapping[str, Any]]) -> float:
    return min((float(told["min"]) for told in inputs if "min" in told), default=0.0)


def _huge(inputs: list[Mapping[str, Any]]) -> bool:
    return any(
        max(abs(told["min"]), abs(told["max"])) > _HUGE.get(str(told.get("dtype")), 2.0**64)
        for told in inputs
        if "min" in told
    )


def _count(told: Mapping[str, Any]) -> int:
    count = 1
    for n in told.get("size", ()):
        count *= int(n)
    return count


def _named(data: Mapping[str, Any]) -> bool:
    return data.get("stage") in ("update", "parameter", "buffer")
