"""EC-NAS's cells as learning curves for simulated searches: real trainings with accuracy, seconds and energy."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations, product
from pathlib import Path

from ripieno.search import Categorical, Space
from ripieno.types import Configuration, Value

FILE = Path(__file__).resolve().parents[2] / "../shared/data/nas/ecnas_cells.csv.gz"
VERTICES = 5
PAIRS = tuple(combinations(range(VERTICES), 2))
OPERATIONS = {"conv3x3": 0, "conv1x1": 1, "maxpool": 2}
INPUT, OUTPUT = -1, -2
TRAINED = (2, 4)
"""Epochs after which a cell is known: the first and second unit of a trial."""

Cell = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""Operations and edges, numbered so that isomorphic cells are equal."""
Configured = tuple[Value, ...]
"""Values of a configuration, in the order of the space."""


@dataclass(frozen=True)
class TrainedCell:
    """Results of the training of a cell; those of epochs are tuples, one number for each of `TRAINED`."""

    errors: tuple[float, ...]
    """on validation images"""
    test_errors: tuple[float, ...]
    seconds: tuple[float, ...]
    joules: tuple[float, ...]
    predict_seconds: float


class EcNas:
    """The table of the cells of two to five vertices, as a space of edges and operations."""

    epochs = len(TRAINED)
    space = Space(
        "ecnas",
        "ecnas",
        {f"edge{a}{b}": Categorical((False, True)) for a, b in PAIRS}
        | {f"operation{n}": Categorical(tuple(OPERATIONS)) for n in range(1, VERTICES - 1)},
    )

    @cached_property
    def rows(self) -> dict[Cell, TrainedCell]:
        """Return the training of each cell."""
        found = {}
        with gzip.open(FILE, "rt") as file:
            for row in csv.DictReader(file):
                if row["space"] == "5V9E":
                    lines, operations = row["adjacency"].split(";"), tuple(map(int, row["ops"].split()))
                    edges = [(a, b) for a, line in enumerate(lines) for b, bit in enumerate(line) if bit == "1"]
                    found[canonical(operations, edges)] = TrainedCell(
                        errors=tuple(1 - float(row[f"valid_e{e}"]) for e in TRAINED),
                        test_errors=tuple(1 - float(row[f"test_e{e}"]) for e in TRAINED),
                        seconds=tuple(float(row[f"seconds_e{e}"]) for e in TRAINED),
                        joules=tuple(3.6e6 * float(row[f"kwh_e{e}"]) for e in TRAINED),
                        predict_seconds=float(row["predict_seconds"]),
                    )
        return found

    def cell(self, configuration: Configuration) -> Cell:
        """Return the cell of a configuration, without vertices that are on no path."""
        chosen = [OPERATIONS[str(configuration[f"operation{n}"])] for n in range(1, VERTICES - 1)]
        return pruned((INPUT, *chosen, OUTPUT), [(a, b) for a, b in PAIRS if configuration[f"edge{a}{b}"]])

    @cached_property
    def configurations(self) -> dict[Cell, Configured]:
        """Return the values of one configuration for each cell: random ones of these are random cells."""
        chosen: dict[Cell, Configured] = {}
        for values in product(*(one.choices for one in self.space.ranges.values())):
            chosen.setdefault(self.cell(dict(zip(self.space.ranges, values, strict=True))), values)
        return {cell: values for cell, values in chosen.items() if cell in self.rows}

    def values(self, configuration: Configuration) -> Configured:
        """Return the values of the hyperparameters in their order."""
        return tuple(configuration[name] for name in self.space.ranges)

    def trained(self, configuration: Configuration) -> TrainedCell:
        """Return the training of the cell of a configuration. Raises ValueError for one that is no cell."""
        if (found := self.rows.get(self.cell(configuration))) is None:
            raise ValueError("no cell: it has ten edges, or none from input to output")
        return found

    def curve(self, configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
        """Return error, seconds and joules of a cell after a unit. Raises ValueError for one that is no cell."""
        found = self.trained(configuration)
        return found.errors[epoch - 1], found.seconds[epoch - 1], {"joules": found.joules[epoch - 1]}


def pruned(operations: tuple[int, ...], edges: list[tuple[int, int]]) -> Cell:
    """Return the cell without vertices that are on no path from input to output."""
    ahead, back = {0}, {len(operations) - 1}
    for _ in operations:
        ahead |= {b for a, b in edges if a in ahead}
        back |= {a for a, b in edges if b in back}
    kept = sorted(ahead & back)
    number = {vertex: n for n, vertex in enumerate(kept)}
    return canonical(
        tuple(operations[v] for v in kept), [(number[a], number[b]) for a, b in edges if a in number and b in number]
    )


def canonical(operations: tuple[int, ...], edges: list[tuple[int, int]]) -> Cell:
    """Return the smallest of the numberings of a cell that keep input and output in their places."""
    last = len(operations) - 1
    numberings = [(0, *middle, last) for middle in permutations(range(1, last))] if last > 0 else [(0,) * (last + 1)]
    cells = []
    for order in numberings:
        place = {vertex: n for n, vertex in enumerate(order)}
        cells.append((tuple(operations[v] for v in order), tuple(sorted((place[a], place[b]) for a, b in edges))))
    return min(cells)
