"""The format of the JSON report: `schema.json` says it once, this module reads, checks and documents from there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping, "array": (list, tuple), "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    loaded: dict[str, Any] = json.loads(files("gradwise.report").joinpath("schema.json").read_text("utf-8"))
    return loaded


def check(data: object, rule: Mapping[str, Any] | None = None, at: str = "") -> None:
    """Check a report against the schema (the keywords that it uses, no more of JSON Schema).

    Args:
        data: a report as read from JSON.
        rule: the part of the schema to hold it against; the whole by default.
        at: the path of `data` in the report.

    Raises:
        ValueError: naming the first field that is missing or wrong, what it holds and what it should.

    >>> check({"schema": 2})
    Traceback (most recent call last):
    ValueError: in the report, schema must be 1, got 2
    """
    rule = _resolve(schema() if rule is None else rule)
    kinds = _kinds(rule)
    here = at or "the whole"
    # The version first: all else may mean something different in another one.
    if isinstance(data, Mapping) and "schema" in rule.get("properties", {}) and "schema" in data:
        check(data["schema"], rule["properties"]["schema"], "schema")
    if kinds and not any(_is(data, kind) for kind in kinds):
        raise _wrong(here, f"be {_either(kinds)}", data)
    if "const" in rule and data != rule["const"]:
        raise _wrong(here, f"be {rule['const']}", data)
    if "enum" in rule and data not in rule["enum"]:
        raise _wrong(here, f"be one of {', '.join(rule['enum'])}", data)
    if isinstance(data, int | float) and not isinstance(data, bool):
        _check_range(data, rule, here)
    if isinstance(data, Mapping):
        missing = [k for k in rule.get("required", ()) if k not in data]
        if missing:
            raise ValueError(f"in the report, {at + '.' if at else ''}{missing[0]} is missing")
        for key, part in rule.get("properties", {}).items():
            if key in data:
                check(data[key], part, f"{at}.{key}" if at else key)
    elif isinstance(data, Sequence) and not isinstance(data, str) and "items" in rule:
        for k, item in enumerate(data):
            check(item, rule["items"], f"{at}[{k}]")


def fields(rule: Mapping[str, Any] | None = None, at: str = "") -> Iterator[tuple[str, str, str]]:
    """Every field of a report: its path, its type, what it means."""
    rule = _resolve(schema() if rule is None else rule)
    for key, value in rule.get("properties", {}).items():
        path = f"{at}.{key}" if at else key
        part = _resolve(value)
        items = _resolve(part.get("items", {}))
        kind = f"array of {_either(_kinds(items))}" if items else _either(_kinds(part))
        yield path, kind, part["description"]
        yield from fields(part, path)
        if items:
            yield from fields(items, path + "[]")


def _resolve(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = rule.get("$ref")
    return rule if reference is None else schema()["$defs"][reference.rpartition("/")[2]]


def _kinds(rule: Mapping[str, Any]) -> list[str]:
    kinds = rule.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _either(kinds: Sequence[str]) -> str:
    return " or ".join(kinds)


def _is(data: object, kind: str) -> bool:
    if isinstance(data, bool) and kind in ("integer", "number"):
        return False
    return isinstance(data, _TYPES[kind])


def _check_range(data: float, rule: Mapping[str, Any], here: str) -> None:
    if "minimum" in rule and not data >= rule["minimum"]:
        raise _wrong(here, f"be at least {rule['minimum']}", data)
    if "maximum" in rule and not data <= rule["maximum"]:
        raise _wrong(here, f"be at most {rule['maximum']}", data)
    if "exclusiveMinimum" in rule and not data > rule["exclusiveMinimum"]:
        raise _wrong(here, f"be above {rule['exclusiveMinimum']}", data)


def _wrong(here: str, must: str, data: object) -> ValueError:
    shown = json.dumps(data, default=str)
    return ValueError(f"in the report, {here} must {must}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
