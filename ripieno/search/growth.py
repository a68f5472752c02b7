"""Growth of candidates in steps, such as cells block by block: what a progressive search knows of a space. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from ripieno.models.cell_config import FAMILY, SLOT_NAMES, SLOTS, cell_slots, slot_values, slots_text
from ripieno.models.cell_spec import EMPTY, Cell, Edge, canonical_cell, cell_features, expand_cell, parse_cell

Candidate = Any
"""What grows: hashable, and equal to another one that trains the same network."""


class Growth(ABC):
    """Candidates of a space of configurations, of steps from 1 to `steps`."""

    steps: int
    names: frozenset[str]
    """ranges of the space that stand for a candidate; the others are the macro-hyperparameters"""

    @abstractmethod
    def first(self) -> Sequence[Candidate]:
        """Return all candidates of step 1, in a fixed order."""

    @abstractmethod
    def grow(self, candidate: Candidate, count: int, random: np.random.Generator) -> Iterator[Candidate]:
        """Yield at most `count` candidates of one step more, at random; one may come twice."""

    @abstractmethod
    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """Return the candidate that `values` of the ranges stand for."""

    @abstractmethod
    def values(self, candidate: Candidate) -> dict[str, Any]:
        """Return the values of the ranges `names` that stand for `candidate`, the inverse of `candidate()`."""

    @abstractmethod
    def step(self, candidate: Candidate) -> int:
        """Return the step of `candidate`."""

    @abstractmethod
    def parts(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the words that `candidate` is made of, such as operators and inputs, as often as it has them."""

    @abstractmethod
    def features(self, candidate: Candidate, weights: Mapping[str, float]) -> dict[str, float]:
        """Return numbers of the graph of `candidate` by name; `weights` are those of its parts, such as seconds."""


class CellGrowth(Growth):
    """Cells of the family `cell`, which grow by a block."""

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        self.names = frozenset(ranges) & (SLOT_NAMES | {"blocks"})
        blocks = ranges["blocks"]
        self.steps = int(getattr(blocks, "high", len(SLOTS)))
        operators = ranges[SLOTS[0][0][1]]
        self._operators: tuple[str, ...] = (
            tuple(map(str, operators.choices)) if isinstance(operators, CategoricalDistribution) else ()
        )

    def first(self) -> Sequence[Candidate]:
        """Return all cells of one block."""
        return list(expand_cell(EMPTY, self._operators))

    def grow(self, candidate: Candidate, count: int, random: np.random.Generator) -> Iterator[Candidate]:
        """Yield cells with one random block more."""
        cell: Cell = candidate
        inputs, operators = len(cell.blocks) + 2, len(self._operators)
        for first, second in random.integers(inputs * operators, size=(count, 2)).tolist():
            edges = [Edge(edge // operators - 2, self._operators[edge % operators]) for edge in (first, second)]
            yield canonical_cell(Cell((*cell.blocks, (edges[0], edges[1]))))

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """Return the canonical cell of the slots in `values`."""
        return parse_cell(slots_text(values))

    def values(self, candidate: Candidate) -> dict[str, Any]:
        """Return the slots of a cell."""
        found = {name: value for name, value in cell_slots(candidate).items() if name in self.names}
        # blocks that the cell does not have may name an operator that the space does not
        foreign = {n for n, value in found.items() if n.startswith("operator_") and value not in self._operators}
        return found | dict.fromkeys(foreign, self._operators[0])

    def step(self, candidate: Candidate) -> int:
        """Return the number of blocks of a cell."""
        return len(candidate.blocks)

    def parts(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the operators and inputs of a cell."""
        edges = [edge for block in candidate.blocks for edge in block]
        return (*(edge.operator for edge in edges), *(f"input {edge.input}" for edge in edges))

    def features(self, candidate: Candidate, weights: Mapping[str, float]) -> dict[str, float]:
        """Return what `cell_features` does."""
        return cell_features(candidate, {name: weights[name] for name in self._operators if name in weights})


def find_growth(ranges: Mapping[str, BaseDistribution]) -> Growth | None:
    """Return the growth of a space with `ranges`; None where none is known.

    Cells grow from one block on, and each block may have any operator and input: a space that limits some of its slots
    has cells that do not grow in it.
    """
    return CellGrowth(ranges) if SLOT_NAMES | {"blocks"} <= set(ranges) and _are_open(ranges) else None


def _are_open(ranges: Mapping[str, BaseDistribution]) -> bool:
    """Return whether `ranges` have cells of one block, and all inputs and the same operators in every slot."""
    operators = getattr(ranges[SLOTS[0][0][1]], "choices", ())
    return getattr(ranges["blocks"], "low", None) == 1 and all(
        set(getattr(ranges[name], "choices", ())) == set(values) for name, values in slot_values(operators).items()
    )


GROWING = (FAMILY,)
"""Families whose configurations grow in steps."""
GROWING_SAMPLER = "popnas"
"""Name of the sampler that grows them."""


def draw_evenly(growth: Growth, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return `count` of `candidates` in which their parts occur evenly; any first few of them, too.

    Each next one is made of the parts that have occurred least. Ties are broken by a fixed shuffle.
    """
    order = np.random.default_rng(0).permutation(len(candidates)).tolist()
    left = [candidates[n] for n in order]
    used: Counter[str] = Counter()
    chosen: list[Candidate] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda candidate: sum(used[part] for part in growth.parts(candidate)))
        left.remove(best)
        chosen.append(best)
        used.update(growth.parts(best))
    return chosen
