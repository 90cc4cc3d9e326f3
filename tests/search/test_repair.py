"""Repair on a bench that takes no time: which trials are made, and what is said of the remedies."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from bench import FakeBench, diagnosis, finding
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwise.diagnosis.findings import Remedy
from gradwise.interventions import Intervention
from gradwise.recording.recording import Recording
from gradwise.schedules import cosine
from gradwise.search import Measure, Plan, repair

LOWER = tuple(Intervention(lr_scale=s) for s in (0.1, 0.3, 0.03, 0.01, 0.001))


def treat(bench: FakeBench, what=None, budget: float | None = None, **plan):
    what = diagnosis(finding(*LOWER)) if what is None else what
    seconds = bench.seconds
    budget = 12 * seconds if budget is None else budget
    return repair(what, bench.watched(), Plan(seconds, budget, **plan), bench)


def remedies(repaired, k: int = 0) -> list[Remedy]:
    return list(repaired.diagnosis.findings[k].remedies)


def by_name(repaired, k: int = 0) -> dict[str, Remedy]:
    return {r.intervention.describe(): r for r in remedies(repaired, k)}


def test_the_cure_is_verified_at_full_length_and_comes_first():
    bench = FakeBench(lr=5.0)
    best = remedies(treat(bench))[0]
    assert best.intervention == Intervention(lr_scale=0.3)
    assert (best.status, best.full, best.steps, best.metric) == ("verified", True, 400, "loss/train")
    assert best.baseline == (None, None, None)
    assert all(v is not None and abs(v) < 0.1 for v in best.outcome)
    assert best.diverged == (False, False, False)


def test_untouched_runs_are_made_once_for_all_remedies_and_the_watched_run_is_one():
    bench = FakeBench(lr=2.5)
    treat(bench)
    untouched = [seed for name, seed, _ in bench.made if not name]
    assert sorted(untouched) == [1, 2]
    assert len(bench.made) == len(set(bench.made))


def test_a_watched_run_of_other_luck_is_not_a_baseline():
    bench = FakeBench(lr=2.5, seeded=False)
    repaired = treat(bench)  # the plan believes that it is one; its first loss tells
    assert sorted(seed for name, seed, _ in bench.made if not name) == [0, 1, 2]
    assert "watched" not in [r.run.id for r in repaired.trials]
    assert remedies(repaired)[0].status == "verified"


def test_recordings_are_one_per_kind_of_run():
    repaired = treat(FakeBench(lr=2.5))
    kinds = [(str(r.run.intervention), r.run.seed) for r in repaired.trials]
    assert len(kinds) == len(set(kinds))
    assert [r.run.id for r in repaired.trials if not r.run.intervention].count("watched") == 1


def test_rates_beyond_a_worse_one_are_not_tried():
    bench = FakeBench(lr=2.5, noise=0.0)
    found = by_name(treat(bench))
    assert found["lr ×0.001"].status == "suggested"
    assert found["lr ×0.001"].reason == "not tried: lr ×0.1 does less well already"
    assert not any(name == "lr ×0.001" for name, *_ in bench.made)


def test_a_remedy_that_changes_nothing_fails():
    repaired = treat(FakeBench(lr=0.5), diagnosis(finding(Intervention(clip_norm=1.0))))
    (remedy,) = remedies(repaired)
    assert remedy.status == "failed"
    assert remedy.reason == "no better in 1 of 1 pair"


def test_what_diverges_fails_and_says_so():
    repaired = treat(FakeBench(lr=0.5), diagnosis(finding(Intervention(lr_scale=10.0), id="lr-too-low")))
    (remedy,) = remedies(repaired)
    assert (remedy.status, remedy.outcome, remedy.diverged) == ("failed", (None,), (True,))
    assert "went wrong" in remedy.reason


@pytest.mark.parametrize("budget", [30.0, 45.0, 60.0])
def test_the_budget_is_kept(budget):
    bench = FakeBench(lr=2.5, steps=4000)
    repaired = treat(bench, budget=budget)
    assert "tried in" in repaired.diagnosis.notes[-1]
    spent = sum(bench.startup + (steps or bench.steps) * bench.step for _, _, steps in bench.made)
    assert spent <= budget


def test_cut_short_it_is_verified_over_the_first_steps():
    best = remedies(treat(FakeBench(lr=2.5, steps=4000), budget=40.0))[0]
    assert best.status == "verified"
    assert not best.full
    assert 50 <= best.steps < 4000


def test_a_cause_that_shows_late_needs_the_full_length():
    late = finding(Intervention(schedule=cosine(4000)), id="late-lr-too-high")
    bench = FakeBench(lr=0.5, steps=4000)
    (remedy,) = remedies(treat(bench, diagnosis(late), budget=60.0))
    assert remedy.status == "suggested"
    assert remedy.reason.startswith("not tried: it takes 5 runs of at least 4,000 steps")
    assert bench.made == []


def test_runs_reach_past_the_step_where_the_trouble_shows():
    bench = FakeBench(lr=2.5, steps=4000)
    treat(bench, diagnosis(finding(*LOWER, step=1000)), budget=200.0)
    assert all(steps is None or steps >= 1250 for _, _, steps in bench.made)


def test_slow_trials_end_the_repair_within_the_budget():
    bench = FakeBench(lr=2.5, slowness=4.0)
    repaired = treat(bench, budget=40.0)
    assert all(r.status != "verified" for r in remedies(repaired))
    assert any("budget" in r.reason or "time" in r.reason for r in remedies(repaired))
    assert repaired.diagnosis.notes[-1].endswith("of 40 s.")


def test_an_interrupt_keeps_what_is_known():
    bench = FakeBench(lr=2.5, interrupt=3)
    found = by_name(treat(bench))
    assert found["lr ×0.3"].reason == "better in one run, not verified"
    assert found["lr ×0.03"].reason == "not tried to the end: interrupted"
    assert len(bench.made) == 3


def test_what_cannot_be_isolated_is_not_tried_further():
    bench = FakeBench(lr=2.5, problems={"lr ×0.1": "the script writes /data/x"}, violation=True)
    found = by_name(treat(bench))
    assert len(bench.made) == 1
    assert {r.status for r in found.values()} == {"suggested"}
    (reason,) = {r.reason for r in found.values()}
    assert reason == "not tried: in a trial the script writes /data/x; --allow-side-effects tries it all the same"


def test_a_script_that_fails_in_every_trial_is_not_judged():
    bench = FakeBench(lr=2.5, problems={"lr ×0.1": "the script failed: OSError", "": "the script failed: OSError"})
    found = by_name(treat(bench))
    assert [name for name, *_ in bench.made] == ["lr ×0.1", ""]
    assert {r.reason for r in found.values()} == {"not tried: in a trial the script failed: OSError"}


def test_a_remedy_with_which_the_script_fails_is_only_suggested():
    bench = FakeBench(lr=2.5, problems={"lr ×0.3": "the script failed: ValueError: odd"})
    found = by_name(treat(bench))
    assert (found["lr ×0.3"].status, found["lr ×0.3"].reason) == (
        "suggested",
        "in a trial the script failed: ValueError: odd",
    )
    assert found["lr ×0.1"].status == "verified"


@pytest.mark.parametrize("crashes", [False, True])
def test_a_change_that_this_script_has_no_place_for_is_only_suggested(crashes):
    reason = "the change could not be made: the script has no modules"
    bench = FakeBench(lr=5.0, problems={"standardize": reason}, refuses=True, crashes=crashes)
    repaired = treat(bench, diagnosis(finding(Intervention(fixes=("standardize",)), *LOWER)))
    found = by_name(repaired)
    assert (found["standardize"].status, found["standardize"].reason) == ("suggested", f"in a trial {reason}")
    assert remedies(repaired)[0].status == "verified"
    assert [name for name, *_ in bench.made].count("standardize") == 1


def test_where_the_loss_itself_changes_both_are_judged_by_the_changed_one():
    bench = FakeBench(lr=2.5, flattery=10.0)
    mend = Intervention(fixes=("logits",))
    repaired = treat(bench, diagnosis(finding(mend, Intervention(lr_scale=1e-4))))
    remedy = by_name(repaired)["logits"]
    assert remedy.status == "verified"
    assert all(o < (b or 99) for b, o in zip(remedy.baseline, remedy.outcome, strict=True))
    scores = {(name, score is None) for name, score in bench.scores}
    assert ("", False) in scores  # untouched, its loss recorded as with the fix
    assert all(plain for name, plain in scores if name)
    assert all(score == mend for name, score in bench.scores if score is not None)
    assert not any(r.run.facts.get("score") for r in repaired.trials)


def test_other_remedies_are_judged_by_the_scripts_own_loss():
    bench = FakeBench(lr=2.5, flattery=10.0)
    treat(bench)
    assert not any(score for _, score in bench.scores)


def test_a_run_that_broke_off_is_cured_at_the_length_it_then_has():
    bench = FakeBench(lr=3.5, crashes=True)
    assert bench.watched().run.status == "failed"
    best = remedies(treat(bench, budget=120.0))[0]
    assert (best.status, best.full, best.steps) == ("verified", True, 400)
    assert all(v is None or v > 1 for v in best.baseline)


def test_a_run_that_was_cut_short_is_repaired_over_as_many_steps():
    bench = FakeBench(lr=5.0)
    watched = bench.record(Intervention(), 0, 100)
    assert watched.run.status == "stopped"
    best = remedies(repair(diagnosis(finding(*LOWER)), watched, Plan(3.0, 60.0), bench))[0]
    assert (best.status, best.steps, best.full) == ("verified", 100, False)
    assert {steps for _, _, steps in bench.made} == {100}


def test_validation_decides_where_every_run_has_it():
    best = remedies(treat(FakeBench(lr=1.999, every=100), diagnosis(finding(LOWER[1]))))[0]
    assert best.metric == "loss/validation"
    assert best.status == "verified"


def test_short_runs_end_where_the_validation_loss_is_known():
    bench = FakeBench(lr=1.999, steps=4000, every=500)
    best = remedies(treat(bench, diagnosis(finding(LOWER[1])), budget=100.0))[0]
    assert best.metric == "loss/validation"
    assert best.steps % 500 == 0


def test_a_metric_from_the_output_overrides_and_needs_fresh_baselines():
    bench = FakeBench(lr=2.5, output="accuracy {}\n")
    measure = Measure(re.compile(r"accuracy (\S+)"))
    best = remedies(treat(bench, measure=measure))[0]
    assert best.metric == r"accuracy (\S+)"
    assert best.status == "verified"
    assert sorted(seed for name, seed, _ in bench.made if not name) == [0, 1, 2]


def test_maximized_metrics_are_shown_as_printed_and_judged_the_other_way():
    bench = FakeBench(lr=0.5, output="score {}\n", noise=0.0)
    measure = Measure(re.compile(r"score (\S+)"), maximize=True)
    (remedy,) = remedies(treat(bench, diagnosis(finding(Intervention(lr_scale=0.001))), measure=measure))
    assert remedy.status == "verified"  # the higher loss counts as the better score
    assert all(v > 0 for v in remedy.outcome)


def test_a_metric_that_matches_nothing_is_said():
    measure = Measure(re.compile("accuracy"))
    for remedy in remedies(treat(FakeBench(lr=1.9), measure=measure)):
        assert remedy.status == "suggested"
        assert remedy.reason == "not verified: the metric 'accuracy' matches nothing that a trial printed"


def test_a_metric_that_is_no_number_is_said():
    measure = Measure(re.compile("loss"))
    assert "which is no number" in remedies(treat(FakeBench(lr=1.9), measure=measure))[0].reason


def test_a_cured_finding_is_surer_and_first_and_the_summary_is_its():
    wrong = finding(Intervention(lr_scale=10.0), id="unshuffled-data", confidence=0.9)
    right = finding(LOWER[1], confidence=0.7)
    after = treat(FakeBench(lr=2.5), diagnosis(wrong, right)).diagnosis
    assert [f.id for f in after.findings] == ["lr-too-high", "unshuffled-data"]
    assert after.findings[0].confidence > 0.7
    assert after.findings[1].confidence == pytest.approx(0.45)
    assert after.summary == "because of lr-too-high"


def test_a_suspicion_becomes_a_finding_by_a_cure_worth_having():
    doubt = finding(LOWER[1], confidence=0.4)
    after = treat(FakeBench(lr=2.5), diagnosis(suspicions=(doubt,))).diagnosis
    assert [f.id for f in after.findings] == ["lr-too-high"]
    assert (after.verdict, after.suspicions) == ("sick", ())


@pytest.mark.parametrize("runs", [1, 2])
def test_a_suspicion_that_time_ends_over_is_told_where_its_cure_was_plainly_better(runs):
    doubt = finding(LOWER[1], confidence=0.4)
    bench = FakeBench(lr=2.5, slowness=4.0 / runs)
    after = treat(bench, diagnosis(suspicions=(doubt,)), budget=7 * bench.seconds).diagnosis
    assert [f.id for f in after.findings] == ["lr-too-high"]
    (remedy,) = after.findings[0].remedies
    assert remedy.status == "suggested"
    assert re.match(rf"better in {runs} runs?; the budget of .* was spent", remedy.reason)
    assert after.verdict == "sick"


def test_a_suspicion_that_time_ends_over_is_not_told_where_its_cure_gained_little():
    doubt = finding(Intervention(lr_scale=1.2), confidence=0.4)
    bench = FakeBench(lr=0.02, noise=1e-6, slowness=2.0)
    after = treat(bench, diagnosis(suspicions=(doubt,)), budget=7 * bench.seconds).diagnosis
    assert after.findings == ()


def test_time_is_kept_for_verifying_a_cure_that_leaves_little_to_gain():
    bench = FakeBench(lr=5.0)
    tight = treat(bench, budget=8 * bench.seconds)
    assert remedies(tight)[0].status == "verified"
    assert by_name(tight)["lr ×0.03"].reason == "not tried: lr ×0.1 leaves little to gain"
    assert not any(name == "lr ×0.03" for name, *_ in bench.made)


class Fickle(FakeBench):
    """A tenth of the rate cures the watched run's luck and no other."""

    def record(self, intervention: Intervention, seed: int, max_steps: int | None) -> Recording:
        fails = seed > 0 and intervention.lr_scale == 0.1
        made = super().record(Intervention() if fails else intervention, seed, max_steps)
        return replace(made, run=replace(made.run, intervention=intervention.to_json()))


def test_what_was_passed_over_has_its_turn_when_the_better_one_fails():
    bench = Fickle(lr=5.0)
    tried = by_name(treat(bench, budget=10 * bench.seconds))
    assert tried["lr ×0.1"].status == "failed"
    assert "verified" in {r.status for r in tried.values()}


def test_a_suspicion_stays_one_where_its_cure_hardly_helps():
    doubt = finding(Intervention(lr_scale=1.05), confidence=0.4)
    after = treat(FakeBench(lr=0.006, noise=1e-6), diagnosis(suspicions=(doubt,))).diagnosis
    assert after.findings == ()
    assert after.verdict == "healthy"
    assert after.suspicions == (doubt,)


def test_the_cause_whose_cure_gains_most_is_treated_first():
    rate = finding(LOWER[0], confidence=0.7)
    root = finding(LOWER[1], id="unnormalized-inputs", confidence=0.5)
    after = treat(FakeBench(lr=2.5), diagnosis(rate, suspicions=(root,))).diagnosis
    assert [f.id for f in after.findings] == ["unnormalized-inputs"]
    assert after.findings[0].evidence["explains"] == ["lr-too-high"]


def test_what_was_not_plain_and_is_not_cured_is_told_in_a_note_only():
    unsure = finding(Intervention(lr_scale=1e-6), id="lr-too-low", confidence=0.7)
    after = treat(FakeBench(lr=0.5), diagnosis(unsure)).diagnosis
    assert after.findings == ()
    assert after.verdict == "inconclusive"
    assert any("lr-too-low" in note for note in after.notes)


def test_suspicions_are_left_alone_once_a_finding_is_cured():
    doubt = finding(Intervention(clip_norm=1.0), id="late-divergence", confidence=0.4)
    bench = FakeBench(lr=2.5)
    treat(bench, diagnosis(finding(LOWER[1]), suspicions=(doubt,)))
    assert not any("clip" in name for name, *_ in bench.made)


def test_nothing_to_try_makes_no_trial():
    bench = FakeBench()
    before = diagnosis(finding())
    assert treat(bench, before).diagnosis == before
    assert bench.made == []


@given(
    lr=st.floats(1e-4, 4.0),
    steps=st.integers(1, 600),
    budget=st.floats(0.0, 200.0),
    slowness=st.floats(0.3, 5.0),
    seeds=st.integers(3, 5),
    every=st.sampled_from([0, 50]),
    interrupt=st.integers(0, 12),
)
@settings(max_examples=80, deadline=None)
def test_whatever_the_run_the_rules_hold(lr, steps, budget, slowness, seeds, every, interrupt):
    bench = FakeBench(lr=lr, steps=steps, slowness=slowness, every=every, interrupt=interrupt)
    repaired = treat(bench, budget=budget, seeds=seeds)
    assert sum(1 for r in remedies(repaired) if r.status == "verified") <= 1
    for remedy in remedies(repaired):
        if remedy.status == "verified":
            assert len(remedy.baseline) == len(remedy.outcome) == seeds
            assert not any(remedy.diverged)
            pairs = zip(remedy.baseline, remedy.outcome, strict=True)
            assert all(after is not None and (before is None or after < before) for before, after in pairs)
        else:
            assert remedy.reason
    order = [r.status for r in remedies(repaired)]
    assert order == sorted(order, key=("verified", "suggested", "failed").index)
