"""Do something right after a module has been imported, whoever imports it and whenever."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Waiting(MetaPathFinder):
    """Finds nothing itself: lets the other finders find the awaited modules and watches their loading."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Callable[[ModuleType], None]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        actions = self.actions.pop(fullname)
        if not self.actions:
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, actions)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Any, actions: list[Callable[[ModuleType], None]]) -> None:
        self.loader, self.actions = loader, actions

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: what it finds out about itself is as without us.
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        for action in self.actions:
            action(module)


_waiting = _Waiting()


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action(module)` when module `name` has been imported; at once if it has been already."""
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    if not _waiting.actions:
        sys.meta_path.insert(0, _waiting)
    _waiting.actions.setdefault(name, []).append(action)
