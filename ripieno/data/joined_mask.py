"""The mask of one picture, joined from the predictions of its samples, and numbers about the whole picture."""

from __future__ import annotations

from typing import final

from ripieno.data.mask_image import MaskBuilder
from ripieno.data.tiles import PictureSamples
from ripieno.tasks.uncertainty_outputs import TiledUncertainty, UncertaintyOutputs
from ripieno.types import Float32s


@final
class JoinedMask:
    """The mask of a picture in the making; with `outputs`, also those of them that tiles have."""

    def __init__(self, samples: PictureSamples, classes: int, outputs: UncertaintyOutputs | None = None) -> None:
        self.builder = MaskBuilder(samples.shape, classes)
        self.left = len(samples)
        """samples that are not added yet"""
        self._samples, self._joiner = self.left, samples.joiner()
        self._spread: float | None = None
        """sum over the samples"""
        self._uncertainty = TiledUncertainty(outputs) if outputs else None

    def add(self, predictions: Float32s, spread: Float32s | None = None, disagreement: Float32s | None = None) -> None:
        """Add the predictions (samples, *task.output) of the next samples, and what else is known of them."""
        self.builder.add(self._joiner.add(predictions))
        self.left -= len(predictions)
        if spread is not None:
            self._spread = (self._spread or 0.0) + float(spread.sum())
        if self._uncertainty and disagreement is not None:
            self._uncertainty.add(predictions, disagreement)

    @property
    def spread(self) -> float | None:
        """Mean spread of the samples; None where it is not known."""
        return None if self._spread is None else self._spread / self._samples

    @property
    def uncertainty(self) -> dict[str, float | bool]:
        """Outputs by name, once all samples are added."""
        return self._uncertainty.compute(self.builder.confidence) if self._uncertainty else {}
