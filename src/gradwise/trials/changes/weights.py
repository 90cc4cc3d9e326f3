"""Changes to the weights that training begins from."""

from __future__ import annotations

import math
import weakref
from typing import Any

from torch.utils.weak import WeakTensorKeyDictionary

from gradwise.trials.changes.base import Change, Stage, parameters_of
from gradwise.trials.changes.calls import Call

_NOISE = 0.1  # of a tensor's own root mean square


class _Start(Change):
    """Changes parameters once: when an optimizer is given them, or when they are used first.

    Attributes:
        model: the one that is about to be called for the first time.
    """

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._done: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._loaded: Any = WeakTensorKeyDictionary()
        self.model: Any = None

    def install(self) -> None:
        self.stage.calls.before.append(self._called)
        self.stage.patches.replace(self.torch.nn.Module, "load_state_dict", self._wrap_load)

    def made(self, optimizer: Any) -> None:
        self.start(parameters_of(optimizer))

    def start(self, parameters: list[Any]) -> None:
        """Change them."""
        raise NotImplementedError

    def fresh(self, parameter: Any) -> bool:
        """Whether a parameter is to be changed: it hasn't been, or the script has filled it anew since."""
        known = self._done.get(id(parameter))
        return known is None or known[0]() is not parameter or known[1] != _version(parameter)

    def done(self, parameter: Any) -> None:
        """A parameter was changed."""
        self.found += 1
        self._done[id(parameter)] = weakref.ref(parameter), _version(parameter)

    def _called(self, call: Call) -> None:
        # What a script does to its weights after it made the optimizer is over by the first call; in one without an
        # optimizer it is the first sign of them.
        if call.training and not self.stage.watcher.steps:
            held = self.stage.held() if self.stage.watcher.registry.seen else None
            own = [p for m in call.module.modules() for p in m._parameters.values() if p is not None]
            own = [p for p in own if p.requires_grad and (held is None or id(p) in held)]
            if any(self.fresh(p) for p in own):
                self.model = call.module
                self.start(own)

    def _wrap_load(self, original: Any) -> Any:
        def load_state_dict(module: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.stage.watcher.steps:
                own = [p for m in module.modules() for p in m._parameters.values() if p is not None]
                for p in own:
                    self._loaded[p] = True
                if any(id(p) in self._done for p in own):
                    self.refuse_loaded()
            return original(module, *args, **kwargs)

        return load_state_dict

    def refuse_loaded(self) -> None:
        """Weights that were trained before are no beginning."""
        self.stage.refuse("its weights are loaded from a file or another model, so they are not its initial ones")


def _version(parameter: Any) -> int:
    """How often a tensor was changed in place."""
    return int(parameter._version)


class Init(_Start):
    """Initial weights of Linear and convolution modules drawn anew, their biases zero."""

    wanting = "no Linear or convolution module holds what its optimizer trains"

    def start(self, parameters: list[Any]) -> None:
        """Draw the weights of layers among them."""
        layers = self._layers({id(p) for p in parameters})
        if any(m.weight in self._loaded for m in layers):
            self.refuse_loaded()
            return
        with self.torch.no_grad():
            for module in layers[-1:] if self.value == "small-last" else layers:
                if not self.fresh(module.weight):
                    continue
                generator = self.stage.generator("init", module.weight.device)
                if self.value == "small-last":
                    module.weight.mul_(0.1)
                else:
                    module.weight.normal_(0.0, _spread(self.torch, module, self.value), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
                    self.done(module.bias)
                self.done(module.weight)

    def _layers(self, held: set[int]) -> list[Any]:
        """The layers whose weights are held, in the order in which the models register them."""
        nn = self.torch.nn
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        roots = [*self.stage.roots(), *([] if self.model is None else [self.model])]
        inner = {id(child) for root in roots for child in root.modules() if child is not root}
        modules = {id(m): m for root in roots if id(root) not in inner for m in root.modules()}
        # A matrix that an embedding shares is drawn as the embedding wants it.
        elsewhere = {id(p) for m in modules.values() if not isinstance(m, kinds) for p in m._parameters.values()}
        found: dict[int, Any] = {}
        for module in modules.values():
            weight = module._parameters.get("weight") if isinstance(module, kinds) else None
            if weight is not None and id(weight) in held and id(weight) not in elsewhere:
                found.setdefault(id(weight), module)
        return list(found.values())


def _spread(torch: Any, module: Any, kind: str) -> float:
    """The standard deviation of He's or Xavier's initial weights."""
    inputs, outputs = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
    return math.sqrt(2.0 / inputs) if kind == "he" else math.sqrt(2.0 / (inputs + outputs))


class BreakSymmetry(_Start):
    """A little noise on the initial weights: a tenth of their own size, 1/sqrt(inputs) where they are zero."""

    wanting = "its optimizer holds no weights when it is made"

    def start(self, parameters: list[Any]) -> None:
        """Add noise to the weights among them."""
        weights = [p for p in parameters if p.is_floating_point() and sum(size > 1 for size in p.shape) > 1]
        with self.torch.no_grad():
            for p in weights:
                if not self.fresh(p) or not p.is_leaf:
                    continue
                size = float(p.square().mean().sqrt())
                inputs = p[0].numel() if any(p is w for w in self._of_modules()) else p.shape[0]
                noise = self.torch.empty_like(p).normal_(generator=self.stage.generator("noise", p.device))
                p.add_(noise, alpha=_NOISE * size if size > 0 else 1.0 / math.sqrt(inputs))
                self.done(p)

    def _of_modules(self) -> list[Any]:
        """Weights that lie as modules have them, outputs first."""
        return [p for root in self.stage.roots() for m in root.modules() for p in m._parameters.values()]
