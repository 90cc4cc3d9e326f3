"""Which losses led to which step: accumulation, several optimizers, closures, wrappers, loss scaling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, mlp, train, watched

from gradwise.recording import signals


def sgd(model: nn.Module, lr: float = 0.1, **settings: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, **settings)


def test_one_loss_a_step() -> None:
    with watched() as seen:
        model = mlp()
        expected = train(model, sgd(model), 12)
    assert seen.losses() == expected
    assert seen.steps(signals.LOSS) == seen.steps(signals.TIME) == list(range(12))
    times = seen.values(signals.TIME)
    assert (times[1:] >= times[:-1]).all()
    assert seen.values(signals.BACKWARDS).tolist() == [1]
    assert seen.values(signals.BATCH).tolist() == [16]


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("to_none", [True, False])
def test_accumulated_losses_are_summed(divide: bool, to_none: bool) -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for step in range(5):
            total = 0.0
            for part in range(3):
                x, y = batch(seed=10 * step + part)
                loss = F.cross_entropy(model(x), y) / (3 if divide else 1)
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
            expected.append(total)
    assert seen.losses() == pytest.approx(expected)
    assert seen.values(signals.BACKWARDS).tolist() == [3]


def test_the_number_of_accumulated_passes_is_recorded_when_it_changes() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for parts in (1, 1, 4, 4, 2):
            optimizer.zero_grad()
            for part in range(parts):
                x, y = batch(seed=part)
                F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert seen.steps(signals.BACKWARDS) == [0, 2, 4]
    assert seen.values(signals.BACKWARDS).tolist() == [1, 4, 2]


@pytest.mark.parametrize("reset", ["optimizer", "optimizer in place", "model", "by hand", "never"])
@pytest.mark.parametrize("when", ["before backward", "after step"])
def test_any_way_to_reset_gradients(reset: str, when: str) -> None:
    def clear() -> None:
        if reset == "by hand":
            for p in model.parameters():
                p.grad = None
        elif reset == "model":
            model.zero_grad()
        elif reset != "never":
            optimizer.zero_grad(set_to_none=reset == "optimizer")

    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model, lr=0.01)
        for step in range(6):
            if when == "before backward":
                clear()
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if when == "after step":
                clear()
            expected.append(loss.item())
    assert seen.losses() == expected


@pytest.mark.parametrize("to_none", [True, False])
def test_a_batch_that_is_skipped_leaves_no_loss_behind(to_none: bool) -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for step in range(8):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if step % 3 != 1:
                optimizer.step()
                expected.append(loss.item())
            optimizer.zero_grad(set_to_none=to_none)
    assert seen.losses() == expected


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("to_none", [True, False])
def test_gan_each_optimizer_has_its_own_loss(detach: bool, to_none: bool) -> None:
    torch.manual_seed(0)
    losses_d, losses_g = [], []
    with watched() as seen:
        generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
        step_g, step_d = sgd(generator), sgd(critic)
        for _ in range(7):
            fake = generator(torch.randn(8, 2))
            step_d.zero_grad(set_to_none=to_none)
            real = F.binary_cross_entropy_with_logits(critic(torch.randn(8, 3)), torch.ones(8, 1))
            wrong = F.binary_cross_entropy_with_logits(critic(fake.detach() if detach else fake), torch.zeros(8, 1))
            (real + wrong).backward(retain_graph=not detach)
            step_d.step()
            losses_d.append((real + wrong).item())
            step_g.zero_grad(set_to_none=to_none)
            # A new pass through the critic, whose weights have just been changed.
            fooled = F.binary_cross_entropy_with_logits(critic(generator(torch.randn(8, 2))), torch.ones(8, 1))
            fooled.backward()
            step_g.step()
            losses_g.append(fooled.item())
    assert seen.losses(0) == losses_g
    assert seen.losses(1) == losses_d


def test_gan_whose_critic_is_trained_on_two_losses_and_more_often() -> None:
    torch.manual_seed(0)
    losses_d, losses_g = [], []
    with watched() as seen:
        generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
        step_g, step_d = sgd(generator), sgd(critic)
        for turn in range(9):
            step_d.zero_grad()
            real = -critic(torch.randn(8, 3)).mean()
            real.backward()
            wrong = critic(generator(torch.randn(8, 2)).detach()).mean()
            wrong.backward()
            step_d.step()
            losses_d.append(real.item() + wrong.item())
            if turn % 3 == 0:
                step_g.zero_grad()
                fooled = -critic(generator(torch.randn(8, 2))).mean()
                fooled.backward()
                step_g.step()
                losses_g.append(fooled.item())
    assert seen.losses(0) == losses_g
    assert seen.losses(1) == pytest.approx(losses_d)


def test_optimizers_that_share_one_loss() -> None:
    with watched() as seen:
        model = mlp()
        first, second = sgd(model[0]), torch.optim.Adam(model[2].parameters(), lr=1e-3)
        expected = []
        for step in range(6):
            first.zero_grad()
            second.zero_grad()
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            first.step()
            second.step()
            expected.append(loss.item())
    assert seen.losses(0) == seen.losses(1) == expected
    assert [o.kind for o in seen.recording.optimizers] == ["SGD", "Adam"]


def test_a_parameter_without_gradient_does_not_hide_the_loss() -> None:
    """The smallest parameters are frozen or unused in some batches."""
    with watched() as seen:
        model = nn.ModuleDict({"a": nn.Linear(6, 3), "b": nn.Linear(6, 3, bias=False), "frozen": nn.Linear(6, 1)})
        model["frozen"].requires_grad_(False)
        optimizer = sgd(model)
        expected = []
        for step in range(8):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            loss = F.cross_entropy(model["ab"[step % 2]](x), y)
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert seen.losses() == expected


def test_lbfgs_has_one_loss_a_step_its_first() -> None:
    x, y = batch(64)
    firsts = []
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
        for _ in range(4):
            evaluated = []

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                evaluated.append(loss.item())  # noqa: B023
                return loss

            optimizer.step(closure)
            assert len(evaluated) > 1
            firsts.append(evaluated[0])
    assert seen.losses() == firsts
    assert seen.values(signals.BACKWARDS).tolist() == [1]


def test_closures_of_several_optimizers() -> None:
    """As a framework steps: all of zero_grad, forward and backward in the closure, after another optimizer's turn."""
    torch.manual_seed(0)
    expected: list[list[float]] = [[], []]
    with watched() as seen:
        generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
        optimizers = [torch.optim.Adam(generator.parameters(), lr=1e-2), torch.optim.Adam(critic.parameters(), lr=1e-2)]
        for _ in range(6):
            for which, sign in ((0, -1.0), (1, 1.0)):

                def closure() -> torch.Tensor:
                    optimizers[which].zero_grad()  # noqa: B023
                    loss = sign * critic(generator(torch.randn(8, 2))).mean()  # noqa: B023
                    loss.backward()
                    expected[which].append(loss.item())  # noqa: B023
                    return loss

                optimizers[which].step(closure)
    assert seen.losses(0) == expected[0]
    assert seen.losses(1) == expected[1]


def test_accumulation_that_ends_in_a_closure() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)

        def evaluate(seed: int) -> torch.Tensor:
            x, y = batch(seed=seed)
            loss = F.cross_entropy(model(x), y) / 2
            loss.backward()
            return loss

        for step in range(5):
            first = evaluate(2 * step)
            second = optimizer.step(lambda: evaluate(2 * step + 1))  # noqa: B023
            optimizer.zero_grad()
            expected.append(first.item() + second.item())
    assert seen.losses() == pytest.approx(expected)


class Lookahead(torch.optim.Optimizer):
    """Steps another optimizer, and every few steps pulls its parameters back."""

    def __init__(self, base: torch.optim.Optimizer, every: int = 3) -> None:
        self.base, self.every, self.count = base, every, 0
        super().__init__([p for g in base.param_groups for p in g["params"]], {"lr": 1.0})
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.base.step()
        self.count += 1
        if self.count % self.every == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, [p for g in self.param_groups for p in g["params"]], strict=True):
                    slow += 0.5 * (p - slow)
                    p.copy_(slow)


def test_a_step_within_a_step_is_part_of_it() -> None:
    with watched() as seen:
        model = mlp()
        expected = train(model, Lookahead(sgd(model)), 40)
    kinds = {o.kind: o.index for o in seen.recording.optimizers}
    assert seen.losses(kinds["Lookahead"]) == expected
    assert seen.losses(kinds["SGD"]) == []
    assert seen.watcher.steps == 40


class Louder(torch.optim.SGD):
    """A subclass that calls the step of its base class, which has the hooks of its own."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step(closure)


def test_a_step_that_calls_its_base_class_counts_once() -> None:
    with watched() as seen:
        plain = mlp()
        train(plain, sgd(plain), 2)  # so that SGD.step itself has hooks
        model = mlp()
        expected = train(model, Louder(model.parameters(), lr=0.1), 40)
    assert seen.losses(1) == expected
    assert seen.steps(signals.TIME, 1) == list(range(40))


class SAM(torch.optim.Optimizer):
    """Sharpness-aware: a first step up to where the gradient is taken, a second back and down."""

    def __init__(self, params: object, base: type[torch.optim.Optimizer], rho: float = 0.05, **settings: float) -> None:
        super().__init__(params, {"rho": rho, **settings})  # type: ignore[arg-type]
        self.base = base(self.param_groups, **settings)  # type: ignore[arg-type]
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        for p in params:
            self.state[p]["at"] = p.detach().clone()
            p.add_(p.grad, alpha=0.05 / float(norm + 1e-12))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for g in self.param_groups:
            for p in g["params"]:
                p.copy_(self.state[p]["at"])
        self.base.step()
        self.zero_grad()

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert callable(closure)
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


@pytest.mark.parametrize("by_closure", [True, False])
def test_sharpness_aware_steps_count_once(by_closure: bool) -> None:
    perturbed = []
    with watched() as seen:
        model = mlp()
        optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
        for step in range(20):
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()

            def closure() -> torch.Tensor:
                loss = F.cross_entropy(model(x), y)  # noqa: B023
                loss.backward()
                perturbed.append(loss.item())
                return loss

            if by_closure:
                optimizer.step(closure)
            else:
                optimizer.first_step()
                closure()
                optimizer.second_step()
    counted = [o.index for o in seen.recording.optimizers if seen.losses(o.index)]
    assert len(counted) == 1
    # The loss whose gradient made the step.
    assert seen.losses(counted[0]) == perturbed


class Accelerated(torch.optim.Optimizer):
    """A wrapper that is an optimizer in name: it makes none of its base class' preparations."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, object]]:  # type: ignore[override]
        return self.optimizer.param_groups

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


def test_a_wrapper_that_skips_its_base_class() -> None:
    with watched() as seen:
        model = mlp()
        expected = train(model, Accelerated(sgd(model)), 20)
    assert [o.kind for o in seen.recording.optimizers] == ["SGD"]
    assert seen.losses() == expected


def test_an_optimizer_made_anew_each_epoch_goes_on() -> None:
    with watched() as seen:
        model = mlp()
        expected = []
        for _ in range(4):
            expected += train(model, sgd(model), 5)
    assert len(seen.recording.optimizers) == 1
    assert seen.losses() == expected
    assert seen.steps(signals.LOSS) == list(range(20))


def test_cross_validation_makes_a_source_per_fold_up_to_a_number() -> None:
    with watched() as seen:
        expected = []
        for fold in range(11):
            model = mlp(fold)
            expected.append(train(model, sgd(model), 4))
    recording = seen.recording
    assert len(recording.optimizers) == len(recording.sources(signals.LOSS)) == 8
    assert [seen.losses(i) for i in range(8)] == expected[:8]


def test_an_optimizer_that_was_there_before() -> None:
    model = mlp()
    optimizer = sgd(model)
    train(model, optimizer, 3)
    with watched() as seen:
        expected = train(model, optimizer, 20)
    assert [o.kind for o in seen.recording.optimizers] == ["SGD"]
    assert seen.losses() == expected


def test_wrapped_optimizers_that_were_there_before() -> None:
    model = mlp()
    optimizer = Lookahead(sgd(model))
    with watched() as seen:
        expected = train(model, optimizer, 20)
    (index,) = (o.index for o in seen.recording.optimizers if o.kind == "Lookahead")
    assert seen.losses(index) == expected


class Fragile(torch.optim.SGD):
    """Its step fails now and then, before or after the one of its base class."""

    fail = ""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        if self.fail == "before":
            raise ArithmeticError
        super().step(closure)
        if self.fail == "after":
            raise ArithmeticError


@pytest.mark.parametrize("fail", ["before", "after"])
@pytest.mark.parametrize("start", [2, 30])
def test_a_step_that_fails_and_is_caught(fail: str, start: int) -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = Fragile(model.parameters(), lr=0.1)
        for step in range(40):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.fail = fail if start <= step < start + 3 else ""
            try:
                optimizer.step()
            except ArithmeticError:
                pass
            else:
                expected.append(loss.item())
    assert [x for x in seen.losses() if x in expected] == expected
    # A step that failed after its base class had made it may count.
    assert len(seen.losses()) <= len(expected) + (3 if fail == "after" else 0)


def test_a_closure_that_fails_and_is_caught() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for step in range(12):

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                x, y = batch(seed=step)  # noqa: B023
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                if step == 5:  # noqa: B023
                    raise ArithmeticError
                return loss

            try:
                expected.append(optimizer.step(closure).item())
            except ArithmeticError:
                # What follows outside of a step has nothing to do with the one that failed.
                closure_loss = F.cross_entropy(model(batch(seed=99)[0]), batch(seed=99)[1])
                closure_loss.backward()
    assert seen.losses() == expected


def test_grad_scaler_gives_the_loss_before_scaling() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
        for step in range(10):
            x, y = batch(seed=step)
            total = 0.0
            for _ in range(2):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = F.cross_entropy(model(x), y) / 2
                scaler.scale(loss).backward()
                total += loss.item()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            expected.append(total)
    assert seen.losses() == pytest.approx(expected)
    gradient, update = seen.values(signals.GRADIENT), seen.values(signals.UPDATE)
    assert update == pytest.approx(0.1 * gradient, rel=1e-3)  # the gradient is the unscaled one, too
    scales = seen.values(signals.SCALE)
    assert len(scales) >= 1
    assert scales[-1] == scaler.get_scale() == 8192.0


def test_a_step_that_grad_scaler_skips_is_none() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(8):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            if step in (2, 5):
                loss = loss + float("inf")
            scaler.scale(loss).backward()
            for p in model.parameters():
                if step in (2, 5):
                    p.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if step not in (2, 5):
                expected.append(loss.item())
    assert seen.losses() == expected


def test_losses_that_are_no_scalar_or_several() -> None:
    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for step in range(3):
            optimizer.zero_grad()
            x, y = batch(seed=step)
            each = F.cross_entropy(model(x), y, reduction="none")
            weights = torch.linspace(0, 1, len(y))
            each.backward(weights)
            optimizer.step()
            expected.append(float((each.detach() * weights).sum()))
        for step in range(3):
            optimizer.zero_grad()
            x, y = batch(seed=step)
            pair = [F.cross_entropy(model(x), y), model(x).pow(2).mean().reshape(1)]
            torch.autograd.backward(pair)
            optimizer.step()
            expected.append(pair[0].item() + pair[1].item())
    assert seen.losses() == pytest.approx(expected)


def test_backward_within_backward_is_part_of_it() -> None:
    """A reentrant checkpoint runs a backward pass of its own inside the engine's."""
    from torch.utils.checkpoint import checkpoint

    expected = []
    with watched() as seen:
        model = mlp()
        optimizer = sgd(model)
        for step in range(6):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            hidden = checkpoint(model[0], x.requires_grad_(), use_reentrant=True)
            loss = F.cross_entropy(model[2](torch.tanh(hidden)), y)
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert seen.losses() == expected
    assert seen.watcher.backwards == 6


def test_optimizers_that_step_inside_the_backward_pass() -> None:
    with watched() as seen:
        model = mlp()
        optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

        def step_and_forget(p: torch.Tensor) -> None:
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step_and_forget)
        expected = []
        for step in range(12):
            x, y = batch(seed=step)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            expected.append(loss.item())
    for source in range(4):
        assert seen.losses(source)[1:] == expected[1:]


def test_an_optimizer_on_other_parameters_of_the_same_number() -> None:
    """Two models from one line, trained in turns."""
    models = [mlp(0), mlp(1)]
    with watched() as seen:
        optimizers = [sgd(model) for model in models]
        expected = [train(models[i % 2], optimizers[i % 2], 3) for i in range(6)]
    assert seen.losses(0) == [loss for losses in expected[0::2] for loss in losses]
    assert seen.losses(1) == [loss for losses in expected[1::2] for loss in losses]
