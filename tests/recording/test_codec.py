"""Blocks give back what went in: exactly, or to what the module says it keeps."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwise.recording.codec import decode, encode

INT64 = np.iinfo(np.int64)
steps_of = hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(INT64.min, INT64.max))
float64 = st.floats(allow_nan=True, allow_infinity=True)


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


@given(steps_of)
def test_any_steps_come_back(steps: np.ndarray) -> None:
    got, _ = decode(encode(steps, np.zeros(len(steps))))
    np.testing.assert_array_equal(got, steps)
    assert got.dtype == np.int64


@given(
    first=st.integers(-(2**40), 2**40),
    stride=st.integers(-1000, 1000),
    n=st.integers(0, 20),
    odd=st.integers(-9, 9),
)
def test_nearly_even_steps_come_back(first: int, stride: int, n: int, odd: int) -> None:
    steps = first + stride * np.arange(n)
    steps[n // 2 :] += odd
    np.testing.assert_array_equal(decode(encode(steps, np.zeros(n)))[0], steps)


@given(hnp.arrays(np.float32, st.integers(0, 600), elements=st.floats(width=32)))
def test_float32_values_are_exact(values: np.ndarray) -> None:
    wide = values.astype(np.float64)
    assert_same(decode(encode(np.arange(len(values)), wide))[1], wide)


@given(hnp.arrays(np.float64, st.integers(0, 256), elements=float64))
def test_few_float64_values_are_exact(values: np.ndarray) -> None:
    assert_same(decode(encode(np.arange(len(values)), values))[1], values)


def check_to_eleven_digits(values: np.ndarray, got: np.ndarray) -> None:
    assert got.shape == values.shape
    finite = np.isfinite(values)
    assert_same(got[~finite], values[~finite])
    error = np.abs(got[finite] - values[finite])
    assert (error <= np.maximum(np.abs(values[finite]) * 2.0**-36, 2.0**-1058)).all()


@given(hnp.arrays(np.float64, st.integers(257, 600), elements=float64, fill=float64))
def test_many_float64_values_keep_eleven_digits_and_stay(values: np.ndarray) -> None:
    got = decode(encode(np.arange(len(values)), values))[1]
    check_to_eleven_digits(values, got)
    again = decode(encode(np.arange(len(values)), got))[1]
    assert_same(again, got)


def test_float64_noise_keeps_eleven_digits_over_its_whole_range() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 50_000, dtype=np.uint64)
    values = np.concatenate((bits.view(np.float64), [np.finfo(np.float64).max, np.inf, -np.inf, np.nan]))
    got = decode(encode(np.arange(len(values)), values))[1]
    check_to_eleven_digits(values, got)
    assert np.isfinite(got[-4])


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 40), st.integers(1, 6)), elements=float64))
def test_rows_come_back_as_rows(values: np.ndarray) -> None:
    got = decode(encode(np.arange(len(values)), values))[1]
    assert got.shape == values.shape
    assert got.flags.c_contiguous
    assert_same(got, values)


@given(hnp.arrays(np.float64, st.integers(0, 300), elements=st.floats(-(10.0**8), 10.0**8)))
def test_times_keep_microseconds_and_stay(times: np.ndarray) -> None:
    steps = np.arange(len(times))
    got = decode(encode(steps, times, times=True))[1]
    np.testing.assert_allclose(got, times, rtol=0, atol=0.51e-6)
    assert_same(decode(encode(steps, got, times=True))[1], got)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_times_beyond_microseconds_are_kept_as_they_are(odd: float) -> None:
    times = np.array([0.1, 0.2, odd])
    assert_same(decode(encode(np.arange(3), times, times=True))[1], times)


def test_a_rate_repeated_a_million_times_stays_exact_and_costs_nothing() -> None:
    block = encode(np.arange(1_000_000), np.full(1_000_000, 0.1))
    assert (decode(block)[1] == 0.1).all()
    assert len(block) < 100_000


def noisy_loss(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(n) / n
    return 2.3 * np.exp(-5 * t) + 0.1 + 0.2 * rng.standard_normal(n) * np.exp(-t)


@pytest.mark.parametrize("kind", ["float32", "float64", "time"])
def test_noisy_numbers_of_every_kind_stay_under_six_bytes(kind: str) -> None:
    n = 16_384
    values = noisy_loss(n)
    if kind == "float32":
        values = values.astype(np.float32).astype(np.float64)
    if kind == "time":
        values = np.cumsum(np.abs(values)) * 1e-3
    block = encode(np.arange(n), values, times=kind == "time")
    assert len(block) / n < 5.5
    np.testing.assert_allclose(decode(block)[1], values, rtol=1e-11, atol=0.51e-6 if kind == "time" else 0)


def test_blocks_of_one_kind_of_numbers_do_not_depend_on_memory_layout() -> None:
    values = noisy_loss(600).reshape(200, 3)
    assert encode(np.arange(200), values) == encode(np.arange(200), np.asfortranarray(values))
    assert encode(np.arange(400)[::2], values[:, 0]) == encode(np.arange(0, 400, 2), values[:, 0].copy())


@pytest.mark.parametrize(
    ("steps", "values"),
    [(np.arange(3), np.zeros(2)), (np.zeros((2, 2)), np.zeros((2, 2))), (np.arange(2), np.zeros((2, 1, 1)))],
)
def test_what_does_not_fit_is_refused(steps: np.ndarray, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        encode(steps, values)


@given(st.integers(0, 5000), st.integers(1, 255))
def test_a_damaged_block_is_never_taken_for_data(at: int, flip: int) -> None:
    steps, values = np.cumsum(np.arange(1000) % 7), noisy_loss(1000)
    block = bytearray(encode(steps, values))
    head = 44
    at = head + at % (len(block) - head)
    block[at] ^= flip
    with pytest.raises(ValueError, match="damaged"):
        decode(bytes(block))


@pytest.mark.parametrize("bad", [b"", b"\x01", bytes(60), b"\x07" + encode(np.arange(3), np.zeros(3))[1:]])
def test_what_is_no_block_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="block"):
        decode(bad)


def test_a_header_that_promises_too_much_is_refused() -> None:
    block = bytearray(encode(np.arange(3), np.zeros(3)))
    struct.pack_into("<I", block, 4, 2**31)
    with pytest.raises(ValueError, match="reshape"):
        decode(bytes(block))
