"""Devices of a Ray cluster. Tests on a real cluster need the extra `cluster`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psutil
import pytest

from ripieno.cluster.nodes import cluster_devices, names_cluster, offered
from ripieno.errors import AllocationError
from ripieno.profiles import local_devices
from ripieno.types import Device

THERE = (Device("cuda:0", "nvidia-l4", 20), Device("cpu:0", "amd-epyc-8-cores", 1000, tuple(range(8))))


def test_a_node_gives_what_it_has_cut_down_to_what_it_offers() -> None:
    resources = {"CPU": 4.0, "GPU": 1.0, "memory": 600.0, "node:10.0.0.3": 1.0}
    gpu, cpu = offered("10.0.0.3", resources, THERE)
    assert gpu == Device("cuda:10.0.0.3/0", "nvidia-l4", 20)
    assert cpu == Device("cpu:10.0.0.3", "amd-epyc-4-cores", 600, (0, 1, 2, 3))
    assert (gpu.type, cpu.type) == ("cuda", "cpu")
    assert list(offered("n", {"memory": 5.0}, THERE)) == []


def test_a_card_whose_driver_is_silent_has_its_names_memory_or_is_refused() -> None:
    (gpu,) = offered("n", {"GPU": 1.0, "accelerator_type:V100": 1.0}, THERE[1:])
    assert gpu == Device("cuda:n/0", "v100", 16 * 10**9)
    with pytest.raises(AllocationError, match="node n offers a GPU that its driver does not report: describe it"):
        list(offered("n", {"GPU": 1.0}, THERE[1:]))


def test_what_names_a_ray_cluster() -> None:
    assert all(map(names_cluster, ("ray", "ray:10.0.0.1:6379", "ray://10.0.0.1:10001")))
    assert not any(map(names_cluster, ("auto", "cpu", "rtx-4090 24GB", "rays.yaml")))


def test_nodes_of_a_ray_cluster_become_devices(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=2, resources={"accelerator_type:T4": 1}, memory=3 * 10**8)
    try:
        devices = cluster_devices()
    finally:
        cluster.remove_node(node, allow_graceful=False)
    here = local_devices("cpu")[0]
    assert [(d.type, d.kind) for d in devices[:2]] == [("cuda", "t4")] * 2
    assert devices[0].memory == 16 * 10**9
    cpus = sorted(devices[2:], key=lambda d: d.memory == 3 * 10**8)
    assert {d.kind.removesuffix("-1-core") for d in cpus} == {here.kind.rpartition(f"-{len(here.cores)}-core")[0]}
    assert [d.cores for d in cpus] == [(0,), (0,)]
    assert 0 < cpus[0].memory <= psutil.virtual_memory().total
    assert cpus[1].memory == 3 * 10**8
    assert len({d.name for d in devices}) == 4


def test_a_ray_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ripieno[cluster]'")
    code = (
        "from ripieno.cluster.nodes import cluster_devices\n"
        "from ripieno.errors import AllocationError\n"
        "try:\n    cluster_devices('ray:127.0.0.1:1')\n"
        "except AllocationError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "no Ray cluster at '127.0.0.1:1'" in done.stdout, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
