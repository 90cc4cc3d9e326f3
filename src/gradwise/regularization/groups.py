"""Parameter groups: weights decay, biases and normalization don't, and early layers may learn more slowly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from gradwise.regularization.roles import BIAS, EMBEDDING, GAIN, NORM, SLOPE, Parameter, parameters

_KEPT = {BIAS, NORM, GAIN, SLOPE}


class Groups(list[dict[str, Any]]):
    """Parameter groups as any `torch.optim` optimizer takes them, which print what went where.

    Each has `params`, `weight_decay`, `name` (used by loggers), and `lr` where rates differ.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lines: Sequence[Sequence[tuple[str, str, str]]], left: str):
        super().__init__(groups)
        self._lines, self._left = lines, left

    def summary(self) -> str:
        """Every group with its parameters: name, shape, and what each is."""
        every = [line for lines in self._lines for line in lines]
        first, second = (max((len(line[k]) for line in every), default=0) for k in (0, 1))
        text = []
        for group, lines in zip(self, self._lines, strict=True):
            rate = f" · lr {group['lr']:.3g}" if "lr" in group else ""
            tensors, size = len(lines), sum(p.numel() for p in group["params"])
            decay = f"weight_decay {group['weight_decay']:g}"
            text.append(f"{group['name']} · {decay}{rate} · {_count(tensors, 'tensor')}, {_count(size, 'parameter')}")
            text += [f"  {name:{first}}  {shape:{second}}  {what}" for name, shape, what in lines]
        return "\n".join([*text, self._left] if self._left else text)

    __str__ = __repr__ = summary


def decay_groups(
    model: nn.Module,
    weight_decay: float = 0.01,
    *,
    no_decay: Sequence[str] = (),
    decay: Sequence[str] = (),
    embeddings: bool = True,
    lr: float | None = None,
    layer_decay: float | None = None,
    layers: Sequence[str] | None = None,
    verbose: bool = False,
) -> Groups:
    """The parameters of a model in groups for an optimizer, so that only weights decay.

    Weights and, unless told otherwise, embeddings decay. Biases, parameters of normalizations, gains (a lone scalar or
    vector that is no layer's weight) and slopes (PReLU) don't: pulling them to zero limits what the model can express
    without making it simpler. The module's type decides, then the name, and last the shape. A tied parameter counts
    once; it doesn't decay if one of its uses says so. Frozen parameters (`requires_grad=False`) are left out.

    With `layer_decay` layer l of L (from 0, the input) gets the rate lr·layer_decay^(L−1−l).

    Args:
        model: the model, on its device already.
        weight_decay: λ of the weights that decay, as the optimizer understands it.
        no_decay: name patterns (`"*.pos_embed"`; `*`, `?` and `[…]` as for file names) that shall not decay.
        decay: name patterns that shall.
        embeddings: whether `Embedding` and `EmbeddingBag` decay.
        lr: the learning rate of the last layer; None leaves it to the optimizer.
        layer_decay: factor of the rate from each layer to the one before it, in (0, 1]; it needs `lr`.
        layers: name patterns, one for each layer from the input to the output. None takes the blocks of the
            `ModuleList` or `Sequential` that makes up most of the model as layers, what is registered before it as the
            first, after it as the last; where there are several such lists it asks for patterns.
        verbose: print what went where.

    Raises:
        ValueError: a pattern matches nothing, a parameter is matched twice or by no layer, or a value makes no sense.

    Example:
        >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 1))
        >>> for group in decay_groups(model, 0.1, embeddings=False, lr=1e-3, layer_decay=0.5):
        ...     print(group["name"], group["weight_decay"], group["lr"], len(group["params"]))
        layer 0, no decay 0.0 0.00025 1
        layer 1, decay 0.1 0.0005 1
        layer 1, no decay 0.0 0.0005 1
        layer 2, decay 0.1 0.001 1
        layer 2, no decay 0.0 0.001 1

    Source:
        Layer-wise rates: Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022.
    """
    if not weight_decay >= 0:
        raise ValueError(f"decay_groups: weight_decay must be at least 0, got {weight_decay!r}")
    if layer_decay is not None and not (0 < layer_decay <= 1 and lr is not None):
        raise ValueError(f"decay_groups: layer_decay must be in (0, 1] and needs lr, got {layer_decay!r} and lr={lr!r}")
    if layers is not None and layer_decay is None:
        raise ValueError("decay_groups: layers are for layer_decay, which isn't given")
    every = parameters(model)
    free = [p for p in every if p.tensor.requires_grad]
    exempt = _KEPT if embeddings else _KEPT | {EMBEDDING}
    decays = _adjusted({p: exempt.isdisjoint(p.roles) for p in free}, every, decay, no_decay)
    depths = dict.fromkeys(free, 0)
    if layer_decay is not None:
        depths = _depths_by_blocks(model, every) if layers is None else _depths(free, layers)
    last = max(depths.values(), default=0)

    groups: list[dict[str, Any]] = []
    lines = []
    for depth, decaying in sorted({(depths[p], decays[p]) for p in free}, key=lambda key: (key[0], not key[1])):
        members = [p for p in free if (depths[p], decays[p]) == (depth, decaying)]
        name = "decay" if decaying else "no decay"
        group: dict[str, Any] = {"params": [p.tensor for p in members]}
        group["name"] = name if layer_decay is None else f"layer {depth}, {name}"
        group["weight_decay"] = float(weight_decay) if decaying else 0.0
        if lr is not None:
            group["lr"] = lr if layer_decay is None else lr * layer_decay ** (last - depth)
        groups.append(group)
        lines.append([_line(p) for p in members])
    frozen = [p.name for p in every if not p.tensor.requires_grad]
    left = f"frozen, in no group · {_count(len(frozen), 'tensor')}: {', '.join(frozen)}" if frozen else ""
    made = Groups(groups, lines, left)
    check_groups(model, made)
    if verbose:
        print(made)
    return made


def check_groups(model: nn.Module, groups: Iterable[Any]) -> None:
    """Refuse groups that hold a parameter twice, miss one that is to be trained, or hold one that isn't the model's.

    Args:
        model: the model.
        groups: groups as an optimizer takes them, or its `param_groups`.

    Raises:
        ValueError: naming the parameters.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> check_groups(model, [{"params": [model.weight]}])
        Traceback (most recent call last):
        ValueError: in no group: bias
    """
    names = {p.tensor: p.name for p in parameters(model)}
    held: dict[Any, int] = {}
    for group in groups:
        inside = group["params"]
        for item in [inside] if isinstance(inside, nn.Parameter) else inside:
            tensor = item[1] if isinstance(item, tuple) else item  # torch takes (name, parameter) too
            held[tensor] = held.get(tensor, 0) + 1
    wrong = {
        "in more than one group": [names.get(t, "a tensor of another model") for t, n in held.items() if n > 1],
        "in no group": [name for tensor, name in names.items() if tensor.requires_grad and tensor not in held],
        "not of this model": [f"a tensor of shape {tuple(t.shape)}" for t in held if t not in names],
    }
    said = "; ".join(f"{what}: {', '.join(which)}" for what, which in wrong.items() if which)
    if said:
        raise ValueError(said)


def _adjusted(
    decays: dict[Parameter, bool], every: Sequence[Parameter], decay: Sequence[str], no_decay: Sequence[str]
) -> dict[Parameter, bool]:
    """What the name patterns make of it."""
    wanted: dict[Parameter, bool] = {}
    for argument, patterns, value in (("decay", decay, True), ("no_decay", no_decay, False)):
        for pattern in _patterns(argument, patterns):
            matched = [p for p in every if _matches(p, pattern)]
            if not matched:
                raise ValueError(
                    f"decay_groups: {argument} pattern {pattern!r} matches no parameter, as {_some(every)}"
                )
            for p in matched:
                if wanted.setdefault(p, value) != value:
                    raise ValueError(f"decay_groups: {p.name} is matched by both decay and no_decay")
    return {p: wanted.get(p, value) for p, value in decays.items()}


def _depths(free: Sequence[Parameter], layers: Sequence[str]) -> dict[Parameter, int]:
    """The layer of each parameter, from the input to the output."""
    patterns = _patterns("layers", layers)
    depths = {}
    for p in free:
        matching = [k for k, pattern in enumerate(patterns) if _matches(p, pattern)]
        if len(matching) != 1:
            which = ", ".join(repr(patterns[k]) for k in matching) or "no pattern"
            raise ValueError(f"decay_groups: {p.name} must be in one layer, but is matched by {which}")
        depths[p] = matching[0]
    unused = [pattern for k, pattern in enumerate(patterns) if k not in depths.values()]
    if unused:
        raise ValueError(f"decay_groups: layers pattern {unused[0]!r} matches no parameter, as {_some(free)}")
    return depths


def _depths_by_blocks(model: nn.Module, every: Sequence[Parameter]) -> dict[Parameter, int]:
    name, blocks = _blocks(model)
    prefix = f"{name}." if name else ""
    order = {block: k for k, block in enumerate(blocks)}
    inside = {p: order[p.name.removeprefix(prefix).split(".")[0]] for p in every if p.name.startswith(prefix)}
    first = next(k for k, p in enumerate(every) if p in inside)
    before = dict.fromkeys(every[:first], 0)
    shift = 1 if before else 0
    return {p: before.get(p, inside.get(p, len(order)) + shift) for p in every}


def _blocks(model: nn.Module) -> tuple[str, list[str]]:
    """The list of blocks that makes up most of the model: its name, and those of the blocks with parameters."""
    total = sum(p.numel() for p in model.parameters())
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            blocks = [k for k, m in module.named_children() if any(True for _ in m.parameters())]
            if len(blocks) > 1:
                found[name] = (blocks, sum(p.numel() for p in module.parameters()) / total)
    large = [name for name, (_, share) in found.items() if share >= 0.5]
    best = max(large, key=lambda name: len(found[name][0]), default=None)
    if best is None:
        raise ValueError("decay_groups: no list of blocks makes up most of the model, to tell layers by: give layers=")
    for name, (_, share) in found.items():
        apart = not f"{name}.".startswith(f"{best}." if best else "") and not f"{best}.".startswith(f"{name}.")
        if share >= 0.1 and apart and name:
            raise ValueError(f"decay_groups: {best} and {name} both hold blocks, so layers can't be told: give layers=")
    return best, found[best][0]


def _patterns(argument: str, patterns: Sequence[str]) -> list[str]:
    if isinstance(patterns, str):
        raise ValueError(f"decay_groups: {argument} is a list of patterns: [{patterns!r}]")
    return list(patterns)


def _matches(parameter: Parameter, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in parameter.names)


def _some(every: Sequence[Parameter]) -> str:
    names = [p.name for p in every]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _line(p: Parameter) -> tuple[str, str, str]:
    shape = " × ".join(map(str, p.tensor.shape)) or "scalar"
    return p.name, shape, ", ".join(dict.fromkeys(p.roles)) + "".join(f", tied to {name}" for name in p.names[1:])


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
