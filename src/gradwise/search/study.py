"""A study: the trials of one search on disk, and which configuration comes next.

What Optuna knows of it, and how it is kept, is nobody else's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gradwise.search.domains import Value
from gradwise.search.drivers import PREFIX, Drivers
from gradwise.search.jobs import Result
from gradwise.search.methods import Method, pruner, sampler
from gradwise.search.pending import Pending
from gradwise.search.rows import Row, best_of, row_of, state_of
from gradwise.search.space import Configuration, Space
from gradwise.search.storage import AwayError, Storage, StudyError, quietly, reached
from gradwise.search.suggestions import distributions, encoded, suggest

if TYPE_CHECKING:
    import optuna

Answer = TypeVar("Answer")

# Configurations in a row that were all tried before, after which there is nothing new to try.
_REPEATS = 50
# How often a configuration whose run was lost (a killed worker, a killed driver) is run again.
_AGAIN = 2
# Seconds without a word after which no connection is held, and those after which one that failed is tried again.
_IDLE, _AGAIN_IN = 5.0, 1.0


class Study:
    """Trials, asked for and told; opening one that exists goes on with it.

    Several drivers may share one: each trial is claimed by one of them. While the database is away, results are kept
    here until it is back, and nothing is asked for.

    Args:
        url: the database; None keeps all in memory.
        name: which study in it.
        space: what to search.
        method: how.
        folder: where to keep results that can't be told; None keeps them in memory.
        on_words: is told when the database goes away and when it is back.

    Raises:
        StudyError: it can't be opened, or it is of another space.
    """

    def __init__(
        self,
        url: str | None,
        name: str,
        space: Space,
        method: Method,
        folder: Path | None = None,
        on_words: Callable[[str], None] = lambda words: None,
    ) -> None:
        if method.name == "guess" and not space.single:
            raise StudyError("a guess is one configuration: give each parameter one value, or take another method")
        self.space, self.name, self.on_words = space, name, on_words
        self.away, self._closed = "", False
        self._open: dict[int, optuna.Trial | None] = {}
        self._rows: dict[int, Row] = {}
        self._ids: dict[int, int] = {}
        self._trials: list[optuna.trial.FrozenTrial] = []
        self._notes: dict[str, Any] = {}
        self._nameless: dict[int, float] = {}
        self._spoke = time.monotonic()
        self._storage = Storage(url)
        self._drivers = Drivers(self._write)
        self._pending = Pending(folder, f"{self._storage.key} {name}", self._drivers.me)
        with quietly(), self._storage.explained():
            import optuna

            from gradwise.search.drafts import Drafts

            self._drafts = Drafts.over(self._storage.optuna)
            with self._storage.alone(name):
                self._study = optuna.create_study(storage=self._drafts, study_name=name, load_if_exists=True)
            if self._storage.shared:
                self._drivers.begin()
                self._pending.inherit()
            with self._storage.alone(name):
                self._refresh()
        self.use(method)

    def use(self, method: Method) -> None:
        """Go on by this method."""
        self.method = method
        with quietly():
            self._study.sampler = sampler(method, len(self._trials))
            self._study.pruner = pruner(method)
        self._list = self._listed()

    # what has been

    def rows(self) -> list[Row]:
        """All trials, in the order in which they were asked for; those of other drivers as of the last `ask`."""
        return [self._rows[number] for number in sorted(self._rows)]

    def best(self) -> Row | None:
        """The trial with the lowest value; of equals the first."""
        return best_of(self.rows())

    def noted(self, key: str) -> Any:
        """What `note` was given; None before."""
        return self._patiently(lambda: self._study.user_attrs.get(key))

    def note(self, key: str, value: Any) -> None:
        """Keep something with the study (JSON)."""
        self._patiently(lambda: self._write(key, value))

    def mine(self, what: str) -> bool:
        """Whether this driver is the one that does something which one of them has to do; the first that asks is."""

        def claim() -> bool:
            with self._storage.alone(self.name):
                notes = self._study.user_attrs
                self._drivers.look(notes)
                who = notes.get(f"doing {what}")
                if who is not None and not self._drivers.gone(who, notes):
                    return bool(who == self._drivers.me)
                self._write(f"doing {what}", self._drivers.me)
                return True

        return self._patiently(claim)

    # what comes

    def ask(self, most: int | None = None) -> Row | None:
        """The next trial; None where there is nothing new to try.

        Args:
            most: how many there should be in all: None, too, where so many have ended or are under way.

        Raises:
            AwayError: the database can't be reached just now.
        """

        def asked() -> Row | None:
            with self._storage.alone(self.name):
                return self._asked(most)

        return self._once(asked)

    def _asked(self, most: int | None) -> Row | None:
        for _ in range(_REPEATS):
            self._refresh()
            if most is not None and sum(r.ended or r.state == "running" for r in self._rows.values()) >= most:
                return None
            waiting = any(t.state.name == "WAITING" for t in self._trials)
            if self._list is not None and not waiting:
                listed = self._take()
                if listed is None:
                    return None
                return self._claimed(listed)
            # One that waits is in the database already; any other is written once it is known.
            trial = self._study.ask() if waiting else self._drafts.begin(self._study, self._trials)
            if waiting:
                self._nameless[trial.number] = -math.inf
            config = self.space.active(lambda p, trial=trial: suggest(trial, p))  # type: ignore[misc]
            others = [r for r in self._rows.values() if r.config == config]
            if any(r.state == "running" for r in others):
                # Somebody is at it: what comes of it will be known soon enough.
                if waiting:
                    self._tell(trial._trial_id, "FAIL", None)
                continue
            same = next((r for r in others if r.ended), None)
            if same is not None:
                # The same run would give the same: it is told again for the method's sake, and counts once.
                done = same.state == "complete" and same.result is not None
                level = same.result.level if done and same.result else None
                if waiting:
                    self._tell(trial._trial_id, "COMPLETE" if done else "FAIL", level)
                else:
                    self._storage.optuna.create_new_trial(self._study._study_id, self._drafts.ended(level))
                continue
            run = {"config": config, "driver": self._drivers.me}
            if waiting:
                trial.set_user_attr("run", run)
                return self._begun(trial.number, trial._trial_id, config)
            return self._written(self._drafts.claimed(run), config)
        return None

    def guess(self, configs: Sequence[Configuration]) -> None:
        """Have these tried first, whatever the method."""
        known = [dict(r.config) for r in self.rows()]

        def enqueue() -> None:
            for config in configs:
                if dict(config) not in known:
                    self._study.enqueue_trial(encoded(self.space, config))

        with quietly():
            self._patiently(enqueue)

    def _claimed(self, config: dict[str, Value]) -> Row:
        """A trial of a configuration that is known beforehand."""
        from gradwise.search.drafts import claimed

        parts = encoded(self.space, config)
        run = {"config": config, "driver": self._drivers.me}
        return self._written(claimed(parts, distributions(self.space, parts), run), config)

    def _written(self, trial: optuna.trial.FrozenTrial, config: dict[str, Value]) -> Row:
        """A trial made and claimed in one go."""
        made = self._storage.optuna.create_new_trial(self._study._study_id, template_trial=trial)
        return self._begun(self._number(made), made, config)

    def _number(self, trial: int) -> int:
        """Of a trial just made, most likely the one after all others: asking for it by its id would read all of it."""
        number, storage = len(self._trials), self._storage.optuna
        with suppress(KeyError):
            if storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number) == trial:
                return number
        return storage.get_trial_number_from_id(trial)

    def _begun(self, number: int, trial: int, config: dict[str, Value]) -> Row:
        self._nameless.pop(number, None)
        self._open[number] = None
        self._ids[number] = trial
        self._rows[number] = Row(number, config, "running")
        return self._rows[number]

    def report(self, number: int, k: int, value: float) -> bool:
        """Take the k-th value of a trial under way; whether to end it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial

        if self.method.pruning == "none":
            return False
        try:
            with quietly(), reached():
                trial = self._open[number] = self._open[number] or Trial(self._study, self._ids[number])
                trial.report(value, k)
                return bool(trial.should_prune())
        except AwayError as error:
            self._is_away(error)
            return False
        except UpdateFinishedTrialError:  # another driver has taken it over
            return True

    def keep(self, number: int) -> str:
        """The file in which a worker leaves what a trial gave, should this driver die first; "" for none."""
        place = self._pending.place(self._drivers.me, number) if self._storage.shared else None
        return "" if place is None else str(place)

    def tell(self, number: int, result: Result) -> None:
        """Take a trial's result; where the database is away, it is told as soon as it is back."""
        self._open.pop(number)
        config = self._rows[number].config
        try:
            self._once(lambda: self._end(number, config, result))
        except AwayError:
            self._pending.add(number, result)
            self._rows[number] = Row(number, config, state_of(result), result)
        self._pending.forget(self._drivers.me, number)

    def taken(self) -> list[int]:
        """Trials under way that another driver has taken over, thinking this one dead; they are its own no more."""
        finished = {t.number for t in self._trials if t.state.is_finished()}
        found = [number for number in self._open if number in finished]
        for number in found:
            del self._open[number]
        return found

    def idle(self) -> None:
        """Nothing is asked or told just now: after a while no connection is held."""
        if time.monotonic() - self._spoke > _IDLE:
            self._spoke = time.monotonic()
            self._storage.rest()

    def settle(self) -> None:
        """Wait until every result has been told."""
        if self._pending.results:
            self._patiently(self._flush)

    def close(self) -> None:
        """What is still open will be run again by whoever opens the study next."""
        if self._closed:
            return
        self._closed = True
        try:
            with quietly(), reached(), self._storage.alone(self.name):
                self._flush()
                for number in list(self._open):
                    self._settled(number, self._drivers.me, self._rows[number].config, None)
                    del self._open[number]
                self._refresh()
                self._drivers.end()
                self._write(PREFIX + self._drivers.me, None)
        except AwayError:
            self._drivers.end()
        self._storage.rest()

    # how it is kept

    def _refresh(self) -> None:
        """Read what is new, and take over from drivers that are gone. Reading is what a study on disk costs most."""
        self._spoke = time.monotonic()
        self._flush()
        self._trials = self._read()
        if self._adopt():
            self._trials = self._read()
        for trial in self._trials:
            known = self._rows.get(trial.number)
            if known is not None and known.ended:
                continue
            row = row_of(trial)
            if row is not None:
                self._rows[trial.number] = row

    def _adopt(self) -> bool:
        """Settle what drivers that are gone left under way; whether there was anything."""
        known = {*self._open, *self._pending.results}
        others = [t for t in self._trials if t.state.name == "RUNNING" and t.number not in known]
        if others:
            self._notes = self._study.user_attrs
            self._drivers.look(self._notes)
        found = False
        for trial in others:
            run, result = trial.user_attrs.get("run"), trial.user_attrs.get("result")
            if run is None:
                # Its driver died, or lost its connection, between asking and saying so.
                since = self._nameless.setdefault(trial.number, time.monotonic())
                if time.monotonic() - since > self._drivers.patience:
                    if trial.system_attrs.get("fixed_params"):
                        self._study.enqueue_trial(trial.system_attrs["fixed_params"])
                    self._tell(trial._trial_id, "FAIL", None)
                    found = True
            elif run["driver"] == self._drivers.me or self._drivers.gone(run["driver"], self._notes):
                made = None if result is None else Result.from_json(result)
                self._settled(trial.number, run["driver"], run["config"], made)
                found = True
        return found

    def _settled(self, number: int, driver: str, config: Configuration, result: Result | None) -> None:
        """Nobody works on a trial any more: it has ended where there is a result, else it is lost."""
        result = result or self._pending.left(driver, number)
        if result is None:
            self._lose(number, config)
        else:
            self._end(number, config, result)
            self._pending.forget(driver, number)

    def _end(self, number: int, config: Configuration, result: Result) -> None:
        """Keep a result: first what it is, then that it has ended, so that whoever finds the one does the other."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._mark(number, "result", result.to_json())
            state = state_of(result)
            if state == "lost":
                state = self._lose(number, config)
            elif state == "complete":
                self._tell(self._ids[number], "COMPLETE", result.level)
            else:
                self._tell(self._ids[number], "PRUNED" if state == "pruned" else "FAIL", None)
        except UpdateFinishedTrialError:
            # It has been told before, though that could not be confirmed; or another driver took the trial over.
            self._rows.pop(number, None)
        else:
            self._rows[number] = Row(number, config, state, result)

    def _lose(self, number: int, config: Configuration) -> str:
        """A run that was lost is made again, but not for ever; what state that leaves its trial in."""
        often = sum(r.state == "lost" and r.config == config for r in self._rows.values())
        again = often < _AGAIN
        if again:
            self._mark(number, "lost", True)
            self._study.enqueue_trial(encoded(self.space, config))
        self._tell(self._ids[number], "FAIL", None)
        return "lost" if again else "failed"

    def _flush(self) -> None:
        """Tell what could not be told before."""
        for number, result in list(self._pending.results.items()):
            known = {t.number: t for t in self._read()}
            run = known[number].user_attrs.get("run") if number in known else None
            if run is not None:
                self._end(number, run["config"], result)
            self._pending.told(number)

    def _read(self) -> list[optuna.trial.FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        self._ids.update((t.number, t._trial_id) for t in trials if t.number not in self._ids)
        return trials

    def _tell(self, trial: int, state: str, value: float | None) -> None:
        """What `optuna.Study.tell` does, which reads the trial three times over before."""
        import optuna

        wanted = optuna.trial.TrialState[state]
        self._storage.optuna.set_trial_state_values(trial, wanted, None if value is None else [value])

    def _mark(self, number: int, key: str, value: Any) -> None:
        self._storage.optuna.set_trial_user_attr(self._ids[number], key, value)

    def _write(self, key: str, value: Any) -> None:
        self._storage.optuna.set_study_user_attr(self._study._study_id, key, value)

    def _patiently(self, do: Callable[[], Answer]) -> Answer:
        """Do it as soon as the database can be reached."""
        while True:
            try:
                return self._once(do)
            except AwayError:
                time.sleep(_AGAIN_IN)

    def _once(self, do: Callable[[], Answer]) -> Answer:
        """Do it, again with a new connection where one was lost.

        Raises:
            AwayError: the database can't be reached; that has been said.
        """
        try:
            try:
                with quietly(), reached():
                    answer = do()
            except AwayError:
                self._storage.rest()
                with quietly(), reached():
                    answer = do()
        except AwayError as error:
            self._is_away(error)
            raise
        self._is_back()
        return answer

    def _is_away(self, error: AwayError) -> None:
        self._drivers.forget()
        if not self.away:
            self.on_words(
                f"the study's database {self._storage.where} is away ({error}): waiting for it. Runs under way go on, "
                "and what they give is kept"
            )
        self.away = str(error)

    def _is_back(self) -> None:
        if self.away:
            self.away = ""
            self.on_words("the study's database is back")

    def _listed(self) -> list[dict[str, Value]] | None:
        """Every configuration of a method that knows them beforehand."""
        if self.method.name == "guess" or self.space.single:
            return self.space.grid(1)
        return self.space.grid(self.method.points) if self.method.name == "grid" else None

    def _take(self) -> dict[str, Value] | None:
        """The next of the list that was neither run nor is about to be; it stays until its claim is known."""
        known = [r.config for r in self.rows() if r.state != "lost"]
        while self._list and self._list[0] in known:
            self._list.pop(0)
        return self._list[0] if self._list else None


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
