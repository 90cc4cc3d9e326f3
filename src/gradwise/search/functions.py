"""Runs of a Python function with a configuration: what `gradwise.tune` makes of an objective."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from gradwise.search.domains import Value
from gradwise.search.jobs import EngineError, Job, OnValue, Result

# The name under which a worker imports the script that the search was started from: not "__main__", so that what it
# keeps for its own start is not started again.
_MAIN = "__gradwise_main__"
_importing: list[str] = []


class _Pruned(Exception):
    """Raised in an objective that reports that it falls behind."""


@dataclass(frozen=True)
class Function:
    """Makes runs of an objective (`gradwise.search.jobs.Evaluate`), here or elsewhere (`gradwise.search.jobs.Work`).

    Args:
        objective: gives a validation score.
        test: gives a test score; None where there is none.
        maximize: whether more is better.
        baseline: what a job without a configuration runs.
        timeout: seconds for a run by a worker; None is no limit.
    """

    KIND: ClassVar[str] = "function"

    objective: Callable[..., float]
    test: Callable[..., float] | None = None
    maximize: bool = False
    baseline: Mapping[str, Value] | None = None
    timeout: float | None = None

    def __call__(self, job: Job, on_value: OnValue) -> Result:
        """One run."""
        config = dict((self.baseline if job.config is None else job.config) or {})
        told: list[float] = []

        def report(epoch: int, value: float) -> None:
            told.append(value)
            if on_value(int(epoch), self.signed(float(value))):
                raise _Pruned

        try:
            value = float(_called(self.objective, config, seed=job.seed, report=report))
            score = None
            if job.test and self.test is not None:
                score = float(_called(self.test, config, seed=job.seed))
        except _Pruned:
            return Result(None, steps=len(told), pruned=True)
        except Exception as error:
            # What one configuration breaks must not end the search for others.
            return Result(None, problem=f"{type(error).__name__}: {error}"[:300])
        return Result(self.signed(value) if math.isfinite(value) else None, steps=len(told), test=score)

    def signed(self, value: float) -> float:
        """A score such that lower is better, and back."""
        return -value if self.maximize else value

    # for workers

    @property
    def patience(self) -> float:
        """Seconds for a run."""
        return math.inf if self.timeout is None else self.timeout

    def overdue(self) -> Result:
        """What comes of a run that takes longer."""
        return Result(None, seconds=self.patience, problem=f"it took longer than {self.patience:g} s")

    @contextmanager
    def begun(self, environment: Mapping[str, str] | None = None) -> Iterator[Function]:
        """Itself."""
        yield self

    def to_json(self) -> dict[str, Any]:
        """By name: a worker imports it.

        Raises:
            EngineError: where it can't be imported, and what to do.
        """
        if _importing:
            raise EngineError(
                f"{_importing[0]} starts a search as soon as it is imported, which its workers have to do: keep that "
                "under `if __name__ == '__main__':`, or take jobs=1"
            )
        return {
            "objective": _name(self.objective), "test": None if self.test is None else _name(self.test),
            "maximize": self.maximize, "baseline": None if self.baseline is None else dict(self.baseline),
            "timeout": self.timeout, "path": sys.path, "argv": sys.argv,
            "main": getattr(sys.modules["__main__"], "__file__", None),
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Function:
        """The function that `to_json` wrote, imported."""
        given = dict(data)
        main = given.pop("main")
        sys.path[:], sys.argv[:] = given.pop("path"), given.pop("argv")
        objective, test = _load(given.pop("objective"), main), given.pop("test")
        return Function(objective, None if test is None else _load(test, main), **given)


def _called(function: Callable[..., float], config: dict[str, Value], **offered: Any) -> float:
    """Call with as much of what is offered as the function has parameters for."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function(config)
    every = any(p.kind is p.VAR_KEYWORD for p in known)
    names = {p.name for p in known}
    return function(config, **{name: value for name, value in offered.items() if every or name in names})


def _name(function: Callable[..., float]) -> str:
    module, words = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    try:
        if module is None or _found(sys.modules[module], words) is not function:
            raise AttributeError
    except (AttributeError, KeyError):
        raise EngineError(
            f"worker processes import the function by its name, and {words or function!r} has none to import it by: "
            "define it at the top level of a module, or take jobs=1"
        ) from None
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec is not None:
            module = spec.name
        elif not hasattr(sys.modules["__main__"], "__file__"):
            raise EngineError(
                f"worker processes can't import {words} from a notebook or a prompt: put it into a file, or take jobs=1"
            )
    return f"{module}:{words}"


def _found(module: ModuleType, words: str) -> Any:
    found: Any = module
    for part in words.split("."):
        found = getattr(found, part)
    return found


def _load(name: str, main: str | None) -> Callable[..., float]:
    module, _, words = name.partition(":")
    if module == "__main__":
        if _MAIN not in sys.modules:
            spec = importlib.util.spec_from_file_location(_MAIN, str(main))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[_MAIN] = importlib.util.module_from_spec(spec)
            _importing.append(str(main))
            spec.loader.exec_module(sys.modules[_MAIN])
            _importing.pop()
        module = _MAIN
    function: Callable[..., float] = _found(importlib.import_module(module), words)
    return function
