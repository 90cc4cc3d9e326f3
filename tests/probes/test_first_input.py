"""What the model's first layer is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import watched


def seen_input(model: nn.Module, x: torch.Tensor) -> dict[str, Any] | None:
    with watched() as seen:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model(x).square().mean().backward()
            optimizer.step()
    events = seen.recording.happened("input")
    assert len(events) <= 1
    return dict(events[0].data) if events else None


def check(found: dict[str, Any] | None, x: torch.Tensor) -> None:
    assert found is not None
    assert found["shape"] == list(x.shape)
    assert found["mean"] == pytest.approx(float(x.mean()), rel=1e-4, abs=1e-6)
    assert found["std"] == pytest.approx(float(x.std()), rel=1e-4)


def test_features_of_a_table() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 4) * torch.tensor([1.0, 1e-3, 100.0, 0.0]) + 5
    found = seen_input(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), x)
    check(found, x)
    assert found is not None
    spread = x[:, :3].std(0)
    assert found["feature_ratio"] == pytest.approx(float(spread.max() / spread.min()), rel=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(1)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)),
        nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(8, 3, bias=False), nn.Tanh()),
    ],
)
def test_models_that_begin_otherwise(model: nn.Module) -> None:
    x = torch.randn(5, 3, 8, 8)
    found = seen_input(model, x)
    assert found is not None
    assert found["mean"] == pytest.approx(float(x.mean()), rel=1e-4, abs=1e-5)


def test_what_the_model_does_to_its_input_first_counts() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer((x - 10) / 100)

    x = torch.randn(20, 3) * 100 + 10
    check(seen_input(Scaled(), x), (x - 10) / 100)


def test_tokens_are_no_numbers() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(10, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.table(x.long()))

    assert seen_input(Tokens(), torch.randint(0, 10, (3, 5)).float()) is None


def test_what_is_saved_through_hooks_is_let_be() -> None:
    """A checkpoint would compute its part again, with all that this changes."""
    from torch.utils.checkpoint import checkpoint

    calls = []

    class Counting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return F.linear(x, self.weight, self.bias)

    layer = Counting(3, 1)

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.layer, x, use_reentrant=False)

    assert seen_input(Checkpointed(), torch.randn(4, 3)) is None
    assert len(calls) == 3 * 2


def test_large_images_are_sampled_by_rows() -> None:
    x = torch.randn(40, 3, 256, 256)
    found = seen_input(nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1)), x)
    assert found is not None
    assert found["shape"] == [40, 3, 256, 256]
    assert found["std"] == pytest.approx(1.0, rel=0.01)


def test_how_features_lie() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 5) * torch.tensor([1.0, 2.0, 300.0, 0.5, 0.0]) + torch.tensor([0.0, 0.0, 0.0, 50.0, 7.0])
    found = seen_input(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), x)
    assert found is not None
    assert found["operation"] == "Addmm"
    assert [found["features"], found["samples"], found["constant"]] == [5, 200, pytest.approx(0.2)]
    assert found["largest"] == pytest.approx(300, rel=0.2)
    assert found["usual"] == pytest.approx(2, rel=0.2)
    assert found["widest"] / found["wide"] == pytest.approx(300, rel=0.3)
    assert found["offset"] < 1


def test_channels_are_an_image_s_features() -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 3, 6, 6) + torch.tensor([100.0, 100.0, 0.0]).view(3, 1, 1)
    found = seen_input(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 1)), x)
    assert found is not None
    assert found["features"] == 3
    assert found["offset"] == pytest.approx(100, rel=0.2)


def test_the_state_that_a_recurrence_begins_with_is_no_data() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.RNN(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(x)[0][-1])

    x = torch.randn(6, 5, 3) + 4
    found = seen_input(Last(), x)
    assert found is not None
    assert found["mean"] == pytest.approx(float(x.mean()), rel=1e-4)


def test_what_is_multiplied_with_no_parameter_is_no_data() -> None:
    """A graph's adjacency matrix stands where data does."""
    torch.manual_seed(0)
    adjacency, x = torch.rand(12, 12).round(), torch.randn(12, 4) + 3

    class Convolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 5, bias=False), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(adjacency @ self.one(x))

    check(seen_input(Convolved(), x), x)
