"""The probes' end of a recording: buffers points per series and hands them to a sink, at most `INTERVAL` late."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

from gradwise.recording.recording import Event, OptimizerInfo, Place
from gradwise.recording.signals import VALIDATION, Signal

if TYPE_CHECKING:
    from gradwise.recording.sink import Sink

INTERVAL = 0.1


class Channel:
    """The points of one series that have not been handed on yet."""

    __slots__ = ("id", "labels", "steps", "values")

    def __init__(self, identity: int, labels: tuple[str, ...]) -> None:
        self.id = identity
        self.labels = labels
        self.steps = array("q")
        self.values = array("d")

    def add(self, step: int, *values: float) -> None:
        """One point: a value, or one per label."""
        self.steps.append(step)
        self.values.extend(values)


class Recorder:
    """Collects points, optimizers and events of one run; nothing it does can raise into the training script.

    Attributes:
        epoch: when the recording began, by `perf_counter`.
        due: when to flush next.
        sources: called at each flush, to add the points they hold.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.epoch = perf_counter()
        self.due = self.epoch + INTERVAL
        self.sources: list[Callable[[], None]] = []
        self._channels: dict[tuple[str, int], Channel] = {}

    def channel(self, signal: Signal, source: int = 0, labels: tuple[str, ...] = ()) -> Channel:
        """The channel of a series, declared to the sink on first use and again where its columns change."""
        channel = self._channels.get((signal.name, source))
        if channel is None or channel.labels != labels:
            if channel is not None:
                self._hand_on(channel)
            identity = self.sink.series(signal.name, source, labels)
            channel = self._channels[signal.name, source] = Channel(identity, labels)
        return channel

    def point(
        self, signal: Signal, source: int, step: int, values: Sequence[float], labels: tuple[str, ...] = ()
    ) -> None:
        """One point of a series that is not recorded at every step."""
        channel = self.channel(signal, source, labels)
        channel.steps.append(step)
        channel.values.extend(values)

    def optimizer(self, info: OptimizerInfo) -> None:
        """What is known of an optimizer; sent again when more is known."""
        self.sink.message("optimizer", asdict(info))

    def validation_place(self, source: int, place: Place, callers: Sequence[Place]) -> None:
        """Where the losses of validation series `source` are evaluated, and from where that was called."""
        self.sink.message("place", {"source": source, **asdict(place), "callers": [asdict(c) for c in callers]})

    def validation(self, source: int, step: int, value: float) -> None:
        """The mean loss of one validation pass."""
        self.point(VALIDATION, source, step, (value,))

    def event(self, kind: str, step: int = 0, source: int = 0, data: Mapping[str, Any] | None = None) -> None:
        """Something that happened once."""
        self.sink.message("event", asdict(Event(kind, step, source, dict(data or {}))))

    def facts(self, **facts: Any) -> None:
        """Facts about the run as a whole."""
        self.sink.message("facts", facts)

    def flush(self) -> None:
        """Hand on everything there is."""
        for source in self.sources:
            source()
        for channel in self._channels.values():
            if channel.steps:
                self._hand_on(channel)
        self.sink.flush()
        self.due = perf_counter() + INTERVAL

    def _hand_on(self, channel: Channel) -> None:
        # Emptied, not replaced: whoever writes often keeps the channel at hand.
        self.sink.points(channel.id, channel.steps, channel.values)
        del channel.steps[:]
        del channel.values[:]
