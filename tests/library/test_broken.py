"""Broken files of a run: skipped and named in one warning, never removed, never overwritten; the rest is used."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.errors import BrokenFileWarning, LibraryError
from ripieno.library import Library
from ripieno.library.bench_records import BenchRecord, benches_of, keep_bench
from ripieno.library.eviction import enforce_quota
from ripieno.types import (
    Allocation,
    BatchProfile,
    Cascade,
    Device,
    Ensemble,
    Front,
    Input,
    Job,
    Member,
    Placement,
    Profile,
    classification,
)

LABELS = np.array([0, 1, 1, 0])
NAMES = ("ann", "bob", "cid", "dan", "eve")
MEMBER = Member(
    "bob",
    1,
    3,
    "resnet",
    {"width": 8},
    Input((8, 8, 3)),
    classification(("a", "b")),
    {"valid_cross_entropy": 0.7},
    9,
    2.5,
)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "run")
    for number, name in enumerate(NAMES):
        answers = np.random.default_rng(number).dirichlet([1, 1], 4).astype(np.float32)
        library.add(dataclasses.replace(MEMBER, id=name), answers, LABELS, b"weights")
    return library


def edited(name: str, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return edit


def cut(name: str, share: float) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return cut


def array(name: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, np.zeros(shape, np.float32))


def folder_for_file(folder: Path) -> None:
    (folder / "member.json").unlink()
    (folder / "member.json").mkdir()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (cut("member.json", 0), "member.json cannot be read"),
    "half": (cut("member.json", 0.5), "member.json cannot be read"),
    "a list": (lambda folder: (folder / "member.json").write_text("[1]"), 'no "version"'),
    "of the future": (edited("member.json", version=99), "version 99"),
    "a field gone": (edited("member.json", losses=None), "losses"),
    "a loss gone": (edited("member.json", losses={}), "no valid_cross_entropy"),
    "a loss that is no number": (edited("member.json", losses={"valid_cross_entropy": "low"}), "losses"),
    "another's": (edited("member.json", id="zoe"), "is of member 'zoe', not of 'bob'"),
    "a folder": (folder_for_file, "Is a directory"),
    "no predictions": (lambda folder: (folder / "valid.npy").unlink(), "valid.npy does not exist"),
    "empty predictions": (cut("valid.npy", 0), "valid.npy is not a readable .npy file"),
    "half predictions": (cut("valid.npy", 0.9), "valid.npy is not a readable .npy file"),
    "predictions of fewer samples": (array("valid.npy", (3, 2)), "valid.npy has shape (3, 2), not (4, 2)"),
    "predictions of more classes": (array("valid.npy", (4, 3)), "valid.npy has shape (4, 3), not (4, 2)"),
    "predictions without an axis": (array("valid.npy", (4,)), "valid.npy has shape (4,), not (4, 2)"),
    "half of the true class": (cut("truth.npy", 0.9), "truth.npy is not a readable .npy file"),
    "true class of fewer samples": (array("truth.npy", (3,)), "truth.npy has shape (3,), not (4,)"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("spoil", "reason"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_member_is_named_and_left_out_and_nothing_of_it_changes(
    library: Library, spoil: Callable[[Path], object], reason: str
) -> None:
    assert len(library) == 5
    spoil(library.path / "library" / "bob")
    before = contents(library.path)
    with pytest.warns(BrokenFileWarning, match="skipped 1 of the members of") as caught:
        assert [m.id for m in library.members()] == ["ann", "cid", "dan", "eve"]
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert str(library.path / "library" / "bob") in str(caught[0].message)
    with pytest.warns(BrokenFileWarning):
        assert library.ids() == ["ann", "cid", "dan", "eve"]
    with pytest.warns(BrokenFileWarning):
        assert len(Library(library.path)) == 4
    assert contents(library.path) == before


def test_many_broken_members_are_one_warning_that_counts_them(library: Library) -> None:
    for name in NAMES[:4]:
        (library.path / "library" / name / "member.json").write_bytes(b"")
    with pytest.warns(BrokenFileWarning) as caught:
        assert library.ids() == ["eve"]
    (only,) = caught
    assert "skipped 4 of the members" in str(only.message)
    assert "; and 1 more; " in str(only.message)


def test_a_repaired_member_is_read_again(library: Library) -> None:
    path = library.path / "library" / "bob" / "member.json"
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.warns(BrokenFileWarning):
        library.ids()
    path.write_bytes(whole)
    assert library.ids() == list(NAMES)


def test_what_is_no_member_is_passed_over_without_a_word(library: Library) -> None:
    (library.path / "library" / "empty").mkdir()
    (library.path / "library" / "member.json").touch()
    shutil.copytree(library.path / "library" / "bob", library.path / "library" / ".bob-before")
    assert library.ids() == list(NAMES)


def test_a_search_makes_a_broken_member_again_when_its_job_has_no_result(library: Library) -> None:
    job = Job(1, {"width": 8}, 0, 3)
    library.add(dataclasses.replace(MEMBER, id=job.member), np.full((4, 2), 0.5, np.float32), LABELS, b"weights")
    assert library.find_job_member(job) is not None
    (library.path / "library" / job.member / "member.json").write_bytes(b"")
    with pytest.warns(BrokenFileWarning):
        assert library.find_job_member(job) is None


# data stored in addition to members

POINT = BatchProfile(8, 0.1, 0.0, 100)
ENSEMBLE = Ensemble("B5", ("ann", "bob"), (0.5, 0.5), "smobf", {"seconds": 5.0}, {"seconds": 4.0}, {})
ALLOCATION = Allocation("B5", "B5", (Device("cpu:0", "cpu", 1),), (Placement("ann", "cpu:0", 8),))
FRONT = Front("seconds", "smobf", (ENSEMBLE,))
CASCADE = Cascade(("ann", "bob"), 0.5)
BENCH = BenchRecord(0.0, "cpu", "threads", 8, 2, 1.0, 10.0, 0.0, 0.1, 0.2)


@pytest.fixture
def kept(library: Library) -> Library:
    library.write_profiles("cpu", [Profile(name, "cpu", "onnx", (POINT,)) for name in NAMES])
    library.write_profiles("gpu", [Profile("ann", "gpu", "onnx", (POINT,))])
    for name in ("B5", "B9"):
        library.write_ensemble(dataclasses.replace(ENSEMBLE, name=name))
        library.write_allocation(dataclasses.replace(ALLOCATION, name=name))
    library.write_front(FRONT)
    library.write_cascade("B5", CASCADE)
    keep_bench(library.path / "bundles" / "B5", BENCH)
    return library


KEPT: dict[str, tuple[str, Callable[[Library], list[Any]], Callable[[Library], Any], list[Any]]] = {
    # file; read function, one item less without the file; write function; the items read afterwards
    "profiles": (
        "profiles/cpu.json",
        lambda run: sorted(run.profiles("cpu")),
        lambda run: run.write_profiles("cpu", [Profile("bob", "cpu", "onnx", (POINT,))]),
        ["bob"],
    ),
    "ensemble": (
        "ensembles/B5.json",
        lambda run: sorted(e.name for e in run.ensembles()),
        lambda run: run.write_ensemble(ENSEMBLE),
        ["B5", "B9"],
    ),
    "allocation": (
        "allocations/B5.json",
        lambda run: [a.name for a in run.allocations()],
        lambda run: run.write_allocation(ALLOCATION),
        ["B5", "B9"],
    ),
    "front": (
        "front.json",
        lambda run: [run.front()] if run.front() else [],
        lambda run: run.write_front(FRONT),
        [FRONT],
    ),
    "cascade": (
        "cascades/B5.json",
        lambda run: [run.cascade("B5")] if run.cascade("B5") else [],
        lambda run: run.write_cascade("B5", CASCADE),
        [CASCADE],
    ),
    "benches": (
        "bundles/B5/bench.json",
        lambda run: benches_of(run.path / "bundles" / "B5"),
        lambda run: keep_bench(run.path / "bundles" / "B5", BENCH),
        [BENCH],
    ),
}
SPOILT = [
    b"",
    b'{"version": 1}',
    b'{"version": 99}',
    b'{"version": 1, "items": 3, "name": 3, "ensembles": 3, "order": 3}',
]


@pytest.mark.parametrize("spoilt", SPOILT, ids=["empty", "no fields", "of the future", "wrong types"])
@pytest.mark.parametrize("what", KEPT)
def test_a_broken_file_is_left_out_and_what_replaces_it_keeps_it_under_another_name(
    kept: Library, what: str, spoilt: bytes
) -> None:
    name, read, write, afterwards = KEPT[what]
    path, whole = kept.path / name, read(kept)
    path.write_bytes(spoilt)
    with pytest.warns(BrokenFileWarning, match=f"skipped 1 of .*{path}"):
        left = read(kept)
    assert len(left) < len(whole)
    assert path.read_bytes() == spoilt
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenFileWarning)
        write(kept)
    assert read(kept) == afterwards
    assert path.with_name(path.name + ".broken").read_bytes() == spoilt


@pytest.mark.parametrize(
    "points",
    [[], [{"batch_size": 0, "seconds": 1.0, "spread": 0.0, "bytes": 1}],
     [{"batch_size": 8, "seconds": None, "spread": 0.0, "bytes": 1}],
     [{"batch_size": 8, "seconds": -1.0, "spread": 0.0, "bytes": 1}], "none"],
)  # fmt: skip
def test_a_broken_profile_does_not_take_those_of_other_members_with_it(kept: Library, points: object) -> None:
    path = kept.path / "profiles" / "cpu.json"
    fields = json.loads(path.read_text())
    fields["items"][1]["points"] = points
    path.write_text(json.dumps(fields))
    spoilt = path.read_bytes()
    with pytest.warns(BrokenFileWarning, match=r"cpu\.json item 1: "):
        assert sorted(kept.profiles("cpu")) == ["ann", "cid", "dan", "eve"]
    with pytest.warns(BrokenFileWarning):
        kept.write_profiles("cpu", [Profile("bob", "cpu", "onnx", (POINT,))])
    assert sorted(kept.profiles("cpu")) == list(NAMES)
    assert path.with_name("cpu.json.broken").read_bytes() == spoilt


@pytest.mark.parametrize(("folder", "reason"), [("ensembles", "select"), ("allocations", "allocate")])
def test_one_that_is_asked_for_by_name_is_refused_with_what_to_do(kept: Library, folder: str, reason: str) -> None:
    (kept.path / folder / "B5.json").write_bytes(b"")
    with pytest.raises(LibraryError, match=rf"B5\.json cannot be read: .*: restore it from a copy, or {reason} the"):
        (kept.ensemble if folder == "ensembles" else kept.allocation)("B5")


def test_an_ensemble_under_another_name_and_one_without_its_weights_are_left_out(kept: Library) -> None:
    shutil.copy(kept.path / "ensembles" / "B5.json", kept.path / "ensembles" / "copy.json")
    edited("B9.json", weights=[1.0])(kept.path / "ensembles")
    with pytest.warns(BrokenFileWarning, match="skipped 2 of the ensembles") as caught:
        assert [e.name for e in kept.ensembles()] == ["B5"]
    assert "is of 'B5', not of 'copy'" in str(caught[0].message)
    assert "2 members and 1 weights" in str(caught[0].message)


@pytest.mark.parametrize("name", ["ensembles/B9.json", "front.json"])
def test_nothing_is_evicted_while_nobody_knows_what_is_in_use(kept: Library, name: str) -> None:
    (kept.path / name).write_bytes(b"")
    with pytest.raises(LibraryError, match="cannot determine the members in use"):
        enforce_quota(kept, 1)
    assert len(kept) == 5


def test_broken_test_predictions_are_as_none(library: Library) -> None:
    library.write_predictions("bob", "test", np.full((4, 2), 0.5, np.float32), LABELS)
    assert library.has_predictions("bob", "test")
    (library.path / "library" / "bob" / "test.npy").write_bytes(b"")
    with pytest.warns(BrokenFileWarning, match=r"test\.npy"):
        assert not library.has_predictions("bob", "test")
