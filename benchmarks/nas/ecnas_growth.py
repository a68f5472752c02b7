"""Growth of EC-NAS's cells by a vertex a step, for the sampler `popnas`, and its predictors on random cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ecnas_cells import OPERATIONS, VERTICES, Cell, EcNas, pruned
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from ripieno.search.encoding import Encoding
from ripieno.search.growth import Growth
from ripieno.search.growth_predictors import Drawn, Predictors
from ripieno.search.in_memory_study import Result
from ripieno.search.popnas import PopnasSampler
from ripieno.search.predictions import rank_correlation

NAMES = {number: name for name, number in OPERATIONS.items()}


class EcNasGrowth(Growth):
    """Cells of the table. A cell is of step 1 with at most three vertices, and of one step more with each further one.

    A cell grows into those that become it without one of their vertices and all that is then on no path.
    """

    steps = VERTICES - 2

    def __init__(self, table: EcNas) -> None:
        self._table = table
        self.names = frozenset(table.space.ranges)
        self._children: dict[Cell, list[Cell]] = {}
        for cell in sorted(table.rows):
            for parent in {without(cell, vertex) for vertex in range(1, len(cell[0]) - 1)}:
                if len(parent[0]) == len(cell[0]) - 1:
                    self._children.setdefault(parent, []).append(cell)

    def first(self) -> Sequence[Cell]:
        """Return all cells of at most three vertices."""
        return sorted(cell for cell in self._table.rows if self.step(cell) == 1)

    def grow(self, candidate: Cell, count: int, random: np.random.Generator) -> Iterator[Cell]:
        """Yield cells of a vertex more, at random."""
        children = self._children.get(candidate, [])
        for number in random.integers(len(children), size=count).tolist() if children else ():
            yield children[number]

    def candidate(self, values: Mapping[str, Any]) -> Cell:
        """Return the cell of values."""
        return self._table.cell(values)

    def values(self, candidate: Cell) -> dict[str, Any]:
        """Return values that stand for a cell; for one that the table lacks, values that stand for none."""
        none = tuple(choice.choices[0] for choice in self._table.space.ranges.values())
        return dict(zip(self._table.space.ranges, self._table.configurations.get(candidate, none), strict=True))

    def step(self, candidate: Cell) -> int:
        """Return the step of a cell."""
        return max(1, len(candidate[0]) - 2)

    def parts(self, candidate: Cell) -> tuple[str, ...]:
        """Return the operations of a cell."""
        return tuple(NAMES[operation] for operation in candidate[0][1:-1])

    def features(self, candidate: Cell, weights: Mapping[str, float]) -> dict[str, float]:
        """Return numbers of the graph of a cell: of its vertices, edges and paths, and of each operation on these."""
        operations, edges = candidate
        own = [weights.get(NAMES[o], 0.5) if o in NAMES else 0.0 for o in operations]
        last = len(operations) - 1
        paths = list(find_paths(candidate))
        found = {
            "vertices": len(operations),
            "edges": len(edges),
            "paths": len(paths),
            "shortest": min(map(len, paths)),
            "longest": max(map(len, paths)),
            "mean length": np.mean([len(path) for path in paths]),
            "heaviest": max(sum(own[vertex] for vertex in path) for path in paths),
            "weight": sum(own),
            "weight by edges": sum(own[b] for _, b in edges),
            "shortcut": (0, last) in edges,
        }
        for operation, name in NAMES.items():
            counts = [sum(operations[vertex] == operation for vertex in path) for path in paths]
            found |= {f"least {name}": min(counts), f"most {name}": max(counts), f"mean {name}": np.mean(counts)}
            found[f"{name} of input"] = sum(a == 0 and operations[b] == operation for a, b in edges)
            found[f"{name} to output"] = sum(b == last and operations[a] == operation for a, b in edges)
        return {name: float(value) for name, value in found.items()}


def find_paths(cell: Cell) -> Iterator[tuple[int, ...]]:
    """Yield the vertices between input and output of each path of a cell."""
    operations, edges = cell
    waiting: list[tuple[int, ...]] = [(0,)]
    while waiting:
        path = waiting.pop()
        if path[-1] == len(operations) - 1:
            yield path[1:-1]
        waiting += [(*path, b) for a, b in edges if a == path[-1]]


def without(cell: Cell, vertex: int) -> Cell:
    """Return a cell without a vertex, its edges, and vertices that are then on no path; one of an input if none is."""
    operations, edges = cell
    number = {v: n for n, v in enumerate(v for v in range(len(operations)) if v != vertex)}
    kept = [(number[a], number[b]) for a, b in edges if vertex not in (a, b)]
    return pruned(tuple(operations[v] for v in number), kept)


class ScoreSampler(PopnasSampler):
    """`popnas` without a front: it knows no seconds, so that cells grow by their predicted score only."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the next candidate."""
        # the study is of this trial alone
        study.results = [replace(result, seconds=0.0) for result in study.results]  # type: ignore[attr-defined]
        return super().sample_relative(study, trial, search_space)


def prediction_ranks(table: EcNas, seed: int, trainings: int) -> dict[str, float | None]:
    """Return how well all other cells are predicted by the predictors of `popnas` after random `trainings`.

    These are the rank correlations of the loss and of the seconds, and the median relative error of the seconds.
    """
    cells = sorted(table.rows)
    order = np.random.default_rng(seed).permutation(len(cells)).tolist()
    drawn = [Drawn(cells[n], np.empty((1, 0))) for n in order]
    known = [table.rows[one.candidate] for one in drawn]
    last = table.epochs
    results = [
        Result(trial, last, found.errors[-1], found.seconds[-1]) for trial, found in enumerate(known[:trainings])
    ]
    predictors = Predictors(EcNasGrowth(table), Encoding({}), drawn, results, "extra-trees")
    losses = predictors.plain_losses(drawn[trainings:], last).tolist()
    seconds = (last * predictors.seconds(drawn[trainings:])).tolist()
    true = known[trainings:]
    errors = [abs(a - b.seconds[-1]) / b.seconds[-1] for a, b in zip(seconds, true, strict=True)]
    return {
        "rank of loss": rank_correlation([(a, b.errors[-1]) for a, b in zip(losses, true, strict=True)]),
        "rank of seconds": rank_correlation([(a, b.seconds[-1]) for a, b in zip(seconds, true, strict=True)]),
        "error of seconds": float(np.median(errors)),
    }
