"""Small trainings, sick and healthy look-alikes, from the probes through to the diagnosis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from watching import watched

from gradwise.diagnosis import Diagnosis, diagnose
from gradwise.recording import signals
from gradwise.recording.recording import Recording, RunInfo, Series

Data = tuple[Tensor, Tensor]


def blobs(n: int = 600, features: int = 12, classes: int = 4, spread: float = 1.0, seed: int = 0) -> Data:
    """Points around one centre per class, in random order."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2.0 * torch.randn(classes, features, generator=generator)
    y = torch.randint(0, classes, (n,), generator=generator)
    return centres[y] + spread * torch.randn(n, features, generator=generator), y


def mlp(inputs: int = 12, outputs: int = 4, hidden: int = 32, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


def entropy(out: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(out, y)


def squares(out: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(out, y)


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    held_out: Data | None = None,
    *,
    epochs: int = 20,
    batch: int = 20,
    loss: Callable[[Tensor, Tensor], Tensor] = entropy,
    shuffle: bool = True,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    x, y = data
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(x), generator=generator) if shuffle else torch.arange(len(x))
        for i in range(0, len(x), batch):
            rows = order[i : i + batch]
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if held_out is not None:
            model.eval()
            with torch.no_grad():
                loss(model(held_out[0]), held_out[1])


def diagnosed(run: Callable[[], None]) -> Diagnosis:
    with watched() as seen:
        run()
    r = seen.recording
    return diagnose(Recording(RunInfo("x", facts={"torch": "2"}), r.optimizers, r.series, r.events))


def ids(diagnosis: Diagnosis, least: float = 0.6) -> list[str]:
    found = (*diagnosis.findings, *diagnosis.suspicions)
    return [f.id for f in found if f.severity != "info" and f.confidence >= least]


def sgd(model: nn.Module, lr: float = 0.1, **options: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr, **options)


def in_order(data: Data) -> Data:
    order = data[1].argsort(stable=True)
    return data[0][order], data[1][order]


def test_sorted_by_class_and_never_shuffled() -> None:
    model = mlp()
    result = diagnosed(lambda: fit(model, sgd(model), in_order(blobs(spread=3.0)), shuffle=False))
    assert ids(result)[0] == "unshuffled-data"
    finding = result.findings[0]
    assert finding.evidence["period"] == 30
    assert finding.remedies == ()  # batches cut by hand
    assert "torch.randperm" in finding.explanation


def test_the_loader_that_does_not_shuffle_is_named() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    def run() -> None:
        model, loader = mlp(), DataLoader(TensorDataset(*in_order(blobs(spread=3.0))), batch_size=20)
        optimizer = sgd(model)
        for _ in range(20):
            for x, y in loader:
                optimizer.zero_grad()
                entropy(model(x), y).backward()
                optimizer.step()

    finding = diagnosed(run).findings[0]
    assert finding.id == "unshuffled-data"
    assert finding.where.file is not None
    assert finding.where.file.endswith("test_diagnosed.py")
    assert finding.evidence["sampler"] == "SequentialSampler"
    assert finding.remedies[0].intervention.fixes == ("shuffle",)


def test_an_order_that_does_no_harm_is_only_suspected() -> None:
    model = mlp()
    result = diagnosed(lambda: fit(model, sgd(model), in_order(blobs()), shuffle=False))
    assert (ids(result), ids(result, 0.3)) == ([], ["unshuffled-data"])
    assert result.verdict == "healthy"


@pytest.mark.parametrize("kind", ["random order that stays", "sorted but shuffled", "whole batch", "drifting"])
def test_order_that_is_none(kind: str) -> None:
    data = blobs()
    model = mlp()

    def run() -> None:
        if kind == "random order that stays":
            fit(model, sgd(model), data, shuffle=False)
        elif kind == "sorted but shuffled":
            fit(model, sgd(model), in_order(data))
        elif kind == "whole batch":
            fit(model, sgd(model), in_order(data), shuffle=False, batch=600, epochs=200)
        else:  # one pass over targets that move, as in online learning
            x, y = data
            fit(mlp(12, 1), sgd(model), (x.repeat(4, 1), torch.linspace(0, 1, 4 * len(y))[:, None]), epochs=1,
                shuffle=False, loss=squares)  # fmt: skip

    assert "unshuffled-data" not in ids(diagnosed(run), 0.3)


def mixed(data: Data) -> Data:
    return data[0], data[1][torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(7))]


def test_labels_that_belong_to_other_inputs() -> None:
    model, data = mlp(hidden=128), mixed(blobs(900))
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    result = diagnosed(lambda: fit(model, adam, (data[0][:600], data[1][:600]), (data[0][600:], data[1][600:])))
    assert ids(result)[0] == "labels-mismatched"
    assert result.findings[0].evidence["loss_without_looking"] == pytest.approx(1.38, abs=0.03)


def test_noisy_labels_still_belong() -> None:
    x, y = blobs(900)
    generator = torch.Generator().manual_seed(3)
    wrong = torch.rand(len(y), generator=generator) < 0.5
    y = torch.where(wrong, torch.randint(0, 4, (len(y),), generator=generator), y)
    model = mlp()
    run = diagnosed(lambda: fit(model, sgd(model, 0.02), (x[:600], y[:600]), (x[600:], y[600:]), epochs=12))
    assert ids(run) == []


@pytest.mark.parametrize("shape", ["linear", "bent"])
def test_numbers_that_are_mostly_noise_are_no_mismatch(shape: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 10, generator=generator)
    signal = 0.36 * x[:, :1] if shape == "linear" else 0.4 * x[:, :1] * x[:, 1:2]
    y = signal + torch.randn(4000, 1, generator=generator)
    model = mlp(10, 1, 16 if shape == "linear" else 64)
    adam = torch.optim.Adam(model.parameters(), 1e-3 if shape == "linear" else 5e-3)
    train, held_out = (x[:3000], y[:3000]), (x[3000:], y[3000:])
    assert ids(diagnosed(lambda: fit(model, adam, train, held_out, epochs=6, batch=50, loss=squares)), 0.3) == []


def test_numbers_that_belong_to_other_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 10, generator=generator)
    y = x[:, :1].roll(1, 0) + x[:, 1:2].roll(1, 0)
    model = mlp(10, 1, 128)
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    train, held_out = (x[:600], y[:600]), (x[600:], y[600:])
    assert ids(diagnosed(lambda: fit(model, adam, train, held_out, loss=squares)))[0] == "labels-mismatched"


def test_a_parity_that_no_simple_predictor_sees_is_no_mismatch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2000, 10, generator=generator) > 0.5).float() * 2 - 1
    y = (x[:, 0] * x[:, 1] * x[:, 2] > 0).long()
    model = mlp(10, 2, 64)
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    result = diagnosed(lambda: fit(model, adam, (x[:1600], y[:1600]), (x[1600:], y[1600:]), epochs=12, batch=32))
    assert "labels-mismatched" not in ids(result, 0.3)


def rings() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=generator)
    return x, (x.square().sum(1) > 1.4).long()


def test_a_line_cannot_part_rings() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    assert ids(diagnosed(lambda: fit(model, sgd(model), rings(), epochs=20))) == ["underfitting"]


def test_a_net_can() -> None:
    model = mlp(2, 2)
    assert ids(diagnosed(lambda: fit(model, sgd(model), rings(), epochs=40))) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda m: sgd(m, weight_decay=0.5),
        lambda m: torch.optim.Adam(m.parameters(), 1e-3, weight_decay=1.0),
        lambda m: torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=30.0),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_decay_that_leaves_nothing(make: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    model = mlp()
    data = blobs(spread=0.7)
    result = diagnosed(lambda: fit(model, make(model), data))
    assert ids(result)[0] == "over-regularized"
    assert result.findings[0].remedies[0].intervention.decay_scale == 0.1


def test_a_usual_decay_is_only_mentioned() -> None:
    model = mlp()
    result = diagnosed(lambda: fit(model, sgd(model, weight_decay=1e-3), blobs()))
    assert ids(result, 0.3) == []
    (info,) = result.findings
    assert (info.id, info.severity) == ("decay-on-bias-or-norm", "info")
    assert result.verdict == "healthy"


def test_decay_on_weights_only_is_not_mentioned() -> None:
    model = mlp()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 1e-3},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, 0.1)
    assert diagnosed(lambda: fit(model, optimizer, blobs())).findings == ()


def test_dropout_that_leaves_nothing_and_one_that_does_not() -> None:
    data, held_out = blobs(600, classes=8), blobs(200, classes=8)
    strong, usual = mlp(12, 8, 24, 0.95), mlp(12, 8, 64, 0.3)
    result = diagnosed(lambda: fit(strong, sgd(strong), data, held_out))
    assert ids(result)[0] == "over-regularized"
    assert result.findings[0].remedies[0].intervention.dropout_scale == 0.4
    assert "over-regularized" not in ids(diagnosed(lambda: fit(usual, sgd(usual), data, held_out)), 0.3)


def test_a_rate_that_is_gone_before_the_descent() -> None:
    model = mlp()
    optimizer = sgd(model, 0.01)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.3)
    result = diagnosed(lambda: fit(model, optimizer, blobs(), epochs=30, scheduler=decay))
    assert ids(result)[0] == "lr-decayed-too-early"
    assert result.findings[0].remedies[0].intervention.lr is not None


def test_what_a_rate_that_was_gone_left_unlearned_is_not_blamed_on_the_model() -> None:
    model = mlp(2, 2)
    optimizer = sgd(model, 0.05)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    result = diagnosed(lambda: fit(model, optimizer, rings(), epochs=40, batch=4, loss=by_hand, scheduler=decay))
    assert ids(result)[0] == "lr-decayed-too-early"
    assert "underfitting" not in ids(result, 0.3)


@pytest.mark.parametrize("gamma", [0.7, 0.9])
def test_a_rate_that_is_gone_after_it(gamma: float) -> None:
    model = mlp()
    optimizer = sgd(model, 0.1)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    result = diagnosed(lambda: fit(model, optimizer, blobs(), epochs=40, scheduler=decay))
    assert "lr-decayed-too-early" not in ids(result, 0.3)


def test_epsilon_above_the_gradients() -> None:
    model = mlp()
    adam = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-3)
    result = diagnosed(lambda: fit(model, adam, blobs(), loss=lambda out, y: 1e-5 * entropy(out, y)))
    assert ids(result)[0] == "eps-dominated-updates"
    assert result.findings[0].remedies[0].intervention.eps is not None


def test_epsilon_above_what_is_left_of_the_gradients_after_a_descent() -> None:
    model = mlp()
    adam = torch.optim.Adam(model.parameters(), 1e-2, eps=1e-5)
    assert ids(diagnosed(lambda: fit(model, adam, blobs(spread=0.2), epochs=40)), 0.3) == []


def test_validation_that_turns_up_names_the_step() -> None:
    x, y = blobs(300, 20, 2, spread=6.0)
    model = mlp(20, 2, 128)
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    result = diagnosed(lambda: fit(model, adam, (x[:150], y[:150]), (x[150:], y[150:]), epochs=60))
    assert ids(result) == ["overfitting"]
    finding = result.findings[0]
    assert finding.remedies[0].intervention.stop == finding.where.step
    assert finding.where.step is not None
    assert finding.where.step < 250


def by_hand(out: Tensor, y: Tensor) -> Tensor:
    return -out.log_softmax(1)[torch.arange(len(y)), y].mean()


def squares_by_hand(out: Tensor, y: Tensor) -> Tensor:
    return ((out - y) ** 2).mean()


def test_sorted_by_class_under_a_loss_written_out_by_hand() -> None:
    model = mlp()
    result = diagnosed(lambda: fit(model, sgd(model), in_order(blobs(spread=3.0)), shuffle=False, loss=by_hand))
    assert ids(result)[0] == "unshuffled-data"


def test_an_order_of_which_too_little_was_seen_shows_in_the_losses_own_cycle() -> None:
    model, data = mlp(), in_order(blobs(spread=3.0))
    with watched() as seen:
        fit(model, sgd(model), data, shuffle=False)
    r = seen.recording
    # A few batches in a row at the beginning, and single ones later: none of them an epoch apart.
    kept = [*range(16), *np.cumsum(np.arange(20, 39))]
    classes = r.get(signals.CLASSES, 0)
    thin = Series(classes.steps[kept], classes.values[kept], classes.labels)
    series = {**r.series, (signals.CLASSES.name, 0): thin}
    result = diagnose(Recording(RunInfo("x", facts={"torch": "2"}), r.optimizers, series, r.events))
    assert ids(result)[0] == "unshuffled-data"
    assert result.findings[0].evidence["loss_cycle"] == 30


def test_labels_that_nothing_held_out_speaks_for_are_a_doubt() -> None:
    model, data = mlp(hidden=64), mixed(blobs(600))
    result = diagnosed(lambda: fit(model, sgd(model, 0.05), data, epochs=25))
    assert ids(result) == []
    assert "labels-mismatched" in ids(result, 0.45)
    assert result.verdict == "inconclusive"


def test_labels_that_belong_are_none_with_nothing_held_out() -> None:
    model = mlp()
    assert ids(diagnosed(lambda: fit(model, sgd(model, 0.05), blobs(), epochs=25, loss=by_hand)), 0.3) == []


@pytest.mark.parametrize("loss", [squares, squares_by_hand])
def test_a_run_that_ends_where_a_guess_is_has_not_come_down(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.bias.fill_(5.0)
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(400, 3, generator=generator), torch.randn(400, 1, generator=generator)
    result = diagnosed(lambda: fit(model, sgd(model, 0.05), data, epochs=60, batch=100, loss=loss))
    assert result.verdict == "inconclusive"
    assert "never looks at the input" in result.summary


def test_zero_weights_are_the_cause_of_units_that_are_zero() -> None:
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    assert ids(diagnosed(lambda: fit(model, sgd(model), blobs())))[0] == "stuck-at-saddle"


def test_a_flat_valley_that_is_followed_in_steps_all_paid_is_worth_a_higher_rate() -> None:
    curvatures = torch.tensor([1.0, 1e-3])

    def run() -> None:
        place = torch.tensor([1.0, 30.0], requires_grad=True)
        optimizer = torch.optim.SGD([place], 0.05)
        for _ in range(400):
            optimizer.zero_grad()
            (0.5 * (curvatures * place**2).sum()).backward()
            optimizer.step()

    result = diagnosed(run)
    assert (ids(result), ids(result, 0.45)) == ([], ["lr-too-low"])
    assert result.verdict == "healthy"


def test_single_rows_whose_loss_is_nearly_all_noise_are_suspected() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 6, generator=generator)
    y = x[:, :1] + 8 * torch.randn(1200, 1, generator=generator)
    model = mlp(6, 1)
    result = diagnosed(lambda: fit(model, sgd(model, 0.003), (x, y), epochs=1, batch=1, loss=squares))
    assert "noisy-small-batch" in ids(result, 0.3)
    assert "noisy-small-batch" not in ids(result)
