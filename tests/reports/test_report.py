"""The report of a real run."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ripieno
from ripieno.errors import LibraryError
from ripieno.reports.figures import figures


@pytest.fixture(scope="module")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(finished_run, run)
    return ripieno.report(run).read_text()


def test_it_needs_no_network(page: str) -> None:
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "<script src" not in page


def test_its_tags_are_balanced(page: str) -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "br", "path", "use", "rect", "stop"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            if open_tags and open_tags[-1] == tag:
                open_tags.pop()

    Checker().feed(page)
    assert open_tags == []


def test_it_names_every_ensemble_and_its_best_members(page: str, finished_run: Path) -> None:
    library = ripieno.Library(finished_run)
    for ensemble in library.ensembles():
        assert ensemble.name in page
    best = min(library.members(), key=lambda m: m.losses["valid_cross_entropy"])
    assert best.id in page


def test_the_same_run_gives_the_same_page(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    assert ripieno.report(tmp_path / "run").read_bytes() == ripieno.report(tmp_path / "run").read_bytes()


def test_an_empty_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="ripieno tune DATA"):
        ripieno.report(tmp_path)


def test_more_search_time_only_adds_members_to_choose_from(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(tmp_path / "run")
    costs = {m: p.cost for m, p in library.profiles(library.usual_device()).items()}
    found = figures(library, costs, "accuracy")
    assert found is not None
    assert list(found.hours) == sorted(found.hours)
    for line in found.error_by_time.values():
        known = [error is not None for error in line]
        assert known == sorted(known), "once an ensemble fits, one fits ever after"
    methods = {p.method for p in found.points}
    assert methods == {"smobf", "forward"}
    assert all(0 <= p.error <= 1 and p.members >= 1 for p in found.points)
