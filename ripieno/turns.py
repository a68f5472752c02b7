"""One more word of `types`, in a file of its own for its length: the cascade, members asked in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TOLERANCE = 0.002
"""Nats that the validation cross-entropy may grow by, unless told otherwise."""
DISABLED = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class CascadeEffect:
    """What a cascade spares on some samples and what that costs there, beside asking all members for every sample."""

    samples: int
    saved: float
    """share of the compute"""
    asked: float
    """members a sample is shown to, on average"""
    cross_entropy: float
    whole_cross_entropy: float
    """of the mean of all members"""
    accuracy: float
    whole_accuracy: float


@dataclass(frozen=True)
class Cascade:
    """An order of members, and how sure their running mean must be for a sample to stop."""

    order: tuple[str, ...]
    threshold: float
    """largest probability of the running mean at which a sample stops"""
    tolerance: float = 0.0
    """by how much the validation cross-entropy was allowed to grow"""
    effects: Mapping[str, CascadeEffect] = field(default_factory=dict)
    """by split: it was planned on `valid`; `test` is what it does to samples that it was not planned on"""


def describe_effect(effect: CascadeEffect) -> str:
    """What is spared and what it costs, as a clause."""
    loss, hits = effect.cross_entropy - effect.whole_cross_entropy, effect.accuracy - effect.whole_accuracy
    return f"saves {effect.saved:.1%} of the compute for {loss:+.4f} of cross-entropy and {hits:+.2%} of accuracy"
