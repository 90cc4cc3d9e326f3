"""What is found out by running an unmodified script once more, up to a step in question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher


class Rerun:
    """A question to one step of a run: it is answered by one event, and the run is over.

    Args:
        torch: the module.
        watcher: installed already.
        recorder: takes the event.
        order: `step` and `source` (an optimizer's index, 0 by default); subclasses know more.
        complete: ends the run.

    Attributes:
        event: the kind of event that answers.
    """

    event = ""

    def __init__(
        self,
        torch: ModuleType,
        watcher: Watcher,
        recorder: Recorder,
        order: Mapping[str, int],
        complete: Callable[[], None],
    ) -> None:
        self.torch, self.watcher, self.recorder, self.complete = torch, watcher, recorder, complete
        self.step, self.source = order["step"], order.get("source", 0)
        self._patches = Patches(torch)
        self._done = False
        self._prepare(order)

    def _prepare(self, order: Mapping[str, int]) -> None:
        """What a subclass needs besides."""
        raise NotImplementedError

    def install(self) -> None:
        """Begin; the watcher's hooks must be there already."""
        raise NotImplementedError

    def remove(self) -> None:
        """Put torch back as it was."""
        self._patches.undo()

    def finish(self) -> None:
        """The script has come to its end."""
        raise NotImplementedError

    def _answer(self, step: int, data: dict[str, Any]) -> None:
        """Leave the event."""
        self._done = True
        self.recorder.event(self.event, step, self.source, data)
        self.recorder.facts(stopped="steps")
        self.recorder.flush()
