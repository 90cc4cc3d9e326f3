"""`gradwise doctor`: watch a script, say what is wrong with its training, try the fix."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradwise.cli.common import (
    ModuleOption,
    RestArgument,
    ScriptArgument,
    StoreOption,
    leave,
    live_ticker,
    pattern,
    say,
    speaking_plainly,
    target_of,
    writable,
)

if TYPE_CHECKING:
    from gradwise.diagnosis.findings import Diagnosis
    from gradwise.recording.keeper import Keeper
    from gradwise.recording.recording import Recording
    from gradwise.trials.process import Target
    from gradwise.trials.runner import Watched
    from gradwise.trials.sandbox import Workspace

# Seconds of trials by default: so many times the run's own time, unless that is more than people wait for.
_TIMES = 12
_LONG = 600.0
_STRETCH = 2.0
_SEVERITIES = {"error": ("error",), "warning": ("error", "warning")}


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; `budget` None is the default one."""

    repair: bool
    budget: float | None
    seeds: int
    metric: re.Pattern[str] | None
    maximize: bool
    target: float | None
    max_steps: int | None
    max_time: float | None
    html: Path | None
    json: Path | None
    store: str | None
    fail_on: str | None
    allow_side_effects: bool
    seed: int | None
    quiet: bool


def doctor(
    script: ScriptArgument,
    args: RestArgument = None,
    module: ModuleOption = False,
    repair: Annotated[bool, typer.Option("--repair/--no-repair", help="Whether to try the fixes.")] = True,
    repair_budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="Time for trying.",
            show_default="12 × the run, but no more than 600 s or 1 × the run",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=3, help="Paired runs that verify a fix.")] = 3,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Judge fixes by the last match in the script's output, not by its loss (lower is better).",
        ),
    ] = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="A higher --metric is better.")] = False,
    target: Annotated[float | None, typer.Option(metavar="LOSS", help="The loss that training is to reach.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End the script cleanly after N optimizer steps.")
    ] = None,
    max_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.0, help="End the script cleanly after this time.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML file with interactive figures.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    store: StoreOption = None,
    fail_on: Annotated[
        Literal["error", "warning"] | None,
        typer.Option(help="End with status 1 on such a finding, where the script's own status is 0."),
    ] = None,
    allow_side_effects: Annotated[
        bool, typer.Option("--allow-side-effects", help="Try fixes even where runs can't be kept from leaving traces.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Run with other luck: add N to every seed the script sets, or set one.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no report and no progress.")] = False,
) -> None:
    """Run SCRIPT, say what is wrong with its training and where, and try the fix.

    The script runs as it would under python: its output, exit status and files are its own. gradwise speaks on standard
    error, after it. All that follows SCRIPT (or the name of the module, with -m) is the script's.
    """
    wanted = target_of(script, args, module)
    writable(html, "--html")
    writable(json, "--json")
    if maximize and metric is None:
        raise typer.BadParameter("it is about --metric, which is not given", param_hint="--maximize")
    options = Options(
        repair, repair_budget, seeds, pattern(metric, "--metric"), maximize, target, max_steps, max_time, html, json,
        store, fail_on, allow_side_effects, seed, quiet,
    )  # fmt: skip
    _Visit(wanted, options).make()


class _Visit:
    """One doctor's visit. After the script has run, nothing that goes wrong here changes the exit status."""

    def __init__(self, target: Target, options: Options) -> None:
        from gradwise.recording.keeper import Keeper

        self.target, self.options = target, options
        self.keeper: Keeper = Keeper(options.store)
        self.notes: list[str] = []

    def make(self) -> None:
        """From the script's start to our end, with the script's exit status."""
        workspace = self._surroundings()
        try:
            watched = self._watch(workspace)
            status = watched.ended.exit
            with suppress(KeyboardInterrupt), speaking_plainly(end=False):
                status = self._judge(watched, workspace)
        finally:
            if workspace is not None:
                workspace.close()
            self.keeper.close()
        leave(status)

    def _surroundings(self) -> Workspace | None:
        """What trials need to know of how things are before the script runs."""
        if not self.options.repair:
            return None
        from gradwise.trials.sandbox import Workspace

        target = self.target
        try:
            return Workspace.before(target.cwd, None if target.module else target.script, target.argv)
        except Exception as error:
            self.notes.append(f"No fix was tried: the script's folder could not be surveyed ({error}).")
            return None

    def _watch(self, workspace: Workspace | None) -> Watched:
        from gradwise.report.live import LiveLine
        from gradwise.trials import runner
        from gradwise.trials.process import NotStarted

        options = self.options
        try:
            with LiveLine(io.StringIO() if options.quiet else None) as line:
                return runner.watch(
                    self.target, self.keeper, workspace, None, options.max_steps, options.max_time,
                    live_ticker(line, time.monotonic()), options.seed,
                )  # fmt: skip
        except NotStarted as error:
            say(f"{error}, so the script runs without being watched")
            with suppress(OSError):
                os.chdir(self.target.cwd)
            os.execv(sys.executable, self.target.command())

    def _judge(self, watched: Watched, workspace: Workspace | None) -> int:
        """Diagnose, repair, report; the exit status."""
        from gradwise.diagnosis import diagnose
        from gradwise.search.examine import calls_for

        recording, options = watched.recording, self.options
        if workspace is not None:
            watched.settle(workspace)
        diagnosis = diagnose(recording, options.target)
        trials: Sequence[Recording] = ()
        if workspace is not None and (_curable(diagnosis) or calls_for(diagnosis, recording)):
            diagnosis, trials = self._repair(diagnosis, watched, workspace)
        from gradwise.report.diff import with_diffs

        self.notes += _hindrances(watched, self.keeper)
        diagnosis = replace(with_diffs(diagnosis, recording), notes=(*diagnosis.notes, *self.notes))
        self._report(diagnosis, recording, trials)
        matched = any(f.severity in _SEVERITIES.get(options.fail_on or "", ()) for f in diagnosis.findings)
        return 1 if matched and not watched.ended.exit else watched.ended.exit

    def _repair(
        self, diagnosis: Diagnosis, watched: Watched, workspace: Workspace
    ) -> tuple[Diagnosis, Sequence[Recording]]:
        from gradwise.report.live import LiveLine, trying
        from gradwise.search import Measure, Plan, repair
        from gradwise.trials.runner import Runner

        options, ended = self.options, watched.ended
        isolation = workspace.isolation()
        reason = ""
        if ended.told:
            reason = "not tried: the run was interrupted"
        elif not isolation.possible and not options.allow_side_effects:
            reason = f"not tried: {isolation}; --allow-side-effects tries it all the same"
        if reason:
            return _untried(diagnosis, reason), ()
        began, now = time.monotonic(), ("", 1, 1)
        budget = options.budget
        if budget is None:
            budget = max(ended.seconds, min(_TIMES * ended.seconds, _LONG))
        with LiveLine(io.StringIO() if options.quiet else None) as line:

            def tick() -> None:
                line.update(trying(*now, time.monotonic() - began, budget))

            def progress(what: str, pair: int, pairs: int) -> None:
                nonlocal now
                now = (what, pair, pairs)
                tick()

            runner = Runner(
                self.target, workspace, self.keeper, watched.recording.run.id, not options.allow_side_effects, tick
            )
            # What the user allows is meant by the clock; our own limit may last where others want the processor too.
            stretch = 1.0 if options.budget is not None else _STRETCH
            plan = Plan(
                ended.seconds, budget, options.seeds, not options.seed and "torch" in watched.seeded,
                Measure(options.metric, options.maximize), progress, ended.processor, stretch,
            )  # fmt: skip
            repaired = repair(diagnosis, watched.recording, plan, runner)
        return repaired.diagnosis, repaired.trials

    def _report(self, diagnosis: Diagnosis, recording: Recording, trials: Sequence[Recording]) -> None:
        from gradwise.report import render, write_html, write_json

        options = self.options
        if recording.run.id:
            self.keeper.save_report(recording.run.id, diagnosis.to_json())
        json_path, html_path = (str(p) if p else None for p in (options.json, options.html))
        try:
            if json_path:
                write_json(json_path, diagnosis)
            if html_path:
                write_html(html_path, diagnosis, recording, trials, json_path=json_path)
        except OSError as error:
            say(f"cannot write the report {error.filename}: {error.strerror}")
        if options.quiet:
            return
        nothing = _nothing_seen(recording, diagnosis)
        with suppress(BrokenPipeError):
            if nothing:
                for words in (nothing, *self.notes):
                    say(words)
            else:
                render(diagnosis, recording, json_path=json_path, html_path=html_path)


def _curable(diagnosis: Diagnosis) -> bool:
    return any(finding.remedies for finding in (*diagnosis.findings, *diagnosis.suspicions))


def _untried(diagnosis: Diagnosis, reason: str) -> Diagnosis:
    """The same diagnosis, each remedy with the reason why it was not tried."""
    findings = (replace(f, remedies=tuple(replace(r, reason=reason) for r in f.remedies)) for f in diagnosis.findings)
    if not _curable(diagnosis):
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, reason.replace("not tried", "No replay was made", 1)))
    return diagnosis.with_findings(tuple(findings))


def _hindrances(watched: Watched, keeper: Keeper) -> list[str]:
    """What kept us from seeing or keeping all there was."""
    facts = watched.recording.run.facts
    found = []
    if watched.problem:
        found.append(f"The script was not watched to its end: {watched.problem}.")
    elif "torch" in facts and "reached_end" not in facts:
        found.append("The script ended without Python's own end (os._exit or a crash): its last 0.1 s may be missing.")
    if keeper.problem:
        found.append(f"The recording was not kept: {keeper.problem}.")
    return found


def _nothing_seen(recording: Recording, diagnosis: Diagnosis) -> str:
    """One sentence for a run in which there was no training at all; "" where there is something to report."""
    if recording.series or diagnosis.findings:
        return ""
    how = _ended(recording.run.exit)
    if "torch" not in recording.run.facts:
        return f"the script {how} without importing torch, so there was no training to watch"
    return f"the script {how} without taking an optimizer step, so there was no training to watch"


def _ended(status: int | None) -> str:
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"failed (exit status {status})" if status else "ended"
