"""Bundle -> predictions, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.prediction_inputs import read_inputs
from ripieno.library import read_bundle
from ripieno.types import Bundle


def predict(
    bundle: str | Path | Bundle,
    images: Any,
    trusted: Sequence[str] = (),
    *,
    skip_bad: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """Predict probabilities (samples, classes) of `images` with a bundle, without a server.

    `images` is an array (samples, height, width, channels), a picture, the path of a picture, folder or file of arrays,
    a list of these, or a data set as for `tune`. See `ripieno.data.prediction_inputs.read_inputs`. With `skip_bad`
    pictures that cannot be read are skipped, each with a line in `notes`. `trusted` names the user's families that may
    be imported, as for `Engine`. Raises EngineError or DataError for images that cannot be used.
    """
    from ripieno.engine import Engine

    bundle = read_bundle(bundle, trusted)
    if not isinstance(images, np.ndarray):
        images = read_inputs(images, bundle.input, notes, skip_bad=skip_bad)[1]
    with Engine(bundle) as engine:
        return engine.predict(images)
