"""DataLoaders that training steps are fed from: where they are made, how long an epoch is, whether they shuffle."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gradwise.probes import places
from gradwise.probes.patches import Patches, hide_from_traceback
from gradwise.probes.recorder import Recorder
from gradwise.recording.recording import Place

Fail = Callable[[str, Exception], None]
_MOST = 16


class Loaders:
    """Watches `DataLoader`s being made and iterated over.

    Steps made between one loader's iteration and the next (of any loader) were fed by the first: a loader for
    validation has none, so that it doesn't matter whether the script evaluates within `no_grad`.
    """

    def __init__(self, recorder: Recorder, steps: Callable[[], int], fail: Fail) -> None:
        self.recorder, self.steps, self.fail = recorder, steps, fail
        self._made: weakref.WeakKeyDictionary[Any, Place | None] = weakref.WeakKeyDictionary()
        self._told: weakref.WeakSet[Any] = weakref.WeakSet()
        self._open: tuple[weakref.ref[Any], int] | None = None
        self._count = 0

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Watch `DataLoader.__init__` and `DataLoader.__iter__`."""
        loader = torch.utils.data.DataLoader
        made, begun = patches.keep_compiler_out(self._note_made), patches.keep_compiler_out(self._note_begun)

        def wrap(note: Callable[[Any], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(this: Any, *args: Any, **kwargs: Any) -> Any:
                    note(this)
                    try:
                        return original(this, *args, **kwargs)
                    except BaseException:
                        hide_from_traceback()
                        raise

                return call

            return wrapped

        patches.replace(loader, "__init__", wrap(made))
        patches.replace(loader, "__iter__", wrap(begun))

    def _note_made(self, loader: Any) -> None:
        try:
            self._made[loader] = places.here()
        except Exception as error:
            self.fail("DataLoader", error)

    def _note_begun(self, loader: Any) -> None:
        try:
            self.close()
            if loader not in self._told:
                self._open = weakref.ref(loader), self.steps()
        except Exception as error:
            self.fail("DataLoader", error)

    def close(self) -> None:
        """Record the loader that was iterated over last, if steps were made meanwhile."""
        reference, began = self._open or (None, 0)
        self._open = None
        loader = None if reference is None else reference()
        fed = self.steps() - began
        if loader is None or fed < 1 or self._count >= _MOST:
            return
        self._told.add(loader)
        self._count += 1
        place = self._made.get(loader)
        data: dict[str, Any] = {
            "sampler": type(getattr(loader, "sampler", None)).__name__,
            "batch_sampler": type(getattr(loader, "batch_sampler", None)).__name__,
            "batch_size": getattr(loader, "batch_size", None),
            "iterable": getattr(loader, "_dataset_kind", 0) == 1,
            "fed": fed,
        }
        if place is not None:
            data["place"] = {"file": place.file, "line": place.line, "text": place.text}
        self.recorder.event("loader", began, data=data)
