"""What parameters are called."""

from __future__ import annotations

import gc

import torch
from torch import nn
from watching import mlp, train, watched

from gradwise.probes.names import Names


def names_of(module: nn.Module, *more: nn.Module) -> list[str | None]:
    names = Names()
    for each in (module, *more):
        names.add(each)
    return [names(p) for p in module.parameters()]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False)
        self.scale = nn.Parameter(torch.ones(1))


def test_a_model_gives_its_own_names() -> None:
    assert names_of(mlp()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert names_of(Block()) == ["scale", "inner.weight"]


def test_parts_are_named_after_the_whole() -> None:
    model = mlp()
    names = Names()
    names.add(model[2])
    names.add(model)
    assert names(model[2].bias) == "2.bias"


def test_among_several_models_names_tell_which() -> None:
    assert names_of(Block(), mlp()) == ["Block.scale", "Block.inner.weight"]
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    names = Names()
    names.add(first)
    names.add(second)
    assert (names(first.bias), names(second.bias)) == ("Linear.bias", "Linear2.bias")


def test_names_that_were_given_stay() -> None:
    names = Names()
    model, other = Block(), Block()
    names.add(model)
    assert names(model.scale) == "scale"
    names.add(other)
    assert names(model.scale) == "scale"
    assert names(other.scale) == "Block2.scale"


def test_wrappers_are_seen_through() -> None:
    model = Block()
    assert names_of(nn.DataParallel(model)) == ["scale", "inner.weight"]
    assert names_of(torch.compile(model)) == ["scale", "inner.weight"]  # type: ignore[arg-type]
    assert names_of(torch.compile(nn.DataParallel(model))) == ["scale", "inner.weight"]  # type: ignore[arg-type]
    assert names_of(nn.Sequential(torch.compile(model))) == ["0.scale", "0.inner.weight"]  # type: ignore[arg-type]
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert names_of(averaged) == ["scale", "inner.weight"]
    # A module of the user's own may well be called "module".
    assert names_of(nn.ModuleDict({"module": model})) == ["module.scale", "module.inner.weight"]


def test_shared_parameters_and_modules_have_one_name() -> None:
    block = Block()
    assert names_of(nn.ModuleList([block, block])) == ["0.scale", "0.inner.weight"]


def test_a_module_in_a_circle() -> None:
    block = Block()
    block.inner._modules["back"] = block
    assert names_of(block) == ["scale", "inner.weight"]


def test_a_model_at_the_address_of_one_that_is_gone() -> None:
    names = Names()
    for _ in range(10):
        model = Block()
        names.add(model)
        assert [names(p) for p in model.parameters()] == ["scale", "inner.weight"]
        del model
        gc.collect()


def test_unknown_parameters_have_none() -> None:
    assert Names()(nn.Parameter(torch.ones(1))) is None


def test_parameters_of_no_module_are_called_by_their_place() -> None:
    with watched() as seen:
        loose = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
        model = mlp()
        optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": loose}], lr=0.1)
        train(model, optimizer, 3)
    held = seen.recording.optimizers[0].parameters
    assert [p.name for p in held] == ["0.weight", "0.bias", "2.weight", "2.bias", "1.0", "1.1"]
    assert [p.group for p in held] == [0, 0, 0, 0, 1, 1]


def test_no_two_parameters_of_an_optimizer_have_one_name() -> None:
    with watched() as seen:
        first = nn.Linear(6, 3)
        train(first, torch.optim.SGD(first.parameters(), lr=0.1), 2)
        del first
        second = nn.Linear(6, 3)
        both = [*second.parameters()]
        third = nn.Linear(6, 3)
        both += third.parameters()
        train(second, torch.optim.SGD(both, lr=0.1), 2)
    for info in seen.recording.optimizers:
        names = [p.name for p in info.parameters]
        assert len(set(names)) == len(names)
