"""Training without an optimizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, mlp, train, watched

from gradwise.probes.manual import leaves_of
from gradwise.recording import signals


def in_place(p: torch.Tensor, change: torch.Tensor) -> None:
    with torch.no_grad():
        p -= change


def through_data(p: torch.Tensor, change: torch.Tensor) -> None:
    p.data -= change


def replaced_data(p: torch.Tensor, change: torch.Tensor) -> None:
    p.data = p.data - change


def copied(p: torch.Tensor, change: torch.Tensor) -> None:
    with torch.no_grad():
        p.copy_(p - change)


@pytest.mark.parametrize("change", [in_place, through_data, replaced_data, copied])
@pytest.mark.parametrize("reset", ["none", "zero", "data"])
def test_steps_losses_and_the_rate(change: Callable[[torch.Tensor, torch.Tensor], None], reset: str) -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        for step in range(40):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            rate = 0.1 if step < 20 else 0.02
            for p in model.parameters():
                change(p, rate * p.grad)
                if reset == "none":
                    p.grad = None
                elif reset == "zero":
                    p.grad.zero_()
                else:
                    p.grad.data.zero_()
            expected.append(loss.item())
    assert seen.losses() == expected
    (info,) = seen.recording.optimizers
    assert (info.kind, [p.name for p in info.parameters]) == (
        "manual",
        ["0.weight", "0.bias", "2.weight", "2.bias"],
    )
    assert info.made is not None
    assert info.made.file.endswith("test_by_hand.py")
    rates = seen.recording.get(signals.LR)
    assert rates.values == pytest.approx([0.1, 0.02], rel=1e-3)
    # Seen at the first look after the change.
    assert rates.steps.tolist() == [0, 24]
    gradient, update = seen.values(signals.GRADIENT), seen.values(signals.UPDATE)
    assert update[0] == pytest.approx(0.1 * gradient[0], rel=1e-4)
    assert len(seen.steps(signals.COSINE)) == len(seen.steps(signals.GRADIENT))


def test_a_rule_that_is_no_multiple_of_the_gradient_has_no_rate() -> None:
    with watched() as seen:
        model = mlp()
        for step in range(20):
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad.sign()
                    p.grad = None
    assert len(seen.losses()) == 20
    assert len(seen.values(signals.LR)) == 0


def test_accumulation_by_hand() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        for step in range(6):
            total = 0.0
            for part in range(3):
                x, y = batch(seed=10 * step + part)
                loss = F.cross_entropy(model(x), y) / 3
                loss.backward()
                total += loss.item()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad.zero_()
            expected.append(total)
    assert seen.losses() == pytest.approx(expected)
    assert seen.values(signals.BACKWARDS).tolist() == [3]


@pytest.mark.parametrize("separately", [True, False])
def test_functional_steps(separately: bool) -> None:
    """`w = w - rate * gradient`, with gradients from `torch.autograd.grad`."""
    torch.manual_seed(0)
    expected = []
    with watched() as seen:
        w, b = torch.zeros(6, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
        for step in range(30):
            x, y = batch(seed=step)
            loss = F.cross_entropy(x @ w + b, y)
            if separately:
                (dw,) = torch.autograd.grad(loss, w, retain_graph=True)
                (db,) = torch.autograd.grad(loss, b)
            else:
                dw, db = torch.autograd.grad(loss, (w, b))
            w = (w - 0.1 * dw).detach().requires_grad_()
            b = (b - 0.1 * db).detach().requires_grad_()
            expected.append(loss.item())
    # Whether there was a step after the last gradient, nobody can tell.
    assert seen.losses() == expected[:-1]
    assert seen.values(signals.LR)[0] == pytest.approx(0.1, rel=1e-3)
    assert len(seen.steps(signals.COSINE)) > 2


def test_functional_steps_in_place() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        parameters = list(model.parameters())
        for step in range(20):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    p -= 0.1 * g
            expected.append(loss.item())
    assert seen.losses() == expected[:-1]
    assert next(p.name for p in seen.recording.optimizers[0].parameters) == "0.weight"


def test_an_explanation_of_inputs_is_no_training() -> None:
    with watched() as seen:
        model = mlp()
        for step in range(20):
            x, y = batch(seed=step)
            x.requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(x), y), x)
    assert seen.recording.optimizers == ()
    assert seen.watcher.steps == 0


def test_gradients_of_gradients_are_no_training() -> None:
    with watched() as seen:
        x = torch.ones(3, requires_grad=True)
        for _ in range(5):
            (g,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)
            torch.autograd.functional.hessian(lambda x: x.pow(3).sum(), torch.ones(3))
            assert g.sum().item() == 9
    assert seen.watcher.steps == 0


def test_backward_without_any_change_is_no_training() -> None:
    with watched() as seen:
        model = mlp()
        for step in range(10):
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()
    assert seen.watcher.steps == 0
    assert seen.recording.optimizers == ()


def test_one_model_after_another() -> None:
    expected = []
    models = []
    with watched() as seen:
        for seed in range(3):
            model = mlp(seed)
            models.append(model)  # alive, with its gradients
            for step in range(5):
                x, y = batch(seed=step)
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 0.1 * p.grad
                expected.append(loss.item())
                model.zero_grad(set_to_none=step % 2 == 0)
    assert seen.losses() == expected


def test_two_models_in_turns() -> None:
    torch.manual_seed(0)
    expected = []
    with watched() as seen:
        generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
        for turn in range(12):
            moved = (generator, critic)[turn % 2]
            sign = 1.0 if moved is critic else -1.0
            loss = sign * critic(generator(torch.randn(8, 2))).tanh().mean()
            for p in (*generator.parameters(), *critic.parameters()):
                p.grad = None
            loss.backward()
            for p in moved.parameters():
                p.data -= 0.1 * p.grad
            expected.append(loss.item())
    assert seen.losses() == pytest.approx(expected)


def test_an_optimizer_after_steps_by_hand_is_a_source_of_its_own() -> None:
    with watched() as seen:
        model = mlp()
        by_hand = []
        for step in range(4):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            for p in model.parameters():
                p.data -= 0.1 * p.grad
                p.grad = None
            by_hand.append(loss.item())
        expected = train(model, torch.optim.SGD(model.parameters(), lr=0.1), 10)
    assert [o.kind for o in seen.recording.optimizers] == ["manual", "SGD"]
    # The last step by hand shows at the next backward pass, which is the optimizer's.
    assert seen.losses(0) == by_hand[:3]
    assert seen.losses(1) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_leaves_of_any_type(dtype: torch.dtype) -> None:
    with watched() as seen:
        w = torch.ones(4, dtype=dtype, requires_grad=True)
        for _ in range(6):
            (w.abs() ** 2).sum().float().backward()
            w.data -= 0.125 * w.grad
            w.grad = None
    assert len(seen.losses()) == 6
    assert seen.values(signals.LR)[0] == pytest.approx(0.125, rel=1e-2)


def test_a_scalar_and_a_sparse_leaf() -> None:
    with watched() as seen:
        scale = torch.tensor(2.0, requires_grad=True)
        embedding = nn.Embedding(10, 2, sparse=True)
        for _ in range(6):
            (scale * embedding(torch.tensor([1, 2])).pow(2).sum()).backward()
            with torch.no_grad():
                scale -= 0.01 * scale.grad
                embedding.weight -= 0.01 * embedding.weight.grad
            scale.grad = embedding.weight.grad = None
    assert len(seen.losses()) == 6


def test_leaves_are_found_in_the_order_of_the_forward_pass() -> None:
    model = mlp()
    x, y = batch()
    found = leaves_of([F.cross_entropy(model(x), y)])
    assert [id(p) for p in found] == [id(p) for p in model.parameters()]
    assert leaves_of([torch.ones(1)]) == []
