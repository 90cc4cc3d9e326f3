"""The space that `tune` searches: parameters with their domains and conditions, and what one point of it changes.

A parameter is a *knob* (what gradwise sets from outside, by an intervention) or an argument of the script. A
configuration is one value for each parameter whose condition holds.

    >>> space = Space.of({"lr": "1e-4..1", "rule": "sgd,adam"}, {"hidden": "32,64"})
    >>> [p.name for p in space.parameters], len(space.grid(3))
    (['lr', 'rule', 'hidden'], 12)
    >>> Space.from_json(space.to_json()) == space
    True
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradwise.interventions import ACTIVATIONS, INITS, RULES
from gradwise.schedules import Schedule, constant, cosine, exponential, one_cycle, polynomial, step, warmup
from gradwise.search.domains import Domain, Range, SpaceError, Value

Configuration = Mapping[str, Value]
"""A point of a space: the value of each parameter that counts."""

OWN = "own"
"""The value with which a knob leaves what the script has."""

SHAPES: dict[str, Callable[[int], Schedule]] = {
    "constant": lambda n: constant(),
    "cosine": lambda n: cosine(n),
    "step": lambda n: step(-(-n // 3), 0.1),
    "linear": lambda n: polynomial(n),
    "exponential": lambda n: exponential(0.01 ** (1 / n)),
    "one-cycle": lambda n: one_cycle(n),
    "warmup-cosine": lambda n: warmup(max(1, n // 20)) >> cosine(max(1, n - n // 20)),
}
"""Schedules by name, for a run of `n` steps: "step" cuts to a tenth twice, "exponential" falls to a hundredth."""


@dataclass(frozen=True, slots=True)
class Knob:
    """What gradwise can set from outside.

    Attributes:
        key: the intervention's key.
        about: what it is.
        choices: the values there are; () for numbers.
        low, high: what numbers must lie between.
        whole: whether they are whole.
        open: whether `low` itself is excluded.
    """

    key: str
    about: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    open: bool = True


KNOBS = {
    "lr": Knob("lr", "learning rate in place of the script's own; its schedule goes on unless --schedule replaces it"),
    "rule": Knob("rule", "update rule", RULES),
    "schedule": Knob("schedule", "shape of the learning rate over the run, in place of the script's", tuple(SHAPES)),
    "momentum": Knob("momentum", "momentum, or beta1 of Adam's kin", high=1.0, open=False),
    "weight_decay": Knob("decay", "decoupled weight decay on weights, on top of the script's own", open=False),
    "clip": Knob("clip_norm", "norm to clip gradients to"),
    "accumulation": Knob("accumulate", "steps whose gradients become one step", low=1, whole=True, open=False),
    "activation": Knob("activation", "activation in hidden layers", ACTIVATIONS),
    "dropout": Knob("dropout", "dropout after hidden layers", high=1.0, open=False),
    "init": Knob("init", "initial weights", INITS),
    "steps": Knob("stop", "optimizer steps after which to end", low=1, whole=True, open=False),
}
"""What can be tuned on any script, by name."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One dimension of a space.

    Attributes:
        name: its name.
        domain: its values.
        when: the parameter counts only where each of these others has one of these values.
        template: words that hand a value to the script, with {} in its place; None for a knob.
    """

    name: str
    domain: Domain
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    template: str | None = None

    def counts(self, chosen: Configuration) -> bool:
        """Whether its condition holds."""
        return all(name in chosen and chosen[name] in values for name, values in self.when)

    def words(self, value: Value) -> list[str]:
        """What it adds to the script's command line."""
        if self.template is None:
            return []
        return [word.replace("{}", str(value)) for word in shlex.split(self.template)]


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters, those that others depend on first."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise SpaceError("the space is empty: name something to tune, as in --lr 1e-4..1")
        names = [p.name for p in self.parameters]
        doubled = [n for k, n in enumerate(names) if n in names[:k]]
        if doubled:
            raise SpaceError(f"{doubled[0]} is named twice")
        for k, parameter in enumerate(self.parameters):
            _check(parameter, self.parameters[:k])

    @staticmethod
    def of(knobs: Mapping[str, str], arguments: Mapping[str, str] | None = None) -> Space:
        """A space from domains as text.

        Args:
            knobs: by name, out of `KNOBS`.
            arguments: of the script: `hidden` becomes `--hidden 64`, `-n` becomes `-n 64`.

        Raises:
            SpaceError: naming the parameter.
        """
        made = [_parameter(name, partial(Domain.parse, text)) for name, text in knobs.items()]
        for name, text in (arguments or {}).items():
            made.append(_parameter(name, partial(Domain.parse, text), template=_option(name)))
        return Space(tuple(made))

    @staticmethod
    def read(text: str) -> Space:
        """A space out of a TOML file's text.

        Raises:
            SpaceError: saying what is wrong with it.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SpaceError(f"no TOML: {error}") from None
        unknown = sorted(set(data) - {"tune", "args"})
        if unknown:
            raise SpaceError(f"has a table [{unknown[0]}]; there are [tune] for what gradwise sets and [args]")
        made = [_from_toml(name, value, None) for name, value in _table(data, "tune")]
        made += [_from_toml(name, value, _option(name)) for name, value in _table(data, "args")]
        return Space(tuple(_in_order(made)))

    def joined(self, other: Space) -> Space:
        """This space and another; where both have a parameter, the other's counts."""
        theirs = {p.name: p for p in other.parameters}
        mine = [theirs.pop(p.name, p) for p in self.parameters]
        return Space(tuple(_in_order([*mine, *theirs.values()])))

    def active(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """A configuration, each parameter that counts chosen by a function."""
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.counts(chosen):
                chosen[parameter.name] = choose(parameter)
        return chosen

    def check(self, configuration: Configuration) -> None:
        """Refuse a configuration that isn't in the space.

        Raises:
            SpaceError: saying why.
        """
        known = {p.name: p for p in self.parameters}
        for name, value in configuration.items():
            if name not in known:
                raise SpaceError(f"{name} is not in the space, which has {', '.join(known)}")
            if value not in known[name].domain:
                raise SpaceError(f"{name} = {value} is not among {known[name].domain.text()}")
        wanted = self.active(lambda p: configuration.get(p.name, ""))
        if set(wanted) != set(configuration):
            odd = min(set(wanted) ^ set(configuration))
            raise SpaceError(f"{odd} {'is missing' if odd in wanted else 'does not count under its condition'}")

    def grid(self, points: int) -> list[dict[str, Value]]:
        """Every combination, with so many points on each range."""

        def rest(k: int, chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
            if k == len(self.parameters):
                yield chosen
                return
            parameter = self.parameters[k]
            if not parameter.counts(chosen):
                yield from rest(k + 1, chosen)
                return
            for value in parameter.domain.grid(points):
                yield from rest(k + 1, {**chosen, parameter.name: value})

        return list(rest(0, {}))

    @property
    def single(self) -> bool:
        """Whether there is just one configuration."""
        return all(p.domain.single for p in self.parameters)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """What a configuration adds to the script's command line."""
        return tuple(w for p in self.parameters if p.name in configuration for w in p.words(configuration[p.name]))

    def knobs(self, configuration: Configuration) -> dict[str, Value]:
        """What of a configuration gradwise sets from outside."""
        return {
            p.name: configuration[p.name] for p in self.parameters if p.template is None and p.name in configuration
        }

    def to_json(self) -> list[dict[str, Any]]:
        """The parameters as objects."""
        return [
            {"name": p.name, "values": p.domain.to_json()}
            | ({"when": {name: list(values) for name, values in p.when}} if p.when else {})
            | ({"as": p.template} if p.template is not None else {})
            for p in self.parameters
        ]

    @staticmethod
    def from_json(data: Sequence[Mapping[str, Any]]) -> Space:
        """The space that `to_json` wrote.

        Raises:
            SpaceError: it is none.
        """
        return Space(
            tuple(
                Parameter(p["name"], Domain.from_json(p["values"]), _when(p["name"], p.get("when", {})), p.get("as"))
                for p in data
            )
        )


def _parameter(name: str, domain: Callable[[], Domain], **fields: Any) -> Parameter:
    try:
        return Parameter(name, domain(), **fields)
    except SpaceError as error:
        raise SpaceError(f"{name} {error}") from None


def _option(name: str) -> str:
    return f"{name if name.startswith('-') else '--' + name} {{}}"


def _check(parameter: Parameter, before: Sequence[Parameter]) -> None:
    known = {p.name: p for p in before}
    for name, values in parameter.when:
        if name not in known:
            raise SpaceError(f"{parameter.name} depends on {name}, which is not in the space")
        for value in values:
            if value not in known[name].domain:
                raise SpaceError(f"{parameter.name} depends on {name} = {value}, which {name} never is")
    if parameter.template is not None:
        if "{}" not in parameter.template:
            raise SpaceError(
                f"{parameter.name} is handed over as {parameter.template!r}, which has no {{}} for a value"
            )
        return
    knob = KNOBS.get(parameter.name)
    if knob is None:
        raise SpaceError(
            f"there is nothing {parameter.name!r} to set from outside; there are {', '.join(KNOBS)} "
            f"(an argument of the script goes under --arg or [args])"
        )
    for piece in parameter.domain.pieces:
        wrong = _wrong(knob, piece)
        if wrong:
            raise SpaceError(f"{parameter.name} must be {wrong}, not {parameter.domain.text()}")


def _wrong(knob: Knob, piece: Value | Range) -> str:
    """What a value should have been; "" for a good one."""
    if piece == OWN:
        return ""
    if knob.choices:
        return "" if piece in knob.choices else f"out of {', '.join(knob.choices)}, {OWN}"
    ends = (piece.low, piece.high) if isinstance(piece, Range) else (piece,)
    if any(isinstance(e, bool | str) for e in ends):
        return f"numbers (or {OWN})"
    numbers = [float(e) for e in ends]
    if knob.whole and not (isinstance(piece, int) or (isinstance(piece, Range) and piece.whole)):
        return "whole numbers"
    if any(n < knob.low or (knob.open and n == knob.low) for n in numbers):
        return f"above {knob.low:g}" if knob.open else f"at least {knob.low:g}"
    return f"below {knob.high:g}" if any(n >= knob.high for n in numbers) else ""


def _table(data: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SpaceError(f"[{name}] must be a table")
    return list(table.items())


def _from_toml(name: str, value: Any, template: str | None) -> Parameter:
    """A parameter as TOML has it: text as on the command line, a value, a list, or a table with more."""
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    if isinstance(value, dict) and "low" not in value:
        unknown = sorted(set(value) - {"values", "when", "as"})
        if unknown:
            raise SpaceError(f"{name} has {unknown[0]!r}; a parameter has values, when and as")
        if "as" in value and (template is None or not isinstance(value["as"], str)):
            raise SpaceError(f"{name} has 'as', which is the text with which an argument of the script is handed over")
        when, template = _when(name, value.get("when", {})), value.get("as", template)
        value = value.get("values")
    if value is None:
        raise SpaceError(f"{name} has no values")

    def domain() -> Domain:
        if isinstance(value, str):
            return Domain.parse(value)
        return Domain.from_json(value if isinstance(value, list) else [value])

    return _parameter(name, domain, when=when, template=template)


def _when(name: str, conditions: Any) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if not isinstance(conditions, Mapping):
        raise SpaceError(f"{name} has a condition that is no table, as in when = {{ rule = 'sgd' }}")
    return tuple((k, tuple(v) if isinstance(v, list) else (v,)) for k, v in conditions.items())


def _in_order(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Those that others depend on first, otherwise as they came."""
    waiting, done = list(parameters), list[Parameter]()
    names = {p.name for p in parameters}
    while waiting:
        ready = next(
            (p for p in waiting if all(n not in names or any(d.name == n for d in done) for n, _ in p.when)), None
        )
        if ready is None:
            raise SpaceError(f"{waiting[0].name} depends on itself")
        waiting.remove(ready)
        done.append(ready)
    return done
