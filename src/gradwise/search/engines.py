"""Which engine makes the runs of a search, as its user names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradwise.search.cluster import RayCluster, Share
from gradwise.search.jobs import Engine, EngineError, Evaluate, InProcess, Job, Result, Work
from gradwise.search.workers import LocalProcesses

ENGINES = ("local", "ray")
# How often a run that everything rests on is made again where it is lost.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Where:
    """Where runs are to be made.

    Attributes:
        engine: out of `ENGINES`.
        jobs: how many at a time; None is one on this machine, and as many as there is room for on a cluster.
        address: of a Ray cluster.
        share: what each gets there.
        upload: a folder to copy there; None where all machines see the same files.
    """

    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    share: Share | None = None
    upload: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise EngineError(f"there is no engine {self.engine!r}; there are {', '.join(ENGINES)}")
        if self.engine == "local":
            for name, given in (("address", self.address), ("upload", self.upload)):
                if given is not None:
                    raise EngineError(f"{name} is about --engine ray, which is not asked for")

    @property
    def here(self) -> bool:
        """Whether runs are made one after another in this process."""
        return self.engine == "local" and (self.jobs or 1) == 1

    def made(self, work: Work, evaluate: Evaluate, on_tick: Callable[[], None] = lambda: None) -> Engine:
        """The engine.

        Args:
            work: what to run, for other processes.
            evaluate: the same, for this one.
            on_tick: called a few times a second while other processes run.

        Raises:
            EngineError: why it can't be had.
        """
        if self.engine == "ray":
            return RayCluster(work, self.address, self.jobs, self.share, self.upload, on_tick)
        return InProcess(evaluate) if self.here else LocalProcesses(work, self.jobs or 1, on_tick)


def one(engine: Engine, job: Job) -> Result:
    """Make a single run, again where it is lost.

    Raises:
        EngineError: where it is lost each time.
    """
    for _ in range(_TRIES):
        engine.submit(job)
        done = None
        while done is None:
            done = engine.next_done(lambda job, k, value: False)
        if not done[1].lost:
            return done[1]
    raise EngineError(f"a run was lost {_TRIES} times: {done[1].problem if done else ''}")
