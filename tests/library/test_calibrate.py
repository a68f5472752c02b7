"""Temperatures of members: fitted once, kept in the run, and gone with the predictions that they were fitted to."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.errors import RipienoError
from ripieno.library import Library
from ripieno.library.calibrate import calibrate
from ripieno.tasks.calibration import calibrate_member
from tests.reports.made_run import make_run

NAMES = ("a", "b", "c")


@pytest.fixture
def run(tmp_path: Path) -> Library:
    return sharpened(make_run(tmp_path / "run", NAMES, members=3, samples=(10, 400, 10)))


def sharpened(library: Library) -> Library:
    """Make the first member twice too certain, so that it keeps a temperature above 1."""
    member = library.members()[0]
    powers = library.predictions(member.id).astype(np.float64) ** 2
    library.add(member, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), library.targets())
    return library


def steps(library: Library) -> list[int]:
    """Return the totals of the progress of a calibration of all members."""
    seen: list[int] = []
    calibrate(library, library.ids(), lambda _what, _done, total: seen.append(total))
    return seen


def test_what_is_fitted_is_kept_and_read_again(run: Library) -> None:
    found = calibrate(run, run.ids(), lambda *_: None)
    fitted = [calibrate_member(run.predictions(m), run.targets()) for m in run.ids()]
    assert [c.temperature for c in found] == [c.temperature for c in fitted]
    assert found[0].temperature > 1.2
    again = [Library(run.path).calibration(m) for m in run.ids()]
    for kept, given in zip(again, found, strict=True):
        assert kept is not None
        assert kept.temperature == given.temperature
        assert all(np.array_equal(a, b) for a, b in zip(kept.rows, given.rows, strict=True))
    rows = np.load(run.member_path(run.ids()[0]) / "calibrated.npy")
    assert (rows.dtype, rows.shape) == (np.float32, (3, 400))
    assert run.member(run.ids()[0]).temperature == found[0].temperature


def test_only_members_that_lack_one_are_fitted(run: Library) -> None:
    assert set(steps(run)) == {3}
    assert steps(run) == []
    (run.member_path(run.ids()[1]) / "calibrated.npy").unlink()
    assert set(steps(run)) == {1}


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_unreadable_rows_are_fitted_again(run: Library, content: bytes) -> None:
    steps(run)
    path = run.member_path(run.ids()[0]) / "calibrated.npy"
    path.write_bytes(content)
    assert set(steps(run)) == {1}
    np.save(path, np.ones((3, 7), np.float32))
    assert set(steps(run)) == {1}
    assert np.load(path).shape == (3, 400)


def test_new_validation_predictions_end_a_calibration(run: Library) -> None:
    steps(run)
    first, second, third = run.ids()
    run.write_predictions(third, "test", run.predictions(third, "test"), run.targets("test"))
    assert run.calibration(third) is not None, "test predictions do not matter"
    run.write_predictions(first, "valid", np.full((400, 3), 1 / 3, np.float32), run.targets())
    assert run.calibration(first) is None
    assert run.member(first).temperature is None
    run.add(dataclasses.replace(run.member(second), temperature=None), run.predictions(second), run.targets())
    assert run.calibration(second) is None
    assert set(steps(run)) == {2}


def test_rows_of_another_temperature_are_never_read(run: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends within `write_calibration` leaves no rows that the temperature does not fit."""
    steps(run)
    member = run.ids()[0]
    kept = run.calibration(member)
    assert kept is not None

    def full(*_: object) -> None:
        raise RipienoError("no space")

    monkeypatch.setattr("ripieno.files.write_array", full)
    with pytest.raises(RipienoError, match="no space"):
        run.write_calibration(member, kept._replace(temperature=3.0))
    assert run.calibration(member) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_is_not_writable_stays_as_it_is(run: Library) -> None:
    folders = [run.member_path(m) for m in run.ids()]
    for folder in folders:
        folder.chmod(0o555)
    found = calibrate(run, run.ids(), lambda *_: None)
    for folder in folders:
        folder.chmod(0o755)
    assert found[0].temperature > 1.2
    assert not list(run.path.glob("library/*/calibrated.npy"))


@pytest.mark.parametrize("precision", [np.float16, np.float64])
def test_rows_are_single_whatever_the_predictions_are(run: Library, precision: type[np.floating[Any]]) -> None:
    member = run.members()[0]
    run.add(member, run.predictions(member.id).astype(precision), run.targets())
    (first,), (again,) = (calibrate(run, [member.id], lambda *_: None) for _ in range(2))
    assert first.temperature > 1.2
    assert all(row.dtype == np.float32 for row in first.rows)
    assert all(np.array_equal(a, b) for a, b in zip(first.rows, again.rows, strict=True))
