"""Runs of a script from beginning to end: the watched one, and trials of it in copies of its folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwise.interventions import Intervention
from gradwise.recording.builder import RecordingBuilder
from gradwise.recording.frames import Declaration, Frame, Message, Points
from gradwise.recording.keeper import Keeper
from gradwise.recording.recording import Recording, RunInfo
from gradwise.recording.signals import LOSS, LR, TIME, VALIDATION
from gradwise.trials import process
from gradwise.trials.environment import UNCOMPILED
from gradwise.trials.process import Ended, Target
from gradwise.trials.sandbox import Workspace

# So many losses in a row that are not finite, and nothing will come of this run.
_HOPELESS = 20
REFUSED = "not-applied"
"""The event in which a child says that an intervention can't be applied to the script."""
_SIDE_KINDS = ("effect", "seeded", "violation")


class Intake:
    """Takes the frames of one run as they come: into memory and into the store.

    What an isolated child tells beside the recording is kept apart: `side["effect"]`, `side["seeded"]` and
    `side["violation"]` are lists of notes. `now` has the latest value of some signals, for a line about progress.
    `evaluated` has the validation losses of each place in the script so far.
    No exception leaves it, since one would end the script: `failed` has the first.
    """

    def __init__(self, run: RunInfo, keeper: Keeper | None) -> None:
        self.run, self.keeper = run, keeper
        self.builder = RecordingBuilder(run)
        self.side: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in _SIDE_KINDS}
        self.now: dict[str, float] = {}
        self.step = 0
        self.not_finite = 0
        self.evaluated: dict[int, list[float]] = {}
        self.failed: Exception | None = None
        self._signals: dict[int, tuple[str, int]] = {}

    def __call__(self, frames: Sequence[Frame]) -> None:
        """Take what has come."""
        try:
            own = [f for f in frames if not (isinstance(f, Message) and f.kind in self.side)]
            for frame in frames:
                if isinstance(frame, Message) and frame.kind in self.side:
                    self.side[frame.kind].append(frame.data)
            self.builder.add(own)
            self._look(own)
            if self.keeper is not None:
                self.begin()
                self.keeper.append(self.run.id, own)
        except Exception as error:
            self.failed = self.failed or error

    def begin(self) -> None:
        """Give the run its id and its place in the store."""
        if self.keeper is not None and not self.run.id:
            self.run = replace(self.run, id=self.keeper.begin(self.run))

    def finish(self, ended: Ended) -> Recording:
        """The whole recording, its run as it ended."""
        known = self.builder.run
        run = replace(
            self.run, facts=known.facts, ended=time.time(), exit=ended.exit, status=_status(ended, known.facts)
        )
        if self.keeper is not None:
            self.begin()
            run = replace(run, id=self.run.id)
            kept = self.keeper.finish(run)
            # An id is for looking a run up: one that isn't in the store has none.
            run = replace(run, id=run.id if kept else "")
        self.run = run
        try:
            return replace(self.builder.build(), run=run)
        except Exception as error:
            self.failed = self.failed or error
            return Recording(run)

    def _look(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, Declaration):
                self._signals[frame.series] = frame.signal, frame.source
            elif isinstance(frame, Points) and len(frame.steps):
                name, source = self._signals.get(frame.series, ("", 0))
                if name in (LOSS.name, LR.name):
                    self.now[name] = float(np.ravel(frame.values)[-1])
                if name == LOSS.name:
                    bad = ~np.isfinite(frame.values)
                    trailing = int(np.argmin(bad[::-1])) if not bad.all() else len(bad)
                    self.not_finite = trailing + (self.not_finite if trailing == len(bad) else 0)
                if name == VALIDATION.name:
                    self.evaluated.setdefault(source, []).extend(float(v) for v in frame.values)
                if name == TIME.name:
                    self.step = max(self.step, int(frame.steps[-1]) + 1)


def _status(ended: Ended, facts: Mapping[str, Any]) -> str:
    if facts.get("stopped") or ended.timed_out:
        return "stopped"
    return "finished" if ended.exit == 0 else "killed" if ended.exit < 0 else "failed"


@dataclass(frozen=True, slots=True)
class Watched:
    """What came of watching the user's own run.

    Attributes:
        recording: its recording.
        ended: how it ended.
        seeded: the libraries it seeds itself.
        effects: what it did to the world outside, where it was audited.
        problem: what hindered watching; "" if nothing did.
    """

    recording: Recording
    ended: Ended
    seeded: frozenset[str] = frozenset()
    effects: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""

    def settle(self, workspace: Workspace) -> None:
        """Let the workspace know, right after the run, what it has done."""
        for effect in self.effects:
            workspace.note(effect)
        workspace.after()


def watch(
    target: Target,
    keeper: Keeper | None = None,
    workspace: Workspace | None = None,
    intervention: Intervention | None = None,
    max_steps: int | None = None,
    max_time: float | None = None,
    on_tick: Callable[[Intake], None] = lambda intake: None,
    seed: int | None = None,
) -> Watched:
    """Run the user's script as the user's own process, and record it.

    Args:
        target: what to run.
        keeper: where to keep the recording.
        workspace: has the script audited, for trials; tell it what that gave with `Watched.settle`.
        intervention: what to change.
        max_steps: end it cleanly after so many optimizer steps.
        max_time: end it cleanly after so many seconds.
        on_tick: called a few times a second.
        seed: offset on the script's seeds; None leaves them alone.
    """
    change = (intervention or Intervention()).to_json()
    intake = Intake(_run_of(target, intervention=change, seed=seed), keeper)
    orders: dict[str, Any] = {"intervention": change, "max_steps": max_steps, "max_time": max_time, "seed": seed}
    if workspace is not None:
        orders["audit"] = workspace.audit()

    def tick() -> None:
        try:
            intake.begin()
            on_tick(intake)
        except Exception as error:
            intake.failed = intake.failed or error

    ended = process.watch(target, orders, intake, tick, max_time)
    if max_time is not None and ended.timed_out and ended.exit == -signal.SIGINT:
        ended = replace(ended, exit=0)  # our own way of ending it: no failure of the script's
    recording = intake.finish(ended)
    seeded = frozenset(str(note.get("library")) for note in intake.side["seeded"])
    problem = ended.problem or _not_watched(intake)
    return Watched(recording, ended, seeded, tuple(intake.side["effect"]), problem)


def _not_watched(intake: Intake) -> str:
    """What kept us from watching, beside what `Ended` knows."""
    if intake.failed is not None:
        return f"not all of the recording could be read ({intake.failed!r})"
    if "pid" not in intake.run.facts:
        return "gradwise could not get into the script's process"
    return ""


def _run_of(target: Target, **fields: Any) -> RunInfo:
    return RunInfo(
        id="",
        script=target.script,
        argv=target.argv,
        module=target.module,
        cwd=target.cwd,
        started=time.time(),
        **fields,
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one trial.

    Attributes:
        recording: its recording; the intervention and the seed's offset are in `recording.run`.
        output: what it printed, for metrics read from there; None where that is not known (the watched run).
        complete: whether the script came to its own end, rather than to the end of its steps or its time.
        seconds: how long it took.
        problem: why it says nothing of its intervention, in words that complete "in a trial …"; "" where it does.
        isolation: whether `problem` is that the script can't be kept from reaching outside its copy.
        refused: whether `problem` is that the change can't be made in this script.
        processor: the seconds it took of the processor; 0 where that isn't known.
    """

    recording: Recording
    output: str | None = None
    complete: bool = False
    seconds: float = 0.0
    problem: str = ""
    isolation: bool = False
    refused: bool = False
    processor: float = 0.0


@dataclass
class Runner:
    """Runs trials of one script.

    Args:
        target: the script, as the user runs it.
        workspace: its surroundings, of which each trial gets a copy.
        keeper: where to keep the recordings; None keeps none.
        parent: the id of the watched run.
        guarded: whether a trial is stopped where it would reach outside its copy.
        on_tick: called a few times a second while a trial runs.
        extra: words added to the script's command line.
        enough: asked a few times a second whether to end a trial, by what it has recorded.
    """

    target: Target
    workspace: Workspace
    keeper: Keeper | None = None
    parent: str | None = None
    guarded: bool = True
    on_tick: Callable[[], None] = lambda: None
    extra: tuple[str, ...] = ()
    enough: Callable[[Intake], bool] = lambda intake: False

    def run(
        self,
        intervention: Intervention,
        seed: int,
        max_steps: int | None,
        timeout: float,
        score: Intervention | None = None,
    ) -> Trial:
        """Run the script once more, out of the user's sight.

        It ends early where its losses have ceased to be finite.

        Args:
            intervention: what to change.
            seed: the offset on its seeds.
            max_steps: end it after so many optimizer steps.
            timeout: seconds after which it is ended by force.
            score: an intervention that changes the loss itself, whose loss is to be recorded in place of the script's.

        Raises:
            process.Interrupted: on Ctrl-C or a request to terminate.
        """
        scored = {} if score is None else {"score": score.to_json()}
        return self._run({"max_steps": max_steps, **scored}, intervention, seed, timeout)

    def replay(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        """Run the script as it is up to a step, and measure the curvature there.

        The recording has an event "curvature" then, unless the step wasn't reached.

        Args:
            order: what to measure, as `gradwise.trials.replay.Replay` takes it.
            seed: the offset on its seeds.
            timeout: seconds after which it is ended by force.

        Raises:
            process.Interrupted: on Ctrl-C or a request to terminate.
        """
        return self._run({"curvature": dict(order)}, Intervention(), seed, timeout)

    def trace(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        """Run the script as it is up to a step at which its loss is not finite, and find where that began.

        The recording has an event "non-finite-origin" then, unless the step wasn't reached.

        Args:
            order: which loss, as `gradwise.trials.trace.Trace` takes it.
            seed: the offset on its seeds.
            timeout: seconds after which it is ended by force.

        Raises:
            process.Interrupted: on Ctrl-C or a request to terminate.
        """
        return self._run({"trace": dict(order)}, Intervention(), seed, timeout)

    def _run(self, wanted: Mapping[str, Any], intervention: Intervention, seed: int, timeout: float) -> Trial:
        began, before = time.monotonic(), process.used()
        change = intervention.to_json()
        wished = replace(self.target, argv=(*self.target.argv, *self.extra))
        run = _run_of(wished, parent=self.parent, intervention=change, seed=seed)
        intake = Intake(run, self.keeper if self.parent else None)
        try:
            with self.workspace.scratch() as scratch:
                orders = {"intervention": change, "seed": seed, "light": True, **wanted}
                if self.guarded:
                    orders["guard"] = scratch.guard()
                words = (*scratch.argv, *self.extra)
                target = process.moved(self.target, scratch.cwd, scratch.script or self.target.script, words)
                environment = {**scratch.environment, **(UNCOMPILED if {"curvature", "trace"} & set(wanted) else {})}
                ended = self._until_over(target, orders, intake, environment, timeout)
                violation = scratch.violation()
        except (OSError, process.NotStarted) as error:
            seconds = time.monotonic() - began
            recording = intake.finish(Ended(1, seconds))
            return Trial(recording, "", False, seconds, f"no copy of its folder could be made ({error})")
        except BaseException:
            intake.finish(Ended(-signal.SIGKILL, time.monotonic() - began))
            raise
        recording = intake.finish(ended)
        return Trial(
            recording,
            ended.stdout + ended.stderr,
            recording.run.status in ("finished", "failed"),
            time.monotonic() - began,
            f"the script {violation}" if violation else _problem(ended, recording, intake),
            bool(violation),
            bool(recording.happened(REFUSED)) and not violation,
            process.used() - before,
        )

    def _until_over(
        self,
        target: Target,
        orders: Mapping[str, Any],
        intake: Intake,
        environment: Mapping[str, str],
        timeout: float,
    ) -> Ended:
        began = time.monotonic()

        def tick() -> None:
            self.on_tick()
            if intake.not_finite >= _HOPELESS or self.enough(intake):
                raise _OverError

        try:
            return process.trial(target, orders, intake, environment, timeout, tick)
        except _OverError:
            return Ended(0, time.monotonic() - began, timed_out=True)


class _OverError(Exception):
    """There is nothing more to learn from this trial."""


def _problem(ended: Ended, recording: Recording, intake: Intake) -> str:
    """Why a trial says nothing of its intervention."""
    refused = recording.happened(REFUSED)
    if refused:
        return f"the change could not be made: {refused[0].data['reason']}"
    if ended.problem or intake.failed:
        return ended.problem or f"its recording could not be read ({intake.failed!r})"
    if ended.exit and recording.run.status != "stopped" and not recording.happened("non-finite"):
        complaint = ended.stderr.strip().splitlines()
        how = f"was ended by {signal.Signals(-ended.exit).name}" if ended.exit < 0 else "failed"
        return f"the script {how}" + (f": {complaint[-1][:200]}" if complaint else "")
    return "" if recording.sources(TIME) else "the script took no step"
