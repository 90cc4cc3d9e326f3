"""Schedules of every kind, for Hypothesis."""

from __future__ import annotations

from functools import reduce

from hypothesis import strategies as st

from gradwise import schedules as s
from gradwise.schedules import Schedule

counts = st.integers(1, 10_000)
parts = st.floats(0, 1)
powers = st.floats(0.25, 4)


@st.composite
def milestones(draw: st.DrawFn) -> Schedule:
    steps = sorted(draw(st.sets(st.integers(0, 5000), min_size=1, max_size=4)))
    each = draw(st.booleans())
    factor = draw(st.lists(parts, min_size=len(steps), max_size=len(steps))) if each else draw(parts)
    return s.multi_step(steps, factor)


ended = st.one_of(
    st.builds(s.constant, parts, st.integers(0, 100)),
    st.builds(s.polynomial, counts, parts, powers),
    st.builds(s.cosine, counts, parts),
    st.builds(s.square_root, counts, parts),
    st.builds(s.warmup, counts),
    st.builds(s.warmup, counts, parts, st.sampled_from(["linear", "constant"])),
    st.builds(s.one_cycle, counts, st.floats(0, 0.5), anneal=st.sampled_from(["linear", "cosine"]),
              three_phase=st.booleans()),
    st.builds(s.one_cycle_momentum, counts),
    st.builds(s.rule_of_thumb, counts),
    st.builds(s.sgdr, st.integers(1, 100), st.integers(1, 3), parts, st.floats(0.1, 1), st.integers(1, 5)),
)  # fmt: skip
endless = st.one_of(
    st.builds(s.constant, parts),
    st.builds(s.step, counts, parts),
    milestones(),
    st.builds(s.exponential, st.floats(0.01, 1), counts, st.booleans()),
    st.builds(s.natural_exponential, parts, counts, st.booleans()),
    st.builds(s.inverse_time, parts, counts, st.booleans(), powers),
    st.builds(s.sgdr, counts, st.integers(1, 5), parts, st.floats(0.1, 1)),
    st.builds(
        s.cyclical, counts, st.none() | counts, parts, parts,
        st.sampled_from(["triangular", "triangular2", "exp_range"]), st.floats(0.9, 1),
    ),
)  # fmt: skip


def _combined(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    return st.one_of(
        st.builds(lambda a, n, b: a.until(n) >> b, inner, counts, inner),
        st.builds(lambda a, x: x * a, inner, st.floats(-2, 2)),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: reduce(lambda a, b: a * b, some)),
        st.builds(lambda a, lo, hi: a.clip(min(lo, hi), max(lo, hi)), inner, parts, parts),
        st.builds(lambda a, lo: a.clip(lo), inner, parts),
        st.builds(lambda a, n: a.until(n), inner, counts),
    )


anything: st.SearchStrategy[Schedule] = st.recursive(st.one_of(ended, endless), _combined, max_leaves=6)
steps = st.integers(0, 20_000) | st.integers(0, 10**9)
