"""Parameters that get a gradient and no optimizer, and parameters that have one and get no gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watching import batch, mlp
from wired import found

from gradwise.diagnosis.hypotheses import REPORT

STEPS = 40


def fit(
    forward: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], after: Callable[[], object] = lambda: None
) -> None:
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for step in range(STEPS):
        x, y = batch(seed=step)
        optimizer.zero_grad()
        F.cross_entropy(forward(x), y).backward()
        optimizer.step()
        after()


class Listed(nn.Module):
    """Its layers are in a plain list."""

    def __init__(self, container: Callable[[list[nn.Module]], object]) -> None:
        super().__init__()
        self.blocks = container([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values() if isinstance(self.blocks, dict) else self.blocks:  # type: ignore[attr-defined]
            x = torch.tanh(block(x))
        out: Tensor = self.head(x)
        return out


CONTAINERS = {"a list": list, "a tuple": tuple, "a dict": lambda blocks: {str(i): b for i, b in enumerate(blocks)}}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_layers_that_parameters_does_not_find(kind: str) -> None:
    def script() -> None:
        model = Listed(CONTAINERS[kind])
        fit(model, list(model.parameters()))

    result = found(script)
    assert list(result) == ["parameters-not-optimized"]
    finding = result["parameters-not-optimized"]
    assert finding.confidence > 0.9
    assert finding.evidence["hidden_in"] == f"blocks ({kind}) of Listed"
    assert "Listed.blocks.0.weight" in finding.evidence["parameters"]
    assert finding.module == "Listed"


def test_layers_in_a_module_list() -> None:
    def script() -> None:
        model = Listed(nn.ModuleList)
        fit(model, list(model.parameters()))

    assert found(script) == {}


def test_a_decoder_that_was_forgotten() -> None:
    def script() -> None:
        encoder, decoder = nn.Linear(6, 4), nn.Linear(4, 3)
        fit(lambda x: decoder(torch.tanh(encoder(x))), list(encoder.parameters()))

    finding = found(script)["parameters-not-optimized"]
    assert finding.confidence > REPORT
    assert finding.candidates[0].fixes == ("adopt-parameters",)
    assert finding.parameter == "Linear.bias" or finding.parameter == "Linear.weight"


def test_one_of_two_towers() -> None:
    def script() -> None:
        a, b = nn.Linear(6, 4), nn.Linear(6, 4)
        fit(lambda x: torch.tanh(a(x)) @ torch.tanh(b(x[:3])).T, list(a.parameters()))

    assert found(script)["parameters-not-optimized"].confidence > REPORT


def test_a_layer_put_in_after_the_optimizer_was_made() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        model[2] = nn.Linear(8, 3)
        for step in range(STEPS):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert found(script)["parameters-not-optimized"].confidence > REPORT


def test_random_features_are_only_a_suspicion() -> None:
    def script() -> None:
        features, head = nn.Linear(6, 30), nn.Linear(30, 3)
        fit(lambda x: head(torch.tanh(features(x))), list(head.parameters()))

    finding = found(script)["parameters-not-optimized"]
    assert finding.confidence < REPORT


def test_loaded_features() -> None:
    def script() -> None:
        features, head = nn.Linear(6, 30), nn.Linear(30, 3)
        features.load_state_dict({k: v + 1 for k, v in features.state_dict().items()})
        fit(lambda x: head(torch.tanh(features(x))), list(head.parameters()))

    assert found(script) == {}


def test_features_trained_before() -> None:
    def script() -> None:
        features, first, head = nn.Linear(6, 30), nn.Linear(30, 3), nn.Linear(30, 3)
        fit(lambda x: first(torch.tanh(features(x))), [*features.parameters(), *first.parameters()])
        fit(lambda x: head(torch.tanh(features(x))), list(head.parameters()))

    assert found(script) == {}


@pytest.mark.parametrize("how", ["copied now and then", "running average", "never again"])
def test_a_target_network_that_was_not_detached(how: str) -> None:
    def script() -> None:
        torch.manual_seed(0)
        q, steps = mlp(), 0
        target = copy.deepcopy(q)

        def follow() -> None:
            nonlocal steps
            steps += 1
            if how == "copied now and then" and steps % 10 == 0:
                target.load_state_dict(q.state_dict())
            elif how == "running average":
                for t, p in zip(target.parameters(), q.parameters(), strict=True):
                    t.data.copy_(0.9 * t.data + 0.1 * p.data)

        optimizer = torch.optim.Adam(q.parameters(), lr=0.01)
        for step in range(STEPS):
            x, _ = batch(seed=step)
            optimizer.zero_grad()
            F.mse_loss(q(x), 1 + 0.9 * target(x + 1)).backward()
            optimizer.step()
            follow()

    assert found(script) == {}


def test_a_teacher_that_was_not_detached_is_a_suspicion_at_most() -> None:
    def script() -> None:
        student, teacher = mlp(0), mlp(1)
        optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
        for step in range(STEPS):
            x, _ = batch(seed=step)
            optimizer.zero_grad()
            F.mse_loss(student(x), teacher(x)).backward()
            optimizer.step()

    assert all(h.confidence < REPORT for h in found(script).values())


def test_an_input_optimized_through_a_model() -> None:
    def script() -> None:
        model, x = mlp(), nn.Parameter(torch.zeros(4, 6))
        optimizer = torch.optim.Adam([x], lr=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), torch.zeros(4, dtype=torch.long)).backward()
            optimizer.step()

    assert found(script) == {}


def test_thawing_layer_by_layer() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model[2].parameters(), lr=0.01)
        for step in range(STEPS):
            if step == 12:
                optimizer.add_param_group({"params": list(model[0].parameters())})
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert found(script) == {}


# no gradient arrives


class Cut(nn.Module):
    """An encoder and a head; `between` is what is done to the code."""

    def __init__(self, between: Callable[[Tensor], Tensor] = lambda h: h, blind: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)
        self.between, self.blind = between, blind

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.blind):
            h = self.encoder(x)
        out: Tensor = self.head(self.between(h))
        return out


CUTS: dict[str, Callable[[], nn.Module]] = {
    "detach": lambda: Cut(lambda h: h.detach()),
    "data": lambda: Cut(lambda h: h.data),
    "numpy": lambda: Cut(lambda h: torch.from_numpy(h.detach().numpy())),
    "a new tensor": lambda: Cut(lambda h: torch.tensor(h.tolist(), requires_grad=True)),
    "no_grad": lambda: Cut(blind=True),
}


def evaluated(model: nn.Module) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            model(batch(seed=99)[0])

    return evaluate


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("validated", [False, True])
def test_an_encoder_cut_off(how: str, validated: bool) -> None:
    def script() -> None:
        model = CUTS[how]()
        fit(model, list(model.parameters()), evaluated(model) if validated else lambda: None)

    result = found(script)
    if how == "no_grad" and validated:
        # What runs without gradient looks like the evaluation beside it.
        assert "frozen-or-detached-graph" not in result or result["frozen-or-detached-graph"].confidence > REPORT
        return
    assert list(result) == ["frozen-or-detached-graph"]
    finding = result["frozen-or-detached-graph"]
    assert finding.confidence > 0.9
    assert finding.module is not None
    assert finding.module.startswith("encoder.0")
    assert finding.place is not None
    assert "self.encoder(x)" in finding.place.text


def test_a_generator_cut_off() -> None:
    def script() -> None:
        torch.manual_seed(0)
        g, d = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())
        for _ in range(STEPS):
            od.zero_grad()
            fake = g(torch.randn(8, 4)).detach()
            (F.softplus(-d(torch.randn(8, 2))).mean() + F.softplus(d(fake)).mean()).backward()
            od.step()
            og.zero_grad()
            F.softplus(-d(fake)).mean().backward()
            og.step()

    assert found(script)["frozen-or-detached-graph"].confidence > REPORT


def test_an_optimizer_of_another_model() -> None:
    def script() -> None:
        model = mlp(0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model = mlp(1)
        for step in range(STEPS):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    result = found(script)
    assert result["no-parameter-change"].confidence > 0.9
    assert "parameters-not-optimized" not in result


@pytest.mark.parametrize("how", ["p.require_grad", "module.requires_grad"])
def test_thawed_by_an_attribute_that_torch_does_not_read(how: str) -> None:
    def script() -> None:
        model = mlp()
        for p in model[0].parameters():
            p.requires_grad = False
        if how == "p.require_grad":
            for p in model[0].parameters():
                p.require_grad = True  # type: ignore[attr-defined]
        else:
            model[0].requires_grad = True  # type: ignore[assignment]
        fit(model, list(model.parameters()))

    finding = found(script)["frozen-or-detached-graph"]
    assert finding.parameter == "0.weight"


class Branches(nn.Module):
    """A trunk with heads that may or may not be used."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.trunk(x))
        return self.head(h), self.other(h)


def frozen(model: nn.Module) -> nn.Module:
    for p in model[0].parameters():  # type: ignore[index]
        p.requires_grad = False
    return model


def loaded(model: nn.Module) -> nn.Module:
    model.load_state_dict({k: v + 0.1 for k, v in model.state_dict().items()})
    return model


def run_frozen() -> None:
    model = frozen(mlp())
    fit(model, list(model.parameters()))


def run_unused_head() -> None:
    model = Branches()
    fit(lambda x: model(x)[0], list(model.parameters()), lambda: evaluated(model)())


def run_module_that_never_runs() -> None:
    model = Branches()
    fit(lambda x: model.head(torch.tanh(model.trunk(x))), list(model.parameters()))


def run_loaded_features_without_gradient() -> None:
    model = loaded(Cut(blind=True))
    fit(model, list(model.parameters()))


def run_experts() -> None:
    experts, head = nn.ModuleList(nn.Linear(6, 8) for _ in range(3)), nn.Linear(8, 3)
    turn = iter(range(10**6))
    fit(lambda x: head(torch.tanh(experts[next(turn) // 4 % 3](x))), [*experts.parameters(), *head.parameters()])


def run_momentum_encoder() -> None:
    """A slow copy inside the model, handed to the optimizer with the rest."""
    model = nn.ModuleDict({"fast": nn.Linear(6, 3), "slow": nn.Linear(6, 3)})

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            keys: Tensor = model["slow"](x)
        out: Tensor = model["fast"](x) * (1 + 0.1 * keys)
        return out

    def follow() -> None:
        for s, f in zip(model["slow"].parameters(), model["fast"].parameters(), strict=True):
            s.data.mul_(0.9).add_(0.1 * f.data)

    fit(forward, list(model.parameters()), follow)


def run_shared_critic() -> None:
    """The critic reads the encoder's code without sending gradients back, the actor does send them."""
    model = Branches()

    def forward(x: Tensor) -> Tensor:
        h = torch.tanh(model.trunk(x))
        out: Tensor = model.head(h) + model.other(h.detach())
        return out

    fit(forward, list(model.parameters()))


LEGITIMATE = [
    run_frozen, run_unused_head, run_module_that_never_runs, run_loaded_features_without_gradient, run_experts,
    run_momentum_encoder, run_shared_critic,
]  # fmt: skip


@pytest.mark.parametrize("script", LEGITIMATE)
def test_parameters_without_gradient_as_they_are_meant(script: Callable[[], None]) -> None:
    assert found(script) == {}
