"""Plans for absent devices."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ripieno import files
from ripieno.errors import AllocationError
from ripieno.pipeline.offline_plan import is_offline_spec, plan_offline
from ripieno.types import Allocation, BatchProfile, Profile

NAMES = ("a", "b", "c")


@pytest.fixture
def profiles(tmp_path: Path) -> list[str]:
    """Profiles of three members: on a GPU 1, 2 and 3 hundredths of a second for 8 samples, on a CPU 40 times that."""
    for kind, slow in (("v100-16gb", 1), ("cpu-32-cores", 40)):
        profiles = [
            Profile(m, kind, "onnx", (BatchProfile(8, slow * 0.01 * (1 + i), 0.0, 10**9),)) for i, m in enumerate(NAMES)
        ]
        files.write_json(tmp_path / f"{kind}.json", profiles)  # type: ignore[arg-type]
    return [str(tmp_path / "v100-16gb.json"), str(tmp_path / "cpu-32-cores.json")]


def test_an_absent_cluster_is_planned_by_imported_profiles(profiles: list[str], tmp_path: Path) -> None:
    devices = "3x V100-16GB, 1x cpu 32 cores"
    found = plan_offline(devices=devices, profiles=profiles, replicas=False, output=tmp_path / "plan")
    assert found.allocation.predicted == pytest.approx(8 / 0.03, rel=0.01)
    assert (found.allocation.throughput, found.allocation.benches, found.allocation.shares) == (None, 0, ())
    assert found.allocation.bound == pytest.approx(found.allocation.predicted, rel=1e-4)
    assert (
        set(found.written) == {p.name for p in (tmp_path / "plan").iterdir()} == {"allocation.json", "allocation.svg"}
    )
    assert files.read_json(tmp_path / "plan" / "allocation.json", Allocation) == found.allocation
    assert "predicted" in (tmp_path / "plan" / "allocation.svg").read_text()


def test_scaling_gives_the_throughput_of_more_gpus_and_its_plateau(profiles: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    found = plan_offline(
        devices="V100-16GB, cpu 32 cores", profiles=profiles, members=("a", "b", "c"), scale=64, output=tmp_path
    )
    assert found.scaling is not None
    rows = {row["gpus"]: row for row in found.scaling.table()}
    assert list(rows) == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    # one device each: all on one; c against a and b; then c alone, however many GPUs there are
    each = [rows[n]["one_device_each"] for n in (1, 2, 4, 64)]
    assert each == [pytest.approx(8 / x, rel=0.01) for x in (0.06, 0.03, 0.03, 0.03)]
    assert found.scaling.each_plateau == 2
    assert rows[64]["replicas"] == pytest.approx(64 * 8 / 0.06, rel=0.02)
    assert found.scaling.replicas_plateau is None
    assert all((row["replicas"] or 0) <= (row["bound"] or 0) * (1 + 1e-6) for row in rows.values())
    assert all("predicted, not measured" in s for s in found.scaling.summary_lines())
    lines = (tmp_path / "scale.csv").read_text().splitlines()
    assert lines[0] == "gpus,worst_fit,one_device_each,replicas,bound"
    assert len(lines) == 1 + len(rows)
    fields = json.loads((tmp_path / "scale.json").read_text())
    assert (fields["figures"], fields["plateau"]["one_device_each"]) == ("predicted, not measured", 2)
    assert "predicted, not measured" in "".join(ElementTree.parse(tmp_path / "scale.svg").getroot().itertext())
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_on_few_gpus_has_no_figure_there(profiles: list[str], tmp_path: Path) -> None:
    # three members of 1 GB; a GPU of 2 GB holds two
    found = plan_offline(
        devices="2x v100 2GB", profiles=[f"v100-2gb={profiles[0]}"], scale=2, output=tmp_path, replicas=False
    )
    assert found.scaling is not None
    assert found.scaling.replicas == ()
    assert [row.planned is None for row in found.scaling.each] == [True, False]


def test_what_cannot_be_planned_says_what_would_help(profiles: list[str], tmp_path: Path) -> None:
    gpu, cpu = profiles
    for arguments, message in (
        ({"devices": "V100-16GB", "profiles": [cpu]}, "name members with --members, or import more --profiles"),
        (
            {"devices": "V100-16GB", "profiles": [cpu], "members": ("a",)},
            "a has no profile on v100-16gb .*cpu-32-cores",
        ),
        ({"devices": "V100-16GB"}, "no profiles to plan with: give a measured RUN, or --profiles FILE"),
        ({"devices": "V100-16GB", "profiles": [gpu], "ensemble": "B5"}, "ensemble B5 needs a run"),
        ({"devices": "V100-16GB", "profiles": [gpu], "members": ("a", "a")}, "name each member once"),
        ({"devices": "cpu 32 cores", "profiles": [cpu], "scale": 4}, "devices have no GPU to scale"),
        ({"devices": "V100-16GB", "profiles": [gpu], "scale": 0}, "scale 0 must be"),
        ({"devices": "V100-16GB", "profiles": [gpu], "rate": -1.0}, "rate -1 is invalid"),
        ({"devices": "v100 2GB", "profiles": [f"v100-2gb={gpu}"]}, "3 members do not fit .*add 1 more v100-2gb"),
    ):
        with pytest.raises(AllocationError, match=message) as caught:
            plan_offline(output=tmp_path / "plan", **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_pins_and_a_rate_are_planned_for_too(profiles: list[str], tmp_path: Path) -> None:
    found = plan_offline(
        devices="2x V100-16GB", profiles=profiles[:1], pins=["a=cuda:1", "c=@8"], rate=20.0, output=tmp_path
    )
    assert {p.device for p in found.allocation.placements if p.member == "a"} == {"cuda:1"}
    assert found.allocation.rate == 20.0
    assert 0.03 <= (found.allocation.latency or 0.0) < 1


def test_specs_of_absent_devices() -> None:
    assert all(map(is_offline_spec, ("4x V100-16GB", "ray", "ray://10.0.0.1:10001")))
    assert not any(map(is_offline_spec, ("auto", "cpu", "cpu:2", "cuda:0,cpu")))
