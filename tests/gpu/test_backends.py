"""Backends on a GPU give the predictions of the CPU."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends.candidates import candidates
from ripieno.backends.torch import GRAPHS
from ripieno.errors import EngineError
from ripieno.types import Device
from tests.backends.made import CPU, Made


@pytest.fixture(scope="module")
def expected(made: Made) -> NDArray[np.float32]:
    one = backends.load("torch", made.path("torch"), made.member, CPU, 1)
    return one.infer(made.images)


@pytest.mark.parametrize("backend", ["torch", "torch-graphs", "torch-compile"])
def test_predictions_are_those_of_the_cpu_at_any_batch_size(
    made: Made, expected: NDArray[np.float32], device: Device, backend: str
) -> None:
    one = backends.load(backend, made.path("torch"), made.member, device, 1)
    for size in (33, 1, 8, 3, 0):
        np.testing.assert_allclose(one.infer(made.images[:size]), expected[:size], atol=1e-4)
    one.close()


@pytest.mark.parametrize("backend", ["torch", "torch-graphs"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_answers_nearly_the_same(
    made: Made, expected: NDArray[np.float32], device: Device, backend: str, precision: str
) -> None:
    one = backends.load(f"{backend}:{precision}", made.path("torch"), made.member, device, 1)
    found = one.infer(made.images)
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert not np.array_equal(found, expected)
    one.close()


def test_fp32_forbids_tf32_for_convolutions(made: Made, device: Device) -> None:
    torch.backends.cudnn.allow_tf32 = True
    backends.load("torch", made.path("torch"), made.member, device, 1).close()
    assert not torch.backends.cudnn.allow_tf32


def test_more_batch_sizes_than_recorded_graphs_run_eagerly(
    made: Made, expected: NDArray[np.float32], device: Device
) -> None:
    one = backends.load("torch-graphs", made.path("torch"), made.member, device, 1)
    sizes = [1 << n for n in range(GRAPHS + 2)]
    for size in (*sizes, *sizes):
        rows = np.arange(size) % len(made.images)
        np.testing.assert_allclose(one.infer(made.images[rows]), expected[rows], atol=1e-4)
    assert len(one._graphs) == GRAPHS  # type: ignore[attr-defined]
    one.close()


def test_a_padded_batch_is_not_mixed_with_the_batch_before(
    made: Made, expected: NDArray[np.float32], device: Device
) -> None:
    one = backends.load("torch-graphs", made.path("torch"), made.member, device, 1)
    first = one.infer(made.images[:8])
    second = one.infer(made.images[8:13])
    np.testing.assert_allclose(first, expected[:8], atol=1e-4)
    np.testing.assert_allclose(second, expected[8:13], atol=1e-4)
    one.close()


def test_threads_record_graphs_while_others_predict(made: Made, expected: NDArray[np.float32], device: Device) -> None:
    wrong: list[object] = []

    def predict(seed: int) -> None:
        try:
            one = backends.load("torch-graphs", made.path("torch"), made.member, device, 1)
            for size in np.random.default_rng(seed).integers(1, 33, 30):
                np.testing.assert_allclose(one.infer(made.images[:size]), expected[:size], atol=1e-4)
            one.close()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=predict, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_graphs_run_on_a_second_gpu(made: Made, expected: NDArray[np.float32], device: Device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for name in (device.name, "cuda:1"):
        there = Device(name, device.kind, device.memory)
        one = backends.load("torch-graphs", made.path("torch"), made.member, there, 1)
        np.testing.assert_allclose(one.infer(made.images), expected, atol=1e-4)
        one.close()


def test_a_closed_backend_frees_its_memory(made: Made, device: Device) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    one = backends.load("torch-graphs", made.path("torch"), made.member, device, 1)
    one.infer(made.images)
    assert torch.cuda.memory_reserved() > before
    one.close()
    assert torch.cuda.memory_reserved() <= before + (2 << 20)  # cuBLAS keeps its workspace


@pytest.mark.parametrize(("backend", "provider"), [("onnx", "CUDA"), ("tensorrt", "Tensorrt")])
def test_onnx_runtime_predicts_on_the_gpu_or_is_refused(
    made: Made, expected: NDArray[np.float32], device: Device, backend: str, provider: str
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if f"{provider}ExecutionProvider" in runtime.get_available_providers():
        one = backends.load(backend, made.path("onnx"), made.member, device, 1)
        for size in (33, 1, 8):
            np.testing.assert_allclose(one.infer(made.images[:size]), expected[:size], atol=1e-4)
        one.close()
    else:
        with pytest.raises(EngineError, match=f"built without {provider}ExecutionProvider"):
            backends.load(backend, made.path("onnx"), made.member, device, 1)


def test_candidates_of_a_gpu_are_the_backends_that_can_use_it(device: Device) -> None:
    found = candidates(device, "auto", "auto")
    assert {"torch", "torch-graphs", "torch-compile", "torch:bf16", "torch-graphs:fp16"} <= set(found)
    assert not any(name.startswith("openvino") for name in found)
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        assert ("onnx" in found) == ("CUDAExecutionProvider" in onnxruntime.get_available_providers())
