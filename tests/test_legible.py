import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise import legible
from gradwise.legible import duration, number, printable


def test_examples_in_docstrings():
    results = doctest.testmod(legible)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-3.2, "-3.2"), (1e20, "1e20"), (2.3049, "2.3"), (99999.6, "100,000"), (math.nan, "non-finite")],
)
def test_numbers_as_people_write_them(value, text):
    assert number(value) == text


@given(st.floats(-1e300, 1e300))
def test_a_number_read_back_is_near(value):
    back = float(number(value).replace(",", ""))
    assert math.isclose(back, value, rel_tol=0.006)


@given(st.floats(0, 1e7))
def test_durations_read_back_are_near(seconds):
    factor = {"s": 1, "min": 60, "h": 3600}
    words = duration(seconds).split()
    total = sum(float(n) * factor[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    assert math.isclose(total, seconds, rel_tol=0.01, abs_tol=0.051) or abs(total - seconds) <= 60 <= seconds / 60


@given(st.text(), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_nothing_a_terminal_obeys_comes_through(text, encoding):
    shown = printable(text, encoding)
    shown.encode("utf-8" if encoding == "utf-8" else "ascii")
    assert not any(c < " " or "\x7f" <= c < "\xa0" or c in "\u202e\u2066\u200f\u2028" for c in shown)


def test_surrogates_and_escapes_are_spelled_out():
    assert printable("\udcff\x1b]0;title\x07\u202e") == r"\udcff\x1b]0;title\x07\u202e"
