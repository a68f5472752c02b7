"""Parts of networks of tables: normalisation of numbers, embeddings of numbers and of categories.

What is fitted to the training rows are buffers: they are saved and exported with the weights. Vectors of a column's own
have one axis for all columns, since weight decay is for parameters of two axes and more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ripieno.errors import require
from ripieno.types import Float32s

KNOTS = 49
"""Points of a column's distribution between which the normalisation by quantiles is linear."""
FARTHEST = 3.0
"""Deviations of the outermost knots; smaller and larger numbers are as these."""
QUANTILES = 1000
"""Quantiles that are computed of a column, at most."""
LIMIT = 3.0
"""Deviations that the robust normalisation reduces large numbers to, at most."""
NOWHERE = float(np.finfo(np.float32).max)
"""Position of knots and bins that a column does not use."""


class QuantileNormalisation(nn.Module):
    """Map of numbers (batch, numbers) to a normal distribution, by the quantiles of the training rows.

    It is linear between `KNOTS` points of scikit-learn's QuantileTransformer, at equal steps of the result. A number
    that many rows have is several of these points: it becomes their mean.
    """

    inner: Tensor
    starts: Tensor
    values: Tensor
    slopes: Tensor
    lowest: Tensor
    highest: Tensor
    offsets: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        intervals = KNOTS - 1
        self.register_buffer("inner", torch.full((numbers, intervals - 1), NOWHERE))
        for name in ("starts", "values", "slopes"):
            self.register_buffer(name, torch.zeros(numbers * intervals))
        for name in ("lowest", "highest"):
            self.register_buffer(name, torch.zeros(numbers))
        self.register_buffer("offsets", torch.arange(numbers) * intervals, persistent=False)

    def fit(self, numbers: Float32s) -> None:
        """Take the quantiles of training rows (samples, numbers), NaN where one is missing."""
        steps = np.linspace(-FARTHEST, FARTHEST, KNOTS)
        known = np.where(np.isnan(numbers).all(axis=0), np.float32(0), numbers)
        transformer = require("sklearn.preprocessing").QuantileTransformer(
            n_quantiles=min(QUANTILES, len(known)), output_distribution="normal", subsample=None
        )
        transformer.fit(known)
        points = transformer.inverse_transform(np.repeat(steps[:, None], known.shape[1], axis=1))
        for column, found in enumerate(np.asarray(points, np.float32).T):
            self._set_column(column, found, steps)

    def _set_column(self, column: int, points: Float32s, steps: NDArray[np.float64]) -> None:
        """Set the intervals of a column between different `points`, of which each belongs to one of `steps`."""
        knots, places = np.unique(points, return_inverse=True)
        values = np.bincount(places, steps) / np.bincount(places)
        slopes = np.append(np.diff(values) / np.diff(knots.astype(np.float64)), 0.0)  # 0: of a constant column
        intervals = max(1, len(knots) - 1)
        first = column * (KNOTS - 1)
        for buffer, content in ((self.starts, knots), (self.values, values), (self.slopes, slopes)):
            buffer[first : first + intervals] = torch.from_numpy(content[:intervals]).to(buffer.dtype)
        self.inner[column, : intervals - 1] = torch.from_numpy(knots[1:intervals])
        self.lowest[column], self.highest[column] = float(knots[0]), float(knots[-1])

    def forward(self, numbers: Tensor) -> Tensor:
        """Normalise numbers (batch, numbers); NaN stays."""
        numbers = torch.minimum(torch.maximum(numbers, self.lowest), self.highest)
        interval = (numbers.unsqueeze(-1) >= self.inner).sum(-1) + self.offsets
        return (numbers - self.starts[interval]) * self.slopes[interval] + self.values[interval]


class RobustNormalisation(nn.Module):
    """Distance of numbers (batch, numbers) from the median, in deviations by the quartiles; large ones are reduced."""

    centre: Tensor
    scale: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))

    def fit(self, numbers: Float32s) -> None:
        """Take median and quartiles of training rows (samples, numbers), NaN where one is missing."""
        known = np.where(np.isnan(numbers).all(axis=0), np.float32(0), numbers).astype(np.float64)
        low, middle, high = np.nanquantile(known, (0.25, 0.5, 0.75), axis=0)
        deviation = np.nanstd(known, axis=0)
        normal = 1.349  # of a normal distribution, the quartiles are as many deviations apart
        scale = np.where(high > low, (high - low) / normal, np.where(deviation > 0, deviation, 1.0))
        self.centre.copy_(torch.from_numpy(middle))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, numbers: Tensor) -> Tensor:
        """Normalise numbers (batch, numbers); NaN stays."""
        distance = ((numbers - self.centre) / self.scale).clamp(-1e6, 1e6)
        return distance / torch.sqrt(1 + (distance / LIMIT) ** 2)


class ColumnLinear(nn.Module):
    """Linear layer of each column's own: (batch, columns, inputs) to (batch, columns, outputs)."""

    def __init__(self, columns: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(columns, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(columns * outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs."""
        product = torch.matmul(x.transpose(0, 1), self.weight).transpose(0, 1)
        return product + self.bias.reshape(self.weight.shape[0], self.weight.shape[2])


class PeriodicEmbedding(nn.Module):
    """Embedding of numbers by sines and cosines of learned frequencies (Gorishniy et al. 2022, PLR)."""

    def __init__(self, numbers: int, frequencies: int, scale: float, size: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.empty(numbers * frequencies))
        nn.init.trunc_normal_(self.frequencies, 0.0, scale, -3 * scale, 3 * scale)
        self.linear = ColumnLinear(numbers, 2 * frequencies, size)

    def fit(self, numbers: Float32s) -> None:
        """Take nothing from the training rows."""

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed normalised numbers (batch, numbers): (batch, numbers, size)."""
        angles = 2 * math.pi * self.frequencies.reshape(numbers.shape[1], -1) * numbers.unsqueeze(-1)
        return torch.relu(self.linear(torch.cat([torch.cos(angles), torch.sin(angles)], -1)))


class PiecewiseLinearEmbedding(nn.Module):
    """Embedding of numbers by the share of each bin that is below them (Gorishniy et al. 2022, Q-LR)."""

    starts: Tensor
    widths: Tensor

    def __init__(self, numbers: int, bins: int, size: int) -> None:
        super().__init__()
        self.register_buffer("starts", torch.full((numbers, bins), NOWHERE))
        self.register_buffer("widths", torch.ones(numbers, bins))
        self.linear = ColumnLinear(numbers, bins, size)

    def fit(self, numbers: Float32s) -> None:
        """Take bins of as many rows each from normalised training rows (samples, numbers)."""
        bins = self.starts.shape[1]
        for column, edges in enumerate(np.quantile(numbers, np.linspace(0, 1, bins + 1), axis=0).T):
            edges = np.unique(edges.astype(np.float32))
            count = len(edges) - 1  # none, of a constant column
            self.starts[column, :count] = torch.from_numpy(edges[:-1])
            self.widths[column, :count] = torch.from_numpy(np.diff(edges))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed normalised numbers (batch, numbers): (batch, numbers, size)."""
        shares = ((numbers.unsqueeze(-1) - self.starts) / self.widths).clamp(0.0, 1.0)
        return torch.relu(self.linear(shares))


class CategoryEmbedding(nn.Module):
    """Embedding of categories, of `size` values each: one table of weights with the categories of all columns.

    A missing category and one that training did not see have rows of their own. They begin at zero, and stay there
    where no training row has one.
    """

    offsets: Tensor
    last: Tensor

    def __init__(self, counts: tuple[int, ...], size: int) -> None:
        super().__init__()
        levels = [count + 2 for count in counts]
        starts: list[Any] = np.concatenate([[0], np.cumsum(levels)]).tolist()
        self.table = nn.Embedding(starts[-1], size)
        nn.init.normal_(self.table.weight, std=size**-0.5)
        self.register_buffer("offsets", torch.tensor(starts[:-1]), persistent=False)
        self.register_buffer("last", torch.tensor(counts, dtype=torch.float32) - 1, persistent=False)
        with torch.no_grad():
            for start in starts[:-1]:
                self.table.weight[start : start + 2] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """Embed codes (batch, columns): indices of categories, -1 of others, NaN of missing ones."""
        known = torch.minimum(codes, self.last).clamp_min(-1.0)
        level = torch.where(torch.isnan(codes), torch.zeros_like(codes), known + 2)
        # a missing category is level 0, one that training did not see level 1
        found: Tensor = self.table(level.to(torch.int64) + self.offsets)
        return found
