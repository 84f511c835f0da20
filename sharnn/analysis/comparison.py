"""Paired comparison of two models: the difference of their bits on the same bytes, by group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sharnn.analysis.byte_facts import BYTE_CLASSES, Array, byte_classes, earlier_ends
from sharnn.analysis.results import Estimate
from sharnn.errors import InputError

STRETCH = 10_000  # bytes; stretches of this length are treated as independent of each other
CONTEXT = 8  # bytes
DISTANCES = (50, 256, 1024, 2048)  # last distances of the bins


@dataclass(frozen=True)
class Difference:
    """The mean difference between two models' bits, over a group of bytes.

    Args:
        group: description of the bytes.
        count: their number.
        first, second: mean bits per byte of each model; NaN if there are no bytes.
        difference: ``second - first``, so that a positive number is in favour of the first model.
        error: one standard error of the difference, from the differences between stretches of the
            text; NaN with fewer than two stretches.
    """

    group: str
    count: int
    first: float
    second: float
    difference: float
    error: float


def compare(
    text: bytes, first: Tensor, second: Tensor, stretch: int = STRETCH
) -> dict[str, list[Difference]]:
    """Compares two models byte by byte on the same text.

    Most of the variation of the bits is in the text, and both models share it. The difference
    byte by byte has a much smaller spread.

    Args:
        text: the text.
        first, second: (bytes - 1,) bits of each byte but the first, from
            `sharnn.evaluate.bits_of_bytes`.
        stretch: bytes of a stretch, the unit of the standard errors.

    Returns:
        The differences over all bytes (``"all"``), by the kind of the predicted byte (``"kind"``)
        and by the distance to the last occurrence of the 8 bytes before it (``"distance"``).

    Raises:
        InputError: there is not one number for each byte but the first, or ``stretch`` is not
            positive.

    Example:
        >>> first, second = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 2.0, 5.0])
        >>> [all_bytes] = compare(b"a b2", first, second, stretch=2)["all"]
        >>> all_bytes.count, round(all_bytes.difference, 3), round(all_bytes.error, 3)
        (3, 1.333, 1.111)
        >>> compare(b"a b2", first, second)["kind"][1].group
        'digit'
    """
    targets = len(text) - 1
    for bits in (first, second):
        if bits.shape != (targets,):
            raise InputError(
                f"{len(text)} bytes need {max(targets, 0)} numbers of bits, "
                f"got shape {tuple(bits.shape)}"
            )
    if stretch < 1:
        raise InputError(f"stretch must be at least 1, got {stretch}")
    kinds = byte_classes(text)[1:]
    distances = occurrence_distances(text)[1:]
    bins = np.where(
        np.isinf(distances), len(DISTANCES) + 1, np.searchsorted(DISTANCES, distances)
    )  # (bytes - 1,) indices into `distance_names`
    partitions = {
        "all": (np.zeros(targets, dtype=np.int64), ["all bytes"]),
        "kind": (kinds, list(BYTE_CLASSES)),
        "distance": (bins, distance_names()),
    }
    return {
        name: _differences(first, second, groups, names, stretch)
        for name, (groups, names) in partitions.items()
    }


def describe_difference(difference: Difference, first: str, second: str) -> str:
    """Describes a difference in one sentence, whichever model is better.

    The number after ± is two standard errors. A smaller difference counts as none.

    Args:
        difference: from `compare`.
        first, second: names of the models, as the subject of a sentence.

    Example:
        >>> better = Difference("all bytes", 100, 1.8, 1.85, difference=0.05, error=0.01)
        >>> describe_difference(better, "the model with a head", "the one without")
        'The model with a head needs 0.050 ± 0.020 bits per byte less than the one without.'
    """
    size, error = abs(difference.difference), 2 * difference.error
    subject = first[:1].upper() + first[1:]
    if not size >= error:
        return (
            f"Between {first} and {second} no difference can be measured: "
            f"{difference.difference:+.3f} ± {error:.3f} bits per byte."
        )
    side = "less" if difference.difference > 0 else "more"
    return f"{subject} needs {size:.3f} ± {error:.3f} bits per byte {side} than {second}."


def occurrence_distances(text: bytes, length: int = CONTEXT) -> Array:
    """Measures how far back the last bytes before each byte occurred the last time.

    Args:
        text: the text.
        length: number of bytes that must match; the two occurrences may overlap.

    Returns:
        (bytes,) float64: for each byte, the distance between the ``length`` bytes before it and
        their latest earlier occurrence; infinity if there is none.

    Example:
        >>> occurrence_distances(b"abxaby", length=2).tolist()
        [inf, inf, inf, inf, inf, 3.0]
    """
    found = earlier_ends(text, length)[:-1]  # of the bytes that end before each byte but the first
    distances = np.arange(len(found)) - found
    later = np.where(found >= 0, distances, np.inf)
    return np.concatenate([np.full(min(1, len(text)), np.inf), later])


def distance_names() -> list[str]:
    """Returns descriptions of the bins of distances.

    Example:
        >>> distance_names()
        ['1-50', '51-256', '257-1024', '1025-2048', 'further', 'never']
    """
    starts = [1, *(distance + 1 for distance in DISTANCES)]
    bins = [f"{start}-{stop}" for start, stop in zip(starts, DISTANCES, strict=False)]
    return [*bins, "further", "never"]


def _differences(
    first: Tensor, second: Tensor, groups: Array, names: list[str], stretch: int
) -> list[Difference]:
    """Returns the difference over each group, in the order of the names.

    Args:
        first, second: (targets,) bits of each predicted byte.
        groups: (targets,) the group of each, an index into the names.
        names: descriptions of the groups.
        stretch: bytes of a stretch.
    """
    stretches = torch.arange(len(first)) // stretch
    count = int(stretches[-1]) + 1
    cells = stretches * len(names) + torch.from_numpy(groups.astype(np.int64))

    def sums(values: Tensor) -> Tensor:
        """Returns the sum over each stretch and group, (stretches, groups)."""
        total = torch.zeros(count * len(names), dtype=torch.float64)
        return total.index_add_(0, cells, values.double()).view(count, len(names))

    counts = sums(torch.ones(len(first)))
    estimate = Estimate.of(sums(second.double() - first.double()), counts)
    sizes = counts.sum(0)
    first_means, second_means = sums(first).sum(0) / sizes, sums(second).sum(0) / sizes
    return [
        Difference(
            name,
            int(sizes[i]),
            float(first_means[i]),
            float(second_means[i]),
            float(estimate.value[i]),
            float(estimate.error[i]),
        )
        for i, name in enumerate(names)
    ]
