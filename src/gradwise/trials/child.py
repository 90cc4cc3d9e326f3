"""What runs inside a watched script's process: reads its orders, waits for torch, watches, changes, stops in time."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

from gradwise.trials.importing import after_import

INJECT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject")
INJECTED = os.path.join(INJECT, "sitecustomize.py")


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child is told: all of it plain data.

    Args:
        spool: path of the file the recording is written to.
        intervention: what to change, as JSON.
        score: an intervention whose loss is recorded in place of the script's, which training keeps (`Applier`).
        seed: offset on the script's seeds; None leaves them alone and only notes which ones it sets.
        max_steps: end the run cleanly after this many optimizer steps.
        max_time: end it cleanly at the first step after this many seconds.
        audit: where to keep what the script changes (`gradwise.trials.audit`); None in a trial.
        guard: what a trial may touch (`gradwise.trials.guard`); None in a watched run.
        dense: look at the tensors at every step that is due, whatever it costs (in a trial nobody waits for).
        light: in trials: leave torch's compiler out until something asks for it (`gradwise.trials.compiler`), and a run
            that was ended before its time isn't taken down piece by piece.
        curvature: measure the curvature at a step and end the run there (`gradwise.trials.replay`).
        trace: find where a loss that isn't finite came from and end the run there (`gradwise.trials.trace`).
    """

    spool: str
    intervention: Mapping[str, Any] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    max_steps: int | None = None
    max_time: float | None = None
    audit: Mapping[str, Any] | None = None
    guard: Mapping[str, Any] | None = None
    dense: bool = False
    light: bool = False
    curvature: Mapping[str, int] | None = None
    trace: Mapping[str, int] | None = None

    def write(self, path: str) -> None:
        """Store the orders for `start`."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)


class RunComplete(SystemExit):
    """Raised inside the script when it has run for as long as it was to run: a clean exit with status 0."""


def start(path: str) -> None:
    """Carry out the orders stored at `path`; called by the injected `sitecustomize` before the script starts."""
    with open(path, encoding="utf-8") as file:
        orders = Orders(**json.load(file))
    _Child(orders).begin()


class _Child:
    def __init__(self, orders: Orders) -> None:
        from gradwise.recording.wire import SpoolSink

        self.orders = orders
        self.began = time.monotonic()
        self.epoch = time.perf_counter()
        self.pid = os.getpid()
        self.sink = SpoolSink(orders.spool)
        self.recorder: Any = None
        self.watcher: Any = None
        self.replay: Any = None
        self.applier: Any = None
        self.over = False

    def begin(self) -> None:
        # Registered first, so run last: what the script does at its end is still recorded.
        atexit.register(self.end)
        self.sink.message("facts", {"pid": self.pid})
        self.sink.flush()
        self.isolate()
        if self.orders.light:
            from gradwise.trials.compiler import put_off

            put_off()
        after_import("torch", self.on_torch)

    def isolate(self) -> None:
        """Seeds, audit and guard; each before the watcher, so that what they do is not taken for the script's."""
        from gradwise.trials.seeds import Seeds

        orders, report = self.orders, self.sink.message
        seeds = Seeds(report, orders.seed)
        seeds.install_random()
        after_import("numpy.random", seeds.install_numpy)
        after_import("torch", seeds.install_torch)
        if orders.audit is None and orders.guard is None:
            return
        from gradwise.trials.audit import install_audit, watch_safetensors, watch_torch_save

        if orders.audit is not None:
            install_audit(report, **orders.audit)
        if orders.guard is not None:
            from gradwise.trials.guard import install_guard, quiet_matplotlib

            install_guard(orders.guard, report)
            after_import("matplotlib", quiet_matplotlib)
        after_import("torch", watch_torch_save)
        after_import("safetensors", watch_safetensors)

    def on_torch(self, torch: ModuleType) -> None:
        began = time.perf_counter()
        if getattr(sys.modules.get("sitecustomize"), "__file__", "") == INJECTED:
            del sys.modules["sitecustomize"]
        try:
            # Not before: it imports numpy, whose threads are settled then, and the script may still have its say.
            from gradwise.probes.recorder import Recorder
            from gradwise.probes.watcher import Watcher

            self.recorder = Recorder(self.sink)
            self.recorder.epoch = self.epoch
            self.watcher = Watcher(torch, self.recorder)
            self.watcher.meter.free = self.orders.dense
            self.watcher.install()
            if self.orders.max_steps is not None or self.orders.max_time is not None:
                self.watcher.after_step.append(self.limit)
            if self.orders.intervention or self.orders.score:
                self.change(torch)
            if self.orders.curvature is not None:
                from gradwise.trials.replay import Replay

                self.replay = Replay(torch, self.watcher, self.recorder, self.orders.curvature, self.complete)
                self.replay.install()
            if self.orders.trace is not None:
                from gradwise.trials.trace import Trace

                self.replay = Trace(torch, self.watcher, self.recorder, self.orders.trace, self.complete)
                self.replay.install()
            self.recorder.facts(torch=torch.__version__, threads=torch.get_num_threads())
            self.watcher.startup = time.perf_counter() - began
        except Exception as error:
            data = {"probe": "install", "error": repr(error)}
            self.sink.message("event", {"kind": "probe-failed", "step": 0, "source": 0, "data": data})
        self.sink.flush()

    def change(self, torch: ModuleType) -> None:
        """Begin to apply the intervention."""
        from gradwise.interventions import Intervention
        from gradwise.trials.apply import Applier

        orders = self.orders
        change, score = Intervention.from_json(orders.intervention), Intervention.from_json(orders.score)
        self.applier = Applier(torch, change, self.watcher, orders.seed or 0, score)
        self.applier.install()
        if orders.score:
            self.recorder.facts(score=dict(orders.score))
        if orders.seed is not None:
            self.watcher.after_step.append(self.refused)

    def refused(self, _optimizer: int, _steps: int) -> None:
        """A trial whose change can't be made in this script has nothing more to tell."""
        if self.applier.stage.refused and os.getpid() == self.pid:
            self.recorder.facts(stopped="refused")
            self.complete()

    def limit(self, _optimizer: int, steps: int) -> None:
        """End the run where its budget ends; asked again at the next step if the script caught the exit."""
        orders = self.orders
        out_of_steps = orders.max_steps is not None and steps >= orders.max_steps
        out_of_time = orders.max_time is not None and time.monotonic() - self.began >= orders.max_time
        if (out_of_steps or out_of_time) and os.getpid() == self.pid:
            self.recorder.facts(stopped="steps" if out_of_steps else "time")
            self.complete()

    def complete(self) -> None:
        """End the run: what it was to find out is known."""
        if os.getpid() == self.pid:
            self.over = True
            self.recorder.flush()
            raise RunComplete(0)

    def end(self) -> None:
        if os.getpid() != self.pid:
            return
        if self.replay is not None:
            self.replay.finish()
        if self.watcher is not None:
            self.watcher.finish()
        self.sink.message("facts", {"reached_end": True})
        self.sink.flush()
        if self.over and self.orders.light:
            # The script's own functions for the end have run. To unload torch would take half as long as to load it.
            for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                with suppress(Exception):
                    stream.flush()  # type: ignore[union-attr]
            with suppress(Exception):
                import ctypes

                ctypes.CDLL(None).fflush(None)  # what was printed from C
            os._exit(0)
