"""Limit of the samples in a batch whose predictions are large, such as those of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

NUMBERS = 1 << 24
"""Most numbers of a batch's predictions, 64 MiB: a network's maps take some times as much."""


def limit_batch(size: int, output: Sequence[int]) -> int:
    """Return `size`, or the number of predictions (*output) that a batch may hold; at least 1."""
    return max(1, min(size, NUMBERS // max(1, prod(output))))
