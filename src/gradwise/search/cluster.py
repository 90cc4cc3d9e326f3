"""Runs on a Ray cluster. Workers are Ray actors with their share of a machine; one that dies loses its run only.

Workers know nothing of the study, and hold no connection to its database. Values of runs under way come to the driver
over a board, an actor too, and the answer whether to end the run goes back the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from gradwise.search.jobs import EngineError, Evaluate, Job, OnJobValue, Result, Work
from gradwise.search.pending import leave
from gradwise.search.scripted import Task

_ASLEEP = 0.2
# Seconds for the cluster's address to answer at all; Ray itself would try for minutes.
_ANSWER = 5.0
# Seconds for which the driver's answer is waited for, before a run goes on without.
_REPLY = 120.0
# What is of no use on another machine, beside what .gitignore and .rayignore name.
_STAYS = (".git", ".gradwise", ".venv", "venv", "__pycache__")


@dataclass(frozen=True, slots=True)
class Share:
    """What a run gets of a machine.

    Attributes:
        cpus: cores, which are its threads, too.
        gpus: None is one where the cluster has any.
    """

    cpus: int = 1
    gpus: float | None = None


@dataclass
class _Worker:
    actor: Any
    begins: Any
    job: Job | None = None
    run: Any = None
    began: float = 0.0


class RayCluster:
    """Makes runs on a Ray cluster (`gradwise.search.jobs.Engine`).

    Args:
        work: what to run.
        address: the cluster's, as Ray takes it; None takes `RAY_ADDRESS`, or the cluster on this machine.
        jobs: runs at a time; None is as many as the cluster has room for.
        share: what each gets.
        upload: a folder to copy to the cluster's machines; None where they all see the same files.
        on_tick: called a few times a second while waiting.

    Raises:
        EngineError: Ray isn't installed, or the cluster can't be used.
    """

    def __init__(
        self,
        work: Work,
        address: str | None = None,
        jobs: int | None = None,
        share: Share | None = None,
        upload: str | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._ray = _ray()
        self._ours = not self._ray.is_initialized()
        self.on_tick, self._uploaded = on_tick, upload is not None
        self._workers: list[_Worker] = []
        self._connect(address, upload)
        try:
            self._share, self.slots = self._room(share or Share(), jobs)
            self._board = self._ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()
            self._value = self._board.next.remote()
            self.use(work)
        except BaseException:
            self.close()
            raise

    def use(self, work: Work) -> None:
        """Run this from now on."""
        self.work, self._digest = work, _hash_of(work)
        try:
            self._told = self._ray.put(work)
            for worker in self._workers:
                worker.begins = worker.actor.begin.remote(self._told, self._digest)
        except Exception as error:
            raise EngineError(f"what is to be run can't be sent to the cluster: {_line(error)}") from error

    def submit(self, job: Job) -> None:
        """Hand a run to a worker that has nothing to do, or to a new one."""
        worker = next((w for w in self._workers if w.job is None), None) or self._hire()
        worker.job, worker.began = job, time.monotonic()
        worker.run = worker.actor.make.remote(job.to_json())

    def next_done(self, on_value: OnJobValue, timeout: float | None = None) -> tuple[Job, Result] | None:
        """Wait until a run has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            asleep = _ASLEEP if until is None else max(0.0, min(_ASLEEP, until - time.monotonic()))
            refs = [w.begins for w in self._workers if w.begins is not None]
            refs += [w.run for w in self._workers if w.job is not None]
            ready, _ = self._ray.wait([*refs, self._value], num_returns=1, timeout=asleep)
            if ready and ready[0] == self._value:
                self._heard(on_value)
            for worker in list(self._workers):
                if worker.begins in ready:
                    done = self._begun(worker)
                elif worker.job is not None and worker.run in ready:
                    done = self._over(worker)
                elif worker.begins is None and time.monotonic() - worker.began > self.work.patience:
                    done = self._lost(worker, self.work.overdue())
                else:
                    continue
                if done is not None:
                    return done
            self.on_tick()
            if until is not None and time.monotonic() >= until:
                return None

    def cancel(self, key: str) -> None:
        """End a run and its worker."""
        for worker in [w for w in self._workers if w.job is not None and w.job.key == key]:
            self._dismiss(worker)

    def close(self) -> None:
        """End all workers, and the scripts they run; leave the cluster."""
        for worker in list(self._workers):
            self._dismiss(worker)
        if self._ours:
            with contextlib.suppress(Exception):
                self._ray.shutdown()

    # the cluster

    def _connect(self, address: str | None, upload: str | None) -> None:
        if not self._ours:
            if upload is not None:
                raise EngineError(
                    "Ray takes a folder only when it is connected, and it is already: call ray.shutdown()"
                )
            return
        where = address or os.environ.get("RAY_ADDRESS") or "auto"
        _answers(where)
        given: dict[str, Any] = {"address": where, "log_to_driver": False, "logging_level": logging.ERROR}
        if upload is not None:
            given["runtime_env"] = {"working_dir": upload, "excludes": list(_STAYS)}
        try:
            with _quietly():
                self._ray.init(**given)
        except BaseException as error:  # Ray ends the process where it gives up
            if isinstance(error, KeyboardInterrupt):
                raise
            if "exceeds the maximum size" in str(error):
                raise EngineError(_too_large(str(upload), error)) from error
            raise EngineError(
                f"the Ray cluster at {where} can't be used: {_line(error)}; `ray status --address …` says how it is, "
                "`ray start --head` begins one"
            ) from error

    def _room(self, share: Share, jobs: int | None) -> tuple[Share, int]:
        """What each run gets, and how many there can be."""
        nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
        if share.gpus is None:
            share = replace(share, gpus=1.0 if any(n.get("GPU") for n in nodes) else 0.0)
        fitting = 0
        for node in nodes:
            fits = int(node.get("CPU", 0) // share.cpus)
            fitting += min(fits, int(node.get("GPU", 0) // share.gpus)) if share.gpus else fits
        if not fitting and jobs is None:
            raise EngineError(
                f"no machine of the cluster has {share.cpus} cores and {share.gpus:g} GPUs for a trial: ask for less "
                "with --cpus and --gpus, or say with --jobs how many there will be"
            )
        return share, jobs or fitting

    # workers

    def _hire(self) -> _Worker:
        share = self._share
        made = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(_Maker)
        with _quietly():
            actor = made.remote(self._board, self._uploaded, _version())
        worker = _Worker(actor, actor.begin.remote(self._told, self._digest))
        self._workers.append(worker)
        return worker

    def _begun(self, worker: _Worker) -> tuple[Job, Result] | None:
        """A worker is there, or isn't."""
        try:
            problem = self._ray.get(worker.begins)
        except self._ray.exceptions.RayError as error:
            words = str(error)
            if "ModuleNotFoundError: No module named 'gradwise'" in words:
                raise EngineError(
                    f"gradwise isn't installed on the cluster's machines: install version {_version()} there"
                ) from error
            if isinstance(error, self._ray.exceptions.RuntimeEnvSetupError) or "creation task" in words:
                raise EngineError(f"no worker could begin on the cluster: {_line(error)}") from error
            return self._lost(worker, Result(None, problem=f"its worker died ({_line(error)})", lost=True))
        if problem:
            raise EngineError(problem)
        worker.begins, worker.began = None, time.monotonic()
        return None

    def _over(self, worker: _Worker) -> tuple[Job, Result] | None:
        try:
            result = Result.from_json(self._ray.get(worker.run))
        except self._ray.exceptions.RayError as error:
            return self._lost(worker, Result(None, problem=f"its worker died ({_line(error)})", lost=True))
        job, worker.job, worker.run = worker.job, None, None
        assert job is not None
        return job, result

    def _lost(self, worker: _Worker, result: Result) -> tuple[Job, Result] | None:
        job, seconds = worker.job, time.monotonic() - worker.began
        self._dismiss(worker)
        return None if job is None else (job, replace(result, seconds=seconds))

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor)

    def _heard(self, on_value: OnJobValue) -> None:
        try:
            number, key, k, value = self._ray.get(self._value)
        except self._ray.exceptions.RayError:  # the board's machine died; Ray makes another
            self._value = self._board.next.remote()
            return
        job = next((w.job for w in self._workers if w.job is not None and w.job.key == key), None)
        end = job is not None and on_value(job, k, value)
        self._board.answer.remote(number, end)
        self._value = self._board.next.remote()


class _Board:
    """Carries values from workers to the driver, and its answers back."""

    def __init__(self) -> None:
        self._values: asyncio.Queue[tuple[int, str, int, float]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[bool]] = {}
        self._count = 0

    async def value(self, key: str, k: int, value: float) -> bool:
        """Of a worker: a value; answered by whether to end the run."""
        self._count += 1
        number = self._count
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._values.put((number, key, k, value))
        end: bool = await answer
        return end

    async def next(self) -> tuple[int, str, int, float]:
        """Of the driver: the next value there is."""
        return await self._values.get()

    async def answer(self, number: int, end: bool) -> None:
        """Of the driver: its answer."""
        self._answers.pop(number).set_result(end)


class _Maker:
    """Makes runs, one at a time, on some machine of the cluster."""

    def __init__(self, board: Any, uploaded: bool, version: str) -> None:
        self._board, self._uploaded, self._version = board, uploaded, version
        self._stack = contextlib.ExitStack()
        self._evaluate: Evaluate | None = None

    def begin(self, work: Work, digest: str) -> str:
        """Get ready; why that is not possible, "" where it is."""
        here = socket.gethostname()
        if self._version != _version():
            return f"{here} has gradwise {_version()}, this machine {self._version}: install the same on all"
        if isinstance(work, Task):
            if self._uploaded:
                work = replace(work, target=replace(work.target, cwd=os.getcwd()))
            missing = _missing(work, digest)
            if missing:
                more = "" if self._uploaded else ": share the folder, or have it copied with --upload"
                return f"{here} {missing}{more}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self._stack.close()
        self._evaluate = self._stack.enter_context(work.begun(environment))
        return ""

    def make(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """A run."""
        assert self._evaluate is not None
        wanted = Job(**job)

        def on_value(k: int, value: float) -> bool:
            import ray

            try:
                return bool(ray.get(self._board.value.remote(wanted.key, k, value), timeout=_REPLY))
            except ray.exceptions.RayError:
                return False

        result = self._evaluate(wanted, on_value)
        leave(result, wanted.keep)
        return result.to_json()


def _version() -> str:
    try:
        return metadata.version("gradwise")
    except metadata.PackageNotFoundError:
        return ""


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise EngineError("--engine ray needs Ray: pip install 'gradwise[ray]'") from None
    return ray


def _answers(address: str) -> None:
    """Make sure that there is somebody."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local") or not colon:
        if address != "auto":
            raise EngineError(f"{address!r} is no address of a Ray cluster: write HOST:6379, or ray://HOST:10001")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise EngineError(
            f"there is no Ray cluster at {address} ({error}): check the address, `ray start --head` begins one"
        ) from None


def _hash_of(work: Work) -> str:
    """Of the script, to see whether machines see the same; "" where that is no single file."""
    if not isinstance(work, Task) or work.target.module:
        return ""
    try:
        return hashlib.sha256(Path(work.target.cwd, work.target.script).read_bytes()).hexdigest()
    except OSError:
        return ""


def _missing(task: Task, digest: str) -> str:
    """What a machine lacks for running a script; "" where it has all."""
    target = task.target
    if not os.path.isdir(target.cwd):
        return f"has no folder {target.cwd}"
    if target.module or not digest:
        return ""
    if not Path(target.cwd, target.script).is_file():
        return f"has no script {target.script} in {target.cwd}"
    return "" if _hash_of(task) == digest else f"has another {target.script} in {target.cwd}"


def _too_large(folder: str, error: BaseException) -> str:
    return (
        f"the folder {folder} is too large to be copied to the cluster ({_line(error)}): keep data elsewhere, name "
        "what can stay behind in .rayignore (written like .gitignore), or share the folder and leave out --upload"
    )


def _line(error: BaseException) -> str:
    """What Ray says, in a line: the last that isn't part of a traceback."""
    lines = [w.strip() for w in str(error).splitlines() if w.strip()]
    plain = [w for w in lines if not w.startswith(("File ", "Traceback", "^", "^^", "~"))]
    return ((plain or lines or [type(error).__name__])[-1 if "Traceback" in str(error) else 0])[:300]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
