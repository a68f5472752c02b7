from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno import backends, files
from ripieno.engine import Engine
from ripieno.errors import EngineError
from ripieno.library import read_bundle
from ripieno.library.bundle import model_path
from ripieno.types import Allocation, Bundle, Device, Ensemble, Placement
from tests.onnx_networks import write_network


def bundle_of(folder: Path, dtype: str) -> Bundle:
    """Three networks of different sizes, in two workers, on disk."""
    ids = [f"{i:05d}-e001" for i in range(3)]
    members = [
        write_network(folder / "members" / m / "model.onnx", name=m, dtype=dtype, filters=4 * i, layers=i, seed=i)
        for i, m in enumerate(ids, 1)
    ]
    ensemble = Ensemble("three", tuple(ids), (0.5, 0.25, 0.25), "hand", {}, {}, {}, "weighted")
    places = tuple(Placement(m, "cpu:0", 4, worker) for m in ids for worker in range(2))
    allocation = Allocation("three", "three", (Device("cpu:0", "cpu", 1 << 30),), places)
    bundle = Bundle(ensemble, allocation, tuple(members), members[0].input, members[0].task, "onnx")
    files.write_json(folder / "bundle.json", bundle)
    return read_bundle(folder)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_ensemble_of_real_networks_answers_with_their_weighted_mean(isolation, dtype, tmp_path):
    bundle = bundle_of(tmp_path, dtype)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, *bundle.input.shape)).astype(dtype)
    device = bundle.allocation.devices[0]
    alone = [backends.load("onnx", model_path(bundle, m.id), m, device, 1).infer(images) for m in bundle.members]
    with Engine(tmp_path, isolation=isolation) as engine:
        np.testing.assert_allclose(engine.predict(images), np.average(alone, 0, [0.5, 0.25, 0.25]), atol=1e-6)
        np.testing.assert_allclose(engine.predict(images[:3], [bundle.members[1].id]), alone[1][:3], atol=1e-6)
        if isolation == "process":
            for worker in engine.stats().lanes:
                maps = Path(f"/proc/{worker.process}/maps").read_text()
                assert "onnxruntime" in maps
                assert "libtorch" not in maps


def test_infinite_pixels_are_refused(tmp_path):
    bundle = bundle_of(tmp_path, "float32")
    images = np.full((1, *bundle.input.shape), np.inf, np.float32)
    with Engine(bundle) as engine, pytest.raises(EngineError, match="NaN or infinite"):
        engine.predict(images)
