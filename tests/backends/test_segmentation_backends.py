"""Backends of networks that predict pixels: all give the same masks, in every precision, merged and alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ripieno import backends
from ripieno.backends.batch_limit import NUMBERS, limit_batch
from ripieno.backends.flops import onnx_flops
from ripieno.backends.merge_onnx import merge_onnx
from ripieno.backends.onnx import open_file
from ripieno.backends.torch import load_network
from ripieno.tasks.registry import kind_of
from ripieno.types import Combiner, Configuration, Input, Task
from tests.backends.made import CPU, Made, make

SHAPE = (18, 22, 3)
TASK = Task("segmentation", (18, 22, 4), ("a", "b", "c", "d"))
UNET: Configuration = {"width": 6, "levels": 3, "stem_stride": 2, "dropout": 0.1}
SMP: Configuration = {"decoder_width": 0.1}
needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="needs the extra segmentation"
)
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("unet"), UNET, Input(SHAPE), "unet", task=TASK)


def predicted(made: Made, backend: str, count: int = 7) -> np.ndarray:
    runner = backends.load(backend, made.path(backend), made.member, CPU, 1)
    found = runner.infer(np.ascontiguousarray(made.images[:count]))
    runner.close()
    return found


@pytest.mark.parametrize(
    ("backend", "near"),
    [
        ("onnx", 1e-5),
        ("onnx:fp16", 0.01),
        ("onnx:int8", 0.3),
        pytest.param("openvino", 1e-4, marks=needs_openvino),
        pytest.param("openvino:int8", 0.3, marks=needs_openvino),
    ],
)
def test_backends_predict_as_pytorch_does(unet: Made, backend: str, near: float) -> None:
    expected, found = predicted(unet, "torch"), predicted(unet, backend)
    assert found.shape == (7, 18, 22, 4)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < near
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9
    assert np.ptp(expected) > 0.1  # they are not all alike


@needs_smp
@pytest.mark.parametrize("architecture", ["Unet", "FPN", "DeepLabV3Plus", "Segformer"])
def test_architectures_of_smp_are_exported_with_known_operations(tmp_path: Path, architecture: str) -> None:
    made = make(tmp_path, SMP, Input(SHAPE), f"smp:{architecture}/test_efficientnet", task=TASK)
    assert np.abs(predicted(made, "onnx") - predicted(made, "torch")).max() < 1e-4
    network = load_network(made.member, made.path("torch"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.from_numpy(made.images[:1]))
    assert onnx_flops(made.path("onnx")) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote"])
def test_a_merged_file_combines_masks_as_the_engine_does(tmp_path: Path, unet: Made, combiner: Combiner) -> None:
    other = make(tmp_path, {"width": 5, "levels": 2, "convolution": "v2"}, Input(SHAPE), "unet", task=TASK)
    weights = (0.25, 0.75)
    content = merge_onnx(
        {"one": unet.path("onnx"), "other": other.path("onnx")}, weights, combiner, Input(SHAPE), TASK, {}
    )
    (found,) = open_file(content)(np.ascontiguousarray(unet.images[:5]))
    own = np.stack([predicted(made, "onnx", 5) for made in (unet, other)])
    assert found.shape == (5, 18, 22, 4)
    expected = kind_of(TASK).combine(own, weights, combiner)
    assert (np.abs(found - expected) < 1e-5).mean() > 0.999  # but for votes of equal probabilities


def test_a_batch_of_large_predictions_is_limited() -> None:
    assert limit_batch(32, (10,)) == 32
    assert limit_batch(32, (360, 480, 12)) == 8
    assert limit_batch(32, (NUMBERS, 2)) == 1
