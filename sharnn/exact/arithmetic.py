"""Arithmetic that gives the same bits on every processor, with any library, in any language.

IEEE 754 prescribes the result of each single addition, multiplication, division and square root of
float64 numbers, to the last bit. Two things differ between machines: the order in which a library
adds many numbers, and its approximations of functions such as exp. So here

- only whole numbers are added up, and so few of them that no sum is ever rounded: then their order
  does not matter;
- exp is computed by additions and multiplications, and sigmoid and tanh are read from tables of it.

All arrays are float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sharnn.layers import LAYER_NORM_EPS

Array = npt.NDArray[np.float64]

# Squares of whole numbers up to 2^20 have sums below 2^53, up to which float64 holds every whole
# number, if a vector has at most 2^13 of them.
LARGEST_IN_NORM = 2.0**20
MAX_DIM = 2**13
SMALLEST_SCALE = 2.0**-100  # of a vector of zeros
HALVINGS, TERMS = 12, 6


def exp(x: npt.ArrayLike) -> Array:
    """Returns e^x.

    Args:
        x: numbers between -40 and 40, for which the relative error is below 1e-11.

    Example:
        >>> exp(np.array([0.0, 1.0])).round(10).tolist()
        [1.0, 2.7182818285]
    """
    # e^x = (e^r)^4096 with r = x / 4096
    r = np.asarray(x, dtype=np.float64) * 2.0**-HALVINGS
    # e^r = 1 + r (1 + r/2 (1 + r/3 (...)))
    y = np.ones_like(r)
    for k in range(TERMS, 0, -1):
        y = 1 + r * y / k
    for _ in range(HALVINGS):
        y = y * y
    return y


def sigmoid(x: npt.ArrayLike) -> Array:
    """Returns sigma(x); beyond -40 and 40 it is constant.

    Example:
        >>> sigmoid(0.0).item()
        0.5
    """
    return 1 / (1 + exp(-np.clip(x, -40, 40)))


class Table:
    """A function that is read from a table at the nearest of its points.

    Args:
        function: from numbers to numbers.
        low, high: the first and the last point; outside of them the function is constant.
        steps: points per unit.

    Example:
        >>> square = Table(lambda x: x * x, -2, 2, steps=10)
        >>> square(np.array([0.52, 7.0])).tolist()
        [0.25, 4.0]
    """

    def __init__(self, function: Callable[[Array], Array], low: int, high: int, steps: int) -> None:
        self.first, self.last, self.steps = low * steps, high * steps, steps
        self.values = function(np.arange(self.first, self.last + 1) / steps)

    def __call__(self, x: Array) -> Array:
        """Returns the function's values at the points nearest to ``x``, an array of any shape."""
        place = np.rint(x * self.steps)
        np.maximum(place, self.first, out=place)
        np.minimum(place, self.last, out=place)
        place -= self.first
        return self.values.take(place.astype(np.intp))


SIGMOID = Table(sigmoid, -16, 16, steps=1024)
# Multiples of 2^-30, whose sums are exact.
EXP = Table(lambda x: np.rint(exp(x) * 2.0**30) * 2.0**-30, -21, 0, steps=1024)


def quantise(x: Array, largest: float) -> tuple[Array, Array]:
    """Returns whole numbers and one scale for each vector, whose product is about the vector.

    Args:
        x: (streams, dim).
        largest: of the whole numbers.

    Returns:
        p (streams, dim), whole numbers from -largest to largest, and a (streams, 1); x is about
        a p.

    Example:
        >>> p, a = quantise(np.array([[0.5, -1.0, 0.26]]), largest=4)
        >>> p.tolist(), a.tolist()
        ([[2.0, -4.0, 1.0]], [[0.25]])
    """
    reach = np.abs(x).max(axis=-1, keepdims=True)
    np.maximum(reach, SMALLEST_SCALE, out=reach)
    p = x * (largest / reach)
    return np.rint(p, out=p), reach / largest


def normalise(h: Array) -> Array:
    """Returns LayerNorm without gain and bias of each vector.

    Args:
        h: (streams, dim), at most 8,192 wide.

    Example:
        >>> normalise(np.array([[1.0, 3.0]])).round(6).tolist()
        [[-1.0, 1.0]]
    """
    centred, deviation, _ = _centre(h)
    return np.divide(centred, deviation, out=centred)


def _centre(h: Array) -> tuple[Array, Array, Array]:
    """Returns (p - mean, deviation of p, a) for each vector h = a p with whole numbers p.

    LN(h) = (p - mean(p)) / sqrt(var(p) + eps / a^2)
    """
    p, a = quantise(h, LARGEST_IN_NORM)
    dim = h.shape[-1]
    mean = p.sum(axis=-1, keepdims=True) / dim
    variance = (p * p).sum(axis=-1, keepdims=True) / dim - mean * mean
    p -= mean
    return p, np.sqrt(np.maximum(variance, 0) + LAYER_NORM_EPS / (a * a)), a


def normalise_backward(h: Array, grad: Array) -> Array:
    """Returns the gradient of the input of `normalise`, with means of rounded products.

    Args:
        h: (streams, dim) the input.
        grad: (streams, dim) the gradient of the output.

    Example:
        >>> grad = np.array([[1.0, 0.0, 0.0]])
        >>> normalise_backward(np.array([[1.0, 2.0, 4.0]]), grad).round(3).tolist()
        [[0.229, -0.344, 0.115]]
    """
    centred, deviation, a = _centre(h)
    n = centred / deviation
    # dh = (dn - mean(dn) - n mean(n dn)) / deviation
    q, b = quantise(grad, LARGEST_IN_NORM)
    k, c = quantise(n, LARGEST_IN_NORM)
    dim = h.shape[-1]
    mean = b * (q.sum(axis=-1, keepdims=True) / dim)
    along = (b * c) * ((q * k).sum(axis=-1, keepdims=True) / dim)
    return (grad - mean - n * along) / (a * deviation)
