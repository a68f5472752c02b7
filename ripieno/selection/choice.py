"""Result of a selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ripieno.types import Combiner


@dataclass(frozen=True)
class Choice:
    """An ensemble, as indices into the arrays that `select_members` was given."""

    members: tuple[int, ...]
    """in selection order, without repeats"""
    weights: tuple[float, ...]
    """in the same order; they sum to 1"""
    loss: float
    """on the given samples; 1 - score for accuracy and macro-F1"""
    cost: float
    """sum over the members; with several kinds of cost, the largest fraction of a budget"""
    costs: Mapping[str, float] = field(default_factory=dict)
    """sum over the members, by kind of cost"""
    combiner: Combiner = "mean"
    """combiner of the members' predictions; "weighted" where the weights differ"""
    steps: tuple[int, ...] = ()
    """all picks in order; method "replacement" may repeat a member"""
    certificate: float | None = None
    """if requested: upper bound on the loss reduction of any weighting, hence of any mean, of the candidates"""
