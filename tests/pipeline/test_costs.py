"""Costs of networks, with and without countable FLOPs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import BrokenFileWarning, EngineError, LibraryError, SelectionError
from ripieno.library.evaluate import evaluate
from ripieno.pipeline import measure, static_costs
from tests.onnx_networks import write_foreign, write_network


@pytest.fixture
def library(tmp_path: Path) -> ripieno.Library:
    """A network, and one with an unknown operator."""
    library = ripieno.Library(tmp_path / "run")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 20)
    for name, write in (("00000-e001", write_network), ("00001-e001", write_foreign)):
        member = write(tmp_path / "model.onnx", name=name)
        member = dataclasses.replace(member, losses={"valid_cross_entropy": 1.0})
        library.add(member, generator.dirichlet(np.ones(4), 20), labels, (tmp_path / "model.onnx").read_bytes())
    return library


def test_a_graph_that_cannot_be_counted_is_left_out_of_that_count_alone(library: ripieno.Library) -> None:
    counts = static_costs(library, library.ids())
    assert set(counts["00000-e001"]) == {"parameters", "flops", "bytes"}
    assert set(counts["00001-e001"]) == {"parameters", "bytes"}
    assert counts["00001-e001"]["bytes"] == library.onnx_path("00001-e001").stat().st_size


def test_a_budget_of_flops_skips_uncountable_networks_with_a_note(library: ripieno.Library) -> None:
    notes: list[str] = []
    found = ripieno.front(library, cost="flops", notes=notes)
    assert [e.members for e in found.ensembles] == [("00000-e001",)]
    assert notes[0].startswith("1 of the 2 best members have no cost in flops and were skipped")


def test_members_whose_files_cannot_be_run_are_left_out_and_the_others_measured(
    finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(tmp_path / "run")
    shutil.rmtree(library.path / "profiles")
    sound, no_network, no_weights = library.ids()[:3]
    library.onnx_path(no_network).write_bytes(b"nonsense")
    library.onnx_path(no_weights).unlink()
    library.weights_path(no_weights).write_bytes(b"")
    with pytest.warns(BrokenFileWarning, match="skipped 2 of the members") as warnings:
        assert list(measure(library, [sound, no_network, no_weights])) == [sound]
    assert all(name in str(warnings[0].message) for name in (no_network, no_weights))
    with pytest.raises(LibraryError, match=no_weights):
        measure(library, [no_weights])


def test_joules_are_refused_in_one_line_where_no_counter_can_be_read(
    library: ripieno.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPIENO_POWERCAP", str(tmp_path / "nothing"))
    words = r"^cannot measure joules on cpu:0: .*nothing has no counter.*--costs costs.csv.*$"
    with pytest.raises(EngineError, match=words):
        measure(library, ["00000-e001"], energy=True)
    with pytest.raises(EngineError, match=words):
        ripieno.select(library, {"joules": 50})
    assert not library.profile_devices()


def test_test_predictions_are_made_of_the_members_that_can_be_run(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(tmp_path / "run")
    members = library.ids()[:2]
    for member in members:
        (library.member_path(member) / "test.npy").unlink(missing_ok=True)
    library.onnx_path(members[0]).write_bytes(b"nonsense")
    with pytest.warns(BrokenFileWarning, match=members[0]):
        evaluate(library, members)
    assert [library.has_predictions(m, "test") for m in members] == [False, True]


def test_what_cannot_be_measured_is_not_sent_to_measuring(tmp_path: Path) -> None:
    rows = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]] * 0.8 + 0.1
    ripieno.import_(tmp_path / "run", {"a": rows}, labels=[0, 1, 0, 1])
    with pytest.raises(SelectionError, match=r"none can be measured.*--costs") as caught:
        ripieno.select(tmp_path / "run", 5.0)
    assert "ripieno measure" not in str(caught.value)


def test_measuring_ends_after_its_time_with_the_best_member_at_least(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    library = ripieno.Library(run)
    shutil.rmtree(run / "profiles", ignore_errors=True)
    notes: list[str] = []
    (chosen,) = ripieno.select(run, 1e9, measuring=0.0, notes=notes)
    best = min(library.members(), key=lambda m: (m.loss, m.id))
    device = ripieno.profiles.local_devices("cpu")[0]
    assert chosen.members == (best.id,)
    assert list(library.profiles(device.kind)) == [best.id]
    assert any("cost" in note for note in notes)
