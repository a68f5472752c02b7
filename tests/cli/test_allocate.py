"""`allocate` for absent devices, and `explain`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripieno import Library, files
from ripieno.types import Allocation, BatchProfile, Device, Placement, Profile
from tests.command_line import ripieno


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of profiles, and a run with an allocation that was benchmarked."""
    profiles = [Profile(m, "t4", "onnx", (BatchProfile(8, 0.01 * (1 + i), 0.0, 10**9),)) for i, m in enumerate("ab")]
    files.write_json(tmp_path / "t4.json", profiles)  # type: ignore[arg-type]
    library = Library(tmp_path / "run")
    library.write_profiles("t4", profiles)
    placements = (Placement("a", "cuda:0", 8), Placement("b", "cuda:0", 8))
    card = Device("cuda:0", "t4", 16 * 10**9)
    figures = {"throughput": 250.0, "benches": 2, "bound": 300.0, "shares": (0.3, 0.6), "errors": (0.1, -0.2)}
    library.write_allocation(Allocation("B20", "B20", (card,), placements, others=0.4, **figures))  # type: ignore[arg-type]
    (tmp_path / "run" / "library").mkdir()
    return tmp_path


def test_a_cluster_is_planned_from_a_file_and_profiles(folder: Path) -> None:
    (folder / "cluster.json").write_text('["4x T4 16GB"]')
    words = ["--devices", "cluster.json", "--profiles", "t4-16gb=t4.json", "--scale", "2", "--no-replicas"]
    done = ripieno("allocate", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    for text in (
        "400 samples/s predicted, not measured: this machine does not have these devices",
        "0.00 % below the bound of 400",
        "model error: unknown, this machine does not have the devices",
        "each member on one device: still rising at 2 x t4-16gb, 400 samples/s predicted, not measured",
        "the throughput (always busy)",
    ):
        assert text in done.stdout, done.stdout
    assert {"allocation.json", "allocation.svg", "scale.csv", "scale.json"} <= {
        p.name for p in (folder / "plan").iterdir()
    }


def test_an_allocation_is_explained_and_drawn(folder: Path) -> None:
    done = ripieno("explain", "run", "B20", cwd=folder)
    assert done.returncode == 0, done.stderr
    for text in (
        "100% predicted, 90% measured",
        "cuda:0 limits the throughput (always busy); members that limit it most: b (67%), a (33%).",
        "250 measured, 11.",
        "below the bound of 300 that no plan can exceed",
        "model error: median 15.0%, maximum 20.0% over 2 benchmarks; other processes used 40% of the CPUs",
        "1.9 GiB of 14.9 GiB, 13.0 GiB left",
    ):
        assert text in done.stdout, done.stdout
    assert (folder / "run" / "allocations" / "B20.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["allocate"], "RUN and ENSEMBLE are missing"),
        (["allocate", "run", "B20", "--devices", "4x V100"], "GPU 'V100' has no memory size"),
        (["allocate", "--devices", "absent.yaml"], "cannot read devices from absent.yaml"),
        (["allocate", "--devices", "T4-16GB", "--bundle", "x"], "--bundle does not apply"),
        (["allocate", "--devices", "T4 512MB", "--profiles", "t4-512mb=t4.json"], "2 members do not fit on"),
        (["explain", "run", "B404"], "there are: B20"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_line(folder: Path, words: list[str], says: str) -> None:
    done = ripieno(*words, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
