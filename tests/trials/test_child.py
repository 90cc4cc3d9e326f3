"""What a child does in a script that trains: records it, changes it, ends it in time, and is else not there."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gradwise.recording.builder import RecordingBuilder
from gradwise.recording.frames import Message
from gradwise.recording.recording import Recording
from gradwise.recording.signals import LOSS, LR, TIME
from gradwise.trials import process
from gradwise.trials.process import Ended, Target

SCRIPT = """
import atexit, json, os, sys
os.environ["OMP_NUM_THREADS"] = "1"
before = {"numpy", "torch"} & set(sys.modules)
import random
import numpy as np
import torch

random.seed(1); np.random.seed(2); torch.manual_seed(3)
mode = sys.argv[1]
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.randn(32, 4)
y = x.sum(1, keepdim=True)
told = {"before": sorted(before), "threads": torch.get_num_threads(), "rates": [], "ends": []}


def say():
    told["ends"].append("atexit")
    print(json.dumps(told))


atexit.register(say)


def step():
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    told["rates"].append(optimizer.param_groups[0]["lr"])


try:
    for k in range(60):
        step()
        if k == 20 and mode == "busy":
            child = os.fork()
            if not child:
                for _ in range(5):
                    step()
                os._exit(0)
            os.waitpid(child, 0)
except SystemExit:
    told["ends"].append("except")
    if mode != "stubborn":
        raise
    told["luck"] = [random.random(), np.random.rand(), torch.rand(1).item()]
    step()
finally:
    told["ends"].append("finally")
if mode == "busy":
    class Rows(torch.utils.data.Dataset):
        def __len__(self): return 32
        def __getitem__(self, k): return x[k], y[k]
    for a, b in torch.utils.data.DataLoader(Rows(), batch_size=16, num_workers=2):
        loss = torch.nn.functional.mse_loss(model(a), b)
        loss.backward()
        optimizer.step()
told["luck"] = [random.random(), np.random.rand(), torch.rand(1).item()]
if mode == "crash":
    import ctypes, time
    for _ in range(20):
        time.sleep(0.05)
        step()
    ctypes.string_at(0)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("child") / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


class Run:
    """A run with orders: how it ended, what it recorded, what it said."""

    def __init__(self, script: Path, mode: str = "plain", light: bool = True, **orders) -> None:
        frames: list = []
        target = Target(script.name, (mode,), cwd=str(script.parent))
        self.ended: Ended = process.trial(target, {**orders, "light": light}, frames.extend, dict(os.environ), 100)
        side = ("seeded", "effect", "violation")
        self.notes = [f.data for f in frames if isinstance(f, Message) and f.kind in side]
        self.recording: Recording = (
            RecordingBuilder().add(f for f in frames if not (isinstance(f, Message) and f.kind in side)).build()
        )
        self.facts = self.recording.run.facts
        self.told = json.loads(self.ended.stdout) if self.ended.stdout else {}

    @property
    def losses(self) -> np.ndarray:
        return self.recording.get(LOSS).values


@pytest.fixture(scope="module")
def plain(script) -> Run:
    """As a watched run: with all that torch imports."""
    return Run(script, light=False)


@pytest.fixture(scope="module")
def tried(script) -> Run:
    return Run(script, seed=0, intervention={"lr_scale": 0.5}, max_steps=40)


def test_every_step_is_recorded(plain):
    assert plain.ended.exit == 0
    assert len(plain.losses) == len(plain.recording.get(TIME)) == 60
    assert plain.recording.get(LR).values.ravel().tolist() == [0.1]
    assert plain.facts["reached_end"] is True
    assert plain.recording.happened("probe-failed") == []


def test_nothing_is_imported_before_the_script_imports_it(plain):
    assert plain.told["before"] == []
    assert plain.told["threads"] == 1


def test_the_clock_starts_with_the_process(plain):
    times = plain.recording.get(TIME).values
    assert 0 < times[0] < times[-1] <= plain.ended.seconds


def test_which_seeds_the_script_sets_is_noted(plain):
    assert {note["library"] for note in plain.notes} == {"random", "numpy", "torch"}


def test_offset_zero_is_the_very_run(plain, tried):
    assert tried.losses[0] == plain.losses[0]


def test_an_intervention_is_applied_and_the_script_sees_its_own_rate(plain, tried):
    assert tried.recording.get(LR).values.ravel().tolist() == [0.05]
    assert set(tried.told["rates"]) == {0.1}
    assert tried.losses[1] != plain.losses[1]


def test_a_run_that_is_cut_short_ends_cleanly(tried):
    assert tried.ended.exit == 0
    assert len(tried.losses) == 40
    assert tried.told["ends"] == ["except", "finally", "atexit"]
    assert tried.facts["stopped"] == "steps"


@pytest.fixture(scope="module")
def stubborn(script) -> Run:
    return Run(script, "stubborn", max_steps=60, max_time=1000.0, seed=1)


def test_a_script_that_catches_the_end_meets_it_again(stubborn):
    assert stubborn.ended.exit == 0
    assert len(stubborn.losses) == 61
    assert stubborn.told["ends"] == ["except", "finally", "atexit"]


def test_another_offset_is_other_luck_everywhere(stubborn, plain):
    assert stubborn.losses[0] != plain.losses[0]
    assert all(a != b for a, b in zip(stubborn.told["luck"], plain.told["luck"], strict=True))


def test_forks_and_workers_of_a_loader_are_not_recorded(script, plain):
    busy = Run(script, "busy")
    assert busy.ended.exit == 0
    assert busy.losses[:60].tolist() == plain.losses.tolist()
    assert len(busy.losses) == 62


def test_what_was_recorded_outlives_the_process(script, plain):
    crash = Run(script, "crash")
    assert crash.ended.exit == -signal.SIGSEGV
    assert crash.losses[:60].tolist() == plain.losses.tolist()
    assert len(crash.losses) >= 65  # those of the last tenth of a second may be missing, of a busy one's more
    assert "reached_end" not in crash.facts
