"""What a study asks for, how it goes on after an end, and what it keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from gradwise.search.jobs import Result
from gradwise.search.methods import METHODS, PRUNING, Method
from gradwise.search.pending import leave
from gradwise.search.space import Space
from gradwise.search.storage import AwayError, StudyError
from gradwise.search.study import Study, same_question
from search.hills import SPACE, hill

MIXED = Space.read(
    """
    [tune]
    rule = ["sgd", "momentum"]
    momentum = { values = "0.5..0.99", when = { rule = "momentum" } }
    weight_decay = [0, { low = 1e-4, high = 1e-1 }]
    [args]
    flag = ["a", "b"]
    """
)


def go(study: Study, trials: int) -> None:
    for _ in range(trials):
        row = study.ask()
        if row is None:
            return
        study.tell(row.number, Result(hill(row.config) if "lr" in row.config else 1.0))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "guess"])
def test_every_method_stays_in_the_space_and_comes_down(method: str) -> None:
    trials = 14 if method == "gp" else 24  # which takes half a second for each
    study = Study(None, "s", SPACE, Method(method, trials=trials, points=3, seed=3))
    go(study, trials)
    rows = study.rows()
    for row in rows:
        SPACE.check(row.config)
    best = study.best()
    assert best is not None
    assert best.result is not None
    first = [r.result.level for r in rows[:3] if r.result is not None]
    assert best.result.level < min(1.0, *first) or method == "grid"
    assert len({tuple(r.config.items()) for r in rows}) == len(rows)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("guess", "gp")])
def test_every_method_can_handle_conditions_and_mixtures(method: str) -> None:
    study = Study(None, "s", MIXED, Method(method, trials=12, points=2))
    go(study, 12)
    assert len(study.rows()) == 12
    for row in study.rows():
        MIXED.check(row.config)


def test_a_guess_is_one_configuration() -> None:
    with pytest.raises(StudyError, match="a guess is one configuration"):
        Study(None, "s", SPACE, Method("guess"))
    study = Study(None, "s", Space.of({"lr": "0.1"}), Method("guess"))
    row = study.ask()
    assert row is not None
    assert row.config == {"lr": 0.1}
    study.tell(row.number, Result(1.0))
    assert study.ask() is None


def test_a_grid_ends_and_a_small_space_does_too() -> None:
    small = Space.of({}, {"n": "1..3"})
    for method in ("grid", "random", "tpe"):
        study = Study(None, "s", small, Method(method, trials=30))
        seen = []
        while (row := study.ask()) is not None:
            seen.append(row.config["n"])
            study.tell(row.number, Result(float(row.config["n"])))
        assert sorted(seen) == [1, 2, 3], method
        assert len(study.rows()) == 3
    assert study.best() == study.rows()[seen.index(1)]


def test_a_trial_is_written_when_it_is_complete_and_methods_know_all_before_it(tmp_path, monkeypatch) -> None:
    from optuna.samplers import RandomSampler

    known: list[int] = []

    class Sampler(RandomSampler):
        def sample_independent(self, study, *given):
            known.append(len(study._get_trials(deepcopy=False, use_cache=True)))
            return super().sample_independent(study, *given)

    study = Study(f"sqlite:///{tmp_path / 'tune.db'}", "s", SPACE, Method("random"))
    study._study.sampler = Sampler(0)
    go(study, 3)
    assert known == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    monkeypatch.setattr(Sampler, "sample_independent", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study.ask()
    assert len(study._study.get_trials()) == 3


def test_nothing_is_run_twice_at_the_same_time() -> None:
    study = Study(None, "s", Space.of({}, {"n": "1..3"}), Method("random"))
    rows = [row for _ in range(5) if (row := study.ask()) is not None]
    assert sorted(row.config["n"] for row in rows) == [1, 2, 3]
    study.tell(rows[0].number, Result(1.0))
    assert study.ask() is None
    assert len(study.rows()) == 3


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    first = Study(url, "s", SPACE, Method("random"))
    go(first, 3)
    row = first.ask()
    assert row is not None
    first.note("facts", {"steps": 3})
    first.close()  # as when its driver is told to end
    second = Study(url, "s", SPACE, Method("random"))
    assert second.noted("facts") == {"steps": 3}
    assert [r.state for r in second.rows()] == ["complete"] * 3 + ["lost"]
    again = second.ask()
    assert again is not None
    assert again.config == row.config
    second.tell(again.number, Result(1.0))
    go(second, 3)
    rates = [r.config["lr"] for r in second.rows() if r.ended]
    assert len(rates) == len(set(rates)) == 7


def test_what_a_killed_driver_left_is_run_again_but_what_a_living_one_runs_is_not(tmp_path, monkeypatch) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    first = Study(url, "s", SPACE, Method("random"))
    row = first.ask()
    assert row is not None
    beside = Study(url, "s", SPACE, Method("random"))
    assert [r.state for r in beside.rows()] == ["running"]
    monkeypatch.setattr("gradwise.search.drivers.alive", lambda owner, silent: False)
    after = Study(url, "s", SPACE, Method("random"))
    assert [r.state for r in after.rows()] == ["lost"]
    again = after.ask()
    assert again is not None
    assert again.config == row.config


def test_what_was_written_down_but_not_told_is_not_run_again(tmp_path, monkeypatch) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    first = Study(url, "s", SPACE, Method("random"))
    row = first.ask()
    assert row is not None

    def dies(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(first, "_tell", dies)
    with pytest.raises(KeyboardInterrupt):
        first.tell(row.number, Result(3.0))
    monkeypatch.setattr("gradwise.search.drivers.alive", lambda owner, silent: False)
    after = Study(url, "s", SPACE, Method("random"))
    assert [(r.state, r.result) for r in after.rows()] == [("complete", Result(3.0))]


def test_what_a_worker_left_for_a_driver_that_died_is_not_run_again(tmp_path, monkeypatch) -> None:
    url, folder = f"sqlite:///{tmp_path / 'tune.db'}", tmp_path / ".gradwise"
    first = Study(url, "s", SPACE, Method("random"), folder)
    done, torn, told = first.ask(), first.ask(), first.ask()
    assert done is not None
    assert torn is not None
    assert told is not None
    leave(Result(2.0), first.keep(done.number))
    leave(Result(9.0, lost=True), first.keep(torn.number))
    leave(Result(None, problem="BrokenPipeError: nobody hears it any more"), first.keep(torn.number))
    assert not Path(first.keep(torn.number)).exists()
    leave(Result(3.0), first.keep(told.number))
    Path(first.keep(torn.number)).write_text('{"value": ')
    first.tell(told.number, Result(3.0))
    assert len(list(folder.glob("made-*"))) == 2
    other = Study(url, "s", SPACE, Method("random"), folder)
    assert [r.state for r in other.rows()] == ["running", "running", "complete"]  # its driver lives
    monkeypatch.setattr("gradwise.search.drivers.alive", lambda owner, silent: False)
    after = Study(url, "s", SPACE, Method("random"), folder)
    assert [r.state for r in after.rows()] == ["complete", "lost", "complete"]
    assert after.rows()[0].result == Result(2.0)
    assert not Path(first.keep(done.number)).exists()
    assert Study(None, "s", SPACE, Method("random"), folder).keep(0) == ""


def test_a_driver_that_is_told_to_end_takes_what_its_workers_left(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path / 'tune.db'}", tmp_path / ".gradwise"
    study = Study(url, "s", SPACE, Method("random"), folder)
    rows = [row for _ in range(2) if (row := study.ask()) is not None]
    leave(Result(2.0), study.keep(rows[0].number))
    study.close()
    assert [r.state for r in Study(url, "s", SPACE, Method("random"), folder).rows()] == ["complete", "lost"]
    assert [p.name for p in folder.iterdir()] == [".gitignore"]


def test_a_driver_that_died_between_asking_and_saying_so_loses_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gradwise.search.drivers.Drivers.patience", 0.0)
    study = Study(f"sqlite:///{tmp_path / 'tune.db'}", "s", Space.of({}, {"n": "1..3"}), Method("grid", points=3))
    study._study.enqueue_trial({"n": 2})
    study._study.ask()
    seen = []
    while (row := study.ask()) is not None:
        seen.append(row.config["n"])
        study.tell(row.number, Result(1.0))
    assert sorted(seen) == [1, 2, 3]
    assert seen[0] == 2 or seen[1] == 2


@pytest.mark.parametrize("method", ["create_new_trial", "set_trial_user_attr", "set_trial_state_values"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_database_that_goes_away_at_any_word_loses_nothing(method, after, tmp_path, monkeypatch) -> None:
    study = Study(f"sqlite:///{tmp_path / 'tune.db'}", "s", Space.of({}, {"n": "1..3"}), Method("grid", points=3))
    study._study.enqueue_trial({"n": 2})  # as one whose run was lost
    real, calls = getattr(study._storage.optuna, method), iter(range(99))

    def goes(*given: object, **named: object) -> object:
        away = next(calls) % 5 < 2  # again at the second attempt
        if after or not away:
            answer = real(*given, **named)
        if away:
            raise OperationalError("", {}, Exception("server closed the connection"))
        return answer

    monkeypatch.setattr(study._storage.optuna, method, goes)
    seen = []
    while True:
        try:
            row = study.ask()
        except AwayError:
            continue
        if row is None:
            break
        seen.append(row.config["n"])
        study.tell(row.number, Result(1.0))
    study.settle()
    assert sorted(set(seen)) == [1, 2, 3]
    assert sorted(r.config["n"] for r in study.rows() if r.state == "complete") == [1, 2, 3]
    assert len(seen) == 3


def test_a_configuration_that_kills_every_worker_is_given_up() -> None:
    study = Study(None, "s", Space.of({}, {"n": "1..2"}), Method("grid"))
    often = 0
    while (row := study.ask()) is not None:
        often += row.config["n"] == 1
        lost = row.config["n"] == 1
        study.tell(row.number, Result(None, problem="its worker process died", lost=True) if lost else Result(1.0))
        assert often < 9
    assert often == 3
    assert sorted(r.state for r in study.rows()) == ["complete", "failed", "lost", "lost"]


def test_failures_are_told_from_divergence() -> None:
    study = Study(None, "s", SPACE, Method("tpe", trials=30))
    for k in range(16):
        row = study.ask()
        assert row is not None
        failed = Result(None, problem="the script failed: KeyError: 'x'")
        study.tell(row.number, [failed, Result(None, diverged=True), Result(hill(row.config))][k % 3])
    states = [r.state for r in study.rows()]
    assert states[:3] == ["failed", "complete", "complete"]
    best = study.best()
    assert best is not None
    assert best.result is not None
    assert math.isfinite(best.result.level)
    assert study.rows()[1].result == Result(None, diverged=True)


@pytest.mark.parametrize("pruning", PRUNING)
def test_pruning_ends_what_is_behind(pruning: str) -> None:
    study = Study(None, "s", SPACE, Method("random", pruning, trials=30, evaluations=9))
    pruned = set()
    for _ in range(30):
        row = study.ask()
        assert row is not None
        level = hill(row.config)
        if any(study.report(row.number, k, level + 1 / k) for k in range(1, 10)):
            pruned.add(row.number)
            study.tell(row.number, Result(None, pruned=True))
        else:
            study.tell(row.number, Result(level))
    rows = study.rows()
    assert {r.number for r in rows if r.state == "pruned"} == pruned
    assert (not pruned) == (pruning == "none")
    best = study.best()
    assert best is not None
    assert hill(best.config) == min(hill(r.config) for r in rows)


def test_another_question_needs_another_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    same_question(Study(url, "s", SPACE, Method()), {"space": SPACE.to_json(), "metric": ""})
    same_question(Study(url, "s", SPACE, Method()), {"space": SPACE.to_json(), "metric": ""})
    with pytest.raises(StudyError, match="another metric"):
        same_question(Study(url, "s", SPACE, Method()), {"space": SPACE.to_json(), "metric": "x"})


def test_a_database_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for something" * 20)
    with pytest.raises(StudyError, match=r"text\.db cannot be used"):
        Study(f"sqlite:///{tmp_path / 'text.db'}", "s", SPACE, Method())


def test_all_settings_of_a_method_are_shown() -> None:
    for name in METHODS:
        assert isinstance(Method(name).settings(), dict)
    assert Method("tpe", slots=4).settings()["constant_liar"]
    assert replace(Method(), pruning="hyperband", evaluations=27).pruning_settings()["max_resource"] == 27


def test_a_trial_made_beside_ours_takes_a_number_of_its_own(tmp_path: Path) -> None:
    study = Study(f"sqlite:///{tmp_path / 'tune.db'}", "s", SPACE, Method("random"))
    real = study._storage.optuna.create_new_trial

    def beside(*given: object, **named: object) -> int:
        study._storage.optuna.create_new_trial = real  # type: ignore[method-assign]
        study._study.enqueue_trial({})  # as whoever loses a run does, who claims nothing
        return real(*given, **named)  # type: ignore[arg-type]

    study._storage.optuna.create_new_trial = beside  # type: ignore[method-assign]
    row = study.ask()
    assert row is not None
    assert row.number == 1
    study.tell(row.number, Result(1.0))
    assert [(t.number, t.state.name) for t in study._study.get_trials()] == [(0, "WAITING"), (1, "COMPLETE")]
