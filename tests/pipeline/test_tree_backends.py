"""Members with operators of trees: measured, placed and refused by backend."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import BrokenFileWarning, EngineError
from ripieno.types import Ensemble
from tests.onnx_networks import write_network, write_trees

NETWORK, TREES = "00000-e001", "00002-e001"


@pytest.fixture
def library(tmp_path: Path) -> ripieno.Library:
    """A library of a network and a stump."""
    library = ripieno.Library(tmp_path / "run")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 20)
    for name, write in ((NETWORK, write_network), (TREES, write_trees)):
        member = dataclasses.replace(write(tmp_path / "model.onnx", name=name), losses={"valid_cross_entropy": 1.0})
        library.add(member, generator.dirichlet(np.ones(4), 20), labels, (tmp_path / "model.onnx").read_bytes())
    both = Ensemble("both", (TREES, NETWORK), (0.5, 0.5), "smobf", {"seconds": 1.0}, {"seconds": 1.0}, {})
    library.write_ensemble(both)
    return library


@pytest.mark.parametrize(
    ("backend", "precision", "word"),
    [
        ("openvino", "fp32", "has TreeEnsembleRegressor, which OpenVINO cannot run: use --backend onnx, or auto"),
        ("openvino:bf16", "fp32", "which OpenVINO cannot run"),
        ("openvino", "int8", "which OpenVINO cannot run"),
        ("torch", "fp32", "without weights, which torch cannot run"),
    ],
)
def test_a_backend_without_their_operators_is_refused_before_anything_is_measured(
    library: ripieno.Library, backend: str, precision: str, word: str
) -> None:
    with pytest.raises(EngineError, match=f"{TREES} .*{word}") as caught:
        ripieno.allocate(library, "both", devices="cpu", max_benches=0, backend=backend, precision=precision)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="cannot run"):
        ripieno.measure(library, [TREES], backend=backend)
    assert not library.profiles(library.usual_device() or "cpu")


def test_trees_are_left_out_where_openvino_measures_the_others(library: ripieno.Library) -> None:
    pytest.importorskip("openvino")
    with pytest.warns(BrokenFileWarning, match=f"skipped 1 of the members .*{TREES} has Tree.*OpenVINO") as caught:
        assert list(ripieno.measure(library, backend="openvino")) == [NETWORK]
    assert "copy" not in str(caught[0].message)
