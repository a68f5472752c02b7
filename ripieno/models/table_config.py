"""Hyperparameters of networks of tables: names, defaults, checks, cost; and the form of a row. No torch.

A search may have the family `table`: the hyperparameter `network` then names the network, and the members are of the
family of that name, such as `mlp-periodic`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import ModelError
from ripieno.models.named_network import choose_network
from ripieno.models.value_rules import ABOVE_0, COUNT, SHARE_BELOW_1, ValueRules, check_values
from ripieno.types import Configuration, Input, Value, column_places

FAMILY = "table"
"""The family of a search whose configurations name the network."""
NETWORKS = tuple(name for name in DATA_KINDS["table"].families if name != FAMILY)
EMBEDDED = "mlp-periodic"
"""Network with an embedding of each number."""
NumberNormalisation = Literal["quantile", "robust"]
NumberEmbedding = Literal["periodic", "piecewise-linear"]
MOST_EMBEDDED = 8192
"""Values of the embeddings of all numbers of a row, at most: with more than 341 numbers each has a smaller one."""


@dataclass(frozen=True)
class TableConfig:
    """Hyperparameters of a network of tables and their defaults."""

    network: str
    """one of `NETWORKS`"""
    layers: int = 3
    """hidden layers"""
    units: int = 256
    """of each hidden layer"""
    dropout: float = 0.1
    """share of the units of a hidden layer that are dropped in training"""
    normalisation: NumberNormalisation = "quantile"
    """of numbers: `quantile` to a normal distribution; `robust` by median and quartiles, and large ones are reduced"""
    category_size: int = 16
    """values of the embedding of a category, at most"""
    embedding: NumberEmbedding = "periodic"
    """of numbers in `mlp-periodic`: sines of learned frequencies, or shares of bins"""
    embedding_size: int = 24
    """values of the embedding of a number, at most"""
    frequencies: int = 48
    """of a `periodic` embedding, at most"""
    frequency_scale: float = 0.1
    """deviation of the initial frequencies"""
    bins: int = 48
    """of a `piecewise-linear` embedding, at most; each holds as many training rows as any other"""

    def shared(self, wanted: int, numbers: int) -> int:
        """Return how many values an embedding has that should have `wanted`, in rows of `numbers` numbers."""
        return max(1, min(wanted, MOST_EMBEDDED // max(1, numbers)))


NAMES = frozenset(f.name for f in fields(TableConfig))
TRAINING_DEFAULTS: Mapping[str, Value] = {
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "batch_size": 128,
    "weight_decay": 0.01,
    "epoch_samples": 2000,
}
"""Defaults of the optimisation of these families; see `ripieno.train.optim` for the others."""
_RULES: ValueRules = {
    **dict.fromkeys(("layers", "units", "category_size", "embedding_size", "frequencies", "bins"), COUNT),
    "dropout": SHARE_BELOW_1,
    "frequency_scale": ABOVE_0,
    "normalisation": get_args(NumberNormalisation),
    "embedding": get_args(NumberEmbedding),
}


def table_config(family: str, configuration: Configuration) -> TableConfig:
    """Read the network's part of `configuration`, with defaults for absent names. Raises ModelError for a bad one."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    chosen["network"] = choose_network(FAMILY, NETWORKS, family, configuration)
    check_values(chosen, _RULES)
    return TableConfig(**chosen)


@dataclass(frozen=True)
class RowForm:
    """Positions of numbers and categories in a row of a table; a column may have several numbers."""

    numbers: tuple[int, ...]
    categories: tuple[int, ...]
    counts: tuple[int, ...]
    """number of categories at each of the positions `categories`"""


def row_form(input: Input) -> RowForm:
    """Return the form of one sample; without columns, all values are numbers. Raises ModelError when it is no row."""
    if len(input.shape) != 1 or input.shape[0] < 1:
        raise ModelError(f"samples have shape {input.shape}; networks of tables need (columns,)")
    numbers: list[int] = []
    counts: dict[int, int] = {}
    for column, place in column_places(input.columns):
        if column.kind == "category":
            counts[place.start] = len(column.categories)
        else:
            numbers += range(place.start, place.stop)
    held = len(numbers) + len(counts)
    if input.columns and held != input.shape[0]:
        raise ModelError(f"samples have {input.shape[0]} values, but their columns have {held}")
    chosen = numbers if input.columns else range(input.shape[0])
    return RowForm(tuple(chosen), tuple(counts), tuple(counts.values()))


def category_size(config: TableConfig, form: RowForm) -> int:
    """Return the number of values of the embedding of a category, for the column with most categories."""
    return min(config.category_size, max(1, round(1.6 * math.pow(max(form.counts, default=0), 0.56))))


def table_megaflops(family: str, configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one row in millions: all matrix products. Raises ModelError for a bad configuration.

    This takes a few microseconds and builds no network.
    """
    config, form = table_config(family, configuration), row_form(input)
    size, inputs = _embedding_form(config, form)
    cost = len(form.numbers) * inputs * size
    return (cost + _row_width(config, form) * config.units + (config.layers - 1) * config.units**2) / 1e6


def table_parameters(family: str, configuration: Configuration, input: Input, outputs: int) -> int:
    """Count the parameters of a network. Raises ModelError for a bad configuration."""
    config, form = table_config(family, configuration), row_form(input)
    size, inputs = _embedding_form(config, form)
    total = 0
    if inputs:
        frequencies = inputs // 2 if config.embedding == "periodic" else 0
        total += len(form.numbers) * (frequencies + (inputs + 1) * size)
    if form.categories:  # two more: a missing category and one that training did not see
        total += sum(count + 2 for count in form.counts) * category_size(config, form)
    total += (_row_width(config, form) + 1) * config.units
    return total + (config.layers - 1) * (config.units + 1) * config.units + (config.units + 1) * outputs


def _embedding_form(config: TableConfig, form: RowForm) -> tuple[int, int]:
    """Return the values of a number's embedding, and of what its linear layer takes: 1 and 0 without embeddings."""
    if config.network != EMBEDDED:
        return 1, 0
    numbers = len(form.numbers)
    is_binned = config.embedding == "piecewise-linear"
    inputs = config.shared(config.bins if is_binned else config.frequencies, numbers)
    # a frequency has a sine and a cosine
    return config.shared(config.embedding_size, numbers), inputs if is_binned else 2 * inputs


def _row_width(config: TableConfig, form: RowForm) -> int:
    """Return the number of values that the first layer takes."""
    size, _ = _embedding_form(config, form)
    return len(form.numbers) * (size + 1) + len(form.categories) * category_size(config, form)
