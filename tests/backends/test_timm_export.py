"""Exports of networks of timm, for every task of images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ripieno import backends
from ripieno.backends.flops import onnx_flops
from ripieno.models.timm_network import timm_megaflops
from ripieno.types import Configuration, Input, Task, classification
from tests.backends.made import CPU, make

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)

TASKS = {
    "classification": classification("abcde"),
    "multilabel": Task("multilabel", (3,), ("a", "b", "c")),
    "regression": Task("regression", (2,), ("a", "b")),
}


@pytest.mark.parametrize("kind", TASKS)
def test_the_export_predicts_as_torch_does(kind: str, tmp_path: Path) -> None:
    """Images shrink along one axis and grow along the other."""
    configuration: Configuration = {"resolution": 32, "drop_path": 0.1, "dropout": 0.5, "ema": 0.9}
    made = make(tmp_path, configuration, Input((24, 40, 3)), "timm:test_efficientnet", task=TASKS[kind])
    names = ["torch", "onnx"] + ["openvino"] * (importlib.util.find_spec("openvino") is not None)
    expected, *others = (backends.load(n, made.path(n), made.member, CPU, 1).infer(made.images) for n in names)
    assert expected.shape == (33, *TASKS[kind].output)
    for found in others:
        assert np.abs(found - expected).max() < 0.02 * np.ptp(expected, axis=0).max()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_vit"])
def test_other_designs_export_too(name: str, tmp_path: Path) -> None:
    """The tracing exporter takes them: the other one takes many seconds."""
    side = 160 if name == "test_vit" else 64
    made = make(tmp_path, {"resolution": side}, Input((64, 64, 3)), f"timm:{name}")
    assert made.path("onnx").exists()


def test_operations_are_those_counted_without_the_network(tmp_path: Path) -> None:
    made = make(tmp_path, {"resolution": 32}, Input((32, 32, 3)), "timm:test_efficientnet")
    head = 2 * 256 * 5
    expected = 2e6 * timm_megaflops(made.member.family, made.member.configuration) + head
    assert onnx_flops(made.path("onnx")) == pytest.approx(expected, rel=0.01)
