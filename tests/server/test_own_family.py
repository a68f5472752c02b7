"""A server of a bundle with a model from the user's own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from ripieno.engine import bench
from ripieno.errors import RipienoError
from ripieno.library import read_bundle
from ripieno.server import infer, start_in_thread
from ripieno.server.replicas import replan
from tests.own_family import FAMILY, MEMBER, Own, own_deployment


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with own_deployment(tmp_path_factory.mktemp("own")) as made:
        yield made


def test_it_is_served_when_it_is_trusted_and_after_a_reload_too(own: Own) -> None:
    with pytest.raises(RipienoError, match=f"pass --family {FAMILY}"):
        start_in_thread(own.bundle.path)
    with start_in_thread(own.bundle.path, trusted=[FAMILY]) as running:
        np.testing.assert_allclose(infer(running.url, own.images), own.truth, atol=1e-5)
        assert running.reload()
        np.testing.assert_allclose(infer(running.url, own.images), own.truth, atol=1e-5)


def test_it_is_benched_without_an_engine_of_the_callers(own: Own) -> None:
    assert bench(own.bundle, seconds=0.1, trusted=[FAMILY]).throughput > 0


def test_a_node_of_other_devices_may_measure_it(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replan, "SECONDS", 0.2)
    (device,) = own.bundle.allocation.devices
    other = dataclasses.replace(device, kind="another", memory=8 << 30)
    found = replan.adapt_allocation(read_bundle(own.bundle, [FAMILY]), (other,)).allocation
    assert found.devices == (other,)
    assert {p.member for p in found.placements} == {MEMBER}
