"""Who decays: by what a parameter is to its model, by patterns, once each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradwise.regularization import Groups, check_groups, decay_groups


class RMS2Norm(nn.Module):  # a norm by its name only
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(n, 2)
        self.norm = RMS2Norm(n)
        self.scale = nn.Parameter(torch.full((n, 1, 1), 1e-5))
        self.mlp = nn.Sequential(nn.Linear(n, n), nn.PReLU(), nn.Linear(n, n), nn.LayerNorm(n))


class Net(nn.Module):
    def __init__(self, n: int = 4, blocks: int = 3, *, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, n)
        self.token = nn.Parameter(torch.zeros(1, 1, n))
        self.position = nn.Parameter(torch.zeros(1, 5, n))
        self.blocks = nn.ModuleList(Block(n) for _ in range(blocks))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(n, 10)
        if tied:
            self.head.weight = self.embedding.weight


def decaying(groups: Groups, model: nn.Module) -> dict[str, bool]:
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: bool(g["weight_decay"]) for g in groups for p in g["params"]}


def test_weights_decay_and_nothing_else() -> None:
    model = Net(blocks=1)
    assert decaying(decay_groups(model), model) == {
        "embedding.weight": True,
        "token": False,
        "position": True,
        "blocks.0.scale": False,
        "blocks.0.attention.in_proj_weight": True,
        "blocks.0.attention.in_proj_bias": False,
        "blocks.0.attention.out_proj.weight": True,
        "blocks.0.attention.out_proj.bias": False,
        "blocks.0.norm.weight": False,
        "blocks.0.mlp.0.weight": True,
        "blocks.0.mlp.0.bias": False,
        "blocks.0.mlp.1.weight": False,
        "blocks.0.mlp.2.weight": True,
        "blocks.0.mlp.2.bias": False,
        "blocks.0.mlp.3.weight": False,
        "blocks.0.mlp.3.bias": False,
        "temperature": False,
        "head.weight": True,
        "head.bias": False,
    }


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(30, 1), nn.Conv1d(1, 1, 3), nn.ConvTranspose2d(2, 3, 1), nn.LSTM(1, 1, 2), nn.GRUCell(1, 1),
     nn.Bilinear(1, 1, 1)],
)  # fmt: skip
def test_a_layers_weight_decays_however_small(layer: nn.Module) -> None:
    model = nn.Sequential(layer)
    assert all(d == ("weight" in name) for name, d in decaying(decay_groups(model), model).items())


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.InstanceNorm1d(3, affine=True), nn.LayerNorm((3, 3)),
     nn.GroupNorm(1, 3), nn.RMSNorm(3), RMS2Norm(3)],
)  # fmt: skip
def test_no_normalization_decays_whatever_its_shape(norm: nn.Module) -> None:
    assert not any(decaying(decay_groups(norm), norm).values())


def test_a_weight_vector_of_ones_own_decays() -> None:
    class Logistic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.zeros(30)), nn.Parameter(torch.zeros(()))

    model = Logistic()
    assert decaying(decay_groups(model), model) == {"w": True, "b": False}


def test_embeddings_are_exempt_on_demand_also_where_tied() -> None:
    model = Net(tied=True)
    assert decaying(decay_groups(model), model)["embedding.weight"]
    groups = decay_groups(model, embeddings=False)
    assert not decaying(groups, model)["embedding.weight"]
    assert "embedding, weight, tied to head.weight" in groups.summary()
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_patterns_adjust() -> None:
    model = Net(blocks=2)
    groups = decay_groups(model, no_decay=["position", "blocks.*.attention.*"], decay=["*.mlp.?.bias"])
    seen = decaying(groups, model)
    assert not seen["position"]
    assert not seen["blocks.1.attention.in_proj_weight"]
    assert seen["blocks.1.mlp.0.bias"]
    tied = Net(tied=True)
    assert not decaying(decay_groups(tied, no_decay=["head.weight"]), tied)["embedding.weight"]


def test_frozen_parameters_are_left_out_and_said_to_be() -> None:
    model = Net(blocks=1)
    model.embedding.requires_grad_(False)
    groups = decay_groups(model)
    assert "embedding.weight" not in decaying(groups, model)
    assert "frozen, in no group · 1 tensor: embedding.weight" in str(groups)


def test_what_went_where_is_printed(capsys) -> None:
    groups = decay_groups(nn.Linear(3, 2), weight_decay=0.1, verbose=True)
    expected = (
        "decay · weight_decay 0.1 · 1 tensor, 6 parameters\n  weight  2 × 3  weight\n"
        "no decay · weight_decay 0 · 1 tensor, 2 parameters\n  bias    2      bias"
    )
    assert capsys.readouterr().out == expected + "\n"
    assert repr(groups) == str(groups) == expected


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_an_optimizer_takes_them(kind) -> None:
    model = Net(blocks=1)
    optimizer = kind(decay_groups(model, weight_decay=0.05), lr=0.1)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.05, 0.0]
    check_groups(model, optimizer.param_groups)


def test_only_weights_shrink() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
            p.grad = torch.zeros_like(p)
    torch.optim.AdamW(decay_groups(model, 0.5), lr=0.1).step()
    assert [float(p.detach().mean()) for p in model.parameters()] == pytest.approx([0.95, 1, 1, 1])


def rates(groups: Groups, model: nn.Module) -> dict[str, float]:
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: g["lr"] for g in groups for p in g["params"]}


def test_rates_fall_from_the_last_layer_to_the_first() -> None:
    model = Net(blocks=3)
    groups = decay_groups(model, lr=1.0, layer_decay=0.5)
    seen = rates(groups, model)
    assert seen["head.weight"] == seen["head.bias"] == 1.0
    assert [seen[f"blocks.{k}.mlp.0.weight"] for k in range(3)] == [0.125, 0.25, 0.5]
    assert seen["embedding.weight"] == seen["position"] == 0.0625
    assert [g["name"] for g in groups][:3] == ["layer 0, decay", "layer 0, no decay", "layer 1, decay"]


def test_a_plain_stack_has_its_modules_as_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert list(rates(decay_groups(model, lr=1.0, layer_decay=0.1), model).values()) == pytest.approx(
        [0.01, 0.01, 0.1, 0.1, 1, 1]
    )


def test_frozen_blocks_are_counted() -> None:
    model = Net(blocks=3)
    model.blocks.requires_grad_(False)
    seen = rates(decay_groups(model, lr=1.0, layer_decay=0.5), model)
    assert (seen["head.weight"], seen["embedding.weight"]) == (1.0, 0.0625)


def test_layers_can_be_named() -> None:
    model = Net(blocks=2)
    layers = ["[tp]*", "embedding*", "blocks.*", "head*"]
    seen = rates(decay_groups(model, lr=1.0, layer_decay=0.5, layers=layers), model)
    assert (seen["token"], seen["embedding.weight"], seen["blocks.1.scale"], seen["head.bias"]) == (0.125, 0.25, 0.5, 1)


class TwoStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.two = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))


def layered(model: nn.Module, layers: list[str] | None = None) -> Groups:
    return decay_groups(model, lr=1.0, layer_decay=0.5, layers=layers)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m: decay_groups(m, -1), "weight_decay must be at least 0, got -1"),
        (lambda m: decay_groups(m, no_decay=["*.gama"]), "no_decay pattern '\\*.gama' matches no parameter, as token"),
        (lambda m: decay_groups(m, no_decay="*.bias"), r"no_decay is a list of patterns: \['\*.bias'\]"),
        (lambda m: decay_groups(m, no_decay=["head.*"], decay=["*.weight"]), "head.weight is matched by both"),
        (lambda m: decay_groups(m, layer_decay=0.5), "needs lr"),
        (lambda m: decay_groups(m, lr=1, layer_decay=1.5), r"layer_decay must be in \(0, 1\]"),
        (lambda m: decay_groups(m, layers=["*"]), "layers are for layer_decay"),
        (lambda m: layered(m, ["emb*"]), "token must be in one layer, but is matched by no pattern"),
        (lambda m: layered(m, ["*", "head*"]), "head.weight must be in one layer.*'\\*', 'head\\*'"),
        (lambda m: layered(m, ["*", "x*"]), "layers pattern 'x\\*' matches no parameter"),
        (lambda m: layered(m.head), "no list of blocks.*give layers="),
        (lambda m: layered(TwoStages()), "two and one both hold blocks"),
        (lambda m: decay_groups(nn.LazyLinear(3)), "weight has no shape yet"),
        (lambda m: check_groups(m.head, [{"params": [m.head.weight]}]), "in no group: bias"),
        (
            lambda m: check_groups(m.head, [{"params": [*m.head.parameters(), m.head.bias]}]),
            "in more than one group: bias",
        ),
        (
            lambda m: check_groups(m.head, [{"params": m.head.parameters()}, {"params": m.token}]),
            "not of this model: a tensor of shape",
        ),
    ],
)
def test_what_makes_no_sense_is_said(wrong, words) -> None:
    with pytest.raises(ValueError, match=words):
        wrong(Net(blocks=2))
