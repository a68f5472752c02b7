from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.library import Library, read_bundle, write_bundle
from ripieno.library.bench_records import BenchRecord, benches_of, keep_bench
from ripieno.library.bundle import model_path
from ripieno.types import Allocation, Device, Ensemble, Input, Member, Placement, classification
from tests.server.stand_in import write_small_bundle

LABELS = np.array([0, 1, 1])
ENSEMBLE = Ensemble("B5", ("m0", "m1"), (0.5, 0.5), "smobf", {"seconds": 5.0}, {"seconds": 4.0}, {})
DEVICE = Device("cpu:0", "cpu-x", 10)
ALLOCATION = Allocation("a", "B5", (DEVICE,), tuple(Placement(m, "cpu:0", 8) for m in ENSEMBLE.members))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "run")
    for name in ("m0", "m1"):
        member = Member(
            name,
            0,
            1,
            "onnx",
            {},
            Input((8, 8, 3)),
            classification(("a", "b")),
            {"valid_cross_entropy": 0.7},
            1,
            0.0,
            format="onnx",
        )
        library.add(member, np.full((3, 2), 0.5, np.float32), LABELS, name.encode())
    return library


def test_a_bundle_is_read_back_from_wherever_it_was_copied_to(library: Library, tmp_path: Path) -> None:
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    shutil.rmtree(library.path)
    shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    bundle = read_bundle(tmp_path / "elsewhere")
    assert (bundle.ensemble, bundle.allocation, bundle.classes) == (ENSEMBLE, ALLOCATION, ("a", "b"))
    assert [model_path(bundle, m).read_bytes() for m in ENSEMBLE.members] == [b"m0", b"m1"]


def test_a_bundle_may_be_written_over_a_bundle_but_nothing_else(library: Library, tmp_path: Path) -> None:
    for _ in range(2):
        write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(LibraryError, match="holds no bundle; choose another folder"):
        write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "mine")


def test_a_bundle_is_not_written_where_a_file_is(library: Library, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for target in (tmp_path / "letter.txt", tmp_path / "letter.txt" / "bundle"):
        with pytest.raises(LibraryError, match=r"letter\.txt is a file; choose another folder"):
            write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", target)


def test_a_bundle_over_another_has_none_of_its_benches(library: Library, tmp_path: Path) -> None:
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    keep_bench(tmp_path / "bundle", BenchRecord(1.7e9, "some-cpu", "thread", 64, 3, 1.0, 4321.0, 0.01, 0.002, 0.005))
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    assert benches_of(tmp_path / "bundle") == []


def test_members_that_cannot_answer_together_are_refused(library: Library, tmp_path: Path) -> None:
    library.update(dataclasses.replace(library.member("m1"), task=classification(("a", "c"))))
    with pytest.raises(LibraryError, match="m1 and m0 differ in input or task"):
        write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_member_without_the_backends_file_is_named(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"m0 has no weights\.safetensors"):
        write_bundle(library, ENSEMBLE, ALLOCATION, "torch", tmp_path / "bundle")


def test_a_bundle_that_lost_a_file_is_named(library: Library, tmp_path: Path) -> None:
    bundle = write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    model_path(bundle, "m1").unlink()
    with pytest.raises(LibraryError, match=r"model\.onnx is missing"):
        read_bundle(tmp_path / "bundle")


def test_a_folder_without_a_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="ripieno allocate"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ensemble": dataclasses.replace(ENSEMBLE, members=(), weights=())}, "has no members"),
        ({"ensemble": dataclasses.replace(ENSEMBLE, weights=(1.0,))}, "a different number of weights than of members"),
        ({"ensemble": dataclasses.replace(ENSEMBLE, temperatures=(1.0,))}, "a different number of temperatures than"),
        ({"members": ()}, "does not describe all members"),
        ({"allocation": dataclasses.replace(ALLOCATION, placements=())}, "does not place all members"),
        ({"allocation": dataclasses.replace(ALLOCATION, devices=())}, "devices that it does not describe"),
        ({"task": classification(("a", "b", "c"))}, "another input or another task"),
        ({"input": Input((8, 8, 1))}, "another input or another task"),
    ],
)
def test_a_bundle_whose_parts_do_not_belong_together_is_refused(
    library: Library, tmp_path: Path, changed: dict[str, object], reason: str
) -> None:
    bundle = write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    files.write_json(tmp_path / "bundle" / "bundle.json", dataclasses.replace(bundle, path=Path(), **changed))
    with pytest.raises(
        LibraryError, match=f"bundle.json is inconsistent: .*{reason}.*; copy the whole bundle again"
    ) as caught:
        read_bundle(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": {"dtype": "magic"}}, "its input is of 'magic', not uint8 or float32"),
        ({"input": {"dtype": "object"}}, "its input is of 'object'"),
        ({"input": {"shape": [-1, 8, 8]}}, "which holds no sample"),
        ({"input": {"shape": []}}, "which holds no sample"),
        ({"task": {"names": [], "output": [0]}}, "there is no class; expected at least two"),
        ({"task": {"output": [3]}}, r"predictions of shape \(3,\) do not fit 2 classes"),
        ({"task": {"kind": "magic"}}, "task 'magic' is unknown: expected classification"),
    ],
)
def test_a_bundle_that_no_sample_fits_is_refused(
    library: Library, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    document = json.loads(path.read_text())
    for part in (document, *document["members"]):
        for name, value in changes.items():
            part[name] = part[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(document))
    with pytest.raises(LibraryError, match=reason):
        read_bundle(tmp_path / "bundle")


LAC = {"level": 0.9, "score": "lac", "thresholds": [0.5], "samples": 9}
FNR, SPREAD = LAC | {"score": "fnr"}, LAC | {"score": "spread", "thresholds": [1.0] * 4, "floors": [1.0] * 4}


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        ("multilabel", {"combiner": "vote"}, "its combiner is 'vote', must be mean or weighted or median"),
        ("regression", {"temperature": 2.0}, "has temperatures, which a regression task does not have"),
        ("regression", {"temperatures": [1.5, 1.0]}, "has temperatures, which a regression task does not have"),
        ("multilabel", {"thresholds": [0.5, 0.5]}, "has 2 thresholds, must be none or 4"),
        ("multilabel", {"thresholds": [0.5, 0.5, 0.5, 1.5]}, "1.5], must be 0 to 1"),
        ("multilabel", {"coverage": [FNR | {"level": 1}]}, "coverage of level 1, must be between 0 and 1"),
        ("multilabel", {"coverage": [LAC]}, "coverage of score lac, must be fnr"),
        ("multilabel", {"coverage": [FNR | {"per_class": True}]}, "coverage of 1 thresholds, must be 4"),
        ("multilabel", {"coverage": [FNR, FNR | {"floors": [1.0]}]}, "coverage of 1 floors, must be 0"),
        ("regression", {"coverage": [SPREAD | {"thresholds": [1.0]}]}, "coverage of 1 thresholds, must be 4"),
        ("regression", {"coverage": [SPREAD | {"floors": [1, 1, 1, 0]}]}, r"0\.0\], must be above 0"),
    ],
)
def test_an_ensemble_that_does_not_fit_the_task_is_refused(
    tmp_path: Path, kind: str, changed: dict[str, Any], reason: str
) -> None:
    write_small_bundle(tmp_path, kind=kind)
    document = json.loads((tmp_path / "bundle.json").read_text())
    document["ensemble"] |= changed
    (tmp_path / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(LibraryError, match=f"is inconsistent: .*{reason}.*; copy the whole bundle again") as caught:
        read_bundle(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_bundle_whose_weights_are_no_weights_is_refused(library: Library, tmp_path: Path, first: float) -> None:
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    document = json.loads(path.read_text())
    document["ensemble"]["weights"] = [first] * len(document["ensemble"]["members"])
    path.write_text(json.dumps(document))
    with pytest.raises(LibraryError, match="weights of its ensemble must be"):
        read_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("bad", ["0", "-1.5", "1e-300", "NaN", "Infinity", "1e999", '"warm"'])
def test_a_bundle_whose_temperatures_are_no_numbers_above_0_is_refused(
    library: Library, tmp_path: Path, bad: str
) -> None:
    write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    text = path.read_text()
    for key, old, new in (
        ("temperatures", "[]", f"[{bad}, 1.0]"),
        ("temperature", "1.0", bad),
        ("temperature", "null", bad),  # of a member
    ):
        assert f'"{key}": {old}' in text
        path.write_text(text.replace(f'"{key}": {old}', f'"{key}": {new}', 1))
        with pytest.raises(LibraryError, match=r"bundle\.json cannot be read: .*; copy the whole bundle") as caught:
            read_bundle(tmp_path / "bundle")
        assert "\n" not in str(caught.value)


def test_a_pipe_in_a_bundle_is_not_waited_for(library: Library, tmp_path: Path) -> None:
    bundle = write_bundle(library, ENSEMBLE, ALLOCATION, "onnx", tmp_path / "bundle")
    model = model_path(bundle, bundle.ensemble.members[0])
    for path, reason in ((model, "or no file"), (bundle.path / "bundle.json", "named pipe")):
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(LibraryError, match=reason):
            read_bundle(bundle.path)


def test_a_member_that_leads_outside_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    document = (bundle.path / "bundle.json").read_text()
    name = bundle.ensemble.members[0]
    write_small_bundle(tmp_path / "other")
    (bundle.path / "bundle.json").write_text(document.replace(name, f"../../other/members/{name}"))
    with pytest.raises(LibraryError, match="outside the bundle"):
        read_bundle(bundle.path)


def test_a_bundle_trusts_the_families_of_its_library_and_of_its_reader_but_none_that_its_file_names(
    library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    trusting = Library(library.path, ["theirs:net"])
    assert write_bundle(trusting, ENSEMBLE, ALLOCATION, "onnx", path).trusted == ("theirs:net",)
    stored = json.loads((path / "bundle.json").read_text())
    assert "trusted" not in stored
    (path / "bundle.json").write_text(json.dumps({**stored, "trusted": ["evil:net"]}))
    assert read_bundle(path).trusted == ()
    read = read_bundle(path, ["ours:net"])
    assert read.trusted == ("ours:net",)
    assert read_bundle(read, ["more:net"]).trusted == ("ours:net", "more:net")
    assert read_bundle(read).path == path
