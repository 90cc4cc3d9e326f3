"""The word of a verdict follows from its statements."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, UNDECIDED, WITH_CONDITIONS, Statement, conclude

CASES: list[tuple[Sequence[bool | None], str]] = [
    ([True, True], HOLDS),
    ([False, False], DOES_NOT_HOLD),
    ([True, False], WITH_CONDITIONS),
    ([True, None], UNDECIDED),  # none failed: what is open may still hold without condition
    ([True, False, None], WITH_CONDITIONS),
    ([True, False, None, None, None], UNDECIDED),  # too much is open to speak of the claim
    ([False, None], DOES_NOT_HOLD),  # whatever the other is, nothing held
    ([False, None, None], UNDECIDED),
    ([None], UNDECIDED),
]


@pytest.mark.parametrize(("held", "word"), CASES)
def test_the_word_follows(held: Sequence[bool | None], word: str) -> None:
    assert conclude([Statement("", h) for h in held]).word == word
    assert conclude([Statement("", h) for h in reversed(held)]).word == word


def test_a_condition_is_said() -> None:
    assert conclude([Statement("", True, "on one net only"), Statement("", True)]).word == WITH_CONDITIONS
    assert conclude([Statement("", False, "on one net only")]).word == DOES_NOT_HOLD
