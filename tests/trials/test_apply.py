"""Absolute rates and other rules, applied to live training in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gradwise.interventions import RULES, Intervention
from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.recording import Recording
from gradwise.recording.signals import LOSS, LR
from gradwise.schedules import constant, exponential
from gradwise.trials.apply import Applier


class Applied:
    """Training under an intervention; `recording()` is what was seen of it."""

    def __init__(self) -> None:
        self.builder = RecordingBuilder()
        self.watcher = Watcher(torch, Recorder(FrameSink(self.builder.add)))
        self.watcher.install()

    def apply(self, change: Intervention) -> None:
        Applier(torch, change, self.watcher).install()

    def recording(self) -> Recording:
        self.watcher.finish()
        return self.builder.build()


@pytest.fixture
def applied() -> Iterator[Applied]:
    from torch.optim import optimizer as hooks

    backward = torch.autograd.backward
    before, after = dict(hooks._global_optimizer_pre_hooks), dict(hooks._global_optimizer_post_hooks)
    made = Applied()
    yield made
    torch.autograd.backward = backward
    made.watcher.remove()
    torch.autograd.backward = backward
    for kept, now in ((before, hooks._global_optimizer_pre_hooks), (after, hooks._global_optimizer_post_hooks)):
        now.clear()
        now.update(kept)


def descend(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], steps: int, scheduler=None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p.square().sum() for p in parameters), torch.zeros(())).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def test_the_rate_is_set_absolutely_whatever_the_scripts_warm_up_makes_of_it(applied: Applied) -> None:
    applied.apply(Intervention(lr=1e-3 * exponential(2.0)))
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=5.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-6, total_iters=4)
    expected = torch.ones(3)
    descend(optimizer, [w], 6, scheduler)
    for step in range(6):
        expected = expected - 1e-3 * 2**step * 2 * expected
    assert torch.allclose(w.detach(), expected)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5.0)  # between steps the script sees its own
    assert applied.recording().get(LR).values == pytest.approx([1e-3 * 2**k for k in range(6)])


def test_groups_keep_their_ratio_and_other_optimizers_their_rate(applied: Applied) -> None:
    applied.apply(Intervention(lr=0.1 * constant(), optimizer=0))
    a, b, c = (torch.ones(1, requires_grad=True) for _ in range(3))
    first = torch.optim.SGD([{"params": [a], "lr": 1e-3}, {"params": [b], "lr": 1e-4}])
    second = torch.optim.SGD([c], lr=0.25)
    for optimizer, parameters in ((first, [a, b]), (second, [c])):
        descend(optimizer, parameters, 1)
    assert (a.item(), b.item(), c.item()) == pytest.approx((0.8, 0.98, 0.5))


@pytest.mark.parametrize("rule", RULES)
def test_another_rule_in_place_of_the_scripts_own(applied: Applied, rule: str) -> None:
    applied.apply(Intervention(lr=0.05 * constant(), rule=rule))
    kinds = {"sgd": ("SGD", {}), "momentum": ("SGD", {"momentum": 0.9}),
             "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}), "rmsprop": ("RMSprop", {}),
             "adagrad": ("Adagrad", {}), "adam": ("Adam", {}), "adamw": ("AdamW", {}), "nadam": ("NAdam", {}),
             "radam": ("RAdam", {})}  # fmt: skip
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    descend(torch.optim.Adamax([w], lr=7.0, weight_decay=0.3), [w], 5)
    recording = applied.recording()
    name, options = kinds[rule]
    v = torch.tensor([1.0, -2.0], requires_grad=True)
    plain = getattr(torch.optim, name)([v], lr=0.05, **options)
    for _ in range(5):
        v.grad = 2 * v.detach()
        type(plain).step.__wrapped__(plain)
    assert torch.allclose(w.detach(), v.detach())
    assert [o.kind for o in recording.optimizers] == ["Adamax"]
    assert len(recording.get(LOSS)) == 5


def test_another_rule_for_an_optimizer_with_a_closure(applied: Applied) -> None:
    applied.apply(Intervention(lr=0.1 * constant(), rule="sgd"))
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], lr=1.0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.isfinite(w).all()
    assert w.abs().max() < 1


def test_as_data() -> None:
    change = Intervention(lr=1e-7 * exponential(1.05), rule="adam", optimizer=1)
    assert Intervention.from_json(change.to_json()) == change
    assert bool(change)
    assert "adam" in change.describe()
    with pytest.raises(ValueError, match="'rule' must be one of sgd"):
        Intervention.from_json({"rule": "magic"})
