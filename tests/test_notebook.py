"""HTML views in a notebook: complete, escaped, without a script, in light and dark."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ripieno
from ripieno.notebook import ROWS, register
from ripieno.reports.allocation_svg import WORKERS
from ripieno.types import Allocation, Device, Ensemble, Front, Placement
from tests.reports.made_run import make_run

register()

EVIL = "<img src=x onerror=harm()>&\"'"
MEMBERS = ("m0", EVIL)
ENSEMBLE = Ensemble(
    EVIL,
    MEMBERS,
    (0.75, 0.25),
    "smobf",
    {"seconds": 5.0},
    {"seconds": 4.0},
    {"valid_cross_entropy": 0.5, "test_accuracy": 0.875},
)
DEARER = dataclasses.replace(ENSEMBLE, name="B9", cost={"seconds": 8.0}, losses={"valid_cross_entropy": 0.25})
FRONT = Front("seconds", "smobf", (ENSEMBLE, DEARER))
DEVICES = (Device("cpu:0", EVIL, 1 << 30), Device("cuda:0", "h100", 1 << 30))
PLACES = (Placement("m0", "cpu:0", 8), Placement(EVIL, "cpu:0", 8), Placement("m0", "cuda:0", 32))
ALLOCATION = Allocation("a", EVIL, DEVICES, PLACES, throughput=1234.0, shares=(0.5, 0.25, 0.9))


class Balance(HTMLParser):
    """Parser that fails on an unclosed tag, or on a tag outside ripieno's tables and pictures."""

    KNOWN = frozenset(
        {"div", "b", "table", "thead", "tbody", "tr", "th", "td"} | {"svg", "g", "title", "text", "circle", "rect"}
    )  # fmt: skip
    EMPTY = frozenset({"rect", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.KNOWN, tag
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.EMPTY, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def shown(word: object) -> str:
    page: str = word._repr_html_()  # type: ignore[attr-defined]
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    page_alone = page.replace('fill="#fff" pointer-events', "")  # labels on the coloured bars
    assert not re.search(r"#fff|#000|white|black|background:(?!none)", page_alone), "a colour of paper or ink"
    return page


def test_an_ensemble_shows_its_figures_and_members() -> None:
    page = shown(ENSEMBLE)
    for text in ("2 members by smobf", "seconds 4 of 5", "valid cross-entropy 0.5000", "87.50 %", "0.75"):
        assert text in page


def test_the_expected_loss_is_shown_where_there_is_one(tmp_path: Path) -> None:
    known = dataclasses.replace(ENSEMBLE, expected_loss=0.6123, expected_loss_error=0.0321)
    score = dataclasses.replace(known, name="B5", loss="accuracy", expected_loss=0.1)
    assert "expected cross-entropy 0.6123 ± 0.0321 · valid cross-entropy 0.5000" in shown(known)
    assert "expected accuracy 90.00 ± 3.21 %" in shown(score)
    assert "expected" not in shown(ENSEMBLE)
    page = shown(Front("seconds", "smobf-r", (known, score, ENSEMBLE)))
    assert re.findall(r">([^<]* ± [^<]*)<", page) == ["0.6123 ± 0.0321", "90.00 ± 3.21 %"]
    library = make_run(tmp_path / "run", ("a", "b"), members=3)
    library.write_ensemble(score)
    assert "90.00 ± 3.21 %" in shown(library)


def test_a_front_shows_its_stairs_and_ensembles() -> None:
    page = shown(FRONT)
    assert page.count("<circle") == 2
    assert "0.2500" in page
    shown(Front("seconds", "smobf", (ENSEMBLE,)))
    shown(Front("seconds", "smobf", ()))


def test_an_allocation_shows_the_members_of_each_worker_and_their_time() -> None:
    page = shown(ALLOCATION)
    assert "1,234 samples/s measured" in page
    assert "m0: 50.0% of the time, batches of 8" in page
    widths = [float(w) for w in re.findall(r'<rect x="[\d.]+" y="\d+" width="([\d.]+)"[^/]*><title>', page)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    many = tuple(Placement(f"m{i}", "cpu:0", 8, i) for i in range(WORKERS + 5))
    assert "and 5 more workers" in shown(Allocation("a", "e", DEVICES, many))


def test_a_library_shows_its_best_members_and_its_ensembles(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", ("a", "b"), members=18)
    library.write_ensemble(dataclasses.replace(ENSEMBLE, name="B5"))
    page = shown(library)
    best = min(library.members(), key=lambda m: m.losses["valid_cross_entropy"])
    assert best.id in page
    assert f"and {18 - ROWS} more" in page
    assert "B5" in page
    assert "made-cpu" in page


def test_an_empty_library_shows_itself_too(tmp_path: Path) -> None:
    assert "0 members" in shown(ripieno.Library(tmp_path / EVIL.replace("/", "")))
