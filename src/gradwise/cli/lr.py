"""`gradwise lr`: which learning rate a script should have, found by trying."""

from __future__ import annotations

import io
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradwise.cli.common import (
    ModuleOption,
    RestArgument,
    ScriptArgument,
    StoreOption,
    pattern,
    refuse,
    say,
    speaking_plainly,
    target_of,
    writable,
)

if TYPE_CHECKING:
    from gradwise.recording.keeper import Keeper
    from gradwise.report.rates import Answer
    from gradwise.search.rates import Budget
    from gradwise.trials.process import Target
    from gradwise.trials.sandbox import Workspace


@dataclass(frozen=True, slots=True)
class _Options:
    """What the user asked for; `per` 0 is an epoch."""

    which: int | None
    rules: tuple[str | None, ...]
    budget: int
    horizon: int | None
    linear: bool
    per: int
    metric: re.Pattern[str] | None
    maximize: bool
    max_time: float | None
    allow_side_effects: bool
    quiet: bool
    store: str | None


def lr(
    script: ScriptArgument,
    args: RestArgument = None,
    module: ModuleOption = False,
    which: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Only the optimizer made as the N-th, from 0.", show_default="each by itself"
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Put these rules in place of the script's own, as in adam,sgd."),
    ] = None,
    budget: Annotated[
        int, typer.Option(metavar="STEPS", min=60, help="Optimizer steps of all trials, for each optimizer and rule.")
    ] = 1200,
    horizon: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            min=1,
            help="The length of the training that the rate is for.",
            show_default="the script's own where a trial comes to its end, else a trial's",
        ),
    ] = None,
    linear: Annotated[bool, typer.Option("--linear", help="Raise the rate linearly, not exponentially.")] = False,
    per: Annotated[
        str, typer.Option(metavar="STEPS|epoch", help="Hold the rate for so many steps, or for an epoch.")
    ] = "1",
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Go by the matches in the script's output, not by its loss (lower is better)."
        ),
    ] = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="A higher --metric is better.")] = False,
    max_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.0, help="Time for all trials together.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answer as one HTML file with interactive figures.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the answer as JSON.")] = None,
    allow_side_effects: Annotated[
        bool, typer.Option("--allow-side-effects", help="Run trials even where they can't be kept from leaving traces.")
    ] = False,
    store: StoreOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no figure and no progress, only the rates.")
    ] = False,
) -> None:
    """Find the learning rate for SCRIPT.

    The script runs in trials only, as it is, in copies of its folder: first with a rate that rises from far too low to
    far too high, then at a few constant rates with the same batches. Its schedulers and warm-up don't count there.
    Where it evaluates a validation loss, that decides, else its training loss.
    """
    target = target_of(script, args, module)
    writable(html, "--html")
    writable(json, "--json")
    if maximize and metric is None:
        raise typer.BadParameter("it is about --metric, which is not given", param_hint="--maximize")
    options = _Options(
        which, _rules(rule), budget, horizon, linear, _per(per), pattern(metric, "--metric"), maximize, max_time,
        allow_side_effects, quiet, store,
    )  # fmt: skip
    with speaking_plainly():
        answers = _Search(target, options).make()
    _report(answers, (script, *(args or ())), html, json, quiet)
    raise SystemExit(0 if any(a.found.rate is not None for a in answers) else 1)


def _rules(names: str | None) -> tuple[str | None, ...]:
    from gradwise.interventions import RULES

    if names is None:
        return (None,)
    wanted = tuple(name.strip() for name in names.split(","))
    for name in wanted:
        if name not in RULES:
            refuse(f"--rule: there is no rule {name!r}; there are {', '.join(RULES)}")
    return wanted


def _per(text: str) -> int:
    if text == "epoch":
        return 0
    if not text.isdigit() or int(text) < 1:
        refuse(f"--per is a number of steps or the word epoch, not {text!r}")
    return int(text)


class _Search:
    """The range tests of one command."""

    def __init__(self, target: Target, options: _Options) -> None:
        self.target, self.options = target, options

    def make(self) -> list[Answer]:
        """A range test for each optimizer and rule."""
        from gradwise.recording.keeper import Keeper
        from gradwise.recording.recording import RunInfo
        from gradwise.trials.process import Interrupted
        from gradwise.trials.sandbox import Workspace

        target, options = self.target, self.options
        each = " for each optimizer" * (options.which is None) + " and each rule" * (len(options.rules) > 1)
        if not options.quiet:
            say(
                f"at most {options.budget:,} optimizer steps in trials of {target.script}{each}, about "
                f"{self._budget().ramp:,} of them for the ramp"
            )
        try:
            workspace = Workspace.before(target.cwd, None if target.module else target.script, target.argv)
        except OSError as error:
            refuse(f"the script's folder could not be surveyed: {error}")
        answers: list[Answer] = []
        with Keeper(options.store) as keeper:
            # The trials belong to a run that has nothing of its own: the script itself is not run here.
            run = RunInfo(
                "", target.script, target.argv, target.module, target.cwd, time.time(), facts={"command": "lr"}
            )
            run = replace(run, id=keeper.begin(run))
            ended, code = "finished", 0
            try:
                workspace.after()
                self._all(answers, workspace, keeper, run.id)
            except Interrupted as interrupted:
                say(f"ended by {interrupted}")
                ended = "stopped"
            except BaseException:
                ended, code = "failed", 1
                raise
            finally:
                workspace.close()
                keeper.finish(replace(run, ended=time.time(), status=ended, exit=code))
            if keeper.problem:
                say(f"the trials were not kept: {keeper.problem}")
        return answers

    def _budget(self, per: int = 1) -> Budget:
        from gradwise.search.rates import Budget

        options = self.options
        return Budget(options.budget, options.horizon, linear=options.linear, per=per)

    def _all(self, answers: list[Answer], workspace: Workspace, keeper: Keeper, run: str) -> None:
        from gradwise.report.live import LiveLine
        from gradwise.report.rates import Answer
        from gradwise.search.rates import HaltedError, range_test
        from gradwise.search.scripts import ScriptTrack
        from gradwise.trials.runner import Runner

        options, began, now = self.options, time.monotonic(), ""
        with LiveLine(io.StringIO() if options.quiet else None) as line:

            def progress(what: str) -> None:
                nonlocal now
                now = what

            def tick() -> None:
                line.update(f"trying {now} · {time.monotonic() - began:.0f} s")

            runner = Runner(self.target, workspace, keeper, run, not options.allow_side_effects, tick)
            waiting = [options.which or 0]
            done: set[int] = set()
            while waiting:
                index = waiting.pop(0)
                done.add(index)
                for rule in options.rules:
                    track = ScriptTrack(
                        runner, index, rule, options.metric, options.maximize, options.max_time, progress
                    )
                    try:
                        per = options.per or track.epoch(self._budget().ramp)
                    except HaltedError as halted:
                        refuse(str(halted))
                    found = range_test(track, self._budget(per))
                    known = {o.index: o.kind for o in track.optimizers}
                    answers.append(Answer(index, rule or known.get(index, ""), found, track.by_hand))
                    if options.which is None:
                        waiting += [i for i in known if i not in done and i not in waiting]


def _report(answers: list[Answer], command: tuple[str, ...], html: Path | None, json: Path | None, quiet: bool) -> None:
    from gradwise.report.rates import render_rates, write_rates_html, write_rates_json

    try:
        if json:
            write_rates_json(json, command, answers)
        if html:
            write_rates_html(html, command, answers)
    except OSError as error:
        say(f"cannot write {error.filename}: {error.strerror}")
    with suppress(BrokenPipeError):
        if quiet:
            for answer in answers:
                print(answer.found.rate if answer.found.rate is not None else "none", file=sys.stdout)
        else:
            render_rates(answers)
