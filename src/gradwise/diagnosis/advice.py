"""An intervention as a change to the user's own line."""

from __future__ import annotations

import math

from gradwise.diagnosis.evidence import Evidence
from gradwise.interventions import Intervention
from gradwise.recording.recording import Place


def advise(intervention: Intervention, e: Evidence) -> str:
    """`train.py:14  SGD(…, lr=5.0) → lr=0.15`, or what to add and where."""
    optimizer = e.optimizer
    lines = []
    if intervention.lr_scale is not None:
        lines.append(_rate(intervention.lr_scale, e))
    if intervention.schedule is not None:
        place = optimizer.scheduler or optimizer.made
        verb = "on top of the schedule:" if optimizer.scheduler else "add a schedule:"
        lines.append(f"{_at(place)}{verb} {Intervention(schedule=intervention.schedule).describe()} (optimizer steps)")
    if intervention.clip_norm is not None:
        where = _at(optimizer.stepped)
        call = f"torch.nn.utils.clip_grad_norm_(parameters, {intervention.clip_norm:g})"
        lines.append(f"{where}before the step add {call}")
    return "; ".join(lines)


def _rate(scale: float, e: Evidence) -> str:
    optimizer = e.optimizer
    made = next((g["lr"] for g in optimizer.groups if isinstance(g.get("lr"), int | float)), math.nan)
    rate = made if made > 0 else e.rate(0)
    if not rate > 0:
        return f"{_at(optimizer.made)}multiply the learning rate by {scale:.3g}"
    if optimizer.kind == "manual":
        return f"{_at(optimizer.made)}lr = {rate:.3g} → {rate * scale:.3g}"
    several = " in every group" if len(optimizer.groups) > 1 else ""
    return f"{_at(optimizer.made)}{optimizer.kind}(…, lr={rate:g}) → lr={rate * scale:.3g}{several}"


def _at(place: Place | None) -> str:
    return f"{place}  " if place is not None else ""
