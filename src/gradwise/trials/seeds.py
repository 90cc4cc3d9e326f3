"""A seed is an offset: which luck a trial has is `k`, added to every seed the script sets, or set where it sets none.

Scripts say `manual_seed(0)`; run three times they would give three equal runs. With offset k a trial gets other
random numbers in the same places, and offset 0 gives the very run the script gives by itself. The offset on a seed is
`k * STRIDE`: with k itself, a script that seeds each epoch with `seed + epoch` would share its numbers between trials.

- Seeds of global generators count whoever sets them: `seed_everything`, `set_seed` and their kind, of any library.
- Seeds of generators of its own count where the script's own code makes them. In libraries they make splits
  (`train_test_split(random_state=0)`), which are the task and not the luck.
- A generator made without a seed is luck too: in a trial it gets one, so that paired trials share it.

Without an offset (in the watched run) nothing changes, and what is seeded is noted. Standard library only; numpy and
torch are handed in when they have been imported.
"""

from __future__ import annotations

import functools
import operator
import random
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from gradwise.trials.surroundings import library_of

STRIDE = 1_000_003  # prime, and more than any script has epochs
Report = Callable[[str, dict[str, Any]], None]

_LEGACY = 1 << 32  # seeds of numpy's older generators
_CORE = frozenset({"python", "numpy", "torch", "gradwise"})
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class _Call(NamedTuple):
    """A call that takes a seed.

    `at`, `keyword`: where the seed is among the arguments. `anyone`: whether it counts in libraries too. `optional`:
    whether it may be left out. `low`, `below`: the range of valid seeds, None where there is no end.
    """

    library: str
    name: str
    at: int = 0
    keyword: str = "seed"
    anyone: bool = False
    optional: bool = True
    low: int | None = 0
    below: int | None = None


class Seeds:
    """The seeds of one process.

    Args:
        report: called as `report("seeded", {"library": "torch", "call": "manual_seed", "seed": "0"})`, once per call.
        offset: k; None notes only.
    """

    def __init__(self, report: Report, offset: int | None = None) -> None:
        self.report = report
        self.offset = offset
        self.added = 0 if offset is None else offset * STRIDE
        self._noted: set[tuple[str, str]] = set()
        self._fresh = 0
        self._inside = threading.local()

    def install_random(self) -> None:
        """Take over the standard library's `random`."""
        if self.offset is not None:
            random.seed(self._start())
        self._put(random, "seed", _Call("random", "seed", keyword="a", anyone=True, low=None))
        if self.offset is not None:
            # `Random(seed)` seeds itself by this method, and so do its subclasses.
            method = _Call("random", "Random.seed", at=1, keyword="a", low=None)
            random.Random.seed = self._wrap(random.Random.seed, method)  # type: ignore[method-assign]

    def install_numpy(self, numpy: Any) -> None:
        """Take over numpy's generators.

        Args:
            numpy: the module `numpy.random`, or `numpy` once that is loaded (numpy 2 loads it when first used).
        """
        module: Any = numpy if numpy.__name__ == "numpy.random" else sys.modules["numpy.random"]
        if self.offset is not None:
            module.seed(self._start())
        self._put(module, "seed", _Call("numpy", "random.seed", anyone=True, below=_LEGACY))
        self._put(module, "default_rng", _Call("numpy", "random.default_rng"))
        if self.offset is None:
            return
        self._stand_in(module, "RandomState", _Call("numpy", "random.RandomState", below=_LEGACY))
        self._stand_in(module, "SeedSequence", _Call("numpy", "random.SeedSequence", keyword="entropy"))
        for name in _BIT_GENERATORS:
            if hasattr(module, name):
                self._stand_in(module, name, _Call("numpy", f"random.{name}"))

    def install_torch(self, torch: Any) -> None:
        """Take over torch's generators.

        Args:
            torch: the module, imported just now.
        """
        if self.offset is not None:
            torch.manual_seed(self._start())
        self._put(torch, "manual_seed", _torch_call("manual_seed"))
        torch.random.manual_seed = torch.manual_seed
        for device in ("cuda", "mps", "xpu"):
            module: Any = getattr(torch, device, None)
            for name in ("manual_seed", "manual_seed_all"):
                if hasattr(module, name):
                    self._put(module, name, _torch_call(f"{device}.{name}"))
                    if hasattr(module, "random"):
                        setattr(module.random, name, getattr(module, name))
        method = _torch_call("Generator.manual_seed")._replace(at=1, anyone=False)
        _replace_method(torch.Generator, "manual_seed", lambda original: self._wrap(original, method))

    def _start(self) -> int:
        """The seed a library has before the script sets one."""
        return self.added % _LEGACY

    def _put(self, module: Any, name: str, call: _Call) -> None:
        wrapped = self._wrap(getattr(module, name), call)
        wrapped.__module__, wrapped.__qualname__ = module.__name__, name  # where pickles will find it
        setattr(module, name, wrapped)

    def _wrap(self, function: Any, call: _Call) -> Any:
        """The same function, to be called in its place, with the seed moved."""
        inside, at, keyword = self._inside, call.at, call.keyword

        @functools.wraps(function)
        def seeded(*args: Any, **kwargs: Any) -> Any:
            if getattr(inside, "on", False):  # `torch.manual_seed` seeds each device by calls of its own
                return function(*args, **kwargs)
            try:
                if self._counts(sys._getframe(1), call):
                    if len(args) > at:
                        args = (*args[:at], self._seed(args[at], call), *args[at + 1 :])
                    elif keyword in kwargs:
                        kwargs = {**kwargs, keyword: self._seed(kwargs[keyword], call)}
                    elif call.optional and "key" not in kwargs:  # Philox(key=...) is seeded by that
                        kwargs = {**kwargs, keyword: self._seed(None, call)}
            except Exception:
                pass
            inside.on = True
            try:
                return function(*args, **kwargs)
            finally:
                inside.on = False

        return seeded

    def _stand_in(self, module: Any, name: str, call: _Call) -> None:
        """Put a class in place of one of numpy's whose instances are plain instances of that one.

        `isinstance`, pickles and copies stay as they are, and so does what libraries make by the same name.
        """
        kind = getattr(module, name)
        make = self._wrap(lambda *args, **kwargs: kind(*args, **kwargs), call)

        class StandIn(type(kind)):  # type: ignore[misc]
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                # Not `make` for subclasses: they make instances of their own.
                return make(*args, **kwargs) if cls is stand_in else super().__call__(*args, **kwargs)

            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, kind) if cls is stand_in else super().__instancecheck__(instance)

            def __subclasscheck__(cls, subclass: Any) -> bool:
                return issubclass(subclass, kind) if cls is stand_in else super().__subclasscheck__(subclass)

        stand_in = StandIn(name, (kind,), {"__doc__": kind.__doc__, "__module__": module.__name__})
        setattr(module, name, stand_in)

    def _counts(self, frame: FrameType | None, call: _Call) -> bool:
        """Whether a seed set by the code in `frame` is the script's luck."""
        while frame is not None and (
            frame.f_code.co_filename == random.__file__ or library_of(frame) == "gradwise"
        ):  # `Random.__init__`, `StandIn.__call__`
            frame = frame.f_back
        library = "" if frame is None else library_of(frame)
        return library not in _CORE if call.anyone else library == ""

    def _seed(self, seed: Any, call: _Call) -> Any:
        """The seed to use in place of `seed`; one that isn't valid stays, to fail as it would."""
        if seed is None:
            return None if self.offset is None or not call.optional else self._fresh_seed(call)
        moved = _moved(seed, self.added, call)
        if moved is None:  # a generator or the like: its own seed counted
            return seed
        self._note(call, seed)
        return moved if self.added else seed

    def _fresh_seed(self, call: _Call) -> int:
        """A seed for a generator made without one: the same in each trial with the same offset."""
        self._fresh += 1
        current = getattr(sys.modules.get("multiprocessing.process"), "current_process", None)
        worker = getattr(current(), "_identity", ()) if current is not None else ()
        return int(hash((self.added, *worker, self._fresh)) % (call.below or 1 << 63))

    def _note(self, call: _Call, seed: Any) -> None:
        key = (call.library, call.name)
        if key not in self._noted:
            self._noted.add(key)
            self.report("seeded", {"library": call.library, "call": call.name, "seed": str(seed)[:80]})


def _torch_call(name: str) -> _Call:
    return _Call("torch", name, anyone=True, optional=False, low=-(1 << 63), below=1 << 64)


def _moved(seed: Any, by: int, call: _Call) -> Any:
    """The seed with the offset `by` on it, of the same kind; None where it is no seed but an object that holds one."""
    if isinstance(seed, str):
        return f"{seed}+{by}"
    if isinstance(seed, bytes | bytearray):
        return bytes(seed) + b"+%d" % by
    if isinstance(seed, float):
        return seed + by
    if isinstance(seed, list | tuple) or (type(seed).__name__ == "ndarray" and seed.ndim):
        return [*seed, by % _LEGACY]
    try:
        number = operator.index(seed)
    except TypeError:
        return None
    if (call.low is not None and number < call.low) or (call.below is not None and number >= call.below):
        return seed
    return number + by if call.below is None else (number + by) % call.below


def _replace_method(kind: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replace a method of a class written in C, which has no other handle: the class stays what it is.

    (A subclass in its place would be another class to `torch.jit`, to pickles and to the default generator.)
    """
    import ctypes
    import gc

    members = gc.get_referents(kind.__dict__)[0]
    if isinstance(members, dict) and name in members:
        members[name] = wrap(members[name])
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))
