"""A study: the trials of one search on disk, and which configuration comes next. Nothing else knows Optuna."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.recording.liveness import alive, this_process
from gradwise.search.domains import Range, Value
from gradwise.search.jobs import Result
from gradwise.search.space import Configuration, Parameter, Space

if TYPE_CHECKING:
    import optuna

METHODS = ("guess", "grid", "random", "quasi-random", "tpe", "gp", "cma-es", "nsga-ii")
PRUNING = ("none", "median", "halving", "hyperband")
# Configurations in a row that were all tried before, after which there is nothing new to try.
_REPEATS = 50
# How often a configuration whose run was lost (a killed worker, a killed driver) is run again.
_AGAIN = 2
_ENDED = ("complete", "pruned", "failed")


class StudyError(Exception):
    """A study that can't be made or opened: why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a space is searched.

    Attributes:
        name: out of `METHODS`.
        pruning: out of `PRUNING`.
        trials: how many are planned; some methods divide them.
        points: values on each range, for a grid.
        seed: of its random numbers.
        slots: how many run at a time.
        evaluations: values that a whole run reports, for pruning.
    """

    name: str = "tpe"
    pruning: str = "none"
    trials: int = 30
    points: int = 5
    seed: int = 0
    slots: int = 1
    evaluations: int = 1

    def settings(self) -> dict[str, Any]:
        """All parameters that the method itself has, as they are set."""
        begin = max(4, min(10, self.trials // 3))
        each: dict[str, dict[str, Any]] = {
            "guess": {},
            "grid": {"points": self.points},
            "random": {},
            "quasi-random": {"qmc_type": "sobol", "scramble": True},
            "tpe": {
                "n_startup_trials": begin, "multivariate": True, "group": True, "n_ei_candidates": 24,
                "constant_liar": self.slots > 1,
            },
            "gp": {"n_startup_trials": begin, "deterministic_objective": False},
            "cma-es": {"n_startup_trials": 1},
            "nsga-ii": {"population_size": max(4, min(50, self.trials // 4)), "swapping_prob": 0.5},
        }  # fmt: skip
        return each[self.name]

    def pruning_settings(self) -> dict[str, Any]:
        """All parameters that pruning has."""
        least = max(1, self.evaluations // 9)
        return {
            "none": {},
            "median": {"n_startup_trials": 4, "n_warmup_steps": least},
            "halving": {"min_resource": least, "reduction_factor": 3},
            "hyperband": {"min_resource": least, "max_resource": self.evaluations, "reduction_factor": 3},
        }[self.pruning]


@dataclass(frozen=True, slots=True)
class Row:
    """One trial as the study knows it: `state` is "running", "waiting", "complete", "pruned", "failed" or "lost"."""

    number: int
    config: Configuration
    state: str
    result: Result | None = None

    @property
    def ended(self) -> bool:
        """Whether it was run, so that it counts."""
        return self.state in _ENDED


class Study:
    """Trials, asked for and told; opening one that exists goes on with it.

    Args:
        url: the database; None keeps all in memory.
        name: which study in it.
        space: what to search.
        method: how.

    Raises:
        StudyError: it can't be opened, or it is of another space.
    """

    def __init__(self, url: str | None, name: str, space: Space, method: Method) -> None:
        if method.name == "guess" and not space.single:
            raise StudyError("a guess is one configuration: give each parameter one value, or take another method")
        self.space, self.name = space, name
        self._open: dict[int, optuna.Trial] = {}
        self._rows: dict[int, Row] = {}
        self._waiting = 0
        with quietly(), _explained(url):
            import optuna

            storage = _storage(url)
            self._study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            self._refresh()
            self._adopt()
            self._refresh()
        self.use(method)

    def use(self, method: Method) -> None:
        """Go on by this method."""
        self.method = method
        with quietly():
            self._study.sampler = _sampler(method, len(self._study.get_trials(deepcopy=False)))
            self._study.pruner = _pruner(method)
        self._list = self._listed()

    # what has been

    def rows(self) -> list[Row]:
        """All trials, in the order in which they were asked for; those of other drivers as of the last `ask`."""
        return [self._rows[number] for number in sorted(self._rows)]

    def _refresh(self) -> None:
        """Read what is new; reading is what a study on disk costs most."""
        lost = set(self._lost())
        trials = self._study.get_trials(deepcopy=False)
        self._waiting = sum(t.state.name == "WAITING" for t in trials)
        for trial in trials:
            known = self._rows.get(trial.number)
            config, result = trial.user_attrs.get("config"), trial.user_attrs.get("result")
            if config is not None and (known is None or not known.ended):
                state = "lost" if trial.number in lost else _STATES[trial.state.name]
                made = None if result is None else Result.from_json(result)
                self._rows[trial.number] = Row(trial.number, config, state, made)

    def best(self) -> Row | None:
        """The trial with the lowest value; of equals the first."""
        done = [r for r in self.rows() if r.state == "complete" and r.result is not None and r.result.value is not None]
        return min(done, key=lambda r: r.result.level if r.result else math.inf, default=None)

    def noted(self, key: str) -> Any:
        """What `note` was given; None before."""
        return self._study.user_attrs.get(key)

    def note(self, key: str, value: Any) -> None:
        """Keep something with the study (JSON)."""
        with quietly():
            self._study.set_user_attr(key, value)

    # what comes

    def ask(self) -> Row | None:
        """The next trial; None where there is nothing new to try."""
        with quietly():
            for _ in range(_REPEATS):
                self._refresh()
                if self._list is not None and not self._waiting:
                    listed = self._take()
                    if listed is None:
                        return None
                    self._study.enqueue_trial(_encoded(self.space, listed))
                trial = self._study.ask()
                config = self.space.active(lambda p, trial=trial: _suggest(trial, p))  # type: ignore[misc]
                others = [r for r in self._rows.values() if dict(r.config) == config]
                if any(r.state == "running" for r in others):
                    # Somebody is at it: what comes of it will be known soon enough.
                    self._tell(trial.number, "FAIL", None)
                    continue
                same = next((r for r in others if r.ended), None)
                if same is not None:
                    # The same run would give the same: it is told again for the method's sake, and counts once.
                    done = same.state == "complete" and same.result is not None
                    level = same.result.level if done and same.result else None
                    self._tell(trial.number, "COMPLETE" if done else "FAIL", level)
                    continue
                trial.set_user_attr("owner", this_process())
                trial.set_user_attr("config", config)
                self._open[trial.number] = trial
                self._rows[trial.number] = Row(trial.number, config, "running")
                return self._rows[trial.number]
        return None

    def report(self, number: int, k: int, value: float) -> bool:
        """Take the k-th value of a trial under way; whether to end it."""
        trial = self._open[number]
        with quietly():
            trial.report(value, k)
            return trial.should_prune()

    def tell(self, number: int, result: Result) -> None:
        """Take a trial's result."""
        trial, config = self._open.pop(number), self._rows[number].config
        state = "failed" if result.problem else "pruned" if result.pruned else "complete"
        with quietly():
            trial.set_user_attr("result", result.to_json())
            if result.lost:
                state = self._lose(number, config)
            elif state == "complete":
                self._tell(number, "COMPLETE", result.level)
            else:
                self._tell(number, "PRUNED" if state == "pruned" else "FAIL", None)
        self._rows[number] = Row(number, config, state, result)

    def close(self) -> None:
        """What is still open will be run again by whoever opens the study next."""
        with quietly():
            for number in self._open:
                self._lose(number, self._rows[number].config)
            self._open.clear()
            self._refresh()

    def _tell(self, number: int, state: str, value: float | None) -> None:
        import optuna

        self._study.tell(number, value, optuna.trial.TrialState[state])

    def _lose(self, number: int, config: Configuration) -> str:
        """A run that was lost is made again, but not for ever; what state that leaves its trial in."""
        often = sum(r.state == "lost" and dict(r.config) == dict(config) for r in self._rows.values())
        again = often < _AGAIN
        if again:
            self._study.set_user_attr("lost", [*self._lost(), number])
            self._study.enqueue_trial(_encoded(self.space, config))
        self._tell(number, "FAIL", None)
        return "lost" if again else "failed"

    def _lost(self) -> list[int]:
        lost: list[int] = self._study.user_attrs.get("lost", [])
        return lost

    def _adopt(self) -> None:
        """Take over from drivers that are gone."""
        for trial in self._study.get_trials(deepcopy=False):
            owner, config = trial.user_attrs.get("owner"), trial.user_attrs.get("config")
            if trial.state.name != "RUNNING":
                continue
            silent = time.time() - trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            if owner is None or config is None:
                if silent > 60:
                    self._tell(trial.number, "FAIL", None)
            elif not alive(owner, silent):
                self._lose(trial.number, config)

    def _listed(self) -> list[dict[str, Value]] | None:
        """Every configuration of a method that knows them beforehand."""
        if self.method.name == "guess" or self.space.single:
            return self.space.grid(1)
        return self.space.grid(self.method.points) if self.method.name == "grid" else None

    def _take(self) -> dict[str, Value] | None:
        """The next of the list that was neither run nor is about to be."""
        known = [dict(r.config) for r in self.rows() if r.state != "lost"]
        while self._list:
            point = self._list.pop(0)
            if point not in known:
                return point
        return None


_STATES = {"RUNNING": "running", "WAITING": "waiting", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Value:
    """A value of one parameter; where values and ranges are mixed, first which piece, then where in it."""
    name, pieces = parameter.name, parameter.domain.pieces
    if len(pieces) == 1 and isinstance(pieces[0], Range):
        return _within(trial, name, pieces[0])
    if not any(isinstance(p, Range) for p in pieces):
        chosen = trial.suggest_categorical(name, [p for p in pieces if not isinstance(p, Range)])
        assert chosen is not None
        return chosen
    k = trial.suggest_categorical(f"{name}:piece", list(range(len(pieces))))
    piece = pieces[k]
    return _within(trial, f"{name}:{k}", piece) if isinstance(piece, Range) else piece


def _within(trial: optuna.Trial, name: str, span: Range) -> Value:
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)


def _encoded(space: Space, config: Configuration) -> dict[str, Value]:
    """A configuration by the names that `_suggest` gives its parts."""
    found: dict[str, Value] = {}
    for parameter in space.parameters:
        if parameter.name not in config:
            continue
        name, value, pieces = parameter.name, config[parameter.name], parameter.domain.pieces
        if len(pieces) == 1 or not any(isinstance(p, Range) for p in pieces):
            found[name] = value
            continue
        k = next(k for k, p in enumerate(pieces) if (value in p if isinstance(p, Range) else value == p))
        found[f"{name}:piece"] = k
        if isinstance(pieces[k], Range):
            found[f"{name}:{k}"] = value
    return found


def _sampler(method: Method, before: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    # A search that goes on must not draw again what it drew at its start.
    seed = int(np.random.SeedSequence([method.seed, before]).generate_state(1)[0])
    chance = samplers.RandomSampler(seed)
    given = method.settings()
    match method.name:
        case "tpe":
            return samplers.TPESampler(seed=seed, **given)
        case "gp":
            return samplers.GPSampler(seed=seed, independent_sampler=chance, warn_independent_sampling=False, **given)
        case "cma-es":
            return samplers.CmaEsSampler(
                seed=seed, independent_sampler=chance, warn_independent_sampling=False, **given
            )
        case "nsga-ii":
            return samplers.NSGAIISampler(seed=seed, **given)
        case "quasi-random":
            # Its points are numbered in the study; its scrambling must stay the same.
            return samplers.QMCSampler(
                seed=method.seed, independent_sampler=chance, warn_asynchronous_seeding=False,
                warn_independent_sampling=False, **given,
            )  # fmt: skip
        case _:
            return chance


def _pruner(method: Method) -> optuna.pruners.BasePruner:
    from optuna import pruners

    kinds = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    made: optuna.pruners.BasePruner = kinds[method.pruning](**method.pruning_settings())
    return made


def _storage(url: str | None) -> optuna.storages.BaseStorage:
    from optuna import storages
    from sqlalchemy import event

    if url is None:
        return storages.InMemoryStorage()
    if not url.startswith("sqlite"):
        return storages.RDBStorage(url)
    # Several drivers may share a study; SQLite makes them wait for each other.
    storage = storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    def connected(connection: Any, record: Any) -> None:
        # No wait for the disk at every value: what a killed process wrote is there all the same.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()
    event.listen(storage.engine, "connect", connected)
    return storage


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Optuna says of its experimental parts and of each trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _explained(url: str | None) -> Iterator[None]:
    """Errors of a database in one sentence."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise StudyError(f"the study's database {url} cannot be used: {first}") from error


def same_question(study: Study, wanted: Mapping[str, Any]) -> None:
    """Refuse a study that was begun with another question.

    Raises:
        StudyError: naming what differs.
    """
    before = study.noted("question")
    if before is None:
        study.note("question", dict(wanted))
        return
    for key, value in wanted.items():
        if before.get(key) != value:
            raise StudyError(f"the study {study.name} was begun with another {key}: name another with --study")
