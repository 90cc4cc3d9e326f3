"""Configurations trained at once end where each ends alone."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwise
from batched.nets import classes, double, mlp, training
from gradwise.batched import BatchError, Trained, Training
from gradwise.batched.loop import alone
from gradwise.interventions import RULES

CONFIGS: list[dict[str, Any]] = [
    *({"rule": rule, "lr": 0.01} for rule in RULES),
    {"rule": "adam", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.5, "beta2": 0.9, "schedule": "cosine"},
    {"rule": "momentum", "lr": 0.1, "momentum": 0.99, "clip": 0.5, "schedule": "warmup-cosine"},
    {"rule": "sgd", "lr": 1.0, "weight_decay": 0.1, "schedule": "step"},
    {"rule": "sgd", "lr": 0.1, "epochs": 2, "schedule": "linear"},
    {"rule": "sgd", "lr": 0.1, "batch_size": 9},
    {"rule": "sgd", "lr": 0.1, "hidden": 4},
]


def quiet(epoch: int, value: float) -> None:
    pass


def same(task: Training, configs: list[dict[str, Any]], seeds: list[int], tolerance: float = 1e-12) -> list[Trained]:
    made = task.train(configs, seeds)
    for config, seed, together in zip(configs, seeds, made, strict=True):
        by_itself = alone(task, config, seed, quiet)
        assert together.steps == by_itself.steps == task.steps(config)
        assert together.history == pytest.approx(by_itself.history, rel=tolerance)
        assert together.start == pytest.approx(by_itself.start, rel=tolerance)
        for name, value in by_itself.state.items():
            torch.testing.assert_close(
                together.state[name], value, rtol=tolerance, atol=tolerance, msg=f"{config} {name}"
            )
    return made


@pytest.mark.parametrize("seeds", [[0] * len(CONFIGS), list(range(len(CONFIGS)))], ids=["one seed", "many seeds"])
def test_each_row_ends_where_it_ends_alone(seeds: list[int]) -> None:
    with double():
        same(training(), CONFIGS, seeds)


def test_the_loop_is_the_one_that_torch_users_write() -> None:
    with double():
        task = training()
        (x, y), (held, answers), _ = classes(6)
        for config, kind in (
            (
                {"rule": "adamw", "lr": 0.02, "weight_decay": 0.1},
                lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
            ),
            ({"rule": "nesterov", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        ):
            torch.manual_seed(5)
            model = mlp({})
            optimizer, luck = kind(model.parameters()), torch.Generator().manual_seed(5)
            for _ in range(3):
                for chosen in torch.randperm(len(x), generator=luck).split(16):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
                    optimizer.step()
            loss = nn.functional.cross_entropy(model(held), answers).item()
            found = task.train([config, {"lr": 0.1}], 5)[0]
            assert found.value == pytest.approx(loss, rel=1e-9)
            assert task(config, 5) == pytest.approx(loss, rel=1e-9)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(x).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.other.weight = self.one.weight
        self.one.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.other(torch.tanh(self.one(x)))))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(20, 3)
    )


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("make", "shape"),
    [(normalized, (6,)), (Attention, (4, 6)), (Tied, (6,)), (convolutions, (2, 10, 10))],
    ids=["batch norm", "attention", "tied and frozen", "convolutions"],
)
def test_architectures(make: Any, shape: tuple[int, ...]) -> None:
    with double():
        configs = [{"lr": 0.1}, {"lr": 0.01, "rule": "momentum"}, {"lr": 0.5}]
        made = same(training(lambda config: make(), *shape), configs, [0, 0, 0], 1e-9)
        assert all(float(m.state["1.num_batches_tracked"]) == 15 for m in made if "1.num_batches_tracked" in m.state)
        same(training(lambda config: make(), *shape, epochs=1), configs, [1, 2, 3], 1e-9)


def test_dropout_differs_from_row_to_row_and_is_off_in_validation() -> None:
    task = training(lambda config: nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.ReLU(), nn.Linear(64, 3)))
    made = task.train([{"lr": 0.1}, {"lr": 0.1}, {"lr": 1e-30}, {"lr": 1e-30}])
    assert not torch.equal(made[0].state["0.weight"], made[1].state["0.weight"])
    assert made[2].history == pytest.approx(made[3].history, rel=1e-6)
    again = task.train([{"lr": 0.1}, {"lr": 0.1}, {"lr": 1e-30}, {"lr": 1e-30}])
    assert [m.history for m in made] == [m.history for m in again]


def test_a_configuration_that_diverges_leaves_the_others_alone() -> None:
    with double():
        task = training()
        made = task.train([{"lr": 0.1}, {"lr": 1e200, "weight_decay": 1.0}, {"lr": 0.01}])
        assert (made[1].value, made[1].diverged) == (None, True)
        assert made[1].steps < made[0].steps  # it leaves the batch when it has
        for k, rate in ((0, 0.1), (2, 0.01)):
            assert made[k].value == pytest.approx(task({"lr": rate}), rel=1e-12)


def test_more_rows_than_fit_train_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    with double():
        configs = [{"lr": 0.1 * k} for k in range(1, 8)]
        whole = [m.value for m in training().train(configs)]
        assert [m.value for m in training(rows=3).train(configs)] == pytest.approx(whole, rel=1e-12)
        monkeypatch.setattr("gradwise.batched.loop._FAST", 1)
        assert [m.value for m in training().train(configs)] == pytest.approx(whole, rel=1e-12)


def test_the_callers_luck_and_model_are_not_touched() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model = mlp({})
    kept = copy.deepcopy(model.state_dict())
    training(lambda config: model).train([{"lr": 0.1}, {"lr": 0.2}])
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    torch.set_rng_state(before)
    task = training()
    task.train([{"lr": 0.1}, {"lr": 0.2}])
    task({"lr": 0.1})
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_alone_are_their_own_targets_and_arrays_will_do() -> None:
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    task = Training(lambda config: nn.Linear(4, 4), nn.functional.mse_loss, gradwise.split(x), epochs=4)
    slow, fast = task.train([{"lr": 0.001}, {"lr": 0.3}])
    assert fast.value is not None
    assert slow.value is not None
    assert fast.value < slow.value
    model = nn.Linear(4, 4)
    model.load_state_dict(fast.state)
    assert task.tested is not None
    assert task.test({"lr": 0.3}) == pytest.approx(
        nn.functional.mse_loss(model(task.tested[0]), task.tested[0]).item(), rel=1e-4
    )


def test_another_score_than_the_loss() -> None:
    def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).float().mean()

    task = training(score=accuracy, epochs=5)
    found = gradwise.tune(task, {"lr": [1e-6, 0.5], "rule": "momentum"}, method="grid", trials=2, maximize=True)
    assert found.config == {"lr": 0.5, "rule": "momentum"}
    assert found.value is not None
    assert found.value > 0.6
    assert float(found.value) * 40 == pytest.approx(round(found.value * 40))


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.out(x)
        return 2 * h if h.sum() > 0 else h


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return self.out(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (lambda c: Decides(), {}, "data-dependent control flow.*rows=1 trains one after another"),
        (lambda c: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, momentum=None)), {}, "rows=1"),
        (lambda c: Counting(), {}, "puts another tensor in place of its buffer seen"),
        (mlp, {"optimizer": lambda m, c: torch.optim.Adam(m.parameters())}, "take gradwise.optim's"),
    ],
)
def test_what_can_t_be_done_for_many_is_refused(model: Any, options: dict[str, Any], said: str) -> None:
    task = training(model, **options)
    with pytest.raises(BatchError, match=said):
        task.train([{"lr": 0.1}, {"lr": 0.2}])
    assert math.isfinite(task({"lr": 0.1}))
    with pytest.raises(BatchError, match=said):
        gradwise.tune(task, {"lr": "1e-3..1"}, trials=30)
    task.rows = 1
    assert gradwise.tune(task, {"lr": "1e-3..1"}, trials=2).value is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": [1]}, "got 1 part"),
        ({"data": [(torch.ones(3), torch.ones(2))] * 2}, "3 inputs and 2 targets"),
        ({"data": [torch.utils.data.TensorDataset(torch.ones(3))] * 2}, "a dataset becomes such by"),
        ({"epochs": 0}, "epochs must be a whole number from 1"),
        ({"rows": 0}, "rows must be"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Training(mlp, nn.functional.cross_entropy, **{"data": classes(6), **given})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rule": "magic"}, "there is no rule 'magic'"),
        ({"schedule": "magic"}, "there is no schedule 'magic'"),
        ({"rule": "adagrad", "momentum": 0.9}, "adagrad has no momentum"),
        ({"rule": "sgd", "beta2": 0.9}, "sgd has no beta2"),
        ({"rule": "sgd", "eps": 0.1}, "sgd has no eps"),
        ({"batch_size": 0}, "batch_size and epochs"),
    ],
)
def test_a_configuration_that_makes_no_sense_fails_by_itself(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        training().train([config, {"lr": 0.1}])
    space = {k: [v] for k, v in config.items()} | {"lr": [0.1, 0.2]}
    found = gradwise.tune(training(), space, method="grid", trials=2)
    assert {t["state"] for t in found.trials} == {"failed"}
    assert said in found.trials[0]["problem"]


def test_a_model_that_does_not_fit_its_inputs_fails_by_itself() -> None:
    task = training(lambda config: nn.Linear(config["width"], 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        task.train([{"width": 6}, {"width": 6}, {"width": 5}, {"width": 5}])
    found = gradwise.tune(task, {"width": [5, 6], "lr": [0.1, 0.2]}, method="grid", trials=4)
    assert [t["state"] for t in found.trials] == ["failed", "failed", "complete", "complete"]
    assert "shapes cannot be multiplied" in found.trials[0]["problem"]


def test_losses_that_are_no_means_are_refused() -> None:
    task = Training(mlp, lambda o, y: nn.functional.cross_entropy(o, y, reduction="none"), classes(6))
    with pytest.raises(BatchError, match="must be one number for a batch"):
        task.train([{"lr": 0.1}, {"lr": 0.2}])
    with pytest.raises(TypeError, match="gave int, which is no"):
        training(lambda config: 3).train([{"lr": 0.1}])  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="1 seeds for 2 configurations"):
        training().train([{"lr": 0.1}, {"lr": 0.2}], [1])
