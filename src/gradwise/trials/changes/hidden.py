"""Where a model has its hidden activations: those whose result is the input of another layer with weights.

Not the one at its output, and no gate: what is multiplied by another activation (in a hand-written LSTM, in attention
over channels, in x·sigmoid(x)) feeds no layer. To know this before the first step, a model is run once more before its
first call, on the same input and the same random numbers, all of which is put back; the graph of that run tells.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradwise.trials.changes.calls import Call, tensors_in

if TYPE_CHECKING:
    from gradwise.trials.changes.base import Stage

Key = tuple[str, str, int, int, int]
# What a step in a model's computation is to the features that pass through it.
_LAYERS = (
    "Addmm", "Mm", "Linear", "Convolution", "Mv", "Addmv", "Bmm", "Baddbmm", "MkldnnRnn", "CudnnRnn", "MiopenRnn",
)  # fmt: skip
_PASSES = (
    "View", "UnsafeView", "ReshapeAlias", "Transpose", "TBackward", "Permute", "Squeeze", "Unsqueeze", "Expand",
    "Slice", "Select", "Index", "Cat", "Stack", "Split", "Chunk", "Clone", "ToCopy", "MaxPool", "AvgPool",
    "AdaptiveAvgPool", "AdaptiveMaxPool", "MkldnnAdaptive", "Mean", "Sum", "Max", "Amax", "NativeBatchNorm",
    "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm", "NativeDropout", "FusedDropout", "Add",
    "Sub", "ConstantPad", "ReflectionPad", "Upsample", "AsStrided", "Alias", "Unbind", "Repeat", "Roll", "MaskedFill",
)  # fmt: skip
_FACTORS = ("Mul", "Div")
_ON_WEIGHTS = ("TBackward", "Transpose", "Permute", "View", "UnsafeView", "Expand", "ToCopy", "Unsqueeze", "Alias")
_FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh",
    "hardswish", "sigmoid", "tanh",
)  # fmt: skip
_SITES = "_gradwise_sites"


@dataclass
class Site:
    """One hidden activation of a model.

    Attributes:
        name: the function it applies.
        features: the dimension that counts the features.
        added: what changes have put there, by their names; it lies in the model, so that copies of it have it too.
    """

    name: str
    features: int
    added: dict[str, Any] = field(default_factory=dict)


Use = Callable[[Site, Any, Any], Any]


class Hidden:
    """Finds the hidden activations of each model that is called and lets changes act on them.

    Attributes:
        replaced: makes the result from the site, the input and the original result; None leaves it.
        additions: called in order with the site, the result so far and the module at work; they return the next.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage, self.torch, self.calls = stage, stage.torch, stage.calls
        self.replaced: Use | None = None
        self.additions: list[Use] = []
        self._within = False
        self._seen: list[tuple[Key, str, Any, Any, Any]] | None = None
        self._counts: dict[tuple[str, str, int, int], int] = {}
        self._paths: dict[int, str] = {}
        functional, tensor = self.torch.nn.functional, self.torch.Tensor
        self.originals = {name: getattr(functional, name) for name in _FUNCTIONS}
        for owner in (functional, self.torch, tensor):
            for name in _FUNCTIONS:
                if callable(getattr(owner, name, None)):
                    stage.patches.replace(owner, name, functools.partial(self._wrap, name))
        for kind in (self.torch.nn.TransformerEncoderLayer, self.torch.nn.TransformerDecoderLayer):
            self._renew_defaults(kind.__init__)
        self.calls.before.append(self._called)

    def _renew_defaults(self, function: Any) -> None:
        """Functions that are defaults of others were taken before they were replaced."""
        before, names = function.__defaults__ or (), {f: name for name, f in self.originals.items()}
        functional = self.torch.nn.functional
        function.__defaults__ = tuple(
            getattr(functional, names[d]) if callable(d) and d in names else d for d in before
        )
        self.stage.patches.on_undo(lambda: setattr(function, "__defaults__", before))

    def _called(self, call: Call) -> None:
        self._counts.clear()
        self._paths = {id(m): name for name, m in call.module.named_modules()}
        if _SITES not in call.module.__dict__:
            call.module.__dict__[_SITES] = {}
            call.module.__dict__[_SITES] = self._explore(call)
            self._counts.clear()

    # what happens at an activation

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def activation(*args: Any, **kwargs: Any) -> Any:
            outer = self.calls.outer
            if outer is None or self._within:
                return original(*args, **kwargs)
            key = self._key(sys._getframe(1))
            self._within = True
            try:
                if self._seen is not None:
                    out = original(*args, **kwargs)
                    given = args[0] if args else kwargs["input"]
                    self._seen.append((key, name, out.grad_fn, getattr(given, "grad_fn", None), out))
                    return out
                site = outer.module.__dict__.get(_SITES, {}).get(key)
                if site is None:
                    return original(*args, **kwargs)
                if self.replaced is None:
                    out = original(*args, **kwargs)
                else:
                    out = self.replaced(site, args[0] if args else kwargs["input"], None)
                for add in self.additions:
                    out = add(site, out, self.calls.stack[-1])
                return out
            finally:
                self._within = False

        return activation

    def _key(self, frame: Any) -> Key:
        """Which activation of the model it is: in which module, at which place, for the how manieth time."""
        code = frame.f_code
        module = self.calls.stack[-1]
        path = self._paths.get(id(module), f"?{type(module).__name__}")
        place = path, code.co_filename, code.co_firstlineno, frame.f_lasti
        count = self._counts[place] = self._counts.get(place, 0) + 1
        return (*place, count)

    # which they are

    def _explore(self, call: Call) -> dict[Key, Site]:
        """The hidden activations of a model."""
        seen: list[tuple[Key, str, Any, Any, Any]] = []
        self._seen = seen
        try:
            with self._unnoticed(call.module), self.torch.enable_grad():
                self.calls.outer = call
                out = call.module(*call.args, **call.kwargs)
                graph = _Graph([t.grad_fn for t in tensors_in(out) if t.grad_fn is not None])
                return {
                    key: Site(name, 1 if graph.convolved(before) else -1)
                    for key, name, node, before, _ in seen
                    if node is not None and graph.feeds_a_layer(node)
                }
        except Exception:  # what fails will fail in the script's own call, and say so there
            return {}
        finally:
            self._seen = None
            self.calls.outer = None

    @contextmanager
    def _unnoticed(self, module: Any) -> Iterator[None]:
        """Put back afterwards what running a model changes: random numbers, buffers, what is frozen."""
        torch = self.torch
        numpy = sys.modules.get("numpy.random")
        kept = random.getstate(), torch.get_rng_state(), None if numpy is None else numpy.get_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        buffers = [(b, b.detach().clone()) for m in module.modules() for b in m._buffers.values() if b is not None]
        frozen = [p for m in module.modules() for p in m._parameters.values() if p is not None and not p.requires_grad]
        frozen = [p for p in frozen if p.is_floating_point()]
        for p in frozen:
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p in frozen:
                p.requires_grad_(False)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            random.setstate(kept[0])
            torch.set_rng_state(kept[1])
            if numpy is not None:
                numpy.set_state(kept[2])
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)


class _Graph:
    """The graph behind a model's outputs."""

    def __init__(self, roots: list[Any]) -> None:
        self.consumers: dict[Any, list[tuple[Any, int]]] = {}
        stack, seen = list(roots), set(roots)
        while stack:
            node = stack.pop()
            for at, (child, _) in enumerate(node.next_functions):
                if child is not None:
                    self.consumers.setdefault(child, []).append((node, at))
                    if child not in seen:
                        seen.add(child)
                        stack.append(child)

    def feeds_a_layer(self, node: Any) -> bool:
        """Whether what a node computes is the input of a layer with weights."""
        stack, seen = [node], {node}
        while stack:
            for consumer, at in self.consumers.get(stack.pop(), ()):
                name, others = consumer.name(), [c for i, (c, _) in enumerate(consumer.next_functions) if i != at]
                if name.startswith(_LAYERS) and any(_is_weight(c) for c in others):
                    return True
                passes = name.startswith(_PASSES) or (name.startswith(_FACTORS) and all(_constant(c) for c in others))
                if passes and consumer not in seen:
                    seen.add(consumer)
                    stack.append(consumer)
        return False

    def convolved(self, node: Any) -> bool:
        """Whether the layer before a node is a convolution, which has its features in dimension 1."""
        stack, seen = [node], {node}
        while stack:
            here = stack.pop()
            if here is None:
                continue
            if here.name().startswith(_LAYERS):
                return bool(here.name().startswith("Convolution"))
            for child, _ in here.next_functions:
                if child not in seen:
                    seen.add(child)
                    stack.insert(0, child)
        return False


def _is_weight(node: Any) -> bool:
    while node is not None and node.name().startswith(_ON_WEIGHTS) and node.next_functions:
        node = node.next_functions[0][0]
    return node is not None and hasattr(node, "variable")


def _constant(node: Any) -> bool:
    """Whether a factor is a number, a mask or a gain: nothing that was computed from the input."""
    return node is None or _is_weight(node)
