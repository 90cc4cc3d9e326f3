"""Runs from beginning to end: into memory and into the store, the watched one and trials in copies of its folder."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gradwise.interventions import Intervention
from gradwise.recording.frames import Declaration, Message, Points
from gradwise.recording.keeper import Keeper
from gradwise.recording.recording import RunInfo
from gradwise.recording.signals import LOSS, LR, TIME
from gradwise.recording.store import Store
from gradwise.trials import process, runner
from gradwise.trials.process import Ended, Interrupted, Target
from gradwise.trials.runner import Intake, Runner, Trial
from gradwise.trials.sandbox import Workspace

TRAIN = """
import os, sys
import torch
torch.manual_seed(0)
resumed = os.path.exists("last.pt")
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))
x = torch.randn(32, 4)
y = x.sum(1, keepdim=True)
for k in range(3000):
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "last.pt")
print("resumed" if resumed else "fresh", "loss", loss.item())
"""


def frames_of(signal, values, series=0) -> list:
    steps = np.arange(len(values))
    return [Declaration(series, signal.name, 0), Points(series, steps, np.asarray(values, np.float64))]


# the intake


def test_what_is_not_of_the_recording_is_kept_apart():
    intake = Intake(RunInfo(""), None)
    notes = [Message("effect", {"kind": "input"}), Message("seeded", {"library": "torch"}), Message("violation", {})]
    intake([*notes, Message("facts", {"torch": "2.13"})])
    assert {kind: len(found) for kind, found in intake.side.items()} == {"effect": 1, "seeded": 1, "violation": 1}
    assert intake.finish(Ended(0, 1.0)).run.facts == {"torch": "2.13"}


def test_the_latest_values_are_at_hand():
    intake = Intake(RunInfo(""), None)
    intake([*frames_of(LOSS, [3.0, 2.0]), *frames_of(LR, [0.1], 1), *frames_of(TIME, [0.5, 0.6], 2)])
    assert (intake.now[LOSS.name], intake.now[LR.name], intake.step) == (2.0, 0.1, 2)


@pytest.mark.parametrize(
    ("parts", "bad"),
    [
        ([[1.0, np.nan]], 1),
        ([[np.nan, 1.0]], 0),
        ([[1.0, np.inf], [np.nan, np.nan]], 3),
        ([[np.nan], [1.0, np.nan]], 1),
    ],
)
def test_losses_that_are_not_finite_are_counted_from_the_end(parts, bad):
    intake = Intake(RunInfo(""), None)
    for part in parts:
        intake(frames_of(LOSS, part))
    assert intake.not_finite == bad


def test_no_error_leaves_it():
    intake = Intake(RunInfo(""), None)
    intake([Points(7, np.arange(1), np.zeros(1))])  # never declared
    assert isinstance(intake.failed, KeyError)


@pytest.mark.parametrize(
    ("ended", "facts", "status"),
    [
        (Ended(0, 1.0), {}, "finished"),
        (Ended(3, 1.0), {}, "failed"),
        (Ended(-signal.SIGSEGV, 1.0), {}, "killed"),
        (Ended(0, 1.0), {"stopped": "steps"}, "stopped"),
        (Ended(-signal.SIGKILL, 1.0, timed_out=True), {}, "stopped"),
    ],
)
def test_how_it_ended(ended, facts, status):
    intake = Intake(RunInfo(""), None)
    intake([Message("facts", facts)])
    run = intake.finish(ended).run
    assert (run.status, run.exit) == (status, ended.exit)


# runs


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    (folder / "train.py").write_text(TRAIN)
    return folder


@pytest.fixture(scope="module")
def visit(place, tmp_path_factory):
    """A watched run, and trials after it: the same with offset 0, a cure cut short, a hopeless one."""
    store = str(tmp_path_factory.mktemp("store") / "runs.db")
    target = Target("train.py", ("0.05",), cwd=str(place))
    ticks: list[int] = []
    with Keeper(store) as keeper, Workspace.before(target.cwd, target.script, target.argv) as workspace:
        watched = runner.watch(target, keeper, workspace, on_tick=lambda intake: ticks.append(intake.step))
        watched.settle(workspace)
        trials = Runner(target, workspace, keeper, watched.recording.run.id)
        same = trials.run(Intervention(), 0, 50, 100)
        hopeless = trials.run(Intervention(lr_scale=1000.0), 0, None, 100)
    return watched, same, hopeless, store, ticks


def test_the_watched_run_is_in_the_store(visit):
    watched, *_, store, ticks = visit
    run = watched.recording.run
    assert (watched.ended.exit, run.status, run.script, run.argv) == (0, "finished", "train.py", ("0.05",))
    assert watched.seeded == {"torch"}
    assert watched.problem == ""
    assert ticks
    with Store.open(store) as opened:
        assert opened.load(run.id).get(LOSS).values.tolist() == watched.recording.get(LOSS).values.tolist()
        assert opened.info(run.id).status == "finished"
        assert [r.seed for r in opened.runs(parent=run.id)] == [0, 0]


def test_a_trial_is_the_same_run_in_a_folder_as_it_was_before(visit):
    watched, same, *_ = visit
    assert same.problem == ""
    assert not same.complete  # 50 of 3000 steps
    assert same.recording.get(LOSS).values.tolist() == watched.recording.get(LOSS).values[:50].tolist()
    assert same.recording.run.seed == 0
    assert same.seconds > 0


def test_a_hopeless_trial_ends_early(visit):
    _, _, hopeless, *_ = visit
    assert hopeless.problem == ""
    assert hopeless.recording.run.status == "stopped"
    losses = hopeless.recording.get(LOSS).values
    assert not np.isfinite(losses[-20:]).any()
    assert dict(hopeless.recording.run.intervention) == {"lr_scale": 1000.0}


def test_nothing_of_a_trial_is_left_in_the_folder(visit, place):
    assert sorted(p.name for p in place.iterdir()) == ["last.pt", "train.py"]


def quick(tmp_path, text: str, timeout: float = 120.0, guarded: bool = True) -> Trial:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "script.py").write_text(textwrap.dedent(text))
    target = Target("script.py", cwd=str(tmp_path / "work"))
    with Workspace.before(target.cwd, target.script) as workspace:
        workspace.after()
        return Runner(target, workspace, guarded=guarded).run(Intervention(), 0, 10, timeout)


def test_a_script_without_steps_says_nothing(tmp_path):
    trial = quick(tmp_path, "print('hello')")
    assert (trial.output, trial.complete, trial.problem) == ("hello\n", True, "the script took no step")


def test_a_change_for_which_there_is_no_place_ends_the_trial(place):
    target = Target("train.py", ("0.05",), cwd=str(place))
    with Workspace.before(target.cwd, target.script, target.argv) as workspace:
        workspace.after()
        trial = Runner(target, workspace).run(Intervention(activation="gelu"), 0, 50, 100)
    assert trial.refused
    assert trial.problem.startswith(
        "the change could not be made: none of the script's modules has a hidden activation"
    )
    assert len(trial.recording.get(LOSS)) == 1


SQUASHED = TRAIN.replace("mse_loss(model(x), y)", "cross_entropy(model(x).softmax(1), y.gt(0).long()[:, 0])").replace(
    "Linear(4, 1)", "Linear(4, 2)"
)


def test_a_partner_records_the_loss_it_is_judged_by(tmp_path):
    (tmp_path / "train.py").write_text(SQUASHED)
    target = Target("train.py", ("0.5",), cwd=str(tmp_path))
    mend = Intervention(fixes=("logits",))
    with Workspace.before(target.cwd, target.script, target.argv) as workspace:
        workspace.after()
        trials = Runner(target, workspace)
        own, mended, cured = (trials.run(*each) for each in (
            (Intervention(), 1, 40, 100), (Intervention(), 1, 40, 100, mend), (mend, 1, 40, 100),
        ))  # fmt: skip
    losses = [t.recording.get(LOSS).values for t in (own, mended, cured)]
    assert not any(t.problem for t in (own, mended, cured))
    assert losses[1][0] == pytest.approx(losses[2][0])  # one loss of the same weights
    assert losses[1][0] != pytest.approx(losses[0][0], rel=1e-3)
    assert losses[2][-1] < losses[1][-1]


def test_a_run_that_is_stopped_early_is_a_whole_one(place):
    target = Target("train.py", ("0.05",), cwd=str(place))
    with Workspace.before(target.cwd, target.script, target.argv) as workspace:
        workspace.after()
        trial = Runner(target, workspace).run(Intervention(stop=30), 0, None, 100)
    assert (trial.problem, trial.complete, trial.recording.run.status) == ("", True, "finished")
    assert len(trial.recording.get(LOSS)) == 30


def test_why_a_script_failed_is_said(tmp_path):
    trial = quick(tmp_path, "raise FileNotFoundError('data.csv')")
    assert trial.problem == "the script failed: FileNotFoundError: data.csv"
    assert not trial.isolation


def test_what_reaches_outside_is_stopped_and_named(tmp_path):
    outside = tmp_path / "elsewhere.txt"
    trial = quick(tmp_path, f"open({str(outside)!r}, 'w').write('x')")
    assert trial.isolation
    assert str(outside) in trial.problem
    assert not outside.exists()


def test_unguarded_it_is_not_stopped(tmp_path):
    outside = tmp_path / "elsewhere.txt"
    trial = quick(tmp_path, f"open({str(outside)!r}, 'w').write('x')", guarded=False)
    assert not trial.isolation
    assert outside.exists()


def test_time_ends_a_trial(tmp_path):
    trial = quick(tmp_path, "import time; time.sleep(60)", timeout=1.0)
    assert trial.recording.run.status == "stopped"
    assert not trial.complete


def test_without_room_for_a_copy_there_is_no_trial(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner.process, "Orders", full)
    trial = quick(tmp_path, "pass")
    assert not trial.isolation
    assert "no copy of its folder could be made" in trial.problem


def test_an_interrupted_trial_leaves_no_copy(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise Interrupted("SIGINT")

    monkeypatch.setattr(process, "trial", interrupted)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(Interrupted):
        quick(tmp_path, "pass")
    assert [p for p in os.listdir(tmp_path) if p.startswith("gradwise-trial")] == []


def test_a_tick_that_fails_stops_nothing(tmp_path):
    (tmp_path / "script.py").write_text("import time; time.sleep(0.5)")

    def tick(intake):
        raise RuntimeError("a display that is gone")

    watched = runner.watch(Target("script.py", cwd=str(tmp_path)), on_tick=tick)
    assert watched.ended.exit == 0
    assert "a display that is gone" in watched.problem


def test_our_own_end_by_time_is_no_failure(tmp_path, monkeypatch):
    there = tmp_path / "there"  # once the script has made it, the supervisor's clock jumps

    def now() -> float:
        return time.monotonic() + (1000.0 if there.exists() else 0.0)

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=now))
    (tmp_path / "script.py").write_text("import time; open('there', 'w'); time.sleep(60)")
    watched = runner.watch(Target("script.py", cwd=str(tmp_path)), max_time=100.0)
    assert watched.ended.exit == 0
    assert watched.recording.run.status == "stopped"
