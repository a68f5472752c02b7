"""What selection answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ripieno.types import Combiner


@dataclass(frozen=True)
class Choice:
    """An ensemble, as indices into the arrays that `select_members` was given."""

    members: tuple[int, ...]
    """in the order chosen, each once"""
    weights: tuple[float, ...]
    """same order, sum 1"""
    loss: float
    """on the samples given; 1 - score for accuracy and macro-F1"""
    cost: float
    """sum over the members; with several kinds of cost, the largest share of its budget"""
    costs: Mapping[str, float] = field(default_factory=dict)
    """sum over the members for each kind of cost"""
    combiner: Combiner = "mean"
    """how the members answer together: "weighted" where the weights differ"""
    steps: tuple[int, ...] = ()
    """every pick in its order: a member may come again under "replacement" """
    certificate: float | None = None
    """when asked for: no weights over the candidates, hence no mean of any of them, have a loss lower by more"""
