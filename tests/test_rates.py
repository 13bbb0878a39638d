"""Rates are exact where floats are not."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdmdc import rates


@pytest.mark.parametrize(
    ("rate", "value"),
    [("3/10", Fraction(3, 10)), ("0.3", Fraction(3, 10)), ("0", 0), ("1", 1), ("2/2", 1)],
)
def test_parse(rate, value):
    assert rates.parse(rate) == value


@pytest.mark.parametrize("rate", ["", "a third", "1/0", "3//10", "nan", "inf", "-1/10", "11/10"])
def test_parse_names_what_is_not_a_rate(rate):
    with pytest.raises(rates.RateError, match=repr(rate)):
        rates.parse(rate)


@pytest.mark.parametrize(
    ("rate", "batch", "k"),
    [
        ("3/10", 100, 30),  # in floats ⌈3 · .1 · 100⌉ is 31
        ("7/100", 100, 7),  # and ⌈.07 · 100⌉ is 8
        ("3/10", 256, 77),  # §5.1
        ("3/100", 256, 8),
        ("0", 5, 0),
        ("1/1000", 5, 1),
        ("99/100", 100, 99),
    ],
)
def test_dropped(rate, batch, k):
    assert rates.count(rate, batch) == rates.dropped(rate, batch) == k


@pytest.mark.parametrize(("rate", "batch"), [("1", 5), ("999/1000", 100), ("1/2", 1), ("0", 0)])
def test_dropping_all_is_an_error(rate, batch):
    with pytest.raises(rates.RateError, match=f"{rate} takes {batch} of a batch of {batch}"):
        rates.dropped(rate, batch)
    assert rates.count(rate, batch) == batch


def test_percents_are_exact():
    for percent in range(101):
        assert rates.count(f"{percent}/100", 700) == 7 * percent


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 10**6))
def test_count_is_the_least_integer_not_below(p, q, total):
    k = rates.count(f"{min(p, q)}/{q}", total)
    assert k * q >= min(p, q) * total > (k - 1) * q
