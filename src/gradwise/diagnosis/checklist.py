"""C7: what to go through when a run does not converge - batch size, input, learning rate, initialization."""

from __future__ import annotations

import math

import numpy as np

from gradwise.diagnosis.case import Case
from gradwise.diagnosis.depth import looks_of
from gradwise.diagnosis.evidence import Evidence
from gradwise.diagnosis.findings import CheckItem, Finding
from gradwise.diagnosis.scale import WRONG, first_loss_of, inputs_of, signal_of
from gradwise.recording import signals
from gradwise.recording.recording import Recording

# Weights drawn by He's rule have an rms of sqrt(2/fan_in), by Xavier's or torch's default up to 2.5 times less.
_INIT_LOW, _INIT_HIGH = 0.05, 5.0


def checklist(recording: Recording, e: Evidence, findings: tuple[Finding, ...]) -> tuple[CheckItem, ...]:
    """One line for each of the four things, with what this recording shows of it."""
    return (_batch(recording, e), _input(recording), _rate(e, findings), _initialization(recording, e))


def _batch(recording: Recording, e: Evidence) -> CheckItem:
    batch = recording.get(signals.BATCH, e.source)
    if not len(batch):
        return CheckItem("batch size", "not seen (no loss function of torch was called)")
    rows, count = float(np.median(batch.values)), recording.get(signals.BACKWARDS, e.source)
    passes = float(np.median(count.values)) if len(count) else 1.0
    text = f"{rows:g} rows a loss" + (f", {passes:g} passes a step" if passes > 1 else "")
    signal = e.cosine_early
    if signal.count >= 3:
        text += f"; successive gradients agree with a cosine of {signal.value:.2f} at the start"
    return CheckItem("batch size", text, None if signal.count < 3 else signal.value > 0.02)


def _input(recording: Recording) -> CheckItem:
    seen = recording.happened("input")
    if not seen:
        return CheckItem("input normalization", "no floating-point input seen")
    data = seen[0].data
    mean, spread, ratio = (float(data.get(k) or 0.0) for k in ("mean", "std", "feature_ratio"))
    text = f"first batch: mean {mean:.3g}, standard deviation {spread:.3g}"
    if ratio > 1:
        text += f", features' standard deviations differ up to {ratio:.3g}-fold"
    operation = str(data.get("operation", ""))
    if operation.endswith("Norm"):
        return CheckItem("input normalization", f"{text}; normalized by the model's first layer", True)
    inputs = inputs_of(recording)
    if inputs is not None and math.isfinite(inputs.usual):
        if inputs.reasons:
            text += f"; {' and '.join(inputs.reasons)}"
        return CheckItem("input normalization", text, not inputs.reasons)
    sound = 0.03 < spread < 30 and abs(mean) < 10 * max(spread, 1e-12) and ratio < 1000
    return CheckItem("input normalization", text, sound)


def _rate(e: Evidence, findings: tuple[Finding, ...]) -> CheckItem:
    blamed = next((f.id for f in findings if f.id.startswith(("lr-", "late-"))), None)
    first, last = e.rate(0), e.rate(max(e.steps - 1, 0))
    text = "not known" if math.isnan(first) else f"{first:.3g} at the start, {last:.3g} at the end"
    return CheckItem("learning-rate design", text + (f": {blamed}" if blamed else ""), blamed is None)


def _initialization(recording: Recording, e: Evidence) -> CheckItem:
    """By what the weights do to the signal and to the first loss, where that was seen; else by their size."""
    looks = looks_of(Case(recording, e))
    if not looks or looks[0].step:
        return _by_size(recording, e)
    first = looks[0]
    gains = sorted((layer.gain, layer.name) for layer in first.layers if layer.gain >= 0)
    if not gains:
        return _by_size(recording, e)
    (low, least), (high, most) = gains[0], gains[-1]
    text = f"rms × √fan_in lies between {low:.2g} ({least}) and {high:.2g} ({most})"
    signal, (wrong, _) = signal_of(first), first_loss_of(first)
    if signal is not None:
        text += f"; each layer changes the signal {signal[0]:.2g}-fold"
    if "classes" in first.loss:
        text += f"; the first loss is {first.loss['value']:.3g}, a uniform guess makes {first.loss['guess']:.3g}"
    return CheckItem("weight initialization", text, signal is None and not wrong >= WRONG)


def _by_size(recording: Recording, e: Evidence) -> CheckItem:
    norms = recording.get(signals.PARAMETER, e.source)
    shapes = {p.name: p.shape for p in e.optimizer.parameters}
    worst, factor = "", 1.0
    if len(norms) and norms.steps[0] == 0:
        for name, norm in zip(norms.labels, np.atleast_2d(norms.values)[0], strict=False):
            shape = shapes.get(name, ())
            if len(shape) < 2 or not norm > 0:
                continue
            numel = math.prod(shape)
            scale = norm / math.sqrt(numel) * math.sqrt(numel / shape[0])
            if abs(math.log(scale)) > abs(math.log(factor)):
                worst, factor = name, scale
    if not worst:
        return CheckItem("weight initialization", "no weight matrices seen at step 0")
    text = f"rms × √fan_in lies between {min(factor, 1):.2g} and {max(factor, 1):.2g} (furthest: {worst})"
    return CheckItem("weight initialization", text, bool(_INIT_LOW < factor < _INIT_HIGH))
