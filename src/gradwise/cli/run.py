"""`gradwise run`: run a script at full length with a fix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradwise.cli.common import (
    ModuleOption,
    RestArgument,
    ScriptArgument,
    StoreOption,
    leave,
    refuse,
    say,
    target_of,
)

if TYPE_CHECKING:
    from gradwise.diagnosis.findings import Diagnosis, Remedy
    from gradwise.interventions import Intervention


def run(
    script: ScriptArgument,
    args: RestArgument = None,
    module: ModuleOption = False,
    apply: Annotated[
        str | None,
        typer.Option(
            metavar="REPORT[#K]",
            help="The JSON report of a doctor's visit, and which of its remedies, counted from 1 "
            "(by default the best that was verified).",
        ),
    ] = None,
    intervention: Annotated[
        str | None, typer.Option(metavar="JSON", help="What to change, as in '{\"lr_scale\": 0.1}'.")
    ] = None,
    store: StoreOption = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Run with other luck: add N to every seed the script sets, or set one.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not say what is applied.")] = False,
) -> None:
    """Run SCRIPT at full length with a fix.

    Its output and exit status are its own; the run is recorded, so that `gradwise report last` can show it.
    """
    target = target_of(script, args, module)
    if (apply is None) == (intervention is None):
        refuse("say what to apply: either --apply REPORT[#K] or --intervention JSON")
    if apply is not None:
        change, words = _from_report(apply, script)
    else:
        assert intervention is not None
        change = _from_json(intervention)
        words = change.describe()

    from gradwise.recording.keeper import Keeper
    from gradwise.trials import runner
    from gradwise.trials.process import NotStarted

    if not quiet:
        say(f"running {script} with {words}")
    with Keeper(store) as keeper:
        try:
            watched = runner.watch(target, keeper, intervention=change, seed=seed)
        except NotStarted as error:
            refuse(f"{error}, so nothing can be applied, and the script was not run")
    if watched.problem:
        say(f"the script was not watched to its end, and perhaps ran without the fix: {watched.problem}")
    for refused in watched.recording.happened("not-applied"):
        say(f"the script ran without the fix: {refused.data['reason']}")
    if keeper.problem:
        say(f"the recording was not kept: {keeper.problem}")
    leave(watched.ended.exit)


def _from_json(text: str) -> Intervention:
    """The intervention a user typed."""
    from gradwise.interventions import Intervention

    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"a JSON object is wanted, got {text[:60]}")
        change = Intervention.from_json(data)
    except (ValueError, TypeError) as error:
        refuse(f"--intervention can't be read: {error}")
    if not change:
        refuse("--intervention changes nothing: give it lr_scale, schedule or clip_norm")
    return change


def _from_report(reference: str, script: str) -> tuple[Intervention, str]:
    """The remedy that `report.json#k` means, and what to call it."""
    from gradwise.report import read_json

    path, number = _parted(reference)
    try:
        diagnosis = read_json(path)
    except FileNotFoundError:
        refuse(f"there is no report {path}: `gradwise doctor --json {path} {script}` makes one")
    except (OSError, ValueError) as error:
        refuse(f"the report can't be read: {error}")
    remedies = [remedy for finding in diagnosis.findings for remedy in finding.remedies]
    k = _chosen(path, number, remedies)
    if not _same_script(diagnosis, script):
        say(f"{path} is about {diagnosis.script or 'another process'}, not about {script}: its fix may not fit")
    remedy = remedies[k - 1]
    words = f"{remedy.intervention.describe()} ({path}, remedy {k} of {len(remedies)}, {remedy.status})"
    return remedy.intervention, words


def _parted(reference: str) -> tuple[str, int | None]:
    """A report's path and the number after "#".

    >>> _parted("report.json#2"), _parted("report.json")
    (('report.json', 2), ('report.json', None))
    """
    path, mark, number = reference.rpartition("#")
    if not mark or Path(reference).exists():
        return reference, None
    if not number.isdecimal() or not int(number):
        refuse(f"--apply {reference}: after # stands the number of a remedy, counted from 1")
    return path, int(number)


def _chosen(path: str, number: int | None, remedies: Sequence[Remedy]) -> int:
    """The number of the remedy to apply."""
    if not remedies:
        refuse(f"{path} holds no remedy: nothing to apply")
    if number is None:
        verified = [k for k, remedy in enumerate(remedies, 1) if remedy.status == "verified"]
        if not verified:
            listed = "; ".join(f"#{k} {r.intervention.describe()}, {r.status}" for k, r in enumerate(remedies, 1))
            refuse(f"no remedy in {path} is verified: choose one by its number ({listed})")
        return verified[0]
    if number > len(remedies):
        refuse(f"{path} has no remedy {number}: it holds {len(remedies)}")
    return number


def _same_script(diagnosis: Diagnosis, script: str) -> bool:
    return Path(diagnosis.script).name == Path(script).name
