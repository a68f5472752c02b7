"""A server of a bundle whose members share a backbone: the same requests and tensors, its files kept and shipped."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ripieno.library import read_bundle
from ripieno.library.bundle import model_files
from ripieno.server import Client, start_in_thread
from ripieno.server.model_repository import BASE_BYTES, needed_bytes
from ripieno.server.replicas import replan
from tests.child_processes import find_children
from tests.shared_networks import Shared, shared_bundle, shared_networks


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_networks(tmp_path_factory.mktemp("shared"), heads=2) as made:
        shared_bundle(made)
        yield made


def test_it_serves_reloads_and_restarts_from_the_files_it_began_with(shared: Shared, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(shared.folder, tmp_path / "bundle"))
    expected = shared.predictions.mean(0)
    with start_in_thread(bundle, isolation="process") as running, Client(running.url) as client:
        np.testing.assert_allclose(client.infer(shared.images), expected, atol=1e-5)
        assert running.reload()
        for path in (bundle / "backbones").iterdir():
            path.unlink()
        (worker,) = find_children("worker_main")
        worker.kill()
        np.testing.assert_allclose(client.infer(shared.images), expected, atol=1e-5)
        assert not running.reload()  # the backbone is missing
        np.testing.assert_allclose(client.infer(shared.images), expected, atol=1e-5)


def test_its_memory_and_its_files_hold_the_backbone_once(shared: Shared) -> None:
    bundle = read_bundle(shared.folder)
    paths = [shared.folder / name for name in model_files(bundle)]
    assert len(paths) == 3
    assert needed_bytes(bundle) == BASE_BYTES + 2 * sum(path.stat().st_size for path in paths)


def test_a_node_of_other_devices_plans_it_as_one_unit(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replan, "SECONDS", 0.1)
    bundle = read_bundle(shared.folder)
    (device,) = bundle.allocation.devices
    found = replan.adapt_allocation(bundle, (dataclasses.replace(device, kind="another", memory=8 << 30),)).allocation
    places: dict[str, set[tuple[int, int]]] = {}
    for p in found.placements:
        places.setdefault(p.member, set()).add((p.lane, p.batch_size))
    assert len(places) == 2
    assert len({frozenset(of) for of in places.values()}) == 1
