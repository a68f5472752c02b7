"""Cells as text: parsing, canonical form, successors, features of their graph. Pure Python.

A cell is a small graph of blocks. A block adds the results of two operators, each on an input: the cell before (-1),
the one before that (-2), or an earlier block of the cell, by its number from 0. In text a cell is
`max3x3(-2)+conv3x3(-1);identity(-1)+sep3x3(0)`. Two cells are equal when one becomes the other by another order of
blocks and of the operators in them; the canonical form of both is the same text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations_with_replacement, groupby, permutations, product
from typing import Literal, NamedTuple

from ripieno.errors import ModelError
from ripieno.types import DataKind

MOST_BLOCKS = 5
LOOKBACKS = (-2, -1)
"""Inputs from outside: the cell before the last, and the last."""
OperatorForm = Literal["identity", "convolution", "pair", "separable", "max", "average", "lstm", "gru"]


@dataclass(frozen=True)
class Operator:
    """Operation of a block on one of its inputs."""

    name: str
    form: OperatorForm
    """`pair`: convolutions along each side in turn; `separable`: one in each channel, then one across channels"""
    kernel: int = 1
    dilation: int = 1
    squeezes: bool = False
    """whether each channel of the result is scaled by a factor from the means of all (squeeze-and-excitation)"""


_IMAGE = (
    Operator("identity", "identity"),
    *(Operator(f"conv{k}x{k}", "convolution", k) for k in (1, 3, 5, 7)),
    *(Operator(f"conv1x{k}-{k}x1", "pair", k) for k in (3, 5, 7)),
    *(Operator(f"sep{k}x{k}", "separable", k) for k in (3, 5, 7)),
    *(Operator(f"conv{k}x{k}d2", "convolution", k, 2) for k in (3, 5)),
    Operator("max3x3", "max", 3),
    Operator("avg3x3", "average", 3),
    Operator("conv3x3-se", "convolution", 3, squeezes=True),
    Operator("sep3x3-se", "separable", 3, squeezes=True),
)
_SERIES = (
    Operator("identity", "identity"),
    *(Operator(f"conv{k}", "convolution", k) for k in (1, 3, 7, 13, 21)),
    *(Operator(f"sep{k}", "separable", k) for k in (7, 13, 21)),
    *(Operator(f"conv7d{d}", "convolution", 7, d) for d in (2, 4)),
    Operator("max3", "max", 3),
    Operator("avg3", "average", 3),
    Operator("conv7-se", "convolution", 7, squeezes=True),
    Operator("sep7-se", "separable", 7, squeezes=True),
    Operator("lstm", "lstm"),
    Operator("gru", "gru"),
)
OPERATORS: Mapping[DataKind, Mapping[str, Operator]] = {
    "image": {operator.name: operator for operator in _IMAGE},
    "series": {operator.name: operator for operator in _SERIES},
}
"""Operators by kind of data and name; d2: dilated by 2, -se: with squeeze-and-excitation."""


class Edge(NamedTuple):
    """One of the two sides of a block: an operator on an input."""

    input: int
    """-1, -2, or the number of an earlier block"""
    operator: str

    def __str__(self) -> str:
        """Return the text of the edge, such as `conv3x3(-1)`."""
        return f"{self.operator}({self.input})"


CellBlock = tuple[Edge, Edge]


@dataclass(frozen=True)
class Cell:
    """Blocks of a cell, in an order in which each comes after those that it reads."""

    blocks: tuple[CellBlock, ...]

    def __str__(self) -> str:
        """Return the text of the cell."""
        return ";".join(f"{first}+{second}" for first, second in self.blocks)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Blocks that no other block reads: together they are the result of the cell."""
        read = {edge.input for block in self.blocks for edge in block}
        return tuple(number for number in range(len(self.blocks)) if number not in read)

    @cached_property
    def heights(self) -> tuple[int, ...]:
        """Blocks on the longest path to each block from outside, itself included."""
        found: list[int] = []
        for block in self.blocks:
            found.append(1 + max(found[edge.input] if edge.input >= 0 else 0 for edge in block))
        return tuple(found)

    @property
    def lookbacks(self) -> frozenset[int]:
        """Inputs from outside that the cell reads: -1, -2 or both."""
        return frozenset(edge.input for block in self.blocks for edge in block if edge.input < 0)

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators, in the order of the text."""
        return tuple(edge.operator for block in self.blocks for edge in block)


EMPTY = Cell(())
"""Cell without blocks, from which the others grow."""
_EDGE = re.compile(r"([A-Za-z0-9-]+)\((-?\d+)\)")


def parse_cell(text: str, kind: DataKind | None = None) -> Cell:
    """Return the canonical cell of `text`; with `kind`, its operators must be of that kind of data.

    Spaces around blocks and operators do not matter. Raises ModelError, in one line, for what is no cell.
    """
    blocks = tuple(_parse_block(part.strip(), number, kind) for number, part in enumerate(text.split(";")))
    if len(blocks) > MOST_BLOCKS:
        raise ModelError(f"cell has {len(blocks)} blocks: it must have at most {MOST_BLOCKS}")
    return canonical_cell(Cell(blocks))


def _parse_block(text: str, number: int, kind: DataKind | None) -> CellBlock:
    edges = [_EDGE.fullmatch(part.strip()) for part in text.split("+")]
    found = [Edge(int(match[2]), match[1]) for match in edges if match]
    if len(found) != 2 or len(edges) != 2:
        example = "sep7(-1)+max3(-2)" if kind == "series" else "sep3x3(-1)+max3x3(-2)"
        raise ModelError(
            f"block {number} of the cell is {text!r}: it must be two operators on their inputs, such as {example}"
        )
    for edge in found:
        _check_edge(edge, number, kind)
    return found[0], found[1]


def _check_edge(edge: Edge, number: int, kind: DataKind | None) -> None:
    """Raise ModelError for an unknown operator, and for an input that does not come before block `number`."""
    known = chain(*OPERATORS.values()) if kind is None else OPERATORS.get(kind, {})
    if edge.operator not in (names := dict.fromkeys(known)):
        of = "" if kind is None else f" for data of kind {kind}"
        raise ModelError(f"cell has no operator {edge.operator!r}{of}: it must be one of {', '.join(names)}")
    if not min(LOOKBACKS) <= edge.input < number:
        inputs = ", ".join(map(str, range(min(LOOKBACKS), number)))
        raise ModelError(f"block {number} of the cell reads {edge.input}: it must be one of {inputs}")


def canonical_cell(cell: Cell) -> Cell:
    """Return the one of all cells equal to `cell` that stands for them.

    Blocks are ordered by the height of the graph below them and by the text of that graph. Of blocks of the same text
    all orders are tried, and the first result by order of the blocks is taken.
    """
    texts, heights = _graph_texts(cell.blocks), cell.heights
    order = sorted(range(len(cell.blocks)), key=lambda number: (heights[number], texts[number]))
    groups = [tuple(group) for _, group in groupby(order, lambda number: texts[number])]
    return Cell(
        min(
            _renumber(cell.blocks, [number for group in chosen for number in group])
            for chosen in product(*(permutations(group) for group in groups))
        )
    )


def _graph_texts(blocks: Sequence[CellBlock]) -> list[str]:
    """Return of each block the text of all that it reads, by which equal blocks agree."""
    texts: list[str] = []
    for block in blocks:
        sides = sorted(f"{edge.operator}({texts[edge.input] if edge.input >= 0 else edge.input})" for edge in block)
        texts.append("+".join(sides))
    return texts


def _renumber(blocks: Sequence[CellBlock], order: Sequence[int]) -> tuple[CellBlock, ...]:
    """Return `blocks` in another order, each with its inputs in order."""
    places = {old: new for new, old in enumerate(order)}
    renumbered = []
    for old in order:
        first, second = sorted(Edge(places.get(edge.input, edge.input), edge.operator) for edge in blocks[old])
        renumbered.append((first, second))
    return tuple(renumbered)


def are_equal(first: Cell, second: Cell) -> bool:
    """Return whether one cell becomes the other by another order of blocks and of the operators in them."""
    return canonical_cell(first) == canonical_cell(second)


def possible_blocks(blocks: int, operators: Collection[str]) -> Iterator[CellBlock]:
    """Yield all blocks that can follow `blocks` others, each once, in a fixed order."""
    edges = [Edge(input, operator) for input in range(min(LOOKBACKS), blocks) for operator in operators]
    yield from combinations_with_replacement(edges, 2)


def expand_cell(cell: Cell, operators: Collection[str]) -> Iterator[Cell]:
    """Yield all canonical cells of one block more, each once, in a fixed order; of `EMPTY` those of one block.

    Raises ModelError for a cell that has the most blocks.
    """
    if len(cell.blocks) >= MOST_BLOCKS:
        raise ModelError(f"cell has {len(cell.blocks)} blocks, which is the most: it cannot be expanded")
    seen = set()
    for block in possible_blocks(len(cell.blocks), operators):
        grown = canonical_cell(Cell((*cell.blocks, block)))
        if grown not in seen:
            seen.add(grown)
            yield grown


def cell_features(cell: Cell, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return numbers of the graph of `cell`, by name, that a predictor of time or score can learn from.

    `weights` are of operators by name, such as the seconds of networks with that operator alone; without them each
    weighs 1, and `identity` 0. An operator that `weights` does not name weighs as the mean of those that it does.
    """
    heights = cell.heights
    edges = [(edge, heights[number]) for number, block in enumerate(cell.blocks) for edge in block]
    given = weights or {}
    missing = sum(given.values()) / len(given) if given else 1.0

    def weigh(operator: str) -> float:
        return given.get(operator, 0.0 if operator == "identity" and not given else missing)

    heaviest: list[float] = []
    for block in cell.blocks:
        heaviest.append(max(weigh(e.operator) + (heaviest[e.input] if e.input >= 0 else 0.0) for e in block))
    total = sum(weigh(edge.operator) for edge, _ in edges)
    features = {
        "blocks": len(cell.blocks),
        "depth": max(heights, default=0),
        "dependencies": sum(edge.input >= 0 for edge, _ in edges),
        "lookbacks": len(cell.lookbacks),
        "outputs": len(cell.outputs),
        "weight": total,
        "first_level_weight": sum(weigh(edge.operator) for edge, height in edges if height == 1),
        "heaviest_path": max(heaviest, default=0.0),
        **{f"input {lookback}": sum(edge.input == lookback for edge, _ in edges) for lookback in LOOKBACKS},
    }
    return {name: float(value) for name, value in features.items()}


def operator_counts(cell: Cell, operators: Collection[str]) -> dict[str, int]:
    """Return how often `cell` has each of `operators`."""
    found = cell.operators
    return {operator: found.count(operator) for operator in operators}
