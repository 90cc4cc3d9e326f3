"""Schedules put together from others; they print as what they are made of."""

from __future__ import annotations

from typing import Literal

from gradwise.schedules.checks import choice, count, number
from gradwise.schedules.cycles import warmup
from gradwise.schedules.decays import constant, cosine, exponential, polynomial, square_root
from gradwise.schedules.schedule import Schedule

_DECAYS = {"linear": polynomial, "cosine": cosine, "1-sqrt": square_root}


def warmup_stable_decay(
    steps: int,
    warmup_steps: int,
    decay_steps: int,
    end: float = 0.0,
    decay: Literal["linear", "cosine", "1-sqrt"] = "linear",
) -> Schedule:
    """Warm-up, then constant, then down at the end of the run.

    Up to the decay it doesn't depend on the length of the run, so that a run can be prolonged from before it.

    Args:
        steps: of the whole run.
        warmup_steps: of the warm-up; may be 0.
        decay_steps: of the decay, the last ones of the run.
        end: factor at the end.
        decay: "linear", "cosine" or "1-sqrt" (`square_root`).

    Raises:
        ValueError: warm-up and decay take more steps than there are.

    Example:
        >>> warmup_stable_decay(1000, warmup_steps=50, decay_steps=200)
        warmup(steps=50) >> constant(steps=750) >> polynomial(steps=200)

    Source:
        Hu et al., MiniCPM: unveiling the potential of small language models with scalable training strategies, 2024.
    """
    name = "warmup_stable_decay"
    rising, falling = count(f"{name}: warmup_steps", warmup_steps, 0), count(f"{name}: decay_steps", decay_steps)
    stable = count(f"{name}: steps", steps) - rising - falling
    if stable < 0:
        raise ValueError(f"{name}: {rising} steps of warm-up and {falling} of decay are more than the run's {steps}")
    last = _DECAYS[choice(f"{name}: decay", decay, _DECAYS)](falling, end)
    rest = constant(1.0, stable) >> last if stable else last
    return warmup(rising) >> rest if rising else rest


def rule_of_thumb(steps: int, hold: float = 0.2, end: float = 1 / 200) -> Schedule:
    """The rule of thumb: stay for some epochs, then slow down, and end more than a hundred times lower.

    1 for the first part of the run, then exponentially down to `end`. The rule says of the rate itself: start somewhere
    from 0.01 to 0.001, so `0.01 * rule_of_thumb(steps)` or as the optimizer's own rate.

    Args:
        steps: of the whole run.
        hold: the part of the run at full rate, at least 0 and below 1.
        end: factor at the end, above 0.

    Example:
        >>> rate = 0.01 * rule_of_thumb(1000)
        >>> rate(0), rate(199), round(rate(999), 7)
        (0.01, 0.01, 5.03e-05)
    """
    held = int(number("rule_of_thumb: hold", hold, 0, 1) * count("rule_of_thumb: steps", steps))
    rest = max(steps - held, 1)
    down = exponential(number("rule_of_thumb: end", end, 0, 1, above=True), rest).until(rest)
    return constant(1.0, held) >> down if held else down
