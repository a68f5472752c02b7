"""Profiles of other people's networks: the tables of speeds that timm publishes (`benchmark-infer-*.csv`).

A row has one measurement: samples per second at the largest batch that fitted (1 on a CPU). Other batch sizes are
estimates, and say so by a spread of 1: a batch takes its samples' share of that time but never less than `FLOOR`
seconds on a GPU (the launches of a network's kernels); bytes are the parameters, and `LIVE` of a sample's activations,
which are freed as the next layers need them, and no more than the card's memory proves, which held the batch measured.
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
"""Bytes of the GPUs of the tables, an RTX 3090 and an RTX 4090."""
COLUMNS = ("model", "infer_samples_per_sec", "infer_batch_size", "param_count", "infer_macts")


def timm_profiles(
    path: str | Path,
    kind: str,
    names: Collection[str] | None = None,
    batch_sizes: Collection[int] = (1, 8, 32, 128),
) -> dict[str, Profile]:
    """Profiles on devices of `kind` by network name, of all networks in the table or of `names`.

    Networks without a figure of activations are left out. Tables of `amp` are read as 2 bytes a number, others as 4;
    those whose name has `-cpu-` as a CPU's. On a GPU, batch sizes above the one measured are left out.

    Raises LibraryError when the file is no such table or lacks a name.
    """
    path = Path(path)
    width = 2 if "-amp-" in path.name else 4
    floor, base = (0.0, 0) if "-cpu-" in path.name else (FLOOR, RUNTIME)
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise LibraryError(f"{path} cannot be read as a table of timm: {error}") from error
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise LibraryError(f"{path} is no table of timm's: it must have the columns {', '.join(COLUMNS)}")
    table = {row["model"]: row for row in rows if row["infer_macts"]}
    missing = sorted(set(names or ()) - set(table))
    if missing:
        raise LibraryError(f"{path} has no network {missing[0]!r} with all its figures")
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
