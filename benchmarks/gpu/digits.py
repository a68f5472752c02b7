"""A small library of trained networks on handwritten digits, for the steps that restate losses."""

from __future__ import annotations

from kit import Options

import ripieno
from ripieno.cli.demo import digits


def digit_library(options: Options) -> ripieno.Library:
    """Train the library on the device, or return the one that an earlier step trained."""
    return ripieno.tune(
        digits(),
        options.scratch / "digits",
        trials=2 if options.dry else 12,
        epochs=1 if options.dry else 9,
        space="resnet-tiny",
        free="off",
        split=(0.6, 0.2, 0.2),
        pool="inline" if options.dry else "local",
        device=options.device.partition(":")[0],
    )
