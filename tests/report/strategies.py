"""Any diagnosis at all, for Hypothesis."""

from hypothesis import strategies as st

from gradwise.diagnosis.findings import CheckItem, Diagnosis, Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.schedules import constant, cosine, exponential

words = st.text(max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**9)
maybe = st.none() | counts
metrics = st.lists(st.none() | finite, max_size=4).map(tuple)
schedules = st.sampled_from([None, cosine(300, 0.01), constant(1.0, 10) >> exponential(0.9, 5)])
changes = st.builds(
    Intervention,
    lr_scale=st.none() | st.floats(1e-9, 1e9),
    schedule=schedules,
    clip_norm=st.none() | st.floats(1e-9, 1e9),
    optimizer=st.none() | st.integers(0, 9),
)
remedies = st.builds(
    Remedy,
    intervention=changes,
    advice=words,
    status=st.sampled_from(["verified", "failed", "suggested"]),
    reason=words,
    steps=counts,
    full=st.booleans(),
    metric=words,
    baseline=metrics,
    outcome=metrics,
    diverged=st.lists(st.booleans(), max_size=4).map(tuple),
    diff=words,
)
findings = st.builds(
    Finding,
    id=words,
    severity=st.sampled_from(["error", "warning", "info"]),
    confidence=st.floats(0, 1).map(lambda c: round(c, 3)),
    where=st.builds(Where, st.none() | words, maybe, parameter=st.none() | words, module=st.none() | words, step=maybe),
    explanation=words,
    evidence=st.dictionaries(words, st.none() | finite | words | st.booleans() | st.lists(finite, max_size=3)),
    remedies=st.lists(remedies, max_size=3).map(tuple),
    source=st.integers(0, 9),
)
diagnoses = st.builds(
    Diagnosis,
    run=words,
    script=words,
    argv=st.lists(words, max_size=3).map(tuple),
    verdict=st.sampled_from(["healthy", "sick", "inconclusive"]),
    findings=st.lists(findings, max_size=3).map(tuple),
    summary=words,
    checklist=st.lists(st.builds(CheckItem, words, words, st.none() | st.booleans()), max_size=3).map(tuple),
    notes=st.lists(words, max_size=3).map(tuple),
    steps=counts,
    overhead_fraction=st.none() | st.floats(0, 100),
    startup_seconds=st.none() | st.floats(0, 1e6),
)
