"""Networks of tables: perceptrons on normalised numbers and embedded categories (Gorishniy et al. 2021, 2022).

Preparation is part of the network: it takes rows as `ripieno.data.table_encoding` makes them, numbers in their own
units, NaN where a value is missing. A missing number is the median, and a flag says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ripieno.models.table_config import EMBEDDED, TableConfig, category_size, row_form, table_config
from ripieno.models.table_parts import (
    CategoryEmbedding,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    QuantileNormalisation,
    RobustNormalisation,
)
from ripieno.types import Configuration, Float32s, Input

_NORMALISATIONS = {"quantile": QuantileNormalisation, "robust": RobustNormalisation}


class TableNetwork(nn.Module):
    """Perceptron on rows (batch, values); `mlp-periodic` embeds each number."""

    numbers: Tensor
    categories: Tensor

    def __init__(self, config: TableConfig, input: Input, outputs: int) -> None:
        super().__init__()
        form = row_form(input)
        self.register_buffer("numbers", torch.tensor(form.numbers, dtype=torch.int64), persistent=False)
        self.register_buffer("categories", torch.tensor(form.categories, dtype=torch.int64), persistent=False)
        count, width = len(form.numbers), 0
        self.normalise: nn.Module | None = None
        self.embed_numbers: nn.Module | None = None
        if count:
            self.normalise = _NORMALISATIONS[config.normalisation](count)
            self.embed_numbers = _number_embedding(config, count)
            size = 1 if self.embed_numbers is None else config.shared(config.embedding_size, count)
            width += count * (size + 1)
        self.embed_categories: nn.Module | None = None
        if form.categories:
            self.embed_categories = CategoryEmbedding(form.counts, category_size(config, form))
            width += len(form.categories) * category_size(config, form)
        layers: list[nn.Module] = []
        for _ in range(config.layers):
            layers += [nn.Linear(width, config.units), nn.ReLU(), nn.Dropout(config.dropout)]
            width = config.units
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)

    def fit(self, rows: NDArray[Any]) -> None:
        """Fit the preparation to training rows (samples, values). Raises MissingExtraError without scikit-learn."""
        if self.normalise is None:
            return
        numbers: Float32s = rows[:, self.numbers.numpy()].astype(np.float32)
        self.normalise.fit(numbers)  # type: ignore[operator]
        if self.embed_numbers is not None:
            with torch.no_grad():
                normalised, _ = self._prepare(torch.from_numpy(numbers))
            self.embed_numbers.fit(normalised.numpy())  # type: ignore[operator]

    def _prepare(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised numbers (batch, numbers), 0 for a missing one, and flags of missing ones."""
        assert self.normalise is not None
        missing = torch.isnan(numbers)
        return self.normalise(numbers).masked_fill(missing, 0.0), missing.to(numbers.dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of rows (batch, values)."""
        parts = []
        if self.normalise is not None:
            numbers, missing = self._prepare(rows.index_select(1, self.numbers))
            if self.embed_numbers is not None:
                numbers = self.embed_numbers(numbers).flatten(1)
            parts += [numbers, missing]
        if self.embed_categories is not None:
            parts.append(self.embed_categories(rows.index_select(1, self.categories)).flatten(1))
        outputs: Tensor = self.head(self.layers(torch.cat(parts, 1)))
        return outputs


def _number_embedding(config: TableConfig, numbers: int) -> nn.Module | None:
    """Return the embedding of numbers; None where the network has none."""
    if config.network != EMBEDDED:
        return None
    size = config.shared(config.embedding_size, numbers)
    if config.embedding == "piecewise-linear":
        return PiecewiseLinearEmbedding(numbers, config.shared(config.bins, numbers), size)
    return PeriodicEmbedding(numbers, config.shared(config.frequencies, numbers), config.frequency_scale, size)


def table_network(configuration: Configuration, input: Input, outputs: int, family: str) -> nn.Module:
    """Build the network of `configuration`. Raises ModelError naming a bad value, and for inputs that are no rows."""
    return TableNetwork(table_config(family, configuration), input, outputs)
