"""`gradwise.watch`: record training in this very process, a notebook's or a script's own, and diagnose it."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from gradwise.diagnosis.findings import Diagnosis, Finding, Verdict
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.frames import Frame
from gradwise.recording.keeper import Keeper
from gradwise.recording.recording import Recording, RunInfo

if TYPE_CHECKING:
    from torch.nn import Module

    from gradwise.probes.watcher import Watcher

_EVERY = 0.5
_open: Watch | None = None


def watch(model: Module | None = None, *, store: str | os.PathLike[str] | None = None) -> Watch:
    """Watch whatever trains while a block runs; torch is as it was when the block ends.

        with gradwise.watch(model) as run:
            train(model, optimizer)
        print(run.diagnose())

    Args:
        model: gives the parameters their names; without it they have those of the modules whose `parameters()` are
            asked for in the block.
        store: keeps the recording, as `--store` does (a SQLite file or a SQLAlchemy URL); None keeps it in memory only.

    Returns:
        A context manager that gives itself, to be asked inside the block or after it.

    Raises:
        RuntimeError: on entering, if another block is open: one recording can't tell two trainings apart.
        TypeError: `model` is no `torch.nn.Module`.
    """
    return Watch(model, store)


class Watch:
    """One watched block; `gradwise.watch` makes it."""

    def __init__(self, model: Module | None, store: str | os.PathLike[str] | None) -> None:
        import torch

        if model is not None and not isinstance(model, torch.nn.Module):
            raise TypeError(f"gradwise.watch takes a torch.nn.Module to name the parameters by, not {model!r:.60}")
        self._torch = torch
        self._model = model
        self._keeping = None if store is None else _Keeping(os.fspath(store))
        self._builder = RecordingBuilder()
        self._watcher: Watcher | None = None
        self._run = RunInfo("", cwd=os.getcwd())

    def __enter__(self) -> Watch:
        global _open
        if _open is not None:
            raise RuntimeError("a gradwise.watch block is open already: end it before another begins")
        if self._watcher is not None:
            raise RuntimeError("this gradwise.watch block has been run: make another with gradwise.watch()")
        from gradwise.probes.recorder import Recorder
        from gradwise.probes.watcher import Watcher

        began = time.perf_counter()
        self._run = replace(self._run, started=time.time())
        if self._keeping is not None:
            self._run = self._keeping.begin(self._run)
        self._builder = RecordingBuilder(self._run)
        watcher = Watcher(self._torch, Recorder(FrameSink(self._deliver)))
        if self._model is not None:
            watcher.names.add(self._model)
        watcher.recorder.facts(torch=self._torch.__version__, threads=self._torch.get_num_threads(), pid=os.getpid())
        watcher.install()
        watcher.startup = time.perf_counter() - began
        self._watcher, _open = watcher, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        global _open
        _open = None
        assert self._watcher is not None
        self._watcher.remove()
        status = "finished" if kind is None else "stopped" if kind is KeyboardInterrupt else "failed"
        self._run = replace(self._run, ended=time.time(), status=status, facts=self._builder.run.facts)
        if self._keeping is not None:
            self._run = self._keeping.finish(self._run)
        return False

    @property
    def recording(self) -> Recording:
        """What has been recorded so far."""
        if self._watcher is None:
            raise RuntimeError("nothing was recorded yet: use `with gradwise.watch() as run: …` around the training")
        if _open is self:
            self._watcher.recorder.flush()
        recording = self._builder.build()
        return replace(recording, run=replace(self._run, facts=recording.run.facts))

    def diagnose(self, target: float | None = None) -> Report:
        """Say what is wrong with the training so far.

        Args:
            target: a loss that it is to reach.
        """
        from gradwise.diagnosis import diagnose

        recording = self.recording
        diagnosis = diagnose(recording, target)
        if self._keeping is not None:
            diagnosis = self._keeping.keep(diagnosis, recording.run)
        return Report(diagnosis, recording)

    def _repr_html_(self) -> str:
        return self.diagnose()._repr_html_()

    def _deliver(self, frames: Sequence[Frame]) -> None:
        self._builder.add(frames)
        if self._keeping is not None:
            self._keeping.take(frames)


@dataclass(frozen=True, slots=True)
class Report:
    """A diagnosis that shows itself: printed as the terminal's page, in a notebook as HTML.

    Attributes:
        diagnosis: the diagnosis as data.
        recording: the run it is about.
    """

    diagnosis: Diagnosis
    recording: Recording

    @property
    def verdict(self) -> Verdict:
        """What it comes to: "healthy", "sick" or "inconclusive"."""
        return self.diagnosis.verdict

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, most probable root cause first."""
        return self.diagnosis.findings

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object (docs/reference/report-json.md)."""
        return self.diagnosis.to_json()

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON; OSError where that can't be."""
        from gradwise.report import write_json

        write_json(path, self.diagnosis)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one HTML file with interactive figures; OSError where that can't be."""
        from gradwise.report import write_html

        write_html(path, self.diagnosis, self.recording)

    def __str__(self) -> str:
        from rich.console import Console

        from gradwise.report import render

        text = io.StringIO()
        render(self.diagnosis, self.recording, Console(file=text, width=100, color_system=None))
        return text.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        from gradwise.report import notebook_html

        return notebook_html(self.diagnosis, self.recording)


class _Keeping:
    """Writes into the store beside the training, which must not wait for a disk."""

    def __init__(self, url: str) -> None:
        self.keeper = Keeper(url)
        self._waiting: list[Frame] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._id = ""

    def begin(self, run: RunInfo) -> RunInfo:
        self._id = self.keeper.begin(run)
        self._thread = threading.Thread(target=self._work, name="gradwise", daemon=True)
        self._thread.start()
        return replace(run, id=self._id)

    def take(self, frames: Sequence[Frame]) -> None:
        with self._lock:
            self._waiting += frames

    def finish(self, run: RunInfo) -> RunInfo:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._write()
        kept = self.keeper.finish(run)
        self.keeper.close()
        return run if kept else replace(run, id="")

    def keep(self, diagnosis: Diagnosis, run: RunInfo) -> Diagnosis:
        """Keep a report of a run that is over; a note on it where something could not be kept."""
        if run.status != "running" and run.id:
            self.keeper.save_report(run.id, diagnosis.to_json())
        if self.keeper.problem is None:
            return diagnosis
        return replace(diagnosis, notes=(*diagnosis.notes, f"The recording was not kept: {self.keeper.problem}."))

    def _work(self) -> None:
        while not self._over.wait(_EVERY):
            self._write()

    def _write(self) -> None:
        with self._lock:
            frames, self._waiting = self._waiting, []
        self.keeper.append(self._id, frames)
