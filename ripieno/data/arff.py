"""The `.arff` format of series: numeric attributes are the points, the last attribute is the target.

Series of several channels are one relational attribute with a line for each channel. `?` is a missing value, and pads
shorter series. Other targets than the last attribute are named. Read by SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.series import pad
from ripieno.data.series_file import SeriesFile, text_task
from ripieno.data.walk import shown
from ripieno.errors import DataError, error_summary
from ripieno.types import Float32s


def read_arff(path: Path, target: Sequence[str] = ()) -> SeriesFile:
    """Read an `.arff` file; `target` names the attributes with the targets, by default the last.

    Raises DataError for a file that cannot be read, or has other attributes than numbers besides the targets.
    """
    from scipy.io import arff

    where = shown(path)
    try:
        with open(path, encoding="utf-8-sig") as stream:
            rows, meta = arff.loadarff(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8 ({error.reason}); save it so") from error
    except Exception as error:  # SciPy raises nearly anything for a broken file
        raise DataError(f"{where} is not readable as ARFF ({error_summary(error, named=True)}); check it") from error
    names = tuple(meta.names())
    for name in target:
        if name not in names:
            few = f"{', '.join(names[:3])}, ..., {names[-1]}" if len(names) > 4 else ", ".join(names)
            raise DataError(f"{where} has no attribute {name!r}; expected one of {few}")
    targets = tuple(target) or names[-1:]
    points = [name for name in names if name not in targets]
    kinds = {name: meta[name][0] for name in names}
    if not len(rows) or not points:
        held = "samples" if points else "attributes besides the target"
        raise DataError(f"{where} has no {held}; expected numeric attributes and a target")
    if wrong := [name for name in points if kinds[name] not in ("numeric", "relational")]:
        held = f"attribute {wrong[0]!r} of {where} is {kinds[wrong[0]]}"
        raise DataError(f"{held}; expected numeric ones besides the target; name the targets with --target")
    if "relational" not in kinds.values():
        series = np.stack([rows[name] for name in points], axis=1).astype(np.float32)[:, :, np.newaxis]
    else:
        series = _channels(rows, points, where)
    return SeriesFile(series, *_targets(rows, meta, targets, kinds), targets)


def _channels(rows: NDArray[Any], points: Sequence[str], where: str) -> Float32s:
    """Return series of a relational attribute, whose rows are channels, as (samples, length, channels)."""
    if len(points) > 1:
        raise DataError(f"{where} has {len(points)} attributes besides the target; expected one relational attribute")
    bags = []
    for row, bag in enumerate(rows[points[0]]):
        if any(bag.dtype[name].kind != "f" for name in bag.dtype.names):
            raise DataError(f"sample {row} of {where} has other values than numbers; expected numeric attributes")
        bags.append(np.stack([bag[name] for name in bag.dtype.names]).astype(np.float32))
    return pad(bags)


def _targets(
    rows: NDArray[Any], meta: Any, targets: Sequence[str], kinds: dict[str, str]
) -> tuple[NDArray[Any], tuple[str, ...], str | None]:
    """Return targets, the names of classes where they are declared, and the kind of task where it is clear."""
    if len(targets) > 1:
        columns = [rows[name].astype(np.float64) for name in targets]  # of nominal ones: 0 and 1
        return np.stack(columns, axis=1), (), None
    found = rows[targets[0]]
    if kinds[targets[0]] == "numeric":
        return found, (), None
    texts = [text.decode("utf-8", "replace") for text in found]
    names = tuple(str(name) for name in meta[targets[0]][1] or ())
    return np.array(texts), names, text_task(texts, names)
