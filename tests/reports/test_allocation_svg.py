from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import msgspec
import pytest

from ripieno.allocation.explain import DeviceUse, Explanation, PlacementReport
from ripieno.reports.allocation_svg import LEFT, WIDTH, allocation_svg

PLACEMENTS = (
    PlacementReport("a<b", "cuda:0", 0, 8, 20, 0.1, 80.0, 0.75),
    PlacementReport("c", "cuda:0", 0, 32, 30, 0.1, 80.0, 0.25),
    PlacementReport("c", "cpu:0", 0, 1, 30, 0.1, 8.0, 0.5),
    PlacementReport("c", "cpu:0", 1, 1, 30, 0.1, 8.0, 0.5),
)
DEVICES = (DeviceUse("cuda:0", 60, 40, 1.0, "v100", 10), DeviceUse("cpu:0", 60, 40, 0.5, "cpu-2-cores"))
FOUND = Explanation(PLACEMENTS, DEVICES, 80.0, 100.0, "cuda:0 limits the throughput.", name="B20")
SVG = "{http://www.w3.org/2000/svg}"


def rectangles(svg: str) -> list[tuple[float, float, str]]:
    return [
        (float(r.get("width", 0)), float(r.get("height", 0)), r.findtext(f"{SVG}title") or "")
        for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")
    ]


def test_segments_are_as_long_as_what_they_show() -> None:
    by_tooltip = {tooltip: width for width, _, tooltip in rectangles(allocation_svg(FOUND))}
    assert by_tooltip["a<b: 20 bytes"] == pytest.approx(0.2 * WIDTH)
    assert by_tooltip["runtime: 10 bytes"] == pytest.approx(0.1 * WIDTH)
    assert by_tooltip["a<b: 75.0% of the time, batches of 8"] == pytest.approx(0.75 * WIDTH)


def test_each_worker_has_a_bar_of_time_and_the_limit_is_said() -> None:
    svg = allocation_svg(FOUND)
    texts = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert [t for t in texts if t and t.startswith("time")] == ["time", "time, worker 0", "time, worker 1"]
    assert "B20: 80 samples/s predicted, 20.0% below the bound" in texts
    assert "cuda:0 limits the throughput." in texts
    assert "60 bytes of 100 bytes, 40 bytes left" in texts


def test_measured_shares_get_a_bar_of_their_own() -> None:
    assert not any("measured" in tooltip for _, _, tooltip in rectangles(allocation_svg(FOUND)))
    first = dataclasses.replace(PLACEMENTS[0], measured=0.9)
    benched = msgspec.structs.replace(FOUND, placements=(first, *PLACEMENTS[1:]))
    thin = [(w, h) for w, h, tooltip in rectangles(allocation_svg(benched)) if tooltip == "a<b: 90.0% measured"]
    assert thin == [(pytest.approx(0.9 * WIDTH), 4)]


def test_nothing_is_drawn_past_the_end_of_a_bar() -> None:
    over = msgspec.structs.replace(FOUND, placements=tuple(dataclasses.replace(s, share=0.9) for s in PLACEMENTS))
    svg = allocation_svg(over)
    assert all(
        float(r.get("x", 0)) + float(r.get("width", 0)) <= LEFT + WIDTH + 0.1
        for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")
    )
