"""All drawings of an allocation show the same rows: terminal, SVG, notebook and the report's plot."""

from __future__ import annotations

import dataclasses
import re
from itertools import groupby

import pytest
from matplotlib.colors import to_hex

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.explain import explain
from ripieno.cli import allocation_view
from ripieno.reports import allocation_svg, figure_style, plots
from ripieno.reports.allocation_rows import bar_lengths, rows_by_worker
from ripieno.types import Allocation, BatchProfile, Device, Placement, Profile

COSTS = ProfileCosts(
    {
        kind: {m: Profile(m, kind, "onnx", (BatchProfile(8, seconds, 0.0, 20),)) for m, seconds in times.items()}
        for kind, times in {"h100": {"a": 0.02, "b": 0.06}, "cpu-1-core": {"a": 0.08, "b": 0.2}}.items()
    }
)
PLANNED = Allocation(
    "x",
    "B1",
    (Device("cuda:0", "h100", 100), Device("cpu:0", "cpu-1-core", 100, (0,))),
    (Placement("b", "cuda:0", 8), Placement("a", "cpu:0", 8), Placement("a", "cuda:0", 8)),
)
PLAN = explain(PLANNED, COSTS)
MEASURED = dataclasses.replace(PLANNED, shares=tuple(s.share for s in PLAN.placements))
"""The same, benchmarked exactly as predicted: what is drawn without profiles must then look the same."""


def in_terminal() -> list[tuple[str, float]]:
    view = allocation_view.devices(PLAN, {"b": "b", "a": "a"})
    bars = [str(cell) for cell in view.columns[3].cells]
    times = [bar for bar, row in zip(bars, view.columns[2].cells, strict=True) if str(row).startswith("time")]
    return [
        (letter, len(list(run)) / allocation_view.WIDTH)
        for bar in times
        for letter, run in groupby(bar.replace("·", ""))
    ]


def in_svg(svg: str) -> list[tuple[str, float]]:
    pattern = r'width="([\d.]+)" height="16"[^>]*><title>(\w+): [\d.]+% of the time'
    return [(member, float(width) / allocation_svg.WIDTH) for width, member in re.findall(pattern, svg)]


def in_plot() -> list[tuple[str, float]]:
    with figure_style.style():
        (axes,) = plots.workers(PLAN).axes
        members = {row.colour: row.member for rows in rows_by_worker(PLAN).values() for row in rows}
        return [(members[to_hex(patch.get_facecolor())], patch.get_width() / 100) for patch in axes.patches]


def test_every_drawing_shows_the_same_members_in_the_same_lengths() -> None:
    expected = [
        (row.member, pytest.approx(length, abs=0.001))
        for rows in rows_by_worker(PLAN).values()
        for row, length in zip(rows, bar_lengths(rows), strict=True)
    ]
    assert [member for member, _ in expected] == ["b", "a", "a"]  # devices in the order of the plan
    assert in_svg(allocation_svg.allocation_svg(PLAN)) == expected
    assert in_svg(allocation_svg.workers_svg(MEASURED)) == expected
    assert in_plot() == expected
    coarse = pytest.approx([length for _, length in in_svg(allocation_svg.allocation_svg(PLAN))], abs=0.026)
    terminal = in_terminal()
    assert [member for member, _ in terminal] == ["b", "a", "a"]
    assert [length for _, length in terminal] == coarse


def test_a_bar_without_known_times_has_equal_parts_and_no_bar_is_longer_than_its_worker() -> None:
    assert bar_lengths(rows_by_worker(PLANNED)["cuda:0", 0]) == [0.5, 0.5]
    crowded = dataclasses.replace(PLANNED, shares=(1.5, 0.2, 0.5))
    assert bar_lengths(rows_by_worker(crowded)["cuda:0", 0]) == [0.75, 0.25]
