"""The logistic domain in integers: stretch and squash as tables, the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

ONE = 2**16  # the probability 1
UNIT = 1024  # one nat in the logistic domain
LIMIT = 12 * UNIT - 1  # largest value in the logistic domain: a probability of 1 - 2^-16 and above


def _squash_table() -> Integers:
    """Returns 2^16 / (1 + e^-x) of each x from -LIMIT to LIMIT, in units of 1 / UNIT.

    Only additions, multiplications and divisions are used, which IEEE 754 rounds in one way.
    """
    x = np.arange(LIMIT + 1) / UNIT  # (LIMIT + 1,) nats
    # e^x = (1 + y + y^2 / 2! + ...)^16, y = x / 16
    y = x / 16
    term = np.ones_like(y)
    power = np.ones_like(y)
    for k in range(1, 20):
        term = term * y / k
        power = power + term
    for _ in range(4):
        power = power * power
    positive = np.floor(ONE * (power / (1 + power)) + 0.5).astype(np.int64)
    positive = np.minimum(positive, ONE - 1)
    return np.concatenate((ONE - positive[:0:-1], positive))  # (2 LIMIT + 1,)


def _stretch_table() -> Integers:
    """Returns the inverse of the other table, for each probability p / 2^16.

    If several x have the same probability, it is the middle one.
    """
    p = np.arange(ONE)
    first = np.searchsorted(SQUASH, p, side="left")
    last = np.searchsorted(SQUASH, p, side="right") - 1
    return np.maximum((first + last) // 2 - LIMIT, -LIMIT)


SQUASH = _squash_table()
STRETCH = _stretch_table()


def squash(x: Integers) -> Integers:
    """Returns the probability of each x: 2^16 / (1 + e^(-x / UNIT)), an integer.

    Args:
        x: any integers; beyond LIMIT they are clipped.

    Returns:
        Integers from 1 to 2^16 - 1, in the shape of ``x``.

    Example:
        >>> squash(np.array([-99999, -1024, 0, 1024])).tolist()
        [1, 17625, 32768, 47911]
    """
    return SQUASH.take(np.minimum(np.maximum(x, -LIMIT), LIMIT) + LIMIT)


def stretch(p: Integers) -> Integers:
    """Returns the inverse of `squash`: UNIT ln(p / (2^16 - p)), an integer.

    Args:
        p: integers from 0 to 2^16 - 1.

    Returns:
        Integers from -LIMIT to LIMIT, in the shape of ``p``.

    Example:
        >>> stretch(np.array([17625, 32768, 47911])).tolist()
        [-1024, 0, 1024]
    """
    return STRETCH.take(p)
