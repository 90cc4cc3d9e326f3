"""Wiring mended from outside: what the optimizer holds, where the graph is cut, modes, order, the end."""

from __future__ import annotations

import pytest
import torch
from changing import SEED, Net, adam, changed, data, net, sgd, stack, train
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from gradwise.recording.signals import TIME
from gradwise.trials.changes.base import Stage
from gradwise.trials.child import RunComplete

# adopting


class Listed(nn.Module):
    """Keeps its hidden layer in a plain list, where `parameters()` doesn't see it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(5, 8)]
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(torch.relu(self.hidden[0](x)))


def partly() -> tuple[nn.Module, list, list]:
    model = net()
    return model, [*model.two.parameters(), *model.out.parameters()], list(model.one.parameters())


def listed() -> tuple[nn.Module, list, list]:
    torch.manual_seed(0)
    model = Listed()
    return model, list(model.parameters()), list(model.hidden[0].parameters())


@pytest.mark.parametrize("make", [partly, listed])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad])
def test_lost_parameters_are_adopted(make, kind):
    edited, held, lost = make()
    expected = train(edited, kind([*held, *lost], lr=0.05))
    with changed(fixes=["adopt-parameters"]) as run:
        model, held, lost = make()
        optimizer = kind(held, lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
        assert train(model, optimizer) == pytest.approx(expected, rel=1e-6)
        scheduler.step()
    assert not run.refused


def test_what_another_optimizer_holds_is_not_adopted():
    """A generator's loss reaches the discriminator, which has an optimizer of its own."""
    with changed(fixes=["adopt-parameters"]) as run:
        g, d = nn.Linear(2, 5), net()
        of_g, of_d = sgd(g), sgd(d)
        for _ in range(2):
            fake = g(torch.randn(8, 2))
            of_d.zero_grad()
            d(fake.detach()).mean().backward()
            of_d.step()
            of_g.zero_grad()
            d(fake).mean().backward()
            of_g.step()
        assert len(of_g.param_groups[0]["params"]) == 2
    assert "held by an optimizer" in run.refused


def test_an_optimizer_made_anew_adopts_again():
    with changed(fixes=["adopt-parameters"]):
        model, held, lost = partly()
        for _ in range(2):
            optimizer = torch.optim.SGD(held, lr=0.1)
            train(model, optimizer, 1)
            assert len(optimizer.param_groups[0]["params"]) == len(held) + len(lost)


# unfreezing


class Cut(Net):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                h = torch.relu(self.one(x))
        elif self.how == "decorated":
            h = self.first(x)
        else:
            h = torch.relu(self.one(x))
            h = h.detach() if self.how == "detach" else h.data if self.how == "data" else h
        return self.out(torch.relu(self.two(h)))

    @torch.no_grad()
    def first(self, x):
        return torch.relu(self.one(x))


def cut(how: str) -> nn.Module:
    torch.manual_seed(0)
    return Cut(how)


@pytest.mark.parametrize("how", ["no_grad", "decorated", "detach", "data"])
def test_what_cuts_the_graph_has_no_effect_in_training(how):
    edited = net()
    expected = train(edited, sgd(edited))
    untouched = cut(how)
    assert train(untouched, sgd(untouched)) != expected
    with changed(fixes=["unfreeze"]) as run:
        model = cut(how)
        assert train(model, sgd(model)) == expected
        with torch.no_grad():
            assert not model(data()[0]).requires_grad
        assert not model(data()[0]).detach().requires_grad  # outside of the model it is the script's own affair
    assert not run.refused
    assert "data" not in vars(torch.Tensor)


@pytest.mark.parametrize("late", [False, True])
def test_frozen_parameters_are_trained(late):
    edited = net()
    expected = train(edited, adam(edited))
    with changed(fixes=["unfreeze"]):
        model = net()
        optimizer = adam(model) if late else None
        for p in model.one.parameters():
            p.requires_grad = False
        assert train(model, optimizer or adam(model)) == expected


def test_no_gradient_comes_through_numpy():
    class Through(Net):
        def forward(self, x):
            h = torch.from_numpy(2 * torch.relu(self.one(x)).detach().numpy())
            return self.out(torch.relu(self.two(h)))

    with changed(fixes=["unfreeze"]) as run:
        model = Through()
        train(model, sgd(model), 1)
    assert "numpy" in run.refused


def test_nothing_to_unfreeze():
    with changed(fixes=["unfreeze"]) as run:
        model = net()
        train(model, sgd(model))
    assert "no module's forward cuts the graph" in run.refused


# modes


def dropping() -> nn.Module:
    return stack(0, nn.Dropout(0.5))


def epochs(model, optimizer, training: bool, evaluating: bool, grads: bool = False) -> list[float]:
    """Two epochs with an evaluation after each; which of the calls set the mode is what differs."""
    torch.manual_seed(9)
    losses = []
    model.eval()
    for _ in range(2):
        if training:
            model.train()
        losses += train(model, optimizer, 2)
        if evaluating:
            model.eval()
        losses.append(evaluate(model, grads))
    return losses


def evaluate(model, grads) -> float:
    with torch.set_grad_enabled(grads):
        x, y = data(seed=50)
        return F.cross_entropy(model(x), y).item()


@pytest.mark.parametrize("grads", [False, True])
@pytest.mark.parametrize("kind", [dropping, lambda: stack(0, nn.BatchNorm1d(8))], ids=["dropout", "norm"])
def test_training_mode_where_it_was_forgotten(kind, grads):
    edited = kind()
    expected = epochs(edited, sgd(edited), True, True, grads)
    untouched = kind()
    assert epochs(untouched, sgd(untouched), False, True, grads) != expected
    with changed(fixes=["modes"]):
        model = kind()
        assert epochs(model, sgd(model), False, True, grads) == expected
        assert not model.training


@pytest.mark.parametrize("kind", [dropping, lambda: stack(0, nn.BatchNorm1d(8))], ids=["dropout", "norm"])
def test_evaluation_mode_where_it_was_forgotten(kind):
    edited = kind()
    expected = epochs(edited, sgd(edited), True, True)
    with changed(fixes=["modes"]):
        model = kind()
        assert epochs(model, sgd(model), True, False) == expected


def test_a_generator_without_gradients_stays_in_training_mode():
    with changed(fixes=["modes"]) as run:
        g, d = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5)), net()
        of_g, of_d = sgd(g), sgd(d)
        for _ in range(3):
            with torch.no_grad():
                fake = g(torch.randn(8, 2))
            d(fake).mean().backward()
            of_d.step()
            d(g(torch.randn(8, 2))).mean().backward()
            of_g.step()
    assert g[1].num_batches_tracked == 5  # all but the first call, of which nothing was known
    assert not run.refused


# order


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_are_shuffled_for_training(workers):
    rows = TensorDataset(torch.arange(20))
    generator = Stage(torch, None, None, SEED).generator("shuffle")
    expected = [list(RandomSampler(rows, generator=generator)) for _ in range(2)]
    with changed(fixes=["shuffle"]):
        loader = DataLoader(
            rows, batch_size=5, num_workers=workers, multiprocessing_context="fork" if workers else None
        )
        made = [torch.cat([b for (b,) in loader]).tolist() for _ in range(2)]
        with torch.no_grad():
            assert torch.cat([b for (b,) in loader]).tolist() == list(range(20))
    assert made == expected


def test_other_samplers_and_streams_are_let_be():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.arange(6))

    with changed(fixes=["shuffle"]) as run:
        assert torch.cat(list(DataLoader(Stream(), 2))).tolist() == list(range(6))
        model = net()
        train(model, sgd(model), 2)
    assert run.refused == "no DataLoader gives it its training data in order"


def test_shuffling_leaves_the_scripts_random_numbers_alone():
    rows = TensorDataset(*data())

    def run_it() -> list[float]:
        torch.manual_seed(4)
        return [float(torch.rand(1)) for _ in DataLoader(rows, batch_size=6)]

    expected = run_it()
    with changed(fixes=["shuffle"]):
        assert run_it() == expected


# errors


def test_an_error_of_ours_stops_nothing(monkeypatch):
    def broken(*args):
        raise RuntimeError("a bug")

    expected, model = net(), net()
    losses = train(expected, sgd(expected))
    with changed(momentum=0.5) as run:
        monkeypatch.setattr(run.applier.changes[0], "before_step", broken)
        assert train(model, sgd(model)) == losses
    assert run.refused == "gradwise failed at it (RuntimeError('a bug'))"


# the end


def test_the_run_ends_after_so_many_steps_with_what_follows_the_last():
    done = []
    with changed(stop=4) as run:
        model = net()
        optimizer = sgd(model)

        def epochs() -> None:
            while len(done) < 20:
                done.extend(train(model, optimizer, 2))
                evaluate(model, False)

        with pytest.raises(RunComplete, match="0"):
            epochs()
        assert len(done) == 4
    assert len(run.validation) == 2
    assert len(run.recording.get(TIME)) == 4


def test_a_run_that_ends_before_is_no_problem():
    with changed(stop=100) as run:
        model = net()
        train(model, sgd(model))
    assert not run.refused
