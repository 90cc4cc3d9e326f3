"""Curvature measured within trials of unmodified scripts: the figures are those of the script's own loss there."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.trials.process import Target
from gradwise.trials.replay import Replay
from gradwise.trials.runner import Runner, Trial
from gradwise.trials.sandbox import Workspace

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
torch.manual_seed(0)
x = torch.randn(256, 4)
y = (x @ torch.tensor([1.0, -2.0, 0.5, 0.0])).unsqueeze(1)
def batches():
    while True:
        for k in torch.randperm(256).split(32):
            yield x[k], y[k]
"""
LOOP = """
for step, (a, b) in zip(range(60), batches()):
    loss = F.mse_loss(model(a), b)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
SADDLE = """
model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False))
for p in model.parameters():
    nn.init.zeros_(p)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
"""


def replayed(tmp_path: Path, text: str, **order: int) -> Trial:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "script.py").write_text(textwrap.dedent(text))
    target = Target("script.py", cwd=str(tmp_path / "work"))
    with Workspace.before(target.cwd, target.script) as workspace:
        workspace.after()
        return Runner(target, workspace).replay(order, 0, 100.0)


class Completed(SystemExit):
    """What ends a run."""


def complete() -> None:
    raise Completed(0)


def measured(text: str, **order: int) -> dict[str, Any]:
    """The same within this process: what a replay tells of a script."""
    builder = RecordingBuilder()
    watcher = Watcher(torch, Recorder(FrameSink(builder.add)))
    watcher.install()
    replay = Replay(torch, watcher, watcher.recorder, order, complete)
    replay.install()
    try:
        with contextlib.suppress(Completed):
            exec(compile(textwrap.dedent(text), "script.py", "exec"), {"__name__": "__main__"})
        replay.finish()
    finally:
        replay.remove()
        watcher.remove()
    assert not builder.build().happened("probe-failed")
    return dict(builder.build().happened("curvature")[0].data)


def told(trial: Trial) -> Mapping[str, Any]:
    events = trial.recording.happened("curvature")
    assert len(events) == 1, trial.output
    assert not trial.recording.happened("probe-failed")
    return events[0].data


def test_zeros_are_a_saddle(tmp_path: Path) -> None:
    # Compiled, which a replay is not.
    trial = replayed(tmp_path, HEAD + SADDLE + "model = torch.compile(model)\n" + LOOP, step=20)
    data = told(trial)
    assert data["kind"] == "saddle"
    assert (data["gradient_norm"], data["batches"], data["fresh"]["batches"]) == (0.0, 4, 4)
    # At zero the loss is quadratic in products of weights: λ = ±2‖mean of x·y‖, which is 2‖w‖ up to the sample.
    assert data["smallest"]["value"] == pytest.approx(-2 * 5.25**0.5, rel=0.25)
    assert data["largest"]["value"] == pytest.approx(-data["smallest"]["value"], rel=0.01)
    assert data["fresh"]["smallest"]["value"] == pytest.approx(data["smallest"]["value"], rel=0.4)
    assert data["sharpness"] == pytest.approx(data["largest"]["value"] * 0.1 / 2 / 1.9)
    assert sorted(d["parameter"].removeprefix("_orig_mod.") for d in data["direction"]) == ["0.weight", "2.weight"]
    assert trial.recording.run.status == "stopped"
    assert trial.recording.happened("curvature")[0].step == 20
    assert "Traceback" not in trial.output


def test_the_bottom_of_a_bowl_is_a_minimum() -> None:
    script = (
        HEAD
        + """
y = y + 0.3 * torch.randn(y.shape)
model = nn.Linear(4, 1)
solution = torch.linalg.lstsq(torch.cat([x, torch.ones(256, 1)], 1), y).solution
with torch.no_grad():
    model.weight.copy_(solution[:4].T)
    model.bias.copy_(solution[4])
optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
def batches():
    while True:
        yield x, y
"""
        + LOOP
    )
    data = measured(script, step=3)
    assert data["kind"] == "minimum"
    assert 1 < data["smallest"]["value"] < 2 < data["largest"]["value"] < 3
    assert data["smallest"]["noise"] == pytest.approx(0, abs=1e-6)
    assert "sharpness" not in data  # Adam's is another matter


def test_on_the_way_it_is_not_critical_and_held_in_place(tmp_path: Path) -> None:
    script = (
        HEAD
        + "model = nn.Linear(4, 1)\noptimizer = torch.optim.AdamW(model.parameters(), lr=0.1)\n"
        + """
for step, (a, b) in zip(range(60), batches()):
    print(step, model.weight.sum().item())
    loss = F.mse_loss(model(a), b)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
    )
    trial = replayed(tmp_path, script, step=5, batches=3, fresh=2)
    assert told(trial)["kind"] == "not critical"
    weights = [line.split()[1] for line in (trial.output or "").splitlines()]
    assert len(weights) == 5 + 3 + 2
    assert len(set(weights[:6])) == 6
    assert len(set(weights[5:])) == 1


# Ways of training: a loss that is accumulated, scaled, evaluated in a closure; steps by hand; other parameters beside.
STYLES = {
    "accumulation": SADDLE + """
for step, (a, b) in zip(range(60), batches()):
    (F.mse_loss(model(a), b) / 2).backward()
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()
""",
    "autocast and scaler": SADDLE + """
scaler = torch.amp.GradScaler("cpu")
for step, (a, b) in zip(range(60), batches()):
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.mse_loss(model(a), b)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
""",
    "two optimizers": SADDLE + """
other = nn.Linear(4, 1)
second = torch.optim.SGD(other.parameters(), lr=0.01)
for step, (a, b) in zip(range(60), batches()):
    for net, opt in ((other, second), (model, optimizer)):
        opt.zero_grad()
        F.mse_loss(net(a), b).backward()
        opt.step()
""",
    "closure": SADDLE + """
optimizer = torch.optim.LBFGS(model.parameters())
for step in range(20):
    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)
""",
    "by hand": SADDLE.replace("optimizer", "unused = lambda *a, **k: None #") + """
for step, (a, b) in zip(range(60), batches()):
    loss = F.mse_loss(model(a), b)
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad + 1e-12
            p.grad = None
""",
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_styles_of_training(style: str) -> None:
    data = measured(HEAD + STYLES[style], step=4)
    assert data.get("problem") is None
    assert data["kind"] == "saddle"
    # The loss as the script means it: not halved, nor multiplied by a scaler.
    assert data["smallest"]["value"] == pytest.approx(-2 * 5.25**0.5, rel=0.3)


def test_attention_can_be_differentiated_twice() -> None:
    script = (
        HEAD
        + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(1, 12), nn.Linear(16, 1)
    def forward(self, x):
        q, k, v = self.qkv(x.unsqueeze(-1)).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).flatten(1))
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
"""
        + LOOP
    )
    data = measured(script, step=2, products=6, batches=2, fresh=1)
    assert data.get("problem") is None
    assert data["largest"]["value"] > 0


def test_a_run_that_ends_early_is_measured_with_what_there_is() -> None:
    data = measured(HEAD + SADDLE + LOOP.replace("60", "7"), step=5)
    assert (data["kind"], data["batches"]) == ("saddle", 2)


def test_a_step_that_is_not_reached_tells_nothing(tmp_path: Path) -> None:
    trial = replayed(tmp_path, HEAD + SADDLE + LOOP, step=60)
    assert not trial.recording.happened("curvature")
    assert trial.complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.to(torch.bfloat16); x, y = x.bfloat16(), y.bfloat16()", "bfloat16; measure in float32"),
        ("y = y / 0", "it isn't finite"),
    ],
)
def test_why_nothing_was_measured(change: str, words: str) -> None:
    assert words in measured(HEAD + SADDLE + change + LOOP, step=2)["problem"]


def test_torch_is_left_as_it_was() -> None:
    kernels = torch.backends.cuda

    def state() -> tuple[Any, ...]:
        autocast, scaler = torch.autocast.__enter__, torch.amp.GradScaler.scale
        flags = kernels.flash_sdp_enabled(), kernels.math_sdp_enabled(), torch.backends.cudnn.enabled
        return torch.autograd.backward, autocast, scaler, *flags

    before = state()
    measured(HEAD + SADDLE + LOOP, step=1)
    assert state() == before
