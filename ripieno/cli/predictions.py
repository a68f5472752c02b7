"""Files of predictions: probabilities as `.npy`, or a `.csv` table with a row per image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import RipienoError

SUFFIXES = (".npy", ".csv")


def check_output(path: Path | None) -> None:
    """Raise RipienoError unless `path` is None or a file name with one of `SUFFIXES`."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise RipienoError(f"cannot write predictions to {path}: its name must end in {' or '.join(SUFFIXES)}")
    if path is not None and path.is_dir():
        raise RipienoError(f"cannot write predictions to {path}: it is a folder, give a file")


def write_predictions(
    path: Path, names: Sequence[str], classes: Sequence[str], probabilities: NDArray[np.float32]
) -> None:
    """Write probabilities (samples, classes) to `path`, which has passed `check_output`.

    A `.csv` has the columns `file`, `prediction`, `probability` and one per class with its name. Raises
    RipienoError when the file cannot be written.
    """
    if path.suffix.lower() == ".npy":
        files.write_array(path, probabilities)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "prediction", "probability", *classes])
    for name, row in zip(names, probabilities, strict=True):
        best = int(row.argmax())
        table.writerow([name, classes[best], str(row[best]), *map(str, row)])
    files.write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))
