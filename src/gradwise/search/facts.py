"""What the script's own run tells a search, and what a configuration changes, given that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradwise.diagnosis.metric import primary_place
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place, Recording
from gradwise.recording.signals import VALIDATION
from gradwise.search.attempts import steps_of
from gradwise.search.domains import SpaceError, Value
from gradwise.search.space import KNOBS, OWN, SHAPES

_TEST = re.compile(r"(?<![a-z])test(?!s?_?(split|size))", re.IGNORECASE)
_TRAINED_ON = re.compile(r"train", re.IGNORECASE)
_VALIDATION = re.compile(r"(?<!e)val|dev(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a script from running it as it is.

    Attributes:
        steps: optimizer steps of the whole run.
        seconds: how long it took.
        rate: the learning rate that its optimizer was made with; None where there is none to set.
        place: which of its validation losses to select on; None where it has none.
        evaluations: how often that is taken.
        where: the code that takes it, in a few words.
        optimizer: what was seen of the optimizer in question; None where there is none.
    """

    steps: int
    seconds: float
    rate: float | None = None
    place: int | None = None
    evaluations: int = 0
    where: str = ""
    optimizer: OptimizerInfo | None = None

    @staticmethod
    def of(recording: Recording, seconds: float, which: int | None = None) -> Facts:
        """The facts of a recording.

        Args:
            recording: the script's own run.
            seconds: how long it took.
            which: index of the optimizer in question; None is the first.
        """
        wanted = [o for o in recording.optimizers if o.index == (which or 0) and o.kind != "manual"]
        groups = wanted[0].groups if wanted else ()
        rate = groups[0].get("initial_lr", groups[0].get("lr")) if groups else None
        words = {e.source: _words(e.data) for e in recording.happened("validation-place")}
        place = _place(recording, words)
        taken = 0 if place is None else len(recording.get(VALIDATION, place))
        where = "" if place is None else words.get(place, "")
        known = float(rate) if isinstance(rate, int | float) and rate > 0 else None
        seen = replace(wanted[0], parameters=(), groups=tuple(_plain(g) for g in groups)) if wanted else None
        if seen is not None:
            seen = replace(seen, defaults=_plain(seen.defaults))
        return Facts(steps_of(recording), seconds, known, place, taken, where, seen)

    @property
    def on_test_data(self) -> bool:
        """Whether the code that takes the validation loss speaks of a test set, and of no validation set."""
        return speaks_of_test(self.where)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Facts:
        """The facts that `to_json` wrote."""
        given = dict(data)
        if given.get("optimizer") is not None:
            seen = dict(given["optimizer"])
            for name in ("made", "stepped", "scheduler"):
                seen[name] = None if seen[name] is None else Place(**seen[name])
            given["optimizer"] = OptimizerInfo(**{**seen, "groups": tuple(seen["groups"]), "parameters": ()})
        return Facts(**given)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an optimizer's settings that JSON has, for they are kept with the study."""
    plain = (bool, int, float, str, type(None))
    return {
        k: v
        for k, v in settings.items()
        if isinstance(v, plain) or (isinstance(v, list | tuple) and all(isinstance(e, plain) for e in v))
    }


def _place(recording: Recording, words: Mapping[int, str]) -> int | None:
    """The validation loss to select on: never a test set's where there is another on held-out data."""
    tested = {place for place, said in words.items() if speaks_of_test(said)}
    series = {key: s for key, s in recording.series.items() if key[0] != VALIDATION.name or key[1] not in tested}
    place = primary_place([replace(recording, series=series)])
    said = words.get(place, "") if place is not None else ""
    if place is not None and (_VALIDATION.search(said) or not _TRAINED_ON.search(said)):
        return place
    return primary_place([recording])


def speaks_of_test(words: str) -> bool:
    """Whether names in code or a metric's are a test set's, and no validation set's.

    >>> speaks_of_test("evaluate(model, test_loader)"), speaks_of_test("train_test_split(x)")
    (True, False)
    """
    return bool(_TEST.search(words)) and not _VALIDATION.search(_TEST.sub("", words))


def intervention(knobs: Mapping[str, Value], facts: Facts, steps: int, which: int | None = None) -> Intervention:
    """What a configuration's knobs change.

    A rate alone scales the script's own, so that its schedule goes on; with a shape both are the script's no more.

    Args:
        knobs: their values by name.
        facts: of the script.
        steps: the length of the run, over which a shape is spread.
        which: index of the only optimizer to change; None changes all.

    Raises:
        SpaceError: where a rate or a shape is wanted and the script's own rate isn't known.
    """
    wanted = {name: value for name, value in knobs.items() if value != OWN}
    rate, shape = wanted.pop("lr", None), wanted.pop("schedule", None)
    made: dict[str, Any] = {KNOBS[name].key: value for name, value in wanted.items()}
    if (rate is not None or shape is not None) and facts.rate is None:
        raise SpaceError("the script's optimizer has no learning rate to set")
    if shape is not None:
        length = min(steps, int(made.get("stop", steps)))
        made["lr"] = float(facts.rate or 0.0 if rate is None else rate) * SHAPES[str(shape)](max(1, length))
    elif rate is not None and facts.rate:
        made["lr_scale"] = float(rate) / facts.rate
    if which is not None and made:
        made["optimizer"] = which
    return Intervention(**made)


def spread(knobs: Mapping[str, Value]) -> bool:
    """Whether a configuration has a shape that is spread over the run, so that its length must be known."""
    return knobs.get("schedule", OWN) not in (OWN, "constant")


def _words(data: Any) -> str:
    """Names and lines of a place and its callers."""
    if isinstance(data, Mapping):
        return " ".join(_words(v) for k, v in data.items() if k not in ("file", "line", "source"))
    if isinstance(data, list | tuple):
        return " ".join(map(_words, data))
    return str(data)
