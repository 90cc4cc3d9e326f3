"""`gradwise tune`: which settings a script should have, found by searching."""

from __future__ import annotations

import hashlib
import json as json_
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradwise.cli.common import (
    STUDIES,
    ModuleOption,
    RestArgument,
    ScriptArgument,
    pattern,
    refuse,
    say,
    speaking_plainly,
    study_url,
    target_of,
    writable,
)

if TYPE_CHECKING:
    from gradwise.report.tuning import LiveTable
    from gradwise.search.engines import Where
    from gradwise.search.facts import Facts
    from gradwise.search.jobs import Engine, Result
    from gradwise.search.methods import Method
    from gradwise.search.protocol import Found
    from gradwise.search.rows import Row
    from gradwise.search.scripted import Scripted, Task
    from gradwise.search.space import Space
    from gradwise.search.study import Study

_SET = "What gradwise sets"
_NONE_EARLIER = "no earlier study of this script has trials that lie in this space"
_CLUSTER = "On a Ray cluster"


def _knob(words: str) -> Any:
    return typer.Option(metavar="VALUES", help=words, rich_help_panel=_SET)


def tune(
    script: ScriptArgument,
    args: RestArgument = None,
    module: ModuleOption = False,
    lr: Annotated[
        str | None, _knob("Learning rate, as in 1e-4..1; its schedule stays unless --schedule is given.")
    ] = None,
    rule: Annotated[str | None, _knob("Update rule, as in sgd,adam,rmsprop.")] = None,
    schedule: Annotated[str | None, _knob("Shape of the rate over the run, as in own,constant,cosine,step.")] = None,
    momentum: Annotated[str | None, _knob("Momentum, or beta1 of Adam's kin, as in 0.5..0.99.")] = None,
    weight_decay: Annotated[str | None, _knob("Decoupled weight decay, as in 0,1e-4..1e-1.")] = None,
    clip: Annotated[str | None, _knob("Gradient norm to clip to, as in own,0.1..10.")] = None,
    accumulation: Annotated[str | None, _knob("Steps whose gradients become one step, as in 1,2,4.")] = None,
    activation: Annotated[str | None, _knob("Activation in hidden layers, as in own,relu,tanh.")] = None,
    dropout: Annotated[str | None, _knob("Dropout after hidden layers, as in 0.0..0.5.")] = None,
    init: Annotated[str | None, _knob("Initial weights, as in own,he,xavier.")] = None,
    steps: Annotated[str | None, _knob("Optimizer steps after which to end, as in 100..1000.")] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUES", help="An argument of the script, as in hidden=32,64 for --hidden 64."),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A space in TOML, with conditions; options add to it.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="guess, grid, random, quasi-random, tpe, gp, cma-es or nsga-ii.",
            show_default="tpe; guess where there is one configuration",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Trials in all.", show_default="30; all points of a grid"),
    ] = None,
    points: Annotated[int, typer.Option(metavar="N", min=2, help="Values on each range of a grid.")] = 5,
    pruning: Annotated[
        str, typer.Option(metavar="NAME", help="End trials that fall behind: none, median, halving or hyperband.")
    ] = "none",
    seeds: Annotated[
        int, typer.Option(metavar="N", min=0, help="Paired runs that confirm the winner: 3 or more; 0 for none.")
    ] = 3,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the method's own random numbers.")] = 0,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Select on the last match in the script's output, not on its validation loss."
        ),
    ] = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="A higher --metric is better.")] = False,
    training_loss: Annotated[
        bool, typer.Option("--training-loss", help="Select on the training loss, where there is no other.")
    ] = False,
    test_metric: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="The test score in the output: read once, for the winner retrained."),
    ] = None,
    which: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Set only the optimizer made as the N-th.", show_default="all"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            help="Trials at a time.",
            show_default="1; as many as a cluster has room for",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=1.0, help="Time for a trial.", show_default="10 × the script's own, + 60 s"
        ),
    ] = None,
    max_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.0, help="Begin no trial after this time.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the study is kept.", show_default=".gradwise/tune.db"),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which study.", show_default="by script, arguments and space")
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local, or ray for a Ray cluster.", rich_help_panel=_CLUSTER)
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster's address.",
            rich_help_panel=_CLUSTER,
            show_default="RAY_ADDRESS, or the cluster on this machine",
        ),
    ] = None,
    cpus: Annotated[int, typer.Option(metavar="N", min=1, help="Cores for a trial.", rich_help_panel=_CLUSTER)] = 1,
    gpus: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0.0,
            help="GPUs for a trial, as in 1 or 0.5.",
            rich_help_panel=_CLUSTER,
            show_default="1 where the cluster has any",
        ),
    ] = None,
    upload: Annotated[
        bool,
        typer.Option(
            "--upload",
            help="Copy this folder to the cluster's machines, which don't see it.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    warm_start: Annotated[
        int,
        typer.Option(
            "--warm-start",
            metavar="N",
            min=0,
            help="Try first the best N configurations of earlier studies of this script, where they lie in the space.",
        ),
    ] = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with figures, one offline HTML file.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what was found as JSON.")] = None,
    allow_side_effects: Annotated[
        bool, typer.Option("--allow-side-effects", help="Run trials even where they can't be kept from leaving traces.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress; print only the winner's command.")
    ] = False,
) -> None:
    """Search settings for SCRIPT: learning rate, rule, schedule, its own arguments.

    The script runs in trials only, as it is, in copies of its folder. Selection goes by its validation loss; the winner
    is run again with other seeds against the script's own settings. The same command goes on where it was ended.
    """
    from gradwise.search.cluster import Share
    from gradwise.search.domains import SpaceError
    from gradwise.search.engines import Where
    from gradwise.search.jobs import EngineError
    from gradwise.search.scripted import Task

    target = target_of(script, args, module)
    writable(json, "--json")
    writable(html, "--html")
    if maximize and metric is None:
        raise typer.BadParameter("it is about --metric, which is not given", param_hint="--maximize")
    if metric is not None and training_loss:
        refuse("--metric and --training-loss: select on one of them")
    if metric is not None and metric == test_metric:
        refuse("--metric and --test-metric are the same: a score that is selected on is no test score")
    if seeds in (1, 2):
        refuse("--seeds: a comparison takes 3 pairs of runs at least (0 makes none)")
    knobs = {
        "lr": lr, "rule": rule, "schedule": schedule, "momentum": momentum, "weight_decay": weight_decay, "clip": clip,
        "accumulation": accumulation, "activation": activation, "dropout": dropout, "init": init, "steps": steps,
    }  # fmt: skip
    pattern(metric, "--metric")
    pattern(test_metric, "--test-metric")
    try:
        wanted = _space({name: text for name, text in knobs.items() if text is not None}, arg or [], space)
    except SpaceError as error:
        refuse(f"{error}")
    task = Task(
        target, wanted, metric or "", maximize, training_loss, test_metric or "", which, not allow_side_effects, timeout
    )  # fmt: skip
    try:
        where = Where(engine, jobs, address, Share(cpus, gpus), target.cwd if upload else None)
    except EngineError as error:
        refuse(f"--engine: {error}")
    how = _method(wanted, method, pruning, trials, points, seed, jobs or 1)
    if how.pruning != "none" and (metric is not None or training_loss):
        refuse("--pruning goes by the validation losses of a run under way: it can't be used with another measure")
    limits = _Limits(seeds, max_time, where, store, study, quiet, warm_start, html, json)
    with speaking_plainly():
        status = _Tuning(task, how, limits).make()
    raise SystemExit(status)


@dataclass(frozen=True, slots=True)
class _Limits:
    seeds: int
    max_time: float | None
    where: Where
    store: str | None
    study: str | None
    quiet: bool
    warm: int
    html: Path | None
    json: Path | None


def _space(knobs: dict[str, str], arguments: Sequence[str], file: Path | None) -> Space:
    from gradwise.search.domains import SpaceError
    from gradwise.search.space import Space

    named = {}
    for words in arguments:
        name, equals, values = words.partition("=")
        if not equals or not name.strip():
            raise SpaceError(f"--arg {words!r}: write NAME=VALUES, as in hidden=32,64")
        if name.strip() in named:
            raise SpaceError(f"--arg names {name.strip()} twice")
        named[name.strip()] = values
    if file is None:
        return Space.of(knobs, named)
    try:
        made = Space.read(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"--space {file} cannot be read: {error}") from None
    except SpaceError as error:
        raise SpaceError(f"--space {file}: {error}") from None
    return made.joined(Space.of(knobs, named)) if knobs or named else made


def _method(
    space: Space, name: str | None, pruning: str, trials: int | None, points: int, seed: int, jobs: int
) -> Method:
    from gradwise.search.methods import METHODS, PRUNING, Method

    name = name or ("guess" if space.single else "tpe")
    if name not in METHODS:
        refuse(f"--method: there is no method {name!r}; there are {', '.join(METHODS)}")
    if pruning not in PRUNING:
        refuse(f"--pruning: there is no {pruning!r}; there are {', '.join(PRUNING)}")
    if name == "guess" and not space.single:
        refuse("--method guess tries one configuration: give each parameter one value")
    count = trials or (len(space.grid(points)) if name == "grid" else 30)
    return Method(name, pruning, 1 if space.single else count, points, seed, jobs)


class _Tuning:
    """The search of one command."""

    def __init__(self, task: Task, method: Method, limits: _Limits) -> None:
        self.task, self.method, self.limits = task, method, limits
        self.question = {
            key: value
            for key, value in task.to_json().items()
            if key not in ("facts", "timeout", "guarded", "test", "cwd")
        }
        self.table: LiveTable | None = None
        self.name = limits.study or self._named()
        self.store = _url(limits.store)

    def make(self) -> int:
        """Search and report; the exit status."""
        from gradwise.search.domains import SpaceError
        from gradwise.search.jobs import EngineError
        from gradwise.search.scripted import Scripted, pinned
        from gradwise.search.storage import StudyError
        from gradwise.trials.process import Interrupted
        from gradwise.trials.sandbox import Workspace

        target = self.task.target
        script = None if target.module else target.script
        try:
            workspace = Workspace.before(target.cwd, script, target.argv, pinned(self.limits.where.jobs or 1, 0))
        except OSError as error:
            refuse(f"the script's folder could not be surveyed: {error}")
        with workspace:
            workspace.after()
            try:
                return self._search(Scripted(self.task, workspace))
            except SpaceError as error:
                refuse(f"{target.script} can't be tuned: {error}")
            except (StudyError, EngineError) as error:
                refuse(str(error))
            except (Interrupted, KeyboardInterrupt):
                say("ended before the script's own settings had been tried")
                return 130

    def _search(self, scripted: Scripted) -> int:
        from gradwise.search.facts import Facts
        from gradwise.search.jobs import Result
        from gradwise.search.pending import here
        from gradwise.search.study import Study, same_question

        limits = self.limits
        with closing(limits.where.made(self.task, scripted, self._tick)) as engine:
            study = Study(self.store, self.name, self.task.space, self.method, here(), self._say)
            try:
                same_question(study, self.question)
                kept = study.noted("reference")
                if kept is None:
                    if not limits.quiet:
                        say(f"running {self.task.target.script} as it is, to compare with")
                    reference, facts = self._reference(engine, scripted)
                    study.note("reference", {"result": reference.to_json(), "facts": facts.to_json()})
                else:
                    reference, facts = Result.from_json(kept["result"]), Facts.from_json(kept["facts"])
                scripted.task = self.task = replace(self.task, facts=facts)
                method = self.method = replace(self.method, evaluations=max(1, facts.evaluations), slots=engine.slots)
                if method.pruning != "none" and facts.evaluations < 2:
                    refuse("--pruning: the script takes its validation loss only once, so there is nothing to go by")
                study.use(method)
                self._warm(study)
                scripted.on_tick = self._tick
                engine.use(self.task)
                found, interrupted = self._go_on(study, reference, engine)
            finally:
                study.close()
        status = self._report(found, scripted)
        return 130 if interrupted else status

    def _warm(self, study: Study) -> None:
        """Begin with what did best in earlier studies."""
        from gradwise.search.earlier import earlier

        if not self.limits.warm or study.noted("warm start") is not None:
            return
        guesses = earlier(self.store, self.name, self.question, self.task.space)[: self.limits.warm]
        study.guess([g.config for g in guesses])
        study.note("warm start", [g.to_json() for g in guesses])
        if not self.limits.quiet:
            whence = ", ".join(f"{g.study} trial {g.number}" for g in guesses)
            self._say(f"first come {len(guesses)} of earlier studies: {whence}" if guesses else _NONE_EARLIER)

    def _reference(self, engine: Engine, scripted: Scripted) -> tuple[Result, Facts]:
        """The script as it is: on this machine, or where its trials will be."""
        from gradwise.search.domains import SpaceError
        from gradwise.search.engines import one
        from gradwise.search.facts import Facts
        from gradwise.search.jobs import Job

        if self.limits.where.engine == "local":
            return scripted.reference()
        result = one(engine, Job("reference", reference=True))
        if result.facts is None:
            raise SpaceError(result.problem)
        return replace(result, facts=None), Facts.from_json(result.facts)

    def _go_on(self, study: Study, reference: Result, engine: Engine) -> tuple[Found, bool]:
        from gradwise.report.tuning import LiveTable
        from gradwise.search.protocol import Found, Plan, tune
        from gradwise.trials.process import Interrupted

        limits, task = self.limits, self.task
        before = sum(row.ended for row in study.rows())
        if not limits.quiet:
            more = f", {before} of them made before" if before else ""
            say(f"study {self.name}: {self.method.trials} trials by {self.method.name}{more}")
        plan = Plan(self.method.trials, limits.max_time, limits.seeds, bool(task.test))
        self.table = table = LiveTable(plan.trials, task.maximize, quiet=limits.quiet)
        try:
            with table:
                return tune(study, engine, plan, reference, _Display(table, task)), False
        except (Interrupted, KeyboardInterrupt):
            say(f"ended: {sum(r.ended for r in study.rows())} trials are kept; the same command goes on from here")
            return Found(tuple(study.rows()), study.best(), reference, ended="it was interrupted"), True

    def _tick(self) -> None:
        if self.table is not None:
            self.table.tick()

    def _say(self, words: str) -> None:
        if self.table is not None:
            self.table.say(f"gradwise: {words}")
        else:
            say(words)

    def _report(self, found: Found, scripted: Scripted) -> int:
        from gradwise.cli.tuned import with_diff, written
        from gradwise.report.tuning import render_tuning
        from gradwise.search.account import account

        report = account(found, self.task, self.method, self.name, _shown(self.store), scripted)
        with_diff(report, found, scripted)
        written(report, self.limits.html, self.limits.json)
        with suppress(BrokenPipeError):
            if not self.limits.quiet:
                render_tuning(report)
                if self.limits.html:
                    say(f"report: {self.limits.html}")
            elif report["winner"] is not None:
                print(report["winner"]["command"])
        return 0 if found.best is not None else 1

    def _named(self) -> str:
        """The same for the same question."""
        text = json_.dumps(self.question, sort_keys=True)
        return f"{Path(self.task.target.script).stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _Display:
    """Shows trials on a table (`gradwise.search.protocol.Display`)."""

    def __init__(self, table: LiveTable, task: Task) -> None:
        self.table, self.task = table, task

    def changed(self, rows: Sequence[Row], doing: str) -> None:
        """Show them."""
        from gradwise.search.account import trial

        self.table.update([trial(row, self.task) for row in rows if row.state != "lost"], doing)


def _url(store: str | None) -> str:
    """The study's database as a URL; its folder made where it is the default one."""
    url = study_url(store)
    if store is not None and "://" in store:
        return url
    path = Path(store or STUDIES).absolute()
    try:
        if store is None:
            from gradwise.recording.folder import make_folder

            make_folder(path.parent)
    except OSError as error:
        refuse(f"cannot keep the study in {path.parent} ({error.strerror}): name another place with --store")
    if not path.parent.is_dir():
        refuse(f"there is no folder {path.parent} for the study: make it, or name another place with --store")
    return url


def _shown(url: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)
