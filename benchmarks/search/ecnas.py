"""EC-NAS's cells as learning curves for simulated searches: real trainings with accuracy, seconds and energy."""

from __future__ import annotations

import csv
import gzip
from functools import cached_property
from itertools import combinations, permutations
from pathlib import Path

from ripieno.search import Categorical, Space
from ripieno.types import Configuration

FILE = Path(__file__).resolve().parents[2] / "../shared/data/nas/ecnas_cells.csv.gz"
VERTICES = 5
PAIRS = tuple(combinations(range(VERTICES), 2))
OPERATIONS = {"conv3x3": 0, "conv1x1": 1, "maxpool": 2}
INPUT, OUTPUT = -1, -2
TRAINED = (2, 4)
"""Epochs after which a cell is known: the first and second unit of a trial."""

Cell = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""Operations and edges, numbered so that isomorphic cells are equal."""


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
    def rows(self) -> dict[Cell, tuple[tuple[float, float, float], ...]]:
        """Return of each cell error, training seconds and joules after each of `TRAINED`."""
        found = {}
        with gzip.open(FILE, "rt") as file:
            for row in csv.DictReader(file):
                if row["space"] == "5V9E":
                    lines, operations = row["adjacency"].split(";"), tuple(map(int, row["ops"].split()))
                    edges = [(a, b) for a, line in enumerate(lines) for b, bit in enumerate(line) if bit == "1"]
                    found[canonical(operations, edges)] = tuple(
                        (1 - float(row[f"valid_e{e}"]), float(row[f"seconds_e{e}"]), 3.6e6 * float(row[f"kwh_e{e}"]))
                        for e in TRAINED
                    )
        return found

    def curve(self, configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
        """Return error, seconds and joules of a cell after a unit. Raises ValueError for one that is no cell."""
        chosen = [OPERATIONS[str(configuration[f"operation{n}"])] for n in range(1, VERTICES - 1)]
        edges = [(a, b) for a, b in PAIRS if configuration[f"edge{a}{b}"]]
        cell = pruned((INPUT, *chosen, OUTPUT), edges)
        if cell not in self.rows:
            raise ValueError("no cell: it has ten edges, or none from input to output")
        error, seconds, joules = self.rows[cell][epoch - 1]
        return error, seconds, {"joules": joules}


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
