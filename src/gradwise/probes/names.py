"""Names of parameters: those of the modules whose `parameters()` the script asked for."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.patches import Patches

if TYPE_CHECKING:
    from torch.nn import Module


class Names:
    """Knows the modules a script has asked for parameters; names a parameter after the largest of them."""

    def __init__(self) -> None:
        self._roots: dict[int, weakref.ref[Any]] = {}
        self._names: dict[int, str] = {}
        self._stale = True

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `Module.parameters` and `Module.named_parameters`."""
        for method in ("parameters", "named_parameters"):
            patches.replace(torch.nn.Module, method, self._wrap)

    def _wrap(self, original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        @functools.wraps(original)
        def watched(module: Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
            self.add(module)
            return original(module, *args, **kwargs)

        return watched

    def add(self, module: Module) -> None:
        """A module whose parameters may be trained."""
        if id(module) not in self._roots:
            self._roots[id(module)] = weakref.ref(module)
            self._stale = True

    def refresh(self) -> None:
        """Look at the modules again (their parameters may have been replaced)."""
        self._stale = True

    def __call__(self, parameter: Any) -> str | None:
        """The parameter's name, None where no module is known to hold it."""
        if self._stale:
            self._collect()
        return self._names.get(id(parameter))

    def _collect(self) -> None:
        self._stale = False
        modules = [m for m in (ref() for ref in list(self._roots.values())) if m is not None]
        inner = {id(child) for m in modules for child in m.modules() if child is not m}
        roots = [m for m in modules if id(m) not in inner]
        several = len(roots) > 1
        names: dict[int, str] = {}
        for root in roots:
            prefix = f"{type(root).__name__}." if several else ""
            for path, child in root.named_modules():
                for name, parameter in child._parameters.items():
                    if parameter is not None:
                        full = f"{path}.{name}" if path else name
                        names.setdefault(id(parameter), prefix + full.removeprefix("_orig_mod."))
        self._names = names
        self._stale = False
