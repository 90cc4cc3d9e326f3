"""The patients: small training scripts with what is known of them.

`python clinic/patients.py` counts them; with `--split` it draws the halves of those that have none yet.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from gradwise.diagnosis.causes import LEADS_TO

CLINIC = Path(__file__).resolve().parent
SPLIT = CLINIC / "split.json"
HALVES = ("development", "test")

CAUSES = tuple(LEADS_TO)

_KEYS: dict[str, type] = {
    "why": str, "args": list, "metric": str, "maximize": bool, "proof": dict,
    "cause": str, "also": list, "reference": str, "fix": list, "kind": str,
}  # fmt: skip
_NEEDED = ("why", "metric", "maximize")
_OF_SICK, _OF_HEALTHY = ("cause", "also", "reference", "fix"), ("kind",)


class BadPatient(ValueError):
    """What is wrong with a patient's files; the message names the file."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A text in the script and what stands there once it is cured."""

    find: str
    replace: str


@dataclass(frozen=True, slots=True)
class Patient:
    """One script and what is known of it.

    Attributes:
        name: its path in the clinic without the ending, such as "sick/lr-too-high/digits_mlp".
        script: the script.
        why: what is wrong and why it hurts, or why it is healthy.
        metric: regular expression; the first group of its last match in the output is the score.
        maximize: whether a higher score is better.
        args: arguments to run it with.
        cause: the root cause, an id of the catalogue; None if it is healthy.
        also: other ids that are true of it as well.
        fixes: what cures it.
        kind: what a healthy one is an example of ("rnn", "gan", …).
        reference: where a bug like this was posted.
        proof: what `prove.py` found, as it stands in the file.
        split: the half it belongs to; None until `--split`.
    """

    name: str
    script: Path
    why: str
    metric: str
    maximize: bool
    args: tuple[str, ...] = ()
    cause: str | None = None
    also: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    kind: str | None = None
    reference: str | None = None
    proof: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None

    @property
    def notes(self) -> Path:
        """The file with what is known of it."""
        return self.script.with_suffix(".toml")

    @property
    def text(self) -> str:
        """The script as it is."""
        return self.script.read_text(encoding="utf-8")

    @property
    def fixed(self) -> str:
        """The script, cured."""
        text = self.text
        for fix in self.fixes:
            text = text.replace(fix.find, fix.replace)
        return text

    @property
    def digest(self) -> str:
        """Changes when what was proved of this patient has to be proved again."""
        parts = [self.text, self.fixed, self.metric, str(self.maximize), *self.args]
        return sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def proved(self) -> bool:
        """Whether it was proved to be what it is said to be, in its present wording."""
        return self.proof.get("digest") == self.digest and (not self.cause or self.proof.get("cured") is True)

    def score(self, output: str) -> float | None:
        """The metric, as the script printed it last; None if it didn't."""
        found = re.findall(self.metric, output)
        return float(found[-1] if isinstance(found[-1], str) else found[-1][0]) if found else None


def load(clinic: Path = CLINIC) -> list[Patient]:
    """All patients, in order of their names.

    Raises:
        BadPatient: if one's files are not as they should be.
    """
    split = read_split(clinic / SPLIT.name)
    scripts = sorted([*clinic.glob("sick/*/*.py"), *clinic.glob("healthy/*.py")])
    for notes in (*clinic.glob("sick/**/*.toml"), *clinic.glob("healthy/**/*.toml")):
        if notes.with_suffix(".py") not in scripts:
            raise BadPatient(f"{notes}: there is no script {notes.with_suffix('.py').name} beside it")
    return [_read(script, clinic, split) for script in scripts]


def _read(script: Path, clinic: Path, split: Mapping[str, str]) -> Patient:
    notes = script.with_suffix(".toml")
    try:
        known = tomllib.loads(notes.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadPatient(f"{script}: there is no {notes.name} beside it") from None
    except tomllib.TOMLDecodeError as error:
        raise BadPatient(f"{notes}: {error}") from None
    sick = script.parent.name if script.parent.parent == clinic / "sick" else None
    try:
        _check(known, sick)
        fixes = tuple(Fix(fix["find"], fix["replace"]) for fix in known.get("fix", ()))
        _check_fixes(fixes, script.read_text(encoding="utf-8"))
    except BadPatient as error:
        raise BadPatient(f"{notes}: {error}") from None
    name = script.relative_to(clinic).with_suffix("").as_posix()
    return Patient(
        name,
        script,
        known["why"],
        known["metric"],
        known["maximize"],
        args=tuple(known.get("args", ())),
        cause=sick,
        also=tuple(known.get("also", ())),
        fixes=fixes,
        kind=known.get("kind"),
        reference=known.get("reference"),
        proof=known.get("proof", {}),
        split=split.get(name),
    )


def _check(known: Mapping[str, Any], sick: str | None) -> None:
    allowed = {*_KEYS} - {*(_OF_SICK if sick is None else _OF_HEALTHY)}
    for key, value in known.items():
        if key not in allowed:
            raise BadPatient(f"`{key}` is not a key here; there are {', '.join(k for k in _KEYS if k in allowed)}")
        if not isinstance(value, _KEYS[key]):
            raise BadPatient(f"`{key}` is {value!r}, which should be a {_KEYS[key].__name__}")
    for key in (*_NEEDED, *(("kind",) if sick is None else ("cause", "fix"))):
        if known.get(key) in (None, "", []):
            raise BadPatient(f"`{key}` is missing")
    for key in ("args", "also"):
        if not all(isinstance(value, str) for value in known.get(key, ())):
            raise BadPatient(f"`{key}` holds something that isn't a string")
    if sick is not None and known["cause"] != sick:
        raise BadPatient(f'`cause` is "{known["cause"]}", but it lies in the folder of "{sick}"')
    for cause in (*known.get("also", ()), *((sick,) if sick is not None else ())):
        if cause not in CAUSES:
            raise BadPatient(f'"{cause}" is not in the catalogue')
    try:
        groups = re.compile(known["metric"]).groups
    except re.error as error:
        raise BadPatient(f"`metric` is not a regular expression: {error}") from None
    if not groups:
        raise BadPatient(f"`metric` has no group that holds the score: {known['metric']}")
    for fix in known.get("fix", ()):
        if (
            not isinstance(fix, dict)
            or {*fix} != {"find", "replace"}
            or not all(isinstance(v, str) for v in fix.values())
        ):
            raise BadPatient(f"a [[fix]] has two strings, `find` and `replace`; this one is {fix!r}")


def _check_fixes(fixes: Iterable[Fix], text: str) -> None:
    for fix in fixes:
        if (often := text.count(fix.find)) != 1:
            raise BadPatient(f"what a fix should find is in the script {often} times, not once: {fix.find!r}")
    for fix in fixes:
        if text.count(fix.find) != 1:
            raise BadPatient(f"another fix takes away or repeats what this one should find: {fix.find!r}")
        text = text.replace(fix.find, fix.replace)


def read_split(path: Path = SPLIT) -> dict[str, str]:
    """The half each patient belongs to."""
    halves = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {*halves} - {*HALVES}:
        raise BadPatient(f"{path}: the halves are {' and '.join(HALVES)}, not {', '.join(halves)}")
    split: dict[str, str] = {}
    for half, names in halves.items():
        for name in names:
            if split.setdefault(name, half) != half:
                raise BadPatient(f"{path}: {name} is in both halves")
    return split


def divide(patients: Sequence[Patient], seed: int = 5) -> dict[str, str]:
    """The halves of all patients: those that have one keep it, the others are drawn.

    Each cause, and each kind of healthy patient, ends up in both halves as evenly as can be; where one patient is over,
    it goes to the half that has fewer of its like (sick or healthy) so far.
    """
    split = {p.name: p.split for p in patients if p.split is not None}
    rng = random.Random(seed)
    strata: dict[str, list[Patient]] = {}
    for p in patients:
        strata.setdefault(p.cause or f"healthy {p.kind}", []).append(p)
    for stratum in rng.sample(sorted(strata), len(strata)):
        of_stratum = strata[stratum]
        like = {p.name for p in patients if (p.cause is None) == (of_stratum[0].cause is None)}
        new = [p.name for p in of_stratum if p.name not in split]
        for name in rng.sample(new, len(new)):
            here = Counter(split[p.name] for p in of_stratum if p.name in split)
            all_like = Counter(half for other, half in split.items() if other in like)
            fewest = min((here[half], all_like[half]) for half in HALVES)
            split[name] = rng.choice([half for half in HALVES if (here[half], all_like[half]) == fewest])
    return split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", action="store_true", help="draw the half of each patient that has none yet")
    args = parser.parse_args()
    patients = load()
    if args.split:
        split = read_split() | divide(patients)
        halves = {half: sorted(name for name in split if split[name] == half) for half in HALVES}
        SPLIT.write_text(json.dumps(halves, indent=1) + "\n", encoding="utf-8")
        patients = load()
    strata = Counter((p.cause or "healthy", p.split or "not split") for p in patients)
    proved = Counter(p.cause or "healthy" for p in patients if p.proved)
    for cause in ("healthy", *CAUSES):
        halves_of = ", ".join(f"{n} {half}" for (c, half), n in sorted(strata.items()) if c == cause)
        print(f"{cause:30s} {halves_of or 'none'}; {proved[cause]} proved")


if __name__ == "__main__":
    main()
