"""The benchmark of decisions: its PyTorch modules are the policies of the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

pytestmark = pytest.mark.rl
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def decisions() -> Iterator[Any]:
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS / folder) for folder in ("rl", "engine")]
    try:
        import decisions

        yield decisions
    finally:
        sys.path[:] = before


def write_policy(path: Path, last: str) -> dict[str, np.ndarray[Any, Any]]:
    """Write a perceptron of two layers that ends in operator `last`; return its weights."""
    drawn = np.random.default_rng(0)
    weights = {"w1": (5, 3), "b1": (5,), "w2": (2, 5), "b2": (2,)}
    arrays = {name: drawn.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    nodes = [
        helper.make_node("Flatten", ["observation"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"], transB=1),
        helper.make_node(last, ["scores"], ["values"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k])
        for n, k in (("observation", 3), ("values", 2))
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    save(helper.make_model(helper.make_graph(nodes, "policy", ends[:1], ends[1:], constants)), path)
    return arrays


def test_a_pytorch_policy_has_the_values_of_its_file(decisions, tmp_path):
    import torch

    w = write_policy(tmp_path / "model.onnx", "Softmax")
    observations = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    with torch.inference_mode():
        found = decisions.torch_policy(tmp_path / "model.onnx")(torch.from_numpy(observations)).numpy()
    scores = np.exp(np.tanh(observations @ w["w1"].T + w["b1"]) @ w["w2"].T + w["b2"])
    assert np.allclose(found, scores / scores.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_layer_that_no_policy_has_is_refused(decisions, tmp_path):
    write_policy(tmp_path / "model.onnx", "Sigmoid")
    with pytest.raises(ValueError, match="Sigmoid"):
        decisions.torch_policy(tmp_path / "model.onnx")
