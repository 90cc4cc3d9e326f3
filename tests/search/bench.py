"""A bench that takes no time: descent on a quadratic stands for the script, a counter for the clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.recording.recording import Recording, RunInfo, Series
from gradwise.recording.signals import LOSS, TIME, VALIDATION
from gradwise.trials.process import Interrupted
from gradwise.trials.runner import Trial

CURVATURES = np.array([1.0, 0.02])


@dataclass
class FakeBench:
    """A script that trains `steps` steps at rate `lr` (it diverges above 2) and takes 2 s to start and 10 ms a step.

    Args:
        lr: the script's own rate.
        steps: its length.
        noise: of the loss.
        every: steps between validations; 0 validates never.
        seeded: whether seed offset 0 gives the watched run.
        problems: what goes wrong in the trials with that change ("" the untouched ones).
        crashes: whether it raises an error as soon as the loss is large.
        interrupt: the trial (by number) in which the user presses Ctrl-C.
        flattery: how much too low the script's own loss is; with the fix `logits` it trains at a tenth of its rate.
    """

    lr: float = 2.5
    steps: int = 400
    noise: float = 0.001
    every: int = 0
    seeded: bool = True
    problems: dict[str, str] = field(default_factory=dict)
    violation: bool = False
    refuses: bool = False
    flattery: float = 0.0
    crashes: bool = False
    interrupt: int = 0
    startup: float = 2.0
    step: float = 0.01
    slowness: float = 1.0
    output: str = "loss {}"
    made: list[tuple[str, int, int | None]] = field(default_factory=list)
    scores: list[tuple[str, Intervention | None]] = field(default_factory=list)

    def watched(self) -> Recording:
        run = self.record(Intervention(), 0 if self.seeded else 17, None)
        return replace(run, run=replace(run.run, id="watched", seed=None))

    @property
    def seconds(self) -> float:
        return self.startup + len(self.watched().series[LOSS.name, 0]) * self.step

    def run(
        self,
        intervention: Intervention,
        seed: int,
        max_steps: int | None,
        timeout: float,
        score: Intervention | None = None,
    ) -> Trial:
        name = intervention.describe() if intervention else ""
        self.scores.append((name, score))
        self.made.append((name, seed, max_steps))
        if self.interrupt == len(self.made):
            raise Interrupted("SIGINT")
        flattery, self.flattery = self.flattery, 0.0 if score is not None else self.flattery
        recording = self.record(intervention, seed, max_steps)
        self.flattery = flattery
        if score is not None:
            facts = {"score": score.to_json()}
            recording = replace(recording, run=replace(recording.run, facts=facts))
        taken = len(recording.series[LOSS.name, 0])
        seconds = self.slowness * (self.startup + taken * self.step)
        if seconds > timeout:
            fit = max(1, int((timeout / self.slowness - self.startup) / self.step))
            recording = self.record(intervention, seed, fit)
            return Trial(recording, "", False, timeout)
        problem = self.problems.get(name, "")
        losses = recording.series[LOSS.name, 0].values
        return Trial(
            recording,
            self.output.format(losses[-1]),
            recording.run.status in ("finished", "failed"),
            seconds,
            problem,
            bool(problem) and self.violation,
            bool(problem) and self.refuses,
        )

    def record(self, intervention: Intervention, seed: int, max_steps: int | None) -> Recording:
        luck = np.random.default_rng(seed)
        noise = self.noise * luck.standard_normal(self.steps)
        theta = 1.0 + 0.1 * luck.standard_normal(2)
        mended = "logits" in intervention.fixes
        rate, flattery = (self.lr / 10, 0.0) if mended else (self.lr, self.flattery)
        losses, status = [], "finished"
        with np.errstate(all="ignore"):
            for step in range(self.steps):
                losses.append(float((theta**2).sum()) + noise[step] - flattery)
                theta -= rate * intervention.lr_factor(step) * CURVATURES * theta
                if self.crashes and not abs(losses[-1]) < 50:
                    status = "failed"
                    break
                if max_steps is not None and step + 1 == max_steps:
                    status = "stopped"
                    break
        loss = np.array(losses)
        steps = np.arange(len(loss))
        series = {
            (LOSS.name, 0): Series(steps, loss),
            (TIME.name, 0): Series(steps, self.startup + self.step * steps),
        }
        if self.every:
            at = np.arange(self.every, len(loss) + 1, self.every)
            if len(at):
                series[VALIDATION.name, 0] = Series(at, loss[at - 1] + 0.05)
        info = RunInfo("", status=status, exit=int(status == "failed"), intervention=intervention.to_json(), seed=seed)
        return Recording(info, series=series)


def finding(*remedies: Intervention, id: str = "lr-too-high", confidence: float = 0.8, step: int = 0) -> Finding:
    tried = tuple(Remedy(r, f"do {r.describe()}", reason="not tried") for r in remedies)
    return Finding(id, "error", confidence, Where("train.py", 3, step=step), f"because of {id}", {}, tried)


def diagnosis(*findings: Finding, suspicions: tuple[Finding, ...] = ()) -> Diagnosis:
    verdict = "sick" if findings else "healthy"
    return Diagnosis("watched", "train.py", (), verdict, findings, "as it seemed", suspicions=suspicions)
