"""`gradwise.watch`: training watched in this process, which leaves torch as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradwise
from gradwise.recording.signals import LOSS
from gradwise.recording.store import Store
from gradwise.report.schema import check


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def train(model: nn.Module, lr: float = 0.1, steps: int = 120) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=generator)
    y = x.sum(1, keepdim=True)
    losses = []
    for _ in range(steps):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def everything_of_torch() -> dict[str, object]:
    """What a watcher could have replaced: members of torch's modules and classes, and its registered hooks."""
    owners = {
        "torch": torch,
        "functional": nn.functional,
        "autograd": torch.autograd,
        "jit": torch.jit,
        "random": torch.random,
        "Tensor": torch.Tensor,
        "Module": nn.Module,
        "Optimizer": torch.optim.Optimizer,
        "SGD": torch.optim.SGD,
        "LRScheduler": torch.optim.lr_scheduler.LRScheduler,
        "Plateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "Scaler": torch.amp.GradScaler,
        "Generator": torch.Generator,
    }
    found = {f"{name}.{key}": value for name, owner in owners.items() for key, value in vars(owner).items()}
    hooks = sys.modules["torch.optim.optimizer"]
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        found[name] = list(getattr(hooks, name).items())
    found["forward hooks"] = list(nn.modules.module._global_forward_hooks.items())
    return found


def test_torch_is_as_it_was(model):
    train(model, steps=1)  # torch sets some things up with the first optimizer
    before = everything_of_torch()
    with gradwise.watch(model):
        train(model, steps=3)
    after = everything_of_torch()
    assert before.keys() == after.keys()
    assert [k for k in before if before[k] is not after[k] and before[k] != after[k]] == []


def test_training_goes_as_without(model):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plain = train(model)
    model.load_state_dict(state)
    with gradwise.watch() as run:
        watched = train(model)
    assert watched == plain
    assert run.recording.get(LOSS).values.tolist() == pytest.approx(plain)


def test_it_diagnoses_inside_the_block_and_after_it(model):
    with gradwise.watch(model) as run:
        train(model, steps=40)
        early = run.diagnose()
        train(model, steps=80)
    late = run.diagnose()
    assert early.recording.run.status == "running"
    assert late.recording.run.status == "finished"
    assert len(early.recording.get(LOSS)) <= 40 < sum(len(late.recording.get(LOSS, s)) for s in (0, 1))
    assert late.verdict == "healthy"
    assert late.findings == ()


def test_too_high_a_rate_is_found(model):
    with gradwise.watch(model) as run:
        train(model, lr=30.0)
    report = run.diagnose()
    assert report.verdict == "sick"
    assert report.findings[0].id == "lr-too-high"
    assert Path(report.findings[0].where.file or "").name == "test_session.py"


def test_a_model_gives_its_names(model):
    with gradwise.watch(model) as run:
        optimizer = torch.optim.SGD(list(model.state_dict(keep_vars=True).values()), lr=0.1)
        model(torch.randn(3, 6)).sum().backward()
        optimizer.step()
    (info,) = run.recording.optimizers
    assert [p.name for p in info.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_report_shows_itself(model, tmp_path):
    with gradwise.watch(model) as run:
        train(model)
    report = run.diagnose(target=0.5)
    assert "healthy" in str(report)
    assert "target" in str(report)
    assert "healthy" in report._repr_html_()
    assert run._repr_html_().startswith("<style>")
    check(report.to_json())
    report.write_json(tmp_path / "r.json")
    report.write_html(tmp_path / "r.html")
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "healthy"
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_a_store_keeps_recording_and_report(model, tmp_path):
    with gradwise.watch(model, store=tmp_path / "runs.db") as run:
        losses = train(model)
    run.diagnose()
    with Store.open(str(tmp_path / "runs.db")) as store:
        last = store.resolve("last")
        assert store.read(last, LOSS).values.tolist() == pytest.approx(losses)
        assert store.info(last).status == "finished"
        assert (store.report(last) or {})["verdict"] == "healthy"


def test_a_store_that_fails_is_a_note(model):
    with gradwise.watch(model, store="foo://nowhere") as run:
        train(model)
    report = run.diagnose()
    assert report.verdict == "healthy"
    unkept = "The recording was not kept: gradwise knows no database"
    assert any(note.startswith(unkept) for note in report.diagnosis.notes)


def test_an_error_in_the_block_is_the_users_and_what_there_is_is_kept(model):
    before = everything_of_torch()
    with pytest.raises(ZeroDivisionError), gradwise.watch(model) as run:  # noqa: PT012
        train(model, steps=30)
        raise ZeroDivisionError
    assert everything_of_torch().keys() == before.keys()
    assert len(run.recording.get(LOSS)) == 30
    assert run.recording.run.status == "failed"


def test_one_block_at_a_time(model):
    with gradwise.watch(model) as outer:
        with pytest.raises(RuntimeError, match=r"a gradwise\.watch block is open already"), gradwise.watch():
            pass
        train(model, steps=5)
    assert len(outer.recording.get(LOSS)) == 5
    with gradwise.watch(model) as later:
        train(model, steps=7)
    assert len(later.recording.get(LOSS)) == 7


def test_a_block_is_run_once(model):
    run = gradwise.watch(model)
    with pytest.raises(RuntimeError, match="nothing was recorded yet"):
        run.diagnose()
    with run:
        train(model, steps=2)
    with pytest.raises(RuntimeError, match="make another"), run:
        pass


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module"):
        gradwise.watch("model")  # type: ignore[arg-type]


def test_nothing_watched_is_inconclusive():
    with gradwise.watch() as run:
        pass
    assert run.diagnose().verdict == "inconclusive"


def test_importing_gradwise_is_light():
    heavy = "{'torch', 'numpy', 'sqlalchemy', 'plotly', 'rich', 'typer'}"
    code = f"import gradwise, sys; print(sorted({heavy} & set(sys.modules)), gradwise.__version__, dir(gradwise))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]")
    assert "watch" in done.stdout
