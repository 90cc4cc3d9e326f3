"""The optimizers of a process: noticed when they are made, followed from their first backward pass or step on."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.names import Names
from gradwise.probes.patches import Patches, hide_from_traceback
from gradwise.probes.recorder import Recorder
from gradwise.probes.tracked import Tracked
from gradwise.recording.recording import Place

if TYPE_CHECKING:
    from torch.optim import Optimizer

# Optimizers from one line with ever new parameters (cross-validation, an inner loop): more than this tell nothing new.
_SAME_PLACE = 8


@dataclass(slots=True)
class Made:
    """An optimizer that was made: where, and where a scheduler was put on it."""

    ref: weakref.ref[Any]
    place: Place | None
    scheduler: Place | None = None


class Registry:
    """All optimizers seen.

    Attributes:
        made: those that no step or backward pass has followed yet.
        seen: how many were made, or turned up by their first step.
        followed: the living ones that are followed, for each backward pass to go through.
        by_id: the same by the optimizer's id, for each step to look up.
        all: every one there was.
    """

    def __init__(self, recorder: Recorder, names: Names) -> None:
        self.recorder, self.names = recorder, names
        self.made: list[Made] = []
        self.seen = 0
        self._indices = 0
        self.followed: list[Tracked] = []
        self.by_id: dict[int, Tracked] = {}
        self.all: list[Tracked] = []
        self._ignored: weakref.WeakSet[Any] = weakref.WeakSet()

    def install(self, torch: ModuleType, patches: Patches, attend: Callable[[], None]) -> None:
        """Notice optimizers and schedulers when they are made; `attend` is called with the first of them."""
        self._attend = attend
        optim = torch.optim
        note_optimizer = patches.keep_compiler_out(self._note_optimizer)
        note_scheduler = patches.keep_compiler_out(self._note_scheduler)
        patches.replace(optim.Optimizer, "__init__", lambda original: _noting(original, note_optimizer))
        for kind in (optim.lr_scheduler.LRScheduler, optim.lr_scheduler.ReduceLROnPlateau):
            patches.replace(kind, "__init__", lambda original: _noting(original, note_scheduler))

    def _note_optimizer(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.seen += 1
        self._attend()
        self.made.append(Made(weakref.ref(optimizer), places.here()))

    def _note_scheduler(self, _scheduler: Any, optimizer: Any = None, *_: Any, **__: Any) -> None:
        place = places.here()
        for made in self.made:
            if made.ref() is optimizer:
                made.scheduler = place
        tracked = self.by_id.get(id(optimizer))
        if tracked is not None and tracked.ref() is optimizer:
            tracked.scheduler_at = place
            tracked.describe()

    def follow_made(self) -> None:
        """Begin to follow the optimizers made since the last backward pass, in the order they were made."""
        made, self.made = self.made, []
        for entry in made:
            optimizer = entry.ref()
            if optimizer is not None and getattr(optimizer, "param_groups", None):
                self._follow(optimizer, entry)

    def disown(self, optimizer: Any) -> None:
        """Forget an optimizer that was made just now, and not by the script."""
        kept = [made for made in self.made if made.ref() is not optimizer]
        self.seen -= len(self.made) - len(kept)
        self.made = kept

    def take_index(self) -> int:
        """The index of one more source of steps."""
        self._indices += 1
        return self._indices - 1

    def _follow(self, optimizer: Optimizer, made: Made) -> Tracked | None:
        tracked = self._again(optimizer, made)
        if tracked is None:
            if made.place is not None and sum(t.made_at == made.place for t in self.all) >= _SAME_PLACE:
                self._ignored.add(optimizer)
                return None
            self.names.refresh()
            tracked = Tracked(optimizer, self.take_index(), self.recorder, self.names)
            tracked.made_at, tracked.scheduler_at = made.place, made.scheduler
            self.all.append(tracked)
            tracked.describe()
        self.followed = [t for t in self.followed if t.ref() is not None and t is not tracked] + [tracked]
        self.by_id.clear()
        self.by_id.update({id(t.ref()): t for t in self.followed})
        return tracked

    def _again(self, optimizer: Optimizer, made: Made) -> Tracked | None:
        """What is followed already, where a script makes its optimizer anew (each epoch, say) to train on with."""
        held = [p for g in optimizer.param_groups for p in g["params"]]
        for tracked in self.all:
            if made.place is not None and tracked.made_at == made.place and tracked.holds(held):
                tracked.ref = weakref.ref(optimizer)
                tracked.scheduler_at = made.scheduler or tracked.scheduler_at
                return tracked
        return None

    def find(self, optimizer: Optimizer) -> Tracked | None:
        """The record of an optimizer that steps, None for one too many; it may be of a kind that skips `__init__`."""
        tracked = self.by_id.get(id(optimizer))
        if tracked is None or tracked.ref() is not optimizer:
            if optimizer in self._ignored:
                return None
            self.seen += 1
            tracked = self._follow(optimizer, Made(weakref.ref(optimizer), None))
        if tracked is not None and tracked.stepped_at is None:
            tracked.stepped_at = places.here()
            tracked.describe()
        return tracked


def _noting(original: Callable[..., None], note: Callable[..., None]) -> Callable[..., None]:
    def init(*args: Any, **kwargs: Any) -> None:
        with suppress(Exception):
            note(*args, **kwargs)
        try:
            original(*args, **kwargs)
        except BaseException:
            hide_from_traceback()
            raise

    return init
