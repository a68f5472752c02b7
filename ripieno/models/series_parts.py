"""Parts of networks of series: masks of padding, normalisation, convolutions, and the base of their bodies.

Shorter series of a data set are padded with NaN at the end. A body finds the mask in its input, and every map is zero
where the series has no point. A padded series therefore gives what it gives without its padding, whose place a
convolution fills with zeros too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ripieno.models.series_config import SeriesConfig

LEAST_DEVIATION = 1e-4
"""Least deviation by which a series is divided: a constant one becomes zero."""


def split_padding(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return series (batch, channels, length) with zeros for NaN, and their mask (batch, 1, length), 1 at points."""
    padding = torch.isnan(x)
    return x.masked_fill(padding, 0.0), 1.0 - padding[:, :1].to(x.dtype)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the means (batch, channels) over the points of maps (batch, channels, length), zero at padding."""
    return x.sum(2) / mask.sum(2).clamp_min(1.0)


def normalise_series(x: Tensor, mask: Tensor) -> Tensor:
    """Normalise each channel of each series, zero at padding, by its own mean and deviation."""
    x = (x - masked_mean(x, mask)[:, :, None]) * mask
    deviation = masked_mean(x * x, mask).sqrt().clamp_min(LEAST_DEVIATION)
    return x / deviation[:, :, None]


class MaskedNorm(nn.BatchNorm1d):
    """Batch norm of maps (batch, channels, length), whose statistics leave padding out."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise the maps; the values at padding have no meaning."""
        if not self.training or bool(mask.all()):
            return super().forward(x)
        points = mask[:, 0] > 0
        rows = x.transpose(1, 2)
        normalised = torch.zeros_like(rows)
        normalised[points] = super().forward(rows[points]).to(rows.dtype)
        return normalised.transpose(1, 2)


class SeriesConvolution(nn.Module):
    """Convolution without bias, batch norm and rectifier; the length of the map stays the same."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, rectified: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.norm, self.rectified = MaskedNorm(c_out), rectified

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, c_out, length), zero at padding."""
        x = self.norm(self.conv(x), mask)
        return (torch.relu(x) if self.rectified else x) * mask


class SeriesBody(nn.Module):
    """Base of trained networks of series: normalisation, maps, their means over the points, dropout, linear head."""

    def __init__(self, config: SeriesConfig, features: int, outputs: int) -> None:
        """Make the head; `features` is the number of maps that `maps` returns."""
        super().__init__()
        self.by_series = config.normalisation == "series"
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(features, outputs))

    def maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, features, length) of series (batch, channels, length); both are zero at padding."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Compute the features (batch, features) of series (batch, channels, length), NaN at padding."""
        x, mask = split_padding(x)
        if self.by_series:
            x = normalise_series(x, mask)
        return masked_mean(self.maps(x, mask), mask)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of series (batch, channels, length), NaN at padding."""
        outputs: Tensor = self.head(self.features(x))
        return outputs
