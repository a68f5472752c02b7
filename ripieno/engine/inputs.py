"""Checks of request inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.pixels import fit_array
from ripieno.errors import DataError, EngineError
from ripieno.types import Input


def check_images(images: Any, input: Input) -> NDArray[np.generic]:
    """Return `images` as an array (samples, *input.shape) of the input's dtype, in the range of the training images.

    Arrays are used directly; images, paths and data sets are read by
    `ripieno.data.prediction_inputs.read_inputs`.
    Raises EngineError with the actual and the expected value.
    """
    try:
        if isinstance(images, np.ndarray):
            return fit_array(images, input)
        from ripieno.data.prediction_inputs import read_inputs

        return read_inputs(images, input)[1]
    except DataError as error:
        raise EngineError(str(error)) from error
