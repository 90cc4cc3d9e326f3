"""The shared loop trains as a plain one does, seeds decide everything, a killed training goes on as if it never was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradwise.lab import checkpoint, x05_lenet
from gradwise.lab.data import Split, load
from gradwise.lab.experiment import Bench
from gradwise.lab.models import convnet, lenet5, mlp, weights
from gradwise.lab.training import History, evaluate, fit, seeded
from gradwise.optim import Adam
from gradwise.schedules import attach, cosine, reduce_on_plateau, step

WINE = load("wine")


def trained(seed: int, epochs: int = 3, **more: object) -> tuple[nn.Module, History]:
    with seeded(seed):
        model = mlp([13, 16, 3], dropout=0.2)
        optimizer = Adam(model.parameters(), lr=0.01)
        history = fit(
            model, optimizer, WINE.train, batch=32, epochs=epochs, seed=seed, validation=WINE.validation, **more
        )  # type: ignore[arg-type]
    return model, history


def test_it_is_a_plain_loop() -> None:
    with seeded(5):
        ours = mlp([13, 16, 3])
    with seeded(5):
        theirs = mlp([13, 16, 3])
    scheduler = attach(optimizer := torch.optim.SGD(ours.parameters(), lr=0.1), cosine(12))
    history = fit(ours, optimizer, WINE.train, batch=32, epochs=3, seed=5, scheduler=scheduler)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    losses = []
    for epoch in range(3):
        order = torch.randperm(len(WINE.train), generator=torch.Generator().manual_seed(5 * 1_000_003 + epoch))
        for k in range(0, len(order), 32):
            optimizer.param_groups[0]["lr"] = 0.1 * cosine(12)(len(losses))
            chosen = order[k : k + 32]
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs(WINE.train.x[chosen]), WINE.train.y[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert history.losses == losses
    assert torch.equal(weights(ours), weights(theirs))
    assert history.steps == 12
    assert history.lr == [pytest.approx(0.1 * cosine(12)(k)) for k in (3, 7, 11)]


def test_a_seed_decides_everything_and_leaves_no_trace() -> None:
    torch.manual_seed(7)
    before = torch.rand(3)
    torch.manual_seed(7)
    (one, first), (two, second), (three, third) = trained(1), trained(1), trained(2)
    assert torch.equal(torch.rand(3), before)
    assert first == second
    assert torch.equal(weights(one), weights(two))
    assert first.losses != third.losses
    assert not torch.equal(weights(one), weights(three))


def test_lengths_and_hooks() -> None:
    seen: list[int] = []
    _, history = trained(0, each_step=seen.append, each_epoch=lambda epoch, history: epoch == 2, epochs=9)
    assert seen == list(range(1, 9)), "two epochs of four steps, then it was told to stop"
    assert len(history.train) == len(history.validation) == len(history.accuracy) == len(history.lr) == 2
    with seeded(0):
        model = mlp([13, 3])
        few = fit(model, Adam(model.parameters()), WINE.train, batch=32, steps=6, seed=0)
    assert (few.steps, len(few.losses), len(few.train)) == (6, 6, 2)


def test_it_stops_where_the_loss_is_no_longer_finite() -> None:
    with seeded(0):
        model = mlp([13, 16, 3])
        history = fit(model, torch.optim.SGD(model.parameters(), lr=1e30), WINE.train, batch=32, epochs=50, seed=0)
    assert history.diverged
    assert history.steps < 20
    assert None in history.to_json()["losses"]


def test_penalty_and_augmentation_count_in_training_only() -> None:
    with seeded(0):
        model = mlp([13, 3])
        plain = evaluate(model, WINE.train)[0]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        batches: list[int] = []

        def shown(x: torch.Tensor) -> torch.Tensor:
            batches.append(len(x))
            return x

        penalty = lambda: 100 * weights(model).square().sum()  # noqa: E731
        history = fit(model, optimizer, WINE.train, batch=1000, epochs=1, seed=0, penalty=penalty, augment=shown)
    assert history.train == [pytest.approx(plain, rel=1e-5)]
    assert batches == [len(WINE.train)]


def test_a_plateau_sees_the_validation_loss() -> None:
    with seeded(0):
        model = mlp([13, 3])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        scheduler = attach(optimizer, reduce_on_plateau(0.5, patience=2, threshold=1.0))
        history = fit(model, optimizer, WINE.train, batch=64, epochs=5, seed=0, validation=WINE.validation,
                      scheduler=scheduler)  # fmt: skip
    assert history.lr == [pytest.approx(v) for v in (1e-9, 1e-9, 1e-9, 5e-10, 5e-10)]


def test_evaluation_is_a_mean_over_rows() -> None:
    model = mlp([13, 3], dropout=0.5).train()
    loss, accuracy = evaluate(model, WINE.test, batch=7)
    output = model.eval()(WINE.test.x)
    assert loss == pytest.approx(F.cross_entropy(output, WINE.test.y).item(), rel=1e-5)
    assert accuracy == pytest.approx((output.argmax(1) == WINE.test.y).float().mean().item())
    values = load("diabetes")
    loss, accuracy = evaluate(mlp([10, 1]), values.test)
    assert math.isfinite(loss)
    assert math.isnan(accuracy)


def test_channels_last_images_stay_so() -> None:
    images = load("digits").first(64).train
    last = Split(torch.cat([images.x] * 3, 1).contiguous(memory_format=torch.channels_last), images.y)
    seen: list[bool] = []
    with seeded(0):
        model = lenet5(3, 10, 8)
        model.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
        one = fit(model, Adam(model.parameters()), last, batch=16, epochs=1, seed=0)
    with seeded(0):
        model = lenet5(3, 10, 8)
        other = fit(model, Adam(model.parameters()), Split(last.x.contiguous(), last.y), batch=16, epochs=1, seed=0)
    assert all(seen)
    assert one.losses == pytest.approx(other.losses, rel=1e-4)


@pytest.mark.parametrize(("model", "shape"), [
    (lenet5(3, 10, 32), (3, 32, 32)), (lenet5(1, 10, 28), (1, 28, 28)), (lenet5(1, 10, 8), (1, 8, 8)),
    (convnet(1, 10), (1, 8, 8)), (convnet(3, 10, norm=True), (3, 32, 32)),
])  # fmt: skip
def test_models_take_their_images(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_a_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    state = {"a": torch.arange(3), 5: [1.5, None, ("x", torch.ones(2, 2))], "dict": {"tensor": 1}, "b": True}
    path = tmp_path / "state.checkpoint"
    checkpoint.save(path, state)
    found = checkpoint.load(path)
    assert torch.equal(found.pop("a"), torch.arange(3))
    assert torch.equal(found[5][2][1], torch.ones(2, 2))
    assert found[5][:2] == [1.5, None]
    assert found["dict"] == {"tensor": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.checkpoint"]
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoint.load(path) is None
    assert checkpoint.load(tmp_path / "none") is None


def test_x5_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The full form's path on small images: only the full form keeps checkpoints.
    small = load("digits").first(200)
    monkeypatch.setattr(x05_lenet, "load", lambda name, data_dir=None: small)
    settings = {"lr": 0.03, "epochs": 8, "decay": "plateau"}

    class Killed(Exception):
        pass

    def kill(share: float) -> None:
        if share == 0.75:
            raise Killed

    whole = x05_lenet.measure(settings, 3, Bench())
    kept = tmp_path / "a.checkpoint"
    with pytest.raises(Killed):
        x05_lenet.measure(settings, 3, Bench(checkpoint=kept, progress=kill))
    assert kept.is_file()
    shares: list[float] = []
    assert x05_lenet.measure(settings, 3, Bench(checkpoint=kept, progress=shares.append)) == whole
    assert shares == [0.75, 0.875, 1.0], "five epochs were kept"


def test_schedules_drive_the_rate() -> None:
    with seeded(0):
        model = mlp([13, 3])
        optimizer = Adam(model.parameters(), lr=0.1)
        history = fit(
            model, optimizer, WINE.train, batch=32, epochs=4, seed=0, scheduler=attach(optimizer, step(8, 0.5))
        )
    assert history.lr == [pytest.approx(v) for v in (0.1, 0.1, 0.05, 0.05)]
