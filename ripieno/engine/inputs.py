"""What a request may bring."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Input


def check_images(images: Any, input: Input) -> NDArray[np.generic]:
    """`images` as an array (samples, *input.shape) of the input's dtype.

    A uint8 input also takes float32 holding whole numbers 0 to 255. Raises EngineError naming what it was and must be.
    """
    array = np.asarray(images)
    if array.ndim != len(input.shape) + 1 or array.shape[1:] != input.shape:
        must = ", ".join(["samples", *map(str, input.shape)])
        raise EngineError(f"images have shape {array.shape}, must be ({must}) {input.dtype}")
    if array.dtype == input.dtype:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineError("images hold NaN or infinite values, must be finite numbers")
        return array
    if input.dtype == "uint8" and array.dtype == np.float32:
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.uint8)
        if not np.array_equal(whole, array):
            raise EngineError("images are float32 with other values than whole numbers 0 to 255: scale or round them")
        return whole
    mend = f"convert them with images.astype('{input.dtype}')"
    raise EngineError(f"images are {array.dtype}, must be {input.dtype}: {mend}")
