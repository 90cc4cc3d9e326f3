"""Who has a tensor: the modules that are alive, what they call it, and whether the script loaded or copied it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.patches import Patches

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLED = 8


@dataclass(frozen=True, slots=True)
class Owner:
    """Where a parameter is found: its name from the outermost module on, that module's class and its own module's.

    `hidden` names what keeps the module out of its parent's sight: "layers (a list) of Net".
    """

    name: str
    root: str
    module: str
    hidden: str = ""


class Loaded:
    """Knows the modules whose parameters the script loaded: they are not what initialization made of them."""

    def __init__(self) -> None:
        self._modules: dict[int, weakref.ref[Any]] = {}

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `Module.load_state_dict`."""

        def wrap(original: Any) -> Any:
            def load_state_dict(module: Any, *args: Any, **kwargs: Any) -> Any:
                with suppress(Exception):
                    self._modules[id(module)] = weakref.ref(module)
                return original(module, *args, **kwargs)

            return load_state_dict

        patches.replace(torch.nn.Module, "load_state_dict", wrap)

    def parameters(self) -> set[int]:
        """Identities of the parameters that were loaded."""
        modules = [m for m in (ref() for ref in self._modules.values()) if m is not None]
        return {id(p) for m in modules for child in modules_of(m) for p in child._parameters.values()}


def modules_of(root: Any) -> Iterator[Any]:
    """A module and all below it, without calling anything of the script's."""
    seen, queue = {id(root)}, [root]
    for module in queue:
        yield module
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                queue.append(child)


def sampled(tensor: Tensor) -> tuple[float, ...]:
    """A few of its numbers, evenly spaced; none of a tensor that isn't a plain array."""
    with suppress(Exception):
        flat = tensor.detach().reshape(-1)
        return tuple(flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED].tolist())
    return ()


def owners(torch: ModuleType, tensors: Sequence[Tensor]) -> dict[int, Owner]:
    """By identity, where each tensor is found among the modules alive.

    This goes through all objects there are (tens of milliseconds), so it's for what has been found wrong.
    """
    kind = torch.nn.Module
    wanted = {id(t) for t in tensors}
    alive = [m for m in gc.get_objects() if issubclass(type(m), kind) and "_modules" in m.__dict__]
    parents: dict[int, tuple[Any, str, str]] = {}
    for parent in alive:
        for name, child in parent._modules.items():
            if child is not None:
                parents.setdefault(id(child), (parent, name, ""))
    for parent in alive:
        for name, key, what, child in _hidden(parent, kind):
            parents.setdefault(id(child), (parent, key, f"{name} ({what}) of {type(parent).__name__}"))
    found: dict[int, Owner] = {}
    for module in alive:
        # Not yet registered ones (a list of parameters) are found by the same walk.
        held = [(n, p, "") for n, p in module._parameters.items() if id(p) in wanted]
        held += [(key, p, f"{name} ({what}) of {type(module).__name__}")
                 for name, key, what, p in _hidden(module, torch.Tensor) if id(p) in wanted]  # fmt: skip
        for name, parameter, hidden in held:
            if id(parameter) not in found:
                found[id(parameter)] = _owner(module, name, hidden, parents)
    return found


def _owner(module: Any, name: str, hidden: str, parents: dict[int, tuple[Any, str, str]]) -> Owner:
    kind = type(module).__name__
    seen = {id(module)}
    while (above := parents.get(id(module))) is not None and id(above[0]) not in seen:
        parent, key, how = above
        name, hidden, module = f"{key}.{name}", hidden or how, parent
        seen.add(id(parent))
    return Owner(name, type(module).__name__, kind, hidden)


def _hidden(module: Any, kind: type) -> Iterator[tuple[str, str, str, Any]]:
    """Modules or tensors in plain lists and the like among a module's attributes: attribute, key, what it is, which."""
    for name, value in list(module.__dict__.items()):
        if name.startswith("_") and name in ("_modules", "_parameters", "_buffers"):
            continue
        entries: Iterable[tuple[Any, Any]] = ()
        if type(value) in (list, tuple):
            entries = enumerate(value)
        elif type(value) is dict:
            entries = value.items()
        for key, entry in entries:
            if issubclass(type(entry), kind):
                yield name, f"{name}.{key}", f"a {type(value).__name__}", entry
