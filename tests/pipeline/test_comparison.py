"""`compare`: figures of runs side by side, what differs, and which runs it refuses."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno import files
from ripieno.errors import BrokenFileWarning, LibraryError, RipienoError
from ripieno.library import Library
from ripieno.reports.comparison import comparison_tables
from ripieno.search.algorithms import ALGORITHMS, algorithm_to_plain
from ripieno.types import Ensemble, Front, Member
from tests.pixel_members import fill_library
from tests.reports.made_run import KIND, make_run

CLASSES = ("a", "b", "c")
VERSION1 = Path(__file__).resolve().parents[1] / "version1"
SPACE = {
    "name": "mine",
    "family": "resnet",
    "ranges": {"width": {"kind": "integer", "low": 4, "high": 8, "log": False}},
}
SOURCE = {"source": "/data", "seed": 0, "fingerprint": {"digest": "1f", "size": "1 file of 9 bytes", "stamp": ""}}


def change(library: Library, edit: Callable[[Member], Member]) -> None:
    """Change every member of a run."""
    for member in library.members():
        library.update(edit(member))


def worse(member: Member) -> Member:
    """Return a member with twice the losses, trained for half as long, with other hyperparameters."""
    losses = member.losses | {"valid_cross_entropy": 2 * member.loss}
    configuration = {**member.configuration, "width": 99, "activation": "elu"}
    return dataclasses.replace(member, losses=losses, seconds=member.seconds / 2, configuration=configuration)


def write_settings(library: Library, source: dict[str, Any] = SOURCE, **settings: Any) -> None:
    kept = {"space": SPACE, "algorithm": "hyperband", "trials": None, "epochs": 9, "eta": 3, "seed": 0, "hours": 0.5}
    files.write_json(library.path / "run.json", kept | settings)
    files.write_json(library.dataset_path / "source.json", source)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `pair`."""
    path = tmp_path_factory.mktemp("pair")
    make_run(path / "good" / "run", CLASSES, members=33)
    shutil.copytree(path / "good", path / "bad")
    change(Library(path / "bad" / "run"), worse)
    return path


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Library, Library]:
    """Two runs on the same data, the second one worse."""
    good, bad = (Library(shutil.copytree(made / name, tmp_path / name) / "run") for name in ("good", "bad"))
    return good, bad


def test_the_figures_are_those_of_the_runs(pair: tuple[Library, Library]) -> None:
    found = ripieno.compare(pair)
    assert [run.name for run in found.runs] == ["good", "bad"]
    for run, library in zip(found.runs, pair, strict=True):
        members = library.members()
        best = min(members, key=lambda m: m.loss)
        lowest = {trial: min(m.loss for m in members if m.trial == trial) for trial in range(11)}
        assert (run.best, run.loss, run.score) == (best.id, best.loss, best.losses["valid_accuracy"])
        assert run.top_loss == pytest.approx(np.mean(sorted(lowest.values())[:10]))
        assert (run.members, run.trials, run.failures) == (33, 11, 0)
        profile = library.profiles(KIND)[best.id]
        assert run.cost == pytest.approx(profile.cost)
    assert [run.seconds for run in found.runs] == [11 * 18.0, 11 * 9.0]  # a trial's last member has all its time
    assert (found.loss, found.score, found.cost, found.device) == ("cross_entropy", "accuracy", "seconds", KIND)


def test_the_curve_is_the_lowest_loss_by_seconds_of_training(pair: tuple[Library, Library]) -> None:
    library = pair[0]
    curve = ripieno.compare(pair).runs[0].curve
    spent = {m.id: m.seconds for m in library.members()}
    done, lowest, steps = 0.0, float("inf"), []
    for member in sorted(library.members(), key=lambda m: (m.created, m.trial, m.epoch)):
        before = {3: "e001", 9: "e003"}.get(member.epoch)
        done += spent[member.id] - (spent[f"{member.trial:05d}-{before}"] if before else 0.0)
        if member.loss < lowest:
            lowest = member.loss
            steps.append((done, lowest))
    assert curve[: len(steps)] == tuple(steps)
    assert curve[-1] == (done, lowest)


def test_what_differs_is_shown_and_nothing_else(pair: tuple[Library, Library]) -> None:
    write_settings(pair[0])
    other = {"kind": "integer", "low": 4, "high": 16, "log": True}
    space = {**SPACE, "ranges": {"width": other}, "fixed": {"optimizer": "sgd"}}
    asha = algorithm_to_plain(dataclasses.replace(ALGORITHMS["asha"], step=2.5))  # as today; a name in older versions
    later = {"skip_bad": False, "task": "classification", "kind": "image", "folds": 0, "target": []}  # said today
    write_settings(pair[1], {**SOURCE, **later, "size": 32}, space=space, algorithm=asha, eta=None, hours=0.25)
    found = ripieno.compare(pair)
    assert found.settings == {
        "algorithm": ("hyperband", "asha"),
        "algorithm.brackets": ("all", "one"),
        "algorithm.step": ("3", "2.5"),
        "hours": ("0.5", "0.25"),
        "space.width": ("4 to 8", "4 to 16 in logarithm"),
        "space.optimizer": (None, "sgd"),
        "data.size": ("none", "32"),
    }
    best = [min(library.members(), key=lambda m: m.loss) for library in pair]
    assert found.configurations["width"] == (best[0].configuration["width"], 99)
    assert found.configurations["activation"] == (None, "elu")
    shutil.copytree(pair[0].path, pair[0].path.parent / "again")
    same = ripieno.compare([pair[0], pair[0].path.parent / "again"])
    assert (same.configurations, same.settings) == ({}, {})


def test_runs_that_differ_in_their_seed_alone_have_a_mean_and_a_deviation(
    pair: tuple[Library, Library], tmp_path: Path
) -> None:
    other, imported = (Library(shutil.copytree(pair[1].path, tmp_path / name)) for name in ("other", "imported"))
    for library, seed, algorithm in ((pair[0], 0, "asha"), (pair[1], 1, "asha"), (other, 0, "random")):
        write_settings(library, {**SOURCE, "seed": seed}, seed=seed, algorithm=algorithm)
    found = ripieno.compare([pair[0], other, pair[1], imported])
    assert found.groups == ((0, 2), (1,), (3,))
    (table,) = (table for table in comparison_tables(found) if "standard deviation" in table.title)
    assert table.columns[0] == f"{found.runs[0].name} and 1 more"
    row = {row.label: row for row in table.rows}["lowest cross-entropy"]
    good, bad = found.runs[0].loss, found.runs[2].loss
    assert row.cells[:2] == (f"{(good + bad) / 2:.4f} ± {(bad - good) / 2**0.5:.4f}", f"{bad:.4f}")
    assert row.best == {0}
    assert ripieno.compare([pair[0], other]).groups == ()
    shutil.copytree(other.path, tmp_path / "copy")
    assert ripieno.compare([other, tmp_path / "copy"]).groups == ()


def test_imported_members_are_no_trials_and_took_no_time(tmp_path: Path) -> None:
    labels = np.arange(12) % 2
    runs = []
    for name, sure in (("a", 0.9), ("b", 0.6)):
        rows = np.where(np.eye(2)[labels] > 0, sure, 1 - sure)
        ripieno.import_(
            tmp_path / name, {"one": rows, "two": rows[:, ::-1]}, labels=labels, costs={"one": 2.0, "two": 1.0}
        )
        runs.append(tmp_path / name)
    found = ripieno.compare(runs)
    assert [(run.loss, run.trials, run.top_loss) for run in found.runs] == [
        (pytest.approx(-np.log(0.9)), 0, None), (pytest.approx(-np.log(0.6)), 0, None),
    ]  # fmt: skip
    assert [(run.seconds, run.curve) for run in found.runs] == [(0.0, ()), (0.0, ())]
    assert (found.device, found.fronts) == ("", "members")


# data and tasks


def test_other_data_are_refused_by_the_names_of_both_runs(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path / str(seed), CLASSES, members=3, seed=seed) for seed in (0, 1))
    words = f"{first.path} and {second.path} hold other data"
    with pytest.raises(RipienoError, match=re.escape(f"{words} (unknown; unknown)")):
        ripieno.compare([first, second])
    write_settings(first)
    write_settings(second, {**SOURCE, "fingerprint": {"digest": "2e", "size": "2 files of 8 bytes", "stamp": ""}})
    with pytest.raises(RipienoError, match=re.escape(f"{words} (1 file of 9 bytes, digest 1f; 2 files")):
        ripieno.compare([first, second])


def test_the_same_samples_from_another_source_are_the_same_data(pair: tuple[Library, Library]) -> None:
    write_settings(pair[0])
    write_settings(pair[1], {**SOURCE, "fingerprint": {"digest": "2e", "size": "an array", "stamp": ""}})
    assert ripieno.compare(pair).notes == ()


def test_another_split_of_the_same_source_is_a_note(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", CLASSES, members=3)
    second = make_run(tmp_path / "second", CLASSES, members=3, samples=(80, 40, 120))
    for library in (first, second):
        write_settings(library)
    found = ripieno.compare([first, second])
    assert found.notes == (
        "second has other validation samples than first, which adds to the differences of losses",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("a", "b"), "3 and 2 classes; without the other: c; none"),
        (("a", "c", "b"), "3 and 3 classes in another order"),
        (("a", "b", "x"), "3 and 3 classes; without the other: c; x"),
    ],
)
def test_other_classes_are_another_task(tmp_path: Path, other: tuple[str, ...], words: str) -> None:
    first, second = make_run(tmp_path / "1", CLASSES, members=3), make_run(tmp_path / "2", other, members=3)
    with pytest.raises(RipienoError, match=re.escape(f"{first.path} and {second.path} have different tasks ({words})")):
        ripieno.compare([first, second])


def test_another_kind_of_task_is_refused(tmp_path: Path) -> None:
    fill_library(tmp_path / "masks", members=2)
    make_run(tmp_path / "run", CLASSES, members=3)
    with pytest.raises(RipienoError, match=re.escape("tasks (classification; segmentation)")):
        ripieno.compare([tmp_path / "run", tmp_path / "masks"])


@pytest.mark.parametrize("task", ["multilabel", "regression", "segmentation"])
def test_runs_of_every_task_are_compared(tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "a", tmp_path / "b"]
    targets = rng.integers(0, 2, (20, 3)) if task == "multilabel" else rng.normal(size=(20, 1))
    for path in paths:
        if task == "segmentation":
            fill_library(path)
        else:
            given = {"net": np.clip(targets + rng.normal(0, 0.2, targets.shape), 0.01, 0.99)}
            ripieno.import_(path, given, labels=targets, task=task, costs={"net": 1.0})
    found = ripieno.compare(paths, html=tmp_path / "page.html", csv=tmp_path / "table.csv")
    members = [min(Library(path).members(), key=lambda m: m.loss) for path in paths]
    assert [run.loss for run in found.runs] == [m.loss for m in members]
    assert [run.score for run in found.runs] == [m.losses[f"valid_{found.score}"] for m in members]


# costs, fronts, ensembles


def an_ensemble(library: Library, name: str, members: list[str], budget: float, loss: float) -> Ensemble:
    profiles = library.profiles(KIND)
    cost = {"seconds": sum(profiles[m].cost for m in members)}
    weights = (1 / len(members),) * len(members)
    losses = {"valid_cross_entropy": loss, "test_accuracy": 0.5 + budget / 100}
    return Ensemble(name, tuple(members), weights, "smobf", {"seconds": budget}, cost, losses)


def test_the_best_ensemble_within_each_budget_is_shown(pair: tuple[Library, Library]) -> None:
    ids = sorted(pair[0].profiles(KIND), key=lambda m: pair[0].profiles(KIND)[m].cost)
    cheap, dear = ids[0], ids[-1]
    low, high = (pair[0].profiles(KIND)[m].cost for m in (cheap, dear))
    pair[0].write_ensemble(an_ensemble(pair[0], "small", [cheap], low, 0.9))
    pair[0].write_ensemble(an_ensemble(pair[0], "large", [cheap, dear], low + high, 0.8))
    pair[1].write_ensemble(an_ensemble(pair[1], "late", [dear], high, 0.7))
    pair[1].write_front(Front("seconds", "smobf", (an_ensemble(pair[1], "front-00", [dear], high, 0.6),)))
    found = ripieno.compare(pair)
    assert found.budgets == pytest.approx([low, high, low + high])
    names = [[ensemble and ensemble.name for ensemble in run.ensembles] for run in found.runs]
    assert names == [["small", "small", "large"], [None, "front-00", "front-00"]]
    assert found.runs[0].ensembles[2] is not None
    assert found.runs[0].ensembles[2].test_score == pytest.approx(0.5 + (low + high) / 100)


def test_hypervolumes_are_of_kept_fronts_if_every_run_has_one(pair: tuple[Library, Library]) -> None:
    single = ripieno.compare(pair)
    assert single.fronts == "members"
    assert single.reference is not None
    highest = max(loss for run in single.runs for _, loss in run.front)
    assert single.reference[1] == pytest.approx(1.1 * highest)
    good, bad = (run.hypervolume for run in single.runs)
    assert good is not None
    assert bad is not None
    assert good > bad > 0
    ids = sorted(pair[0].profiles(KIND))[:2]
    points = [an_ensemble(pair[0], f"front-{i:02d}", ids[: i + 1], 1.0, 0.9 - 0.1 * i) for i in range(2)]
    front = Front("seconds", "smobf", tuple(points))
    pair[0].write_front(front)
    half = ripieno.compare(pair)
    assert (half.fronts, half.reference) == ("members", single.reference)
    assert half.notes == (
        "fronts are of single members, because bad has no front of ensembles: "
        f"`ripieno front {pair[1].path}` makes it",
    )  # fmt: skip
    pair[1].write_front(front)
    both = ripieno.compare(pair)
    assert (both.fronts, both.notes) == ("ensembles", ())
    assert [loss for _, loss in both.runs[0].front] == [0.9, 0.8]
    assert [cost for cost, _ in both.runs[0].front] == pytest.approx([e.cost["seconds"] for e in points])
    assert both.runs[0].hypervolume == both.runs[1].hypervolume


def test_a_front_with_members_that_are_gone_does_not_count(pair: tuple[Library, Library]) -> None:
    for library in pair:
        library.write_front(Front("seconds", "smobf", (an_ensemble(library, "front-00", ["00000-e001"], 1.0, 0.9),)))
    pair[0].write_ensemble(an_ensemble(pair[0], "B1", ["00000-e001"], 1.0, 0.9))
    pair[0].remove("00000-e001")
    found = ripieno.compare(pair)
    assert (found.fronts, found.runs[0].ensembles) == ("members", (None,))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("device", "other-cpu", "on different devices and are not compared: made-cpu (good), other-cpu (bad)"),
        ("backend", "openvino", "with different backends and are not compared: onnx (good), openvino (bad)"),
    ],
)  # fmt: skip
def test_seconds_of_other_devices_and_backends_are_not_compared(
    pair: tuple[Library, Library], field: str, value: str, words: str
) -> None:
    profiles = [dataclasses.replace(p, **{field: value}) for p in pair[1].profiles(KIND).values()]
    (pair[1].path / "profiles" / f"{KIND}.json").unlink()
    pair[1].write_profiles(profiles[0].device, profiles)
    found = ripieno.compare(pair)
    assert found.notes == (f"costs were measured {words}",)
    assert (found.cost, found.reference, found.budgets) == ("", None, ())
    assert {run.cost for run in found.runs} == {None}


def test_costs_on_a_device_that_all_were_measured_on_are_compared(pair: tuple[Library, Library]) -> None:
    profiles = list(pair[1].profiles(KIND).values())
    dearer = [
        dataclasses.replace(p, points=tuple(dataclasses.replace(q, seconds=9 * q.seconds) for q in p.points))
        for p in profiles
    ]
    pair[1].write_profiles("a-cpu", [dataclasses.replace(p, device="a-cpu") for p in dearer])  # usual: the first name
    assert pair[1].usual_device() == "a-cpu"
    pair[0].write_profiles("a-cpu", [dataclasses.replace(profiles[0], device="a-cpu")])
    found = ripieno.compare(pair)
    assert found.device == KIND
    assert found.runs[1].cost == pytest.approx(pair[1].profiles(KIND)[found.runs[1].best].cost)


def test_a_run_without_costs_has_none_and_the_others_have_no_hypervolume(pair: tuple[Library, Library]) -> None:
    (pair[1].path / "profiles" / f"{KIND}.json").unlink()
    found = ripieno.compare(pair)
    assert [run.cost is None for run in found.runs] == [False, True]
    assert [run.hypervolume for run in found.runs] == [None, None]


# input that cannot be compared, and files


def test_input_that_is_no_comparison_is_refused_in_one_line(pair: tuple[Library, Library], tmp_path: Path) -> None:
    good, bad = (library.path for library in pair)
    (tmp_path / "link").symlink_to(good)
    (tmp_path / "empty" / "library").mkdir(parents=True)
    cases: list[tuple[list[Path], str]] = [
        ([], "needs two runs or more: none is given"),
        ([good], f"needs two runs or more: only {good} is given"),
        ([good, tmp_path / "nowhere"], f"{tmp_path / 'nowhere'} is not a run"),
        ([good, bad, tmp_path / "link"], f"{good} and {tmp_path / 'link'} are the same run"),
        ([good, tmp_path / "empty"], f"{tmp_path / 'empty'} has no members"),
    ]
    for runs, words in cases:
        with pytest.raises(RipienoError, match=re.escape(words)) as raised:
            ripieno.compare(runs, csv=tmp_path / "table.csv", html=tmp_path / "page.html")
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.csv")) + list(tmp_path.glob("*.html"))


def test_no_file_is_written_where_one_cannot_be(pair: tuple[Library, Library], tmp_path: Path) -> None:
    for page in (tmp_path, tmp_path / "table.csv", pair[0].path / "run.log" / "page.html"):
        (pair[0].path / "run.log").write_text("")
        with pytest.raises(RipienoError):
            ripieno.compare(pair, csv=tmp_path / "table.csv", html=page)
        assert not (tmp_path / "table.csv").exists()


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_a_search_that_is_running_is_read_and_not_touched(pair: tuple[Library, Library], tmp_path: Path) -> None:
    library = pair[0]
    event = {"event": "arrived", "trial": 3, "stop": 1, "failure": {"reason": "crash", "message": "killed"}}
    line = json.dumps({"op_code": 2, "user_attr": {"event:000001": event}}, separators=(",", ":"))
    library.journal_path.write_text(line + "\n" + line[:40])
    (library.member_path("00009-e001")).mkdir(exist_ok=True)
    (library.member_path("99999-e001")).mkdir()  # a worker is writing it
    before = contents(tmp_path)
    with files.locked(library.path / "lock", "a search"):
        found = ripieno.compare(pair)
    assert (found.runs[0].members, found.runs[0].failures) == (33, 1)
    after = contents(tmp_path)
    after.pop("good/run/lock")
    assert after == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folders_that_cannot_be_written_are_compared(pair: tuple[Library, Library]) -> None:
    for library in pair:
        library.path.chmod(0o500)
    try:
        assert len(ripieno.compare(pair).runs) == 2
    finally:
        for library in pair:
            library.path.chmod(0o700)


def test_a_broken_member_is_left_out_with_a_warning(pair: tuple[Library, Library]) -> None:
    (pair[0].member_path("00000-e001") / "member.json").write_text("{")
    with pytest.warns(BrokenFileWarning, match="00000-e001"):
        assert ripieno.compare(pair).runs[0].members == 32


def test_a_broken_record_of_the_search_is_named(pair: tuple[Library, Library]) -> None:
    (pair[1].path / "run.json").write_text("{")
    with pytest.raises(LibraryError, match=r"run\.json"):
        ripieno.compare(pair)


def test_runs_of_version_1_are_compared(tmp_path: Path) -> None:
    shutil.copytree(VERSION1 / "run", tmp_path / "copy")
    found = ripieno.compare([VERSION1 / "run", tmp_path / "copy"])
    assert found.runs[0].loss == found.runs[1].loss
    assert found.settings == {}
    assert found.runs[0].hypervolume is not None


def test_a_resumed_search_is_compared_with_its_former_state(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    ripieno.tune(run=tmp_path / "run", trials=5, pool="inline")
    found = ripieno.compare([finished_run, tmp_path / "run"])
    assert [run.trials for run in found.runs] == [4, 5]
    assert found.runs[1].seconds > found.runs[0].seconds
    assert found.settings == {"trials": ("4", "5")}


# files


class Tags(HTMLParser):
    """Open tags of a page, and the addresses in it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "path", "use", "rect", "stop"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_one_file_without_scripts(tmp_path: Path) -> None:
    names = ["<img src=x onerror=harm()>", "a & b", '"><svg onload=harm()>']
    runs = [make_run(tmp_path / name, CLASSES, members=9) for name in names]
    for number, library in enumerate(runs):
        write_settings(library, algorithm=f"<script>{number}")
        if number:
            change(library, worse)
    found = ripieno.compare(runs, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "img", "link", "iframe"} & set(tags.seen)
    assert all(address.startswith("#") for address in tags.addresses)
    assert "onload=harm()>" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count("<svg ") == 2
    assert f"{found.runs[0].loss:.4f}" in page
    assert "a &amp; b" in page


def test_a_row_of_the_table_is_a_run(pair: tuple[Library, Library], tmp_path: Path) -> None:
    write_settings(pair[0])
    write_settings(pair[1], algorithm="=1+1")
    found = ripieno.compare(pair, csv=tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == ["good", "bad"]
    assert [float(row["cross_entropy"]) for row in rows] == [run.loss for run in found.runs]
    assert [float(row["hypervolume"]) for row in rows] == [run.hypervolume for run in found.runs]
    assert [row["setting.algorithm"] for row in rows] == ["hyperband", "'=1+1"]
    assert [row["best.activation"] for row in rows] == ["", "elu"]
