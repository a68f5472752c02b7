"""Fully convolutional network of series (Wang, Yan and Oates 2017): three convolutions and the mean of each map."""

from __future__ import annotations

from torch import Tensor, nn

from ripieno.models.series_config import FCN_LAYERS, SeriesConfig, series_shape
from ripieno.models.series_parts import SeriesBody, SeriesConvolution
from ripieno.types import Input


class FullyConvolutional(SeriesBody):
    """Three convolutions."""

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        widths = [config.filters(filters) for filters, _ in FCN_LAYERS]
        super().__init__(config, widths[-1], outputs)
        kernels = [config.kernel(kernel, length) for _, kernel in FCN_LAYERS]
        before = [channels, *widths]
        self.layers = nn.ModuleList(map(SeriesConvolution, before, widths, kernels))

    def maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, filters, length)."""
        for layer in self.layers:
            x = layer(x, mask)
        return x
