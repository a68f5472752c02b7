"""Profiles from timm's published benchmark tables (`benchmark-infer-*.csv`).

A row has one measurement: samples per second at the largest batch that fitted (1 on a CPU). Other batch sizes are
estimates, marked by a spread of 1. The time is proportional to the batch size, but at least `FLOOR` seconds on a GPU
(the kernel launches of a network). The bytes are the parameters plus a fraction `LIVE` of a sample's activations, since
activations are freed as the next layers run. The GPU's memory held the measured batch, which bounds the estimate.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from ripieno.errors import LibraryError
from ripieno.types import BatchProfile, Profile

FLOOR = 0.005
LIVE = 0.15
RUNTIME = 500 << 20
"""Bytes of a CUDA context and its libraries."""
CARD = 24 << 30
"""Bytes of the tables' GPUs, an RTX 3090 and an RTX 4090."""
COLUMNS = ("model", "infer_samples_per_sec", "infer_batch_size", "param_count", "infer_macts")


def timm_profiles(
    path: str | Path, kind: str, names: Collection[str] | None = None, batch_sizes: Collection[int] = (1, 8, 32, 128)
) -> dict[str, Profile]:
    """Read profiles on devices of `kind` by network name, of all networks in the table or of `names`.

    Networks without an activation count are skipped. `amp` tables have 2 bytes per number, others 4. A table with
    `-cpu-` in its name is of a CPU. On a GPU, batch sizes above the measured one are skipped.

    Raises LibraryError if the file is not such a table or lacks a name.
    """
    path = Path(path)
    width = 2 if "-amp-" in path.name else 4
    floor, base = (0.0, 0) if "-cpu-" in path.name else (FLOOR, RUNTIME)
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise LibraryError(f"cannot read {path} as a timm table: {error}") from error
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise LibraryError(f"{path} is not a timm table: expected columns {', '.join(COLUMNS)}")
    table = {row["model"]: row for row in rows if row["infer_macts"]}
    missing = sorted(set(names or ()) - set(table))
    if missing:
        raise LibraryError(f"{path} has no complete row for network {missing[0]!r}: pass another name or table")
    chosen = table if names is None else {name: table[name] for name in names}
    return {name: _profile(row, kind, width, floor, base, batch_sizes) for name, row in chosen.items()}


def _profile(
    row: dict[str, str], kind: str, width: int, floor: float, base: int, batch_sizes: Collection[int]
) -> Profile:
    measured = int(row["infer_batch_size"])
    sample = 1 / float(row["infer_samples_per_sec"])
    weights = float(row["param_count"]) * 1e6 * width
    live = float(row["infer_macts"]) * 1e6 * width * LIVE
    if floor:
        live = min(live, (CARD - base - weights) / measured)
    sizes = sorted({b for b in batch_sizes if b <= measured or not floor} | {measured})
    points = tuple(
        BatchProfile(b, max(floor, b * sample), 0.0 if b == measured else 1.0, round(weights + b * live)) for b in sizes
    )
    return Profile(row["model"], kind, "timm", points, True, base)
