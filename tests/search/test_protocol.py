"""The loop over trials and the protocol: who is the winner, with which seeds, and who sees the test score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gradwise.search.jobs import InProcess, Job, Result
from gradwise.search.methods import Method
from gradwise.search.protocol import MOST_LOST, Found, Plan, tune
from gradwise.search.space import Space
from gradwise.search.study import Study
from search.hills import SPACE, Hill, hill

OWN = Result(2.0, start=5.0)


def search(hillside: Hill, plan: Plan, study: Study | None = None, reference: Result | None = OWN) -> Found:
    return tune(study or Study(None, "s", SPACE, Method("random")), InProcess(hillside), plan, reference)


def test_the_winner_is_confirmed_with_seeds_that_no_trial_had() -> None:
    hillside = Hill(noise=0.01)
    found = search(hillside, Plan(trials=12))
    assert len(found.rows) == 12
    assert all(job.seed == 0 for job in hillside.made[:12])
    assert found.best is not None
    assert hill(found.best.config) == min(hill(r.config) for r in found.rows)
    again = hillside.made[12:]
    assert sorted((j.seed, j.config is None) for j in again) == [(s, own) for s in (1, 2, 3) for own in (False, True)]
    assert all(j.config in (None, found.best.config) for j in again)
    assert found.better
    assert found.chosen == found.best


def test_a_lucky_winner_is_not_called_better() -> None:
    found = search(Hill(noise=3.0, own=0.5), Plan(trials=10), reference=Result(0.5, start=5.0))
    if found.chosen is not None:
        assert found.confirmation is not None
        assert found.confirmation.judgement is not None
        assert not found.confirmation.judgement.verified
    assert not found.better


def test_nothing_better_than_the_scripts_own_settings() -> None:
    hillside = Hill(own=-1.0)
    found = search(hillside, Plan(trials=5), reference=Result(-1.0))
    assert found.best is not None
    assert found.chosen is None
    assert not found.better
    assert len(hillside.made) == 5


def test_the_test_score_is_read_once_for_the_chosen_one() -> None:
    hillside = Hill()
    found = search(hillside, Plan(trials=6, test=True))
    asked = [job for job in hillside.made if job.test]
    assert len(asked) == 1
    assert found.best is not None
    assert asked[0].config == found.best.config
    assert asked[0].seed != 0
    assert found.test == pytest.approx(hill(found.best.config) + 1)
    own = search(h := Hill(own=-1.0), Plan(trials=6, test=True), reference=Result(-1.0))
    assert [job.config for job in h.made if job.test] == [None]
    assert own.test == 0.0


def test_a_second_look_at_the_test_score_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"

    def go(trials: int) -> tuple[Found, Hill]:
        hillside = Hill()
        study = Study(url, "s", SPACE, Method("tpe", trials=trials))
        return search(hillside, Plan(trials=trials, test=True), study), hillside

    first, _ = go(3)
    assert not first.notes
    same, made = go(3)
    assert made.made == []  # nothing is run twice, the confirmation included
    assert (same.test, same.best) == (first.test, first.best)
    later, _ = go(25)
    assert later.best is not None
    assert first.best is not None
    assert later.best.number != first.best.number
    assert "read for 1 other configuration" in later.notes[0]


def test_runs_that_are_lost_are_made_again() -> None:
    died: list[str] = []

    def dies(job: Job, result: Result) -> Result:
        died.append(job.key)
        often = len(died) % 3 == 0
        return Result(None, problem="its worker process died", lost=True) if often else result

    found = search(Hill(result=dies), Plan(trials=6))
    assert sum(r.ended for r in found.rows) == 6
    assert {r.state for r in found.rows} == {"complete", "lost"}
    assert found.better


def test_where_all_are_lost_it_gives_up() -> None:
    lost = Result(None, problem="its worker process died", lost=True)
    found = search(hillside := Hill(result=lambda job, result: lost), Plan(trials=50))
    assert len(hillside.made) == MOST_LOST
    assert found.ended == f"{MOST_LOST} runs were lost one after another"
    assert found.best is None
    assert not found.better


def test_failures_count_and_are_no_winners() -> None:
    def fails(job: Job, result: Result) -> Result:
        return replace(result, value=None, problem="the script failed") if job.config else result

    found = search(Hill(result=fails), Plan(trials=4, test=True))
    assert [r.state for r in found.rows] == ["failed"] * 4
    assert found.best is None
    assert found.test is None


def test_a_winner_that_fails_when_retrained_is_not_called_better() -> None:
    def fails(job: Job, result: Result) -> Result:
        return replace(result, problem="the script failed") if job.seed == 2 else result

    found = search(Hill(result=fails), Plan(trials=4))
    assert found.confirmation is not None
    assert "the script failed" in found.confirmation.problem
    assert not found.better


def test_limits() -> None:
    assert search(Hill(), Plan(trials=9, seconds=0.0)).ended == "its time was over"
    small = Study(None, "s", Space.of({"lr": "0.1,0.2", "rule": "adam"}, {"hidden": "32"}), Method("tpe"))
    found = search(Hill(), Plan(trials=9, seeds=0), small)
    assert found.ended == "the space has no more configurations"
    assert len(found.rows) == 2
    assert found.confirmation is None or found.confirmation.judgement is None


def test_pruned_trials_are_ended_early() -> None:
    hillside = Hill(values=9)
    study = Study(None, "s", SPACE, Method("random", "median", trials=20, evaluations=9))
    found = search(hillside, Plan(trials=20), study)
    assert {r.state for r in found.rows} == {"complete", "pruned"}
    assert found.best is not None
    assert hill(found.best.config) == min(hill(r.config) for r in found.rows)
