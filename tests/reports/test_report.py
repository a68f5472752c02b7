"""The report of a real run."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ripieno
from ripieno.errors import LibraryError
from ripieno.files import remove_tree
from ripieno.library.bench_records import BenchRecord, keep_bench
from ripieno.library.cost_table import read_cost_table
from ripieno.reports import report
from ripieno.reports.figures import figures
from ripieno.search.built_in_spaces import find_space
from ripieno.search.settings import Settings, resolve_settings
from tests.reports.conftest import EVIL, HARM, Made
from tests.reports.made_run import make_run


@pytest.fixture(scope="module")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(finished_run, run)
    return ripieno.report(run).read_text()


def test_it_needs_no_network(made: Made) -> None:
    page = made.page.partition('<script type="application/json"')[0]
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", page)
    assert addresses
    assert not [a for a in addresses if not a.startswith(("#", "report/", "data:"))]
    assert "<script src" not in page
    assert "<link" not in page
    assert "@import" not in page


def test_its_tags_are_balanced(made: Made) -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "br", "path", "use", "rect", "stop", "input"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            if open_tags and open_tags[-1] == tag:
                open_tags.pop()

    Checker().feed(made.page)
    assert open_tags == []


def test_it_names_every_ensemble_and_its_best_members(page: str, finished_run: Path) -> None:
    library = ripieno.Library(finished_run)
    for ensemble in library.ensembles():
        assert ensemble.name in page
    best = min(library.members(), key=lambda m: m.losses["valid_cross_entropy"])
    assert best.id in page


@dataclass(frozen=True)
class Twice:
    """Files of two reports of one run, with an old picture before the first, and the progress of the first."""

    first: dict[str, bytes]
    second: dict[str, bytes]
    calls: list[tuple[str, int, int]]


OLD = "hyperparameter-gone.svg"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    library = make_run(tmp_path_factory.mktemp("twice") / "run", ("a", "b"), members=6)
    (library.path / "report").mkdir()
    (library.path / "report" / OLD).write_text("<svg/>")
    calls: list[tuple[str, int, int]] = []

    def everything(page: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in [page, *(page.parent / "report").iterdir()]}

    first = everything(report(library, progress=lambda what, done, total: calls.append((what, done, total))))
    return Twice(first, everything(ripieno.report(library)), calls)


def test_the_same_run_gives_the_same_page_and_files(twice: Twice) -> None:
    assert twice.first == twice.second


def test_every_link_leads_to_a_file_and_every_file_is_linked(made: Made) -> None:
    folder = made.path.parent / "report"
    linked = {a.removeprefix("report/") for a in re.findall(r'href="(report/[^"]*)"', made.page)}
    assert linked == {p.name for p in folder.iterdir()}
    assert {p.suffix for p in folder.iterdir()} == {".svg", ".png", ".csv"}


def test_pictures_of_a_former_report_are_removed(twice: Twice) -> None:
    assert OLD not in twice.first
    assert "hyperparameter-width.svg" in twice.first


def test_ids_on_the_page_are_unique(made: Made) -> None:
    ids = re.findall(r'\bid="([^"]+)"', made.page.partition('<script type="application/json"')[0])
    assert len(ids) == len(set(ids))


def test_names_are_text_wherever_they_stand(made: Made) -> None:
    markup, _, rest = made.page.partition('<script type="application/json" id="data">')
    data, _, after = rest.partition("</script>")
    assert after.startswith("\n<script>"), "a class name ended the data"
    assert "<" not in data
    assert json.loads(data)["classes"] == list(EVIL)
    assert "<img" not in markup
    assert "<svg onload" not in markup
    assert f"<script>{HARM}" not in made.page
    for picture in (made.path.parent / "report").glob("*.svg"):
        ElementTree.parse(picture)


def test_a_name_is_no_formula_in_a_spreadsheet(made: Made) -> None:
    with open(made.path.parent / "report" / "confusion.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    classes = {row[1] for row in rows[1:]}
    assert "'=1+1" in classes
    assert not [c for row in rows for c in row if c.startswith("=")]


def test_the_browser_may_run_one_script_and_fetch_nothing(made: Made) -> None:
    script = made.page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in made.page


def test_a_report_of_many_members_and_classes_stays_small(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", [f"class {i}" for i in range(100)], members=60, samples=(100, 150, 300))
    written = ripieno.report(library)
    assert written.stat().st_size < 1_000_000


def test_imported_members_without_costs_have_a_report_too(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", ("a", "b"), members=3)
    remove_tree(tmp_path / "run" / "profiles")
    remove_tree(tmp_path / "run" / "dataset")
    for member in library.members():
        library.update(dataclasses.replace(member, curve=(), format="predictions"))
    page = ripieno.report(library).read_text()
    assert "ripieno measure" in page
    assert "this run has no search" in page


def test_progress_is_reported(twice: Twice) -> None:
    stages = list(dict.fromkeys(what for what, *_ in twice.calls))
    assert stages == ["calibrating members", "explaining the front", "choosing for the paper's figures", "drawing"]
    for stage in stages:
        steps = [(done, total) for what, done, total in twice.calls if what == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1], "it ends"


def test_an_empty_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="ripieno tune DATA"):
        ripieno.report(tmp_path)


def test_more_search_time_only_adds_members_to_choose_from(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(tmp_path / "run")
    found = figures(library, read_cost_table(library, ("seconds",), library.usual_device()), "accuracy")
    assert found is not None
    assert list(found.hours) == sorted(found.hours)
    for line in found.error_by_time.values():
        known = [error is not None for error in line]
        assert known == sorted(known), "once an ensemble fits, one fits ever after"
    methods = {p.method for p in found.points}
    assert methods == {"smobf", "forward"}
    assert all(0 <= p.error <= 1 and p.members >= 1 for p in found.points)


def test_an_allocation_says_what_sets_its_pace_and_what_memory_it_takes(made: Made) -> None:
    shown = made.page.partition('id="plot-allocation-made"')[2].partition("<svg")[0]
    assert "always busy" in shown
    assert "Memory: cpu:0" in shown


def test_what_benches_of_its_deployments_measured_is_in_the_report(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(tmp_path / "run")
    here = shutil.copytree(finished_run.parent / "bundle", tmp_path / "run" / "bundles" / "inside")
    there = ripieno.allocate(library, library.ensembles()[0], devices="cpu", bundle=tmp_path / "there", max_benches=0)
    for number, path in enumerate((here, there.path, there.path)):
        keep_bench(path, BenchRecord(1.7e9, "some-cpu", "thread", 64, 3, 1.0, 4321.0 + number, 0.01, 0.002, 0.005))
    page = ripieno.report(library).read_text()
    assert re.findall(r'<th scope="row">(\w+)</th><td>64</td><td>3</td><td>(\d+)</td>', page) == [
        ("inside", "4321"),
        ("there", "4322"),
        ("there", "4323"),
    ]
    assert "deployment,when,machine" in (tmp_path / "run" / "report" / "benches.csv").read_text()


def test_the_papers_four_figures_are_there(page: str) -> None:
    assert "figures 3 and 4" in page
    assert "figures 5 and 6" in page


def test_the_headline_is_the_best_of_the_table_of_ensembles(tmp_path: Path) -> None:
    library = make_run(tmp_path / "my run", ("a", "b", "c"), members=6)
    losses = {"valid_cross_entropy": 0.0123, "valid_accuracy": 0.91, "valid_macro_f1": 0.8765, "test_accuracy": 0.8642}
    first = library.ids()[0]
    for name, loss, aim in (("B9-swap", 0.0123, "cross-entropy"), ("B9", 0.9, "macro-f1")):
        library.write_ensemble(
            ripieno.Ensemble(
                name, (first,), (1.0,), "swap", {"seconds": 9.0}, {"seconds": 1.0},
                losses | {"valid_cross_entropy": loss}, loss=aim,
            )
        )  # fmt: skip
    settings = Settings(find_space("resnet-tiny"), "random", 3, 9, constraints=("flops<=1G",), metric="valid_accuracy")
    resolve_settings(library.path / "run.json", settings, 1, None)
    page = report(library).read_text()
    assert "The search had constraints: flops&lt;=1000000000." in page
    assert "<b>0.0123</b> best ensemble (B9-swap)" in page
    assert "<b>86.42 %</b> its test accuracy" in page
    table = page.partition('aria-label="Ensembles"')[2].partition("</table>")[0]
    shown = [float(v) for v in re.findall(r"<td>(\d\.\d{4})</td><td>\d+\.\d\d %</td><td>\d", table)]
    rows = re.findall(r'<th scope="row">([^<]*)</th>', table)
    assert {"B9-swap", "B9"} < set(rows), "and the best of the front"
    assert min(shown) == 0.0123
    assert "valid macro-F1" in table, "one was chosen by it"
    assert "87.65 %" in table


def test_the_expected_loss_is_the_headline_and_stands_beside_the_one_that_chose(tmp_path: Path) -> None:
    library = make_run(tmp_path / "run", ("a", "b", "c"), members=6)
    best = ripieno.Ensemble(
        "B9", tuple(library.ids()[:2]), (0.75, 0.25), "smobf-r", {"seconds": 9.0}, {"seconds": 1.0},
        {"valid_cross_entropy": 0.0123}, "weighted", temperatures=(1.5, 0.8), temperature=0.9, calibration="members",
        expected_loss=0.0234, expected_loss_error=0.0056,
    )  # fmt: skip
    library.write_ensemble(best)
    score = dataclasses.replace(best, name="B9-accuracy", loss="accuracy", losses={}, expected_loss=0.03)
    library.write_ensemble(score)
    page = report(library).read_text()
    assert "<b>0.0234 ± 0.0056</b> best ensemble (B9), expected cross-entropy" in page
    assert "<b>0.0123</b> its validation cross-entropy" in page
    table = page.partition('aria-label="Ensembles"')[2].partition("</table>")[0]
    assert "<td>0.0234 ± 0.0056</td>" in table
    assert "<td>97.00 ± 0.56 %</td>" in table
    assert '"expected":["expected cross-entropy","' in page, "of the front"
    with open(library.path / "report" / "ensembles.csv", newline="") as stream:
        row = {row["ensemble"]: row for row in csv.DictReader(stream)}["B9"]
    assert (row["selected_by"], float(row["expected_loss"])) == ("cross-entropy", 0.0234)
    assert (row["calibration"], row["temperatures"], float(row["temperature"])) == ("members", "1.5 0.8", 0.9)
