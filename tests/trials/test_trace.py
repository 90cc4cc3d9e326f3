"""Where a loss that isn't finite came from: the operation, its line and module, in unmodified scripts."""

from __future__ import annotations

import contextlib
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.trials.process import Target
from gradwise.trials.runner import Runner
from gradwise.trials.sandbox import Workspace
from gradwise.trials.trace import Trace

HEAD = """
import math
import torch
from torch import nn
from torch.nn import functional as F
torch.manual_seed(0)
x = torch.randn(64, 4)
y = (x[:, :1] > 0).float()
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
    def forward(self, x):
        return self.last(self.between(torch.tanh(self.first(x))))
    def between(self, x):
        return x
class Scale(nn.Module):
    def forward(self, x):
        return x / x.std(0)  # HERE in a module
"""
LOOP = """
optimizer = torch.optim.{rule}
for step in range(20):
    loss = loss_of(step)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


class Completed(SystemExit):
    """What ends a run."""


def complete() -> None:
    raise Completed(0)


def line_of(text: str, mark: str = "HERE") -> int:
    return max(k for k, line in enumerate(text.splitlines(), 1) if mark in line)


def traced(text: str, tmp_path: Path, step: int) -> dict[str, Any]:
    """What a trace within this process tells of a script."""
    builder = RecordingBuilder()
    watcher = Watcher(torch, Recorder(FrameSink(builder.add)))
    watcher.install()
    trace = Trace(torch, watcher, watcher.recorder, {"step": step}, complete)
    trace.install()
    try:
        with contextlib.suppress(Completed):
            exec(compile(text, str(tmp_path / "script.py"), "exec"), {"__name__": "__main__"})
        trace.finish()
    finally:
        trace.remove()
        watcher.remove()
    assert not builder.build().happened("probe-failed")
    [event] = builder.build().happened("non-finite-origin")
    assert "failed" not in event.data
    return dict(event.data)


def script(loss: str, rule: str = "SGD(model.parameters(), lr=0.1)", more: str = "model = Net()") -> str:
    return HEAD + textwrap.dedent(more) + "\n" + textwrap.dedent(loss) + LOOP.format(rule=rule)


LOG = """
def loss_of(step):
    p = torch.sigmoid(model(x)) * (step < 5)
    return -(y * torch.log(p)  # HERE
             + (1 - y) * torch.log(1 - p)).mean()
"""
ROOT = """
def loss_of(step):
    out = model(x) * (0.0 if step == 4 else 1.0)
    return (out.square().sum(1)
            .sqrt()).mean()  # HERE
"""
DIVISION = """
def loss_of(step):
    shift = 1.0 if step < 5 else 0.0
    return (model(x * shift) - y).square().mean()
"""
DATA = """
x[40, 2] = math.nan
def loss_of(step):
    rows = x[8 * (step % 8) : 8 * (step % 8) + 8]  # HERE
    return F.mse_loss(model(rows), y[:8])
"""
EXP = """
def loss_of(step):
    out = model(x) + (100.0 if step == 6 else 0.0)
    e = torch.exp(out)  # HERE
    return (e / (1 + e) - y).square().mean()
"""
MASK = """
def loss_of(step):
    scores = model(x).T.masked_fill(torch.tensor(step == 3), -math.inf)
    return (torch.softmax(scores, 1) @ x).square().mean()  # HERE
"""
HIDDEN = """
def loss_of(step):
    with torch.no_grad():
        torch.log(-torch.ones(3)).sum()  # a metric
    out = model(x)
    torch.where(out > 1e9, 0.0, math.nan * out)
    return (torch.full_like(out, -math.inf).maximum(out) - y).square().mean() * (math.inf if step == 5 else 1)  # HERE
"""
IN_PLACE = """
def loss_of(step):
    with torch.no_grad():
        scale = (x[:, :1] * (step != 5)).square_().rsqrt_()  # HERE
    return (scale * (model(x) - y)).square().mean()
"""
# name: script, step of the loss, and what is told of its origin
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "log of zero": (script(LOG), 5, {"operation": "log", "stage": "forward", "kind": "inf", "step": 5}),
    "root at zero": (script(ROOT), 5, {"node": "Sqrt", "stage": "backward", "step": 4}),
    "0/0 in a module": (
        script(DIVISION, more="model = nn.Sequential(nn.Linear(4, 8, bias=False), Scale(), nn.Linear(8, 1))"),
        5,
        {"operation": "div", "module": "1", "stage": "forward", "kind": "nan"},
    ),
    "data": (script(DATA), 5, {"stage": "data", "operation": "", "kind": "nan", "columns": [2]}),
    "exp": (script(EXP), 6, {"operation": "exp", "stage": "forward", "kind": "inf", "module": None}),
    "mask": (script(MASK), 3, {"operation": "_softmax", "stage": "forward", "kind": "nan", "masked": True}),
    "in place": (script(IN_PLACE), 5, {"operation": "rsqrt_", "kind": "inf", "stage": "data", "module": None}),
    "what does not reach the loss": (script(HIDDEN), 5, {"operation": "mul", "kind": "inf"}),
}


@pytest.mark.parametrize("case", CASES)
def test_origin_and_place(case: str, tmp_path: Path) -> None:
    text, step, expected = CASES[case]
    data = traced(text, tmp_path, step)
    assert {k: data.get(k) for k in expected} == expected
    assert data["place"] == {"file": str(tmp_path / "script.py"), "line": line_of(text)}


# Ways of training, each with an exponential that overflows at its fifth step.
GROW = """
def grow(out, step):
    return torch.exp(out + (200.0 if step == 4 else 0.0))  # HERE
"""
STYLES = {
    "loader with workers": """
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, num_workers=1)
for step, (a, b) in enumerate(loader):
    optimizer.zero_grad()
    F.mse_loss(grow(model(a), step), b).backward()
    optimizer.step()
""",
    "by hand": """
model = Net()
for step in range(20):
    loss = F.mse_loss(grow(model(x), step), y)
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
            p.grad = None
""",
    "functional": """
w = torch.zeros(4, 1, requires_grad=True)
for step in range(20):
    g, = torch.autograd.grad(F.mse_loss(grow(x @ w, step), y), [w])
    w = (w - 0.1 * g).detach().requires_grad_()
""",
    "closure": """
model = Net()
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
for step in range(20):
    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(grow(model(x), step), y)
        loss.backward()
        return loss
    optimizer.step(closure)
""",
    "scaler, checkpoint, sparse": """
from torch.utils.checkpoint import checkpoint
model = nn.ModuleList([nn.Embedding(9, 4, sparse=True), Net()])
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu")
for step in range(20):
    with torch.autocast("cpu", torch.bfloat16):
        out = checkpoint(model[1], model[0](torch.arange(8)), use_reentrant=False)
    optimizer.zero_grad()
    scaler.scale(F.mse_loss(grow(out.float(), step), y[:8])).backward()
    scaler.step(optimizer)
    scaler.update()
""",
    "recurrent, complex": """
model = nn.LSTM(4, 3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
for step in range(20):
    out = torch.fft.rfft(model(x.view(8, 8, 4))[0], dim=0).abs()
    optimizer.zero_grad()
    grow(out, step).mean().backward()
    optimizer.step()
""",
}


@pytest.mark.parametrize("style", STYLES)
def test_styles_of_training(style: str, tmp_path: Path) -> None:
    text = HEAD + GROW + STYLES[style]
    data = traced(text, tmp_path, 4)
    assert (data["operation"], data["stage"], data["kind"]) == ("exp", "forward", "inf")
    assert data["place"]["line"] == line_of(text)


OVERFLOW = "def loss_of(step):\n    return model.weight.sum() * (1e30 if step == 3 else 1e-20)"


def test_an_optimizer_of_no_operations(tmp_path: Path) -> None:
    text = "import gradwise" + script(
        OVERFLOW, "gradwise.optim.SGD(model.parameters(), lr=1e10)", "model = nn.Linear(4, 1)"
    )
    data = traced(text.replace("torch.optim.gradwise", "gradwise"), tmp_path, 4)
    assert (data["stage"], data["step"], data["operation"], data["parameter"]) == ("update", 3, "step", "weight")


@pytest.mark.parametrize("foreach", [True, False])
def test_an_update_that_overflows(foreach: bool, tmp_path: Path) -> None:
    text = script(OVERFLOW, f"SGD(model.parameters(), lr=1e10, foreach={foreach})", "model = nn.Linear(4, 1)")
    data = traced(text, tmp_path, 4)
    assert (data["stage"], data["step"], data["parameter"]) == ("update", 3, "weight")


@pytest.mark.parametrize("change", ["no loss is bad", "the step is not reached"])
def test_without_a_bad_loss_there_is_no_origin(change: str, tmp_path: Path) -> None:
    text = script("def loss_of(step):\n    return F.mse_loss(model(x), y)")
    assert "stayed finite" in traced(text, tmp_path, 5 if change == "no loss is bad" else 19)["problem"]


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        hooks = torch.nn.modules.module
        counts = len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)
        modes = torch.utils._python_dispatch._len_torch_dispatch_stack()
        return torch.autograd.backward, torch.autograd.grad, torch.is_anomaly_enabled(), counts, modes

    before = state()
    traced(CASES["exp"][0], tmp_path, 6)
    assert state() == before


def test_a_trial_tells_it_with_the_line_as_the_user_knows_it(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    text = CASES["root at zero"][0].replace("model = Net()", "model = torch.compile(Net())")
    (folder / "script.py").write_text(text)
    target = Target("script.py", cwd=str(folder))
    with Workspace.before(target.cwd, target.script) as workspace:
        workspace.after()
        trial = Runner(target, workspace).trace({"step": 5, "source": 0}, 0, 100.0)
    [event] = trial.recording.happened("non-finite-origin")
    assert (event.data["node"], event.data["place"]) == ("Sqrt", {"file": "script.py", "line": line_of(text)})
    assert trial.recording.run.status == "stopped"
    assert "Traceback" not in (trial.output or "")
