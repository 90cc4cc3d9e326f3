"""Torch's compiler left out of a process until something asks for it.

An optimizer's first call imports `torch._dynamo`, sympy and much else with it, only to tell that compiler to keep out.
That takes as long as the import of torch itself, and in most scripts nothing is ever compiled. Trials run the same
script dozens of times, so there a module stands in that answers what optimizers ask, and becomes the real one, in
place, at any other question.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


def put_off() -> None:
    """From now on, importing torch's compiler loads it only when it is needed."""
    if NAME not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PutOff(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        names = module.__dict__
        # Without a path the import of a submodule asks for it, and so has this one loaded first.
        names["_gradwise"] = _Later(module, names.pop("__path__"))
        names.update(disable=names["_gradwise"].disable, graph_break=_graph_break)


class _PutOff(ModuleType):
    def __getattr__(self, name: str) -> Any:
        later = self.__dict__.get("_gradwise")
        if later is None or not later.load():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        later = self.__dict__.get("_gradwise")
        if later is not None:
            later.load()
        return sorted(self.__dict__)


class _Later:
    """The loading that was put off, of `module`, whose submodules are at `path`."""

    def __init__(self, module: ModuleType, path: Any) -> None:
        self.module, self.path = module, path
        self.lock = threading.RLock()
        self.loading = False
        self.let_through: list[Any] = []

    def load(self) -> bool:
        """Make the module what it would have been; False within its own loading."""
        with self.lock:
            if self.loading:
                return False
            names = self.module.__dict__
            if names.get("_gradwise") is not self:  # another thread was faster
                return True
            self.loading = True
            kept = {name: names.pop(name) for name in ("disable", "graph_break")}
            names["__path__"] = self.path
            try:
                loader: Any = self.module.__loader__
                loader.exec_module(self.module)
            except BaseException:
                names.update(kept)
                del names["__path__"]
                raise
            finally:
                self.loading = False
            del names["_gradwise"]
            self.module.__class__ = ModuleType
            for function in self.let_through:  # torch asks once more, and gets the real answer
                vars(function).pop("__dynamo_disable", None)
            return True

    def disable(self, function: Any = None, recursive: bool = True, **options: Any) -> Any:
        """What torch asks for its own functions: they run as they are while there is nothing to compile them."""
        if function is None or options != {"wrapping": False}:
            self.load()
            return self.module.disable(function, recursive, **options)
        self.let_through.append(function)
        return _as_it_is(function)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return run


def _graph_break(msg: str = "") -> None:
    """While nothing is compiled there is no graph to break."""
