"""Hyperparameters of networks of cells: names, defaults, checks, and the cell of a configuration. Pure Python.

A configuration names its cell as text, `cell`, or has the inputs and operators of each of `blocks` blocks as
hyperparameters of their own, so that any sampler can draw it from ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ripieno.errors import ModelError
from ripieno.models.cell_spec import LOOKBACKS, MOST_BLOCKS, Cell, Edge, parse_cell
from ripieno.models.resnet_config import Activation
from ripieno.models.series_config import Normalisation
from ripieno.models.unet_config import STEM_STRIDES
from ripieno.models.value_rules import COUNT, SHARE_BELOW_1, NumberRule, ValueRules, check_values
from ripieno.types import Configuration, DataKind, Value

FAMILY = "cell"
OutputJoin = Literal["concatenate", "add"]
DEFAULTS: dict[DataKind, str] = {
    "image": "conv3x3(-1)+identity(-1);identity(-2)+sep3x3(0)",
    "series": "conv7(-1)+identity(-1);identity(-2)+sep13(0)",
}
"""Cells of configurations that have none, by kind of data."""
SEARCHED: dict[DataKind, tuple[str, ...]] = {
    "image": (
        *("identity", "conv1x1", "conv3x3", "conv5x5", "conv1x7-7x1", "conv3x3d2", "conv3x3-se"),
        *("sep3x3", "sep5x5", "sep7x7", "max3x3", "avg3x3"),
    ),
    "series": (
        *("identity", "conv1", "conv7", "conv13", "conv21", "conv7d2", "conv7d4", "conv7-se"),
        *("sep7", "sep13", "sep21", "max3", "avg3", "lstm", "gru"),
    ),
}
"""Operators of the built-in spaces, by kind of data."""
SLOTS = tuple(
    tuple((f"input_{number}{side}", f"operator_{number}{side}") for side in "ab")
    for number in range(1, MOST_BLOCKS + 1)
)
"""Hyperparameters of each block, for spaces of ranges: of each side the input and the operator."""


@dataclass(frozen=True)
class CellConfig:
    """Hyperparameters of a network of cells and their defaults."""

    cell: str = ""
    """text of the cell, see `ripieno.models.cell_spec`; empty: that of `blocks`, else one by the kind of data"""
    blocks: int = 0
    """number of blocks of a cell whose inputs and operators are hyperparameters of their own, `SLOTS`"""
    filters: int = 24
    """channels of the cells of the first motif; each further motif has twice as many"""
    motifs: int = 3
    normal_cells: int = 2
    """normal cells of each motif"""
    outputs: OutputJoin = "concatenate"
    """results of blocks that no other reads: joined and mixed by a pointwise convolution, or added"""
    residual: bool = False
    """whether the input -1 is added to the result of a cell, where it has its form"""
    activation: Activation = "relu"
    dropout: float = 0.0
    """share of the features that are dropped before the head in training"""
    normalisation: Normalisation = "channel"
    """of series: `series`, each by its own mean and deviation; `channel`: by those of the data set"""
    stem_stride: int = 1
    """of segmentations: side in pixels of what becomes one place of the first maps"""


SLOT_NAMES = frozenset(name for block in SLOTS for side in block for name in side)
_BLOCK_NAMES = SLOT_NAMES | {"blocks"}
NAMES = frozenset(f.name for f in fields(CellConfig)) | SLOT_NAMES
_SIDES = f"one of {', '.join(map(str, STEM_STRIDES))}"
_RULES: ValueRules = {
    **dict.fromkeys(("filters", "motifs", "normal_cells"), COUNT),
    "blocks": NumberRule(
        lambda value: isinstance(value, int) and 1 <= value <= MOST_BLOCKS, f"a whole number from 1 to {MOST_BLOCKS}"
    ),
    "outputs": get_args(OutputJoin),
    "activation": get_args(Activation),
    "dropout": SHARE_BELOW_1,
    "normalisation": get_args(Normalisation),
    "stem_stride": NumberRule(lambda value: value in STEM_STRIDES, _SIDES),
}


def cell_config(configuration: Configuration) -> CellConfig:
    """Read the network's part of `configuration`, with defaults for absent names. Raises ModelError for a bad value."""
    known = {f.name for f in fields(CellConfig)}
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in known}
    check_values(chosen, _RULES)
    for name, kind, expected in (("cell", str, "the text of a cell"), ("residual", bool, "True or False")):
        if not isinstance(chosen.get(name, kind()), kind):
            raise ModelError(f"{name} is {chosen[name]!r}: it must be {expected}")
    if chosen.get("cell") and "blocks" in chosen:
        raise ModelError("the configuration has both cell and blocks: leave one of them out")
    return CellConfig(**chosen)


def cell_text(configuration: Configuration, kind: DataKind) -> str:
    """Return the text of the cell that `configuration` names, or whose blocks it has, or the default of `kind`."""
    config = cell_config(configuration)
    return slots_text(configuration) if config.blocks else config.cell or DEFAULTS[kind]


def slots_text(values: Configuration) -> str:
    """Return the text of the cell whose `blocks` and `SLOTS` are in `values`. Raises ModelError for a missing one."""
    texts = []
    for block in SLOTS[: int(values["blocks"])]:
        if missing := [name for side in block for name in side if name not in values]:
            raise ModelError(f"blocks is {values['blocks']}, but the configuration has no {missing[0]}: name it too")
        texts.append("+".join(f"{values[operator]}({values[input]})" for input, operator in block))
    return ";".join(texts)


def cell_of(configuration: Configuration, kind: DataKind) -> Cell:
    """Return the canonical cell of `configuration` for data of `kind`. Raises ModelError for a bad one."""
    return parse_cell(cell_text(configuration, kind), kind)


def name_cell(configuration: Configuration) -> Configuration:
    """Return `configuration` with the canonical text of its cell in place of its blocks, where it has such."""
    if "blocks" not in configuration or not SLOT_NAMES & configuration.keys():
        return configuration
    try:
        cell = parse_cell(cell_text(configuration, "image"))
    except ModelError:  # its trial reports it
        return configuration
    return {"cell": str(cell), **{name: value for name, value in configuration.items() if name not in _BLOCK_NAMES}}


def cell_slots(cell: Cell) -> Configuration:
    """Return the hyperparameters `blocks` and `SLOTS` that stand for `cell`, the inverse of `cell_of`.

    Blocks that the cell does not have get `identity(-1)`, so that every range of a space has a value.
    """
    unused = Edge(-1, "identity")
    blocks = [*cell.blocks, *[(unused, unused)] * (MOST_BLOCKS - len(cell.blocks))]
    pairs = [pair for names, block in zip(SLOTS, blocks, strict=True) for pair in zip(names, block, strict=True)]
    values: dict[str, Value] = {"blocks": len(cell.blocks)}
    for (input, operator), edge in pairs:
        values |= {input: edge.input, operator: edge.operator}
    return values


def slot_values(operators: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """Return the values that each of `SLOTS` can have, by name, where cells have `operators`."""
    values: dict[str, tuple[int | str, ...]] = {}
    for number, block in enumerate(SLOTS):
        for input, operator in block:
            values |= {input: tuple(range(min(LOOKBACKS), number)), operator: tuple(operators)}
    return values
