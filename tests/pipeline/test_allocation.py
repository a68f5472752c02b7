"""A real ensemble placed on this machine: pins, a rate, benchmark results, and the explanation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import AllocationError, LibraryError
from ripieno.pipeline import explain
from ripieno.profiles.timing import BUSY
from ripieno.types import Ensemble
from tests.onnx_networks import write_network

NAMES = ("00000-e001", "00001-e001", "00002-e001")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small untrained networks, measured, and two ensembles of them."""
    tmp_path = tmp_path_factory.mktemp("measured")
    library = ripieno.Library(tmp_path / "run")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 20)
    for number, name in enumerate(NAMES):
        member = write_network(tmp_path / "model.onnx", name=name, layers=1 + number, seed=number)
        valid = generator.dirichlet(np.ones(4), 20)
        library.add(member, valid, labels, (tmp_path / "model.onnx").read_bytes())
    for members in (NAMES[:1], NAMES):
        count = len(members)
        weights = (1 / count,) * count
        library.write_ensemble(Ensemble(f"of-{count}", members, weights, "hand", {"seconds": count}, {}, {}))
    ripieno.allocate(library, f"of-{len(NAMES)}", devices="cpu", max_benches=0)
    return library.path


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> ripieno.Library:
    """A writable copy of the run."""
    shutil.copytree(measured, tmp_path / "run")
    return ripieno.Library(tmp_path / "run")


def test_benchmarks_give_each_placements_share_and_the_models_error(run: ripieno.Library) -> None:
    made = ripieno.allocate(run, run.ensembles()[-1], devices="cpu", max_benches=3).allocation
    assert 1 <= made.benches <= 3
    assert made.backends == ("onnx",) * len(made.placements)
    assert len(made.errors) == made.benches
    assert all(e > -1 for e in made.errors)
    assert len(made.shares) == len(made.placements)
    assert all(0 <= s < 2 for s in made.shares)
    found = explain(run, made.name)
    assert [s.measured for s in found.placements] == list(made.shares)
    assert found.throughput == pytest.approx(made.predicted)
    assert (found.measured, found.bound) == (made.throughput, made.bound)
    assert all(d.left >= 0 for d in found.devices)
    assert "the throughput" in found.limits


@pytest.mark.alone
def test_the_cpu_share_of_other_programs_during_benchmarks_is_kept(run: ripieno.Library) -> None:
    endless = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(endless) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        made = ripieno.allocate(run, run.ensembles()[-1], devices="cpu", max_benches=1).allocation
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert made.others is not None
    assert BUSY < made.others <= 1


def test_a_plan_without_benchmarks_measures_nothing(run: ripieno.Library) -> None:
    made = ripieno.allocate(run, run.ensembles()[-1], devices="cpu", max_benches=0).allocation
    assert (made.throughput, made.errors, made.shares, made.others) == (None, (), (), None)
    assert made.predicted is not None


def test_at_a_rate_the_latency_is_measured(run: ripieno.Library) -> None:
    made = ripieno.allocate(run, run.ensembles()[0], devices="cpu", max_benches=1, rate=100.0).allocation
    assert (made.rate, made.benches, made.throughput) == (100.0, 1, None)
    assert 0 < (made.latency or 0.0) < 5
    assert len(made.errors) == 1


def test_pins_hold_in_the_bundle(run: ripieno.Library) -> None:
    ensemble = run.ensembles()[-1]
    first, *others = ensemble.members
    pins = [f"{first}=cpu:0@8", *(f"{m}=@32" for m in others)]
    made = ripieno.allocate(run, ensemble, devices="cpu", max_benches=2, pins=pins)
    sizes = {p.member: p.batch_size for p in made.allocation.placements}
    assert sizes == {first: 8, **dict.fromkeys(others, 32)}


def test_absent_devices_are_rejected(run: ripieno.Library) -> None:
    with pytest.raises(AllocationError, match="are not on this machine: plan offline"):
        ripieno.allocate(run, run.ensembles()[-1], devices="4x V100-16GB")
    with pytest.raises(AllocationError, match="rate -1 is invalid"):
        ripieno.allocate(run, run.ensembles()[-1], devices="cpu", rate=-1.0)


def test_a_folder_that_cannot_hold_the_bundle_is_refused_before_any_benchmark(
    run: ripieno.Library, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "letter.txt").write_text("dear")
    steps: list[str] = []
    for target in ("images", "images/letter.txt"):
        with pytest.raises(LibraryError, match="choose another folder"):
            ripieno.allocate(
                run, "of-1", devices="cpu", bundle=tmp_path / target, progress=lambda what, *_: steps.append(what)
            )
    assert steps == []
    assert [a.name for a in run.allocations()] == ["of-3"]


def test_an_unknown_allocation_lists_those_there_are(run: ripieno.Library) -> None:
    with pytest.raises(LibraryError, match=r"no allocation 'x' .*there are: of-3"):
        explain(run, "x")
