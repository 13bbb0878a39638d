"""Rates are exact rationals: in floats ceil(3 * .1 * 100) is 31. Imports no torch."""

from fractions import Fraction
from math import ceil
from typing import NewType

from rdmdc.errors import InputError

Rate = NewType("Rate", str)
"""An exact fraction in [0, 1], written as a string such as "3/10"."""


class RateError(InputError):
    """A rate that is not a fraction in [0, 1], or one that leaves nothing."""


def parse(rate: str) -> Fraction:
    """The rate written as "3/10", "0" or "0.3"; raises RateError outside [0, 1]."""
    try:
        value = Fraction(rate)
    except (ValueError, ZeroDivisionError) as error:
        raise RateError(f"{rate!r} is not a rate; write a fraction such as 3/10") from error
    if not 0 <= value <= 1:
        raise RateError(f"{rate!r} is outside 0..1")
    return value


def count(rate: str, total: int) -> int:
    """⌈rate · total⌉, §5.1's k = ⌈3εN⌉ for rate = 3ε."""
    return ceil(parse(rate) * total)


def dropped(rate: str, batch: int) -> int:
    """k = ⌈rate · N⌉ of a batch of N (§5.1, Alg. 4); RateError where that would empty the batch."""
    k = count(rate, batch)
    if k >= batch:
        raise RateError(f"drop {rate} takes {k} of a batch of {batch} and leaves none; lower it")
    return k
