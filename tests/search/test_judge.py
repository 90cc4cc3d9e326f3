"""When a remedy is verified: the rule, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gradwise.diagnosis.metric import Outcome
from gradwise.search.judge import judge

values = st.floats(-1e3, 1e3).map(lambda v: round(v, 6))
outcomes = st.builds(
    lambda value, start, diverged: Outcome("loss", value, start, diverged),
    st.none() | values,
    st.none() | values,
    st.booleans(),
)
pairs = st.lists(st.tuples(outcomes, outcomes), min_size=3, max_size=6)


def ends(before, after, start=None):
    return [(Outcome("loss", b, start), Outcome("loss", a, start)) for b, a in zip(before, after, strict=True)]


def test_better_in_every_pair_by_more_than_it_varies_is_verified():
    judged = judge(ends([2.3, 2.2, 2.4], [0.2, 0.3, 0.25], start=2.5))
    assert judged.verified
    assert judged.reason == ""
    assert judged.gain == pytest.approx(2.05)
    assert judged.share == pytest.approx(2.05 / 2.25)


def test_one_pair_that_is_no_better_fails_it():
    judged = judge(ends([2.3, 2.2, 0.1], [0.2, 0.3, 0.2]))
    assert not judged.better
    assert judged.reason == "no better in 1 of 3 pairs"


def test_a_gain_that_varies_more_than_it_is_does_not_count():
    judged = judge(ends([1.0, 1.0, 3.0], [0.99, 0.98, 0.1]))
    assert judged.better
    assert not judged.verified
    assert "varies by" in judged.reason


def test_a_remedied_run_that_went_wrong_fails_it():
    after = [Outcome("loss", 0.1), Outcome("loss", None, diverged=True), Outcome("loss", 0.1)]
    judged = judge([(Outcome("loss", 2.0), a) for a in after])
    assert (judged.better, judged.gain) == (False, -math.inf)
    assert judged.reason == "training went wrong in 1 of 3 runs"


def test_one_exploded_baseline_does_not_drown_the_gain():
    exploded = [Outcome("loss", 2.3, 2.3), Outcome("loss", 1e30, 2.3, True), Outcome("loss", None, 2.3, True)]
    cured = [Outcome("loss", v, 2.3) for v in (0.2, 0.3, 0.25)]
    judged = judge(list(zip(exploded, cured, strict=True)))
    assert judged.verified
    assert judged.gain == pytest.approx(2.05)


def test_baselines_that_nobody_knows_the_start_of_are_worse_than_any_number():
    lost = Outcome("accuracy", None, diverged=True)
    judged = judge([(lost, Outcome("accuracy", v)) for v in (0.1, 5.0, 80.0)])
    assert judged.verified
    assert judged.share is None


def test_a_cure_that_only_gets_back_to_the_start_is_none():
    lost = Outcome("loss", 1e9, 2.3, True)
    assert not judge([(lost, Outcome("loss", v, 2.3)) for v in (2.3, 2.29, 2.31)]).better


@given(pairs, st.sampled_from([0.5, 2.0, 1024.0]), st.integers(-8, 8))
def test_neither_the_scale_nor_the_zero_of_the_loss_matters(ends, scale, zero):
    def moved(o: Outcome) -> Outcome:
        value, start = (None if v is None else scale * v + zero for v in (o.value, o.start))
        return Outcome(o.metric, value, start, o.diverged)

    before = judge(ends)
    after = judge([(moved(b), moved(a)) for b, a in ends])
    gains = [g for g in (before.gain, after.gain) if math.isfinite(g)]
    assume(all(abs(g) > 1e-6 for g in gains))  # ties are decided by rounding
    assert (before.better, before.verified) == (after.better, after.verified)


@given(pairs, st.randoms())
def test_the_order_of_the_seeds_does_not_matter(ends, random):
    shuffled = list(ends)
    random.shuffle(shuffled)
    first, second = judge(ends), judge(shuffled)
    assert (first.better, first.verified) == (second.better, second.verified)


@given(st.lists(outcomes, min_size=3, max_size=6))
def test_a_run_is_never_better_than_itself(ends):
    assert not judge([(o, o) for o in ends if o.value is not None and not o.diverged] or [(ends[0], ends[0])]).better


@given(pairs)
def test_verified_means_what_it_says(ends):
    judged = judge(ends)
    if judged.verified:
        assert judged.better
        assert judged.reason == ""
        for before, after in ends:
            assert after.value is not None
            assert not after.diverged
            assert before.value is None or before.diverged or after.value < before.value
    else:
        assert judged.reason
