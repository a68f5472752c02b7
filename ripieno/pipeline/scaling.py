"""Throughput of an ensemble by number of GPUs, and its plateau: table 3 of the paper as rows and a plot."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno import files
from ripieno.errors import AllocationError, MissingExtraError, require
from ripieno.types import Device

if TYPE_CHECKING:
    from ripieno.allocation import AllocationOptions, ProfileCosts
    from ripieno.allocation.scale import ScalingPoint

INK, BLUE, ORANGE, GREEN = "#7a7f87", "#3d85c6", "#e07b39", "#6aa84f"
"""Mid-tones that are legible on white and on black."""
MOST = 1000
"""Largest number of GPUs."""
LABEL = "predicted, not measured"


@dataclass(frozen=True)
class Scaling:
    """Rows for ascending numbers of GPUs of kind `gpu`: each member on one device as in the paper, and with replicas.

    A plateau is the fewest GPUs with at least 95 % of the largest number's throughput; None while it still rises.
    """

    gpu: str
    each: tuple[ScalingPoint, ...]
    each_plateau: int | None
    replicas: tuple[ScalingPoint, ...]
    """empty when replicas are not allowed"""
    replicas_plateau: int | None

    def table(self) -> list[dict[str, float | None]]:
        """Return one row per number of GPUs: samples per second; None where the members do not fit."""
        return [
            {
                "gpus": row.gpus,
                "worst_fit": row.worst_fit,
                "one_device_each": row.planned,
                "replicas": replicas.planned if replicas else None,
                "bound": (replicas or row).bound,
            }
            for row, replicas in zip(self.each, self.replicas or [None] * len(self.each), strict=True)
        ]

    def summary_lines(self) -> list[str]:
        """Return a line on the plateau of each placement policy."""
        most = self.each[-1].gpus
        lines = []
        for rows, flat, policy in (
            (self.each, self.each_plateau, "each member on one device"),
            (self.replicas, self.replicas_plateau, "with replicas"),
        ):
            known = [r for r in rows if r.planned is not None]
            if known:
                end = f"flat from {flat} x {self.gpu}" if flat is not None else f"still rising at {most} x {self.gpu}"
                lines.append(f"{policy}: {end}, {known[-1].planned:,.0f} samples/s {LABEL}")
            elif rows:
                lines.append(f"{policy}: the members do not fit even on {most} x {self.gpu}")
        return lines


def scaling_curve(
    members: Sequence[str], devices: Sequence[Device], costs: ProfileCosts, most: int, options: AllocationOptions
) -> Scaling:
    """Plan for 0, 1, 2, ... `most` of the first GPU of `devices`, together with their CPUs.

    Raises AllocationError when `devices` have no GPU.
    """
    from ripieno.allocation.scale import COUNTS, plateau, scale

    gpus = [d for d in devices if d.type == "cuda"]
    cpus = [d for d in devices if d.type == "cpu"]
    if not gpus:
        raise AllocationError("devices have no GPU to scale: add one, such as --devices 'V100-16GB, 1x cpu 32 cores'")
    if not 1 <= most <= MOST:
        raise AllocationError(f"scale {most} must be a number of GPUs from 1 to {MOST:,}")
    counts = [n for n in {*COUNTS, most} if n <= most and (n > 0 or cpus)]
    names = {d.name for d in cpus}
    kept = {m: p for m, p in options.pins.items() if p.device is None or p.device in names}
    free = dataclasses.replace(options, pins=kept, rate=None)
    each, replicas = (
        tuple(scale(members, gpus[0], cpus, costs, counts, dataclasses.replace(free, replicas=r)))
        for r in (False, True)
    )
    if not options.replicas:
        replicas = ()
    return Scaling(gpus[0].kind, each, plateau(each), replicas, plateau(replicas))


def write_scaling(scaling: Scaling, path: Path) -> list[str]:
    """Write `scale.csv`, `.json` and, with the extra `report`, `.svg` and `.png`; return the names of the files."""
    rows = scaling.table()
    lines = [",".join(rows[0])]
    lines += [",".join("" if v is None else f"{v:.6g}" for v in row.values()) for row in rows]
    files.write_bytes(path / "scale.csv", ("\n".join(lines) + "\n").encode())
    plateaus = {"one_device_each": scaling.each_plateau, "replicas": scaling.replicas_plateau}
    fields = {"gpu": scaling.gpu, "figures": LABEL, "unit": "samples per second", "plateau": plateaus, "rows": rows}
    files.write_json(path / "scale.json", fields)
    names = ["scale.csv", "scale.json"]
    try:
        for kind in ("svg", "png"):
            files.write_bytes(path / f"scale.{kind}", draw(scaling, kind))
            names.append(f"scale.{kind}")
    except MissingExtraError:
        pass  # the table holds the same figures
    return names


def draw(scaling: Scaling, kind: str) -> bytes:
    """Draw the rows as a plot, `svg` or `png`. Raises MissingExtraError without matplotlib."""
    require("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel=f"{scaling.gpu} GPUs", ylabel="samples per second")
    series = (
        ("worst-fit", INK, scaling.each, "worst_fit"),
        ("one device each", BLUE, scaling.each, "planned"),
        ("replicas", ORANGE, scaling.replicas, "planned"),
        ("bound", GREEN, scaling.replicas or scaling.each, "bound"),
    )
    for label, colour, rows, field in series:
        known = [(r.gpus, getattr(r, field)) for r in rows if getattr(r, field) is not None]
        if known:
            gpus, speeds = zip(*known, strict=True)
            axes.plot(gpus, speeds, ":" if field == "bound" else ".-", color=colour, label=label)
    if scaling.each_plateau is not None:
        axes.axvline(scaling.each_plateau, color=BLUE, alpha=0.4, linestyle="--")
    axes.set_title(f"Throughput by the model: {LABEL}", fontsize=10)
    axes.set_xscale("symlog", base=2, linthresh=1)
    ticks = [r.gpus for r in scaling.each if r.gpus & (r.gpus - 1) == 0 or r is scaling.each[-1]]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_yscale("log")
    axes.grid(color=INK, alpha=0.2)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ripieno", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
