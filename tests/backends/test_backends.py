"""Common tests of all backends."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends import onnx as onnx_backend
from ripieno.backends.torch import load_network
from ripieno.errors import EngineError, LibraryError, ModelError
from ripieno.train.evaluate import predict
from ripieno.types import Device
from tests.backends.made import CPU, Made

GPU = Device("cuda:0", "gpu", 1)

NAMES = ("onnx", "openvino", "torch")
"""Tolerance of fp32, which is exact except for rounding."""
LOWERED = {"onnx:fp16": 5e-3, "onnx:int8": 0.2, "openvino:bf16": 0.05, "openvino:int8": 0.2, "torch:bf16": 0.05}
"""Tolerance by precision: random networks on random images are the worst case."""


def load(made: Made, backend: str, threads: int = 1) -> backends.Backend:
    installed(backend)
    return backends.load(backend, made.path(backend), made.member, CPU, threads)


def installed(backend: str) -> None:
    if backend.startswith("openvino"):
        if importlib.util.find_spec("openvino") is None:
            pytest.skip("needs pip install 'ripieno[openvino]'")
        from ripieno.backends.openvino import can

        if backend.endswith("bf16") and not can("bf16"):
            pytest.skip("needs a processor with instructions for bf16")


@pytest.fixture(params=["digit", "coloured"])
def made(request: pytest.FixtureRequest) -> Made:
    found: Made = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def expected(made: Made) -> NDArray[np.float32]:
    return predict(load_network(made.member, made.path("torch")), made.images)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("threads", [1, 2])
def test_probabilities_are_those_of_the_trained_network(
    made: Made, expected: NDArray[np.float32], backend: str, threads: int
) -> None:
    answers = load(made, backend, threads).infer(made.images)
    assert answers.dtype == np.float32
    assert np.abs(answers - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).max() > 0.05, "the test needs images with different predictions"


@pytest.mark.parametrize("backend", LOWERED)
def test_lower_precision_answers_nearly_the_same(made: Made, expected: NDArray[np.float32], backend: str) -> None:
    loaded = load(made, backend)
    answers = np.concatenate([loaded.infer(made.images[i : i + 16]) for i in (0, 16, 32)])
    assert answers.dtype == np.float32
    difference = np.abs(answers - expected).max()
    assert 1e-6 < difference < LOWERED[backend], "no difference would mean that it computed in fp32"


@pytest.mark.parametrize("backend", NAMES)
def test_a_batch_of_any_size_is_answered(made: Made, expected: NDArray[np.float32], backend: str) -> None:
    loaded = load(made, backend)
    for size in (3, 1, 2, 7, 33, 1):
        assert np.abs(loaded.infer(made.images[:size]) - expected[:size]).max() < 1e-5
    assert loaded.infer(made.images[:0]).shape == (0, 5)


@pytest.mark.parametrize("backend", NAMES)
def test_images_may_be_strided_or_read_only(made: Made, expected: NDArray[np.float32], backend: str) -> None:
    loaded = load(made, backend)
    assert np.abs(loaded.infer(made.images[::-2]) - expected[::-2]).max() < 1e-5
    locked = made.images.copy()
    locked.flags.writeable = False
    assert np.abs(loaded.infer(locked) - expected).max() < 1e-5


@pytest.mark.parametrize("backend", NAMES)
def test_answers_stay_when_the_next_batch_is_answered(made: Made, backend: str) -> None:
    loaded = load(made, backend)
    first = loaded.infer(made.images[:2])
    kept = first.copy()
    loaded.infer(made.images[2:4])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("backend", NAMES)
def test_images_of_another_shape_or_dtype_are_refused(made: Made, backend: str) -> None:
    loaded = load(made, backend)
    for wrong in (made.images.astype(np.float64), made.images[:, :-1], made.images[0]):
        with pytest.raises(EngineError, match="expected"):
            loaded.infer(wrong)


@pytest.mark.parametrize("backend", NAMES)
def test_a_closed_backend_says_so(digit: Made, backend: str) -> None:
    loaded = load(digit, backend)
    loaded.close()
    loaded.close()
    with pytest.raises(EngineError, match="closed"):
        loaded.infer(digit.images)


@pytest.mark.parametrize("backend", NAMES)
def test_a_file_that_is_absent_or_broken_is_named(digit: Made, backend: str, tmp_path: Path) -> None:
    installed(backend)
    path = tmp_path / "weights"
    for content in (None, b"", digit.path(backend).read_bytes()[:500]):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LibraryError, match="weights") as caught:
            backends.load(backend, path, digit.member, CPU, 1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", NAMES)
def test_a_device_that_is_not_there_is_named(digit: Made, backend: str) -> None:
    installed(backend)
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            pytest.skip("needs a machine without CUDA")
    with pytest.raises(EngineError, match="cuda:0"):
        backends.load(backend, digit.path(backend), digit.member, GPU, 1)


@pytest.mark.parametrize("backend", ["tensorrt", "torch-graphs"])
def test_backends_for_gpus_say_so_on_a_processor(digit: Made, backend: str) -> None:
    with pytest.raises(EngineError, match=r"cannot use cpu:0, .* GPUs only; use"):
        backends.load(backend, digit.path(backend), digit.member, CPU, 1)


def test_a_provider_that_onnx_runtime_lacks_is_named(digit: Made) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs an ONNX Runtime without TensorRT")
    with pytest.raises(EngineError, match="without TensorrtExecutionProvider"):
        backends.load("tensorrt", digit.path("tensorrt"), digit.member, GPU, 1)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_that_would_fall_back_to_the_processor_is_refused(
    digit: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs an ONNX Runtime without CUDA")
    # given a provider that cannot be loaded, ONNX Runtime falls back as without CUDA libraries
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with pytest.raises(EngineError, match=r"cuda:0 cannot be used: .* would run on CPU.*onnxruntime-gpu\[cuda,cudnn\]"):
        backends.load("onnx", digit.path("onnx"), digit.member, GPU, 1)


def test_what_onnx_runtime_prints_about_cuda_is_no_part_of_our_output(capsys: pytest.CaptureFixture[str]) -> None:
    class Runtime:
        @staticmethod
        def preload_dlls() -> None:
            sys.stdout.write("Failed to load libcudnn.so.9\n")

    onnx_backend._load_libraries(Runtime)
    onnx_backend._load_libraries(object())  # an older ONNX Runtime has no such function
    assert capsys.readouterr() == ("", "Failed to load libcudnn.so.9\n")


def test_cuda_is_told_the_cap_and_not_to_try_every_algorithm_for_every_batch_size() -> None:
    class Runtime:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    (name, options), _ = onnx_backend._providers(Runtime, Device("cuda:1", "gpu", 5 << 30), "onnx", "fp32")
    assert name == "CUDAExecutionProvider"
    assert (options["device_id"], options["gpu_mem_limit"]) == (1, 5 << 30)
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_weights_of_another_network_are_refused(digit: Made, coloured: Made) -> None:
    with pytest.raises(LibraryError, match="another network"):
        backends.load("torch", coloured.path("torch"), digit.member, CPU, 1)


def test_a_users_family_in_a_member_is_not_imported_by_itself(digit: Made) -> None:
    import dataclasses

    member = dataclasses.replace(digit.member, family="antigravity:fly")
    with pytest.raises(ModelError, match="--family antigravity:fly"):
        backends.load("torch", digit.path("torch"), member, CPU, 1)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("backend", "words"),
    [("abacus", "onnx, tensorrt"), ("torch:int8", "one of: fp32"), ("onnx:", "one of"), ("onnx:bf16", "int8")],
)
def test_no_other_backend_is_known(backend: str, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        backends.load(backend, Path("x"), None, CPU, 1)  # type: ignore[arg-type]


def test_a_compiled_network_answers_the_same(digit: Made) -> None:
    if "RIPIENO_SLOW_TESTS" not in os.environ or not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("needs RIPIENO_SLOW_TESTS=1, a C++ compiler and a minute")
    loaded = load(digit, "torch-compile")
    eager = load(digit, "torch")
    for size in (3, 1, 33):
        assert np.abs(loaded.infer(digit.images[:size]) - eager.infer(digit.images[:size])).max() < 1e-5


@pytest.mark.parametrize(("backend", "most"), [("onnx", 120), ("openvino", 220)])
def test_a_process_that_serves_imports_no_torch_and_stays_small(digit: Made, backend: str, most: int) -> None:
    installed(backend)
    code = f"""
import pathlib, sys
import numpy as np, psutil
from ripieno import backends
from ripieno.types import Device, Input, Member, classification
member = Member("a", 1, 1, "resnet", {{}}, Input((8, 8, 1)), classification(tuple("abcde")), {{}}, 1, 1.0)
loaded = backends.load("{backend}", pathlib.Path({str(digit.path(backend))!r}), member, Device("cpu:0", "cpu", 1), 1)
loaded.infer(np.zeros((64, 8, 8, 1), np.uint8))
assert "torch" not in sys.modules
megabytes = psutil.Process().memory_info().rss >> 20
assert megabytes < {most}, megabytes
assert "openvino_telemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_way_in_lets_openvino_report_to_its_maker(digit: Made, tmp_path: Path) -> None:
    installed("openvino")
    home = {**os.environ, "HOME": str(tmp_path)}
    for code in (
        'from ripieno.backends import runtime; runtime("openvino:bf16")',
        'from ripieno.backends.openvino import can; can("int8")',
    ):
        subprocess.run([sys.executable, "-c", code], check=True, env=home)
    child = f"""
from pathlib import Path
from ripieno.profiles import profile
from tests.backends.made import CPU
from ripieno.types import Input, Member, classification
member = Member("a", 1, 1, "resnet", {{}}, Input((8, 8, 1)), classification(tuple("abcde")), {{}}, 1, 1.0)
profile(Path({str(digit.path("openvino"))!r}), member, CPU, "openvino", batch_sizes=(1,), window=0.01, max_seconds=0.1)
"""
    subprocess.run([sys.executable, "-c", child], check=True, env=home, cwd=Path(__file__).parents[2])
    assert not list(tmp_path.iterdir()), "importing its telemetry leaves an identity in the home folder"


def test_a_member_without_weights_is_refused_by_torch(digit: Made) -> None:
    member = dataclasses.replace(digit.member, format="onnx", family="trees:lightgbm")
    with pytest.raises(LibraryError, match="is an ONNX file without weights, which torch cannot run"):
        load_network(member, digit.path("torch"))
