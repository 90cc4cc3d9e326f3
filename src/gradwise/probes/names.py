"""Names of parameters: those of the modules whose `parameters()` the script asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.patches import Patches

if TYPE_CHECKING:
    from torch.nn import Module

# Wrappers around the user's module, and the attribute it is under in them: not part of the names the user knows.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "AveragedModel": "module",
}


class Names:
    """Knows the modules a script has asked for parameters; names a parameter after the largest of them.

    A name that was given stays, whatever modules turn up later: it is a column's label.
    """

    def __init__(self) -> None:
        self._roots: dict[int, weakref.ref[Any]] = {}
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._given: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._stale = True

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `Module.parameters` and `Module.named_parameters`."""
        compiling, add = torch.compiler.is_compiling, patches.keep_compiler_out(self.add)

        def wrap(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def watched(module: Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
                if not compiling():
                    add(module)
                return original(module, *args, **kwargs)

            return watched

        for method in ("parameters", "named_parameters"):
            patches.replace(torch.nn.Module, method, wrap)

    def add(self, module: Module) -> None:
        """A module whose parameters may be trained."""
        known = self._roots.get(id(module))
        if known is None or known() is not module:
            self._roots[id(module)] = weakref.ref(module)
            self._stale = True

    def roots(self) -> list[Module]:
        """The living modules whose parameters were asked for."""
        return [module for reference in self._roots.values() if (module := reference()) is not None]

    def refresh(self) -> None:
        """Look at the modules again (their parameters may have been replaced)."""
        self._stale = True

    def __call__(self, parameter: Any) -> str | None:
        """The parameter's name, None where no module is known to hold it."""
        given = self._given.get(id(parameter))
        if given is not None and given[0]() is parameter:
            return given[1]
        if self._stale:
            self._collect()
        found = self._names.get(id(parameter))
        if found is None or found[0]() is not parameter:
            return None
        self._given[id(parameter)] = found
        return found[1]

    def modules(self) -> dict[int, str]:
        """The modules below those known, by `id`, each with the name that its parameters' begin with ("": a root)."""
        found: dict[int, str] = {}
        for prefix, root in self._outermost():
            for path, module in _modules(root):
                found.setdefault(id(module), (prefix + path).removesuffix("."))
        return found

    def _outermost(self) -> Iterator[tuple[str, Any]]:
        """The modules that are in no other, with what the names of their parameters begin with."""
        modules = self.roots()
        inner = {id(child) for m in modules for child in m.modules() if child is not m}
        roots = [m for m in modules if id(m) not in inner]
        used: dict[str, int] = {}
        for root in roots:
            kind = type(_unwrapped(root)).__name__
            used[kind] = used.get(kind, 0) + 1
            # Among several models each name tells which; two of a kind are numbered.
            yield "" if len(roots) == 1 else f"{kind}." if used[kind] == 1 else f"{kind}{used[kind]}.", root

    def _collect(self) -> None:
        self._stale = False
        self._roots = {i: ref for i, ref in self._roots.items() if ref() is not None}
        self._names = {}
        for prefix, root in self._outermost():
            for path, module in _modules(root):
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        self._names.setdefault(id(parameter), (weakref.ref(parameter), prefix + path + name))


def _unwrapped(module: Any) -> Any:
    inner = getattr(module, _WRAPPERS.get(type(module).__name__, ""), None)
    return module if inner is None else _unwrapped(inner)


def _modules(root: Any) -> Iterator[tuple[str, Any]]:
    """A module and those below it, each with what the names of its parameters begin with, but for wrappers."""
    stack, seen = [("", root)], set()
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        transparent = _WRAPPERS.get(type(module).__name__)
        for name, child in reversed(module._modules.items()):
            if child is not None:
                stack.append((path if name == transparent else f"{path}{name}.", child))
