"""The AutoML benchmark's adapter: tasks become arguments of ripieno, and predictions the benchmark's format."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

ADAPTER = Path(__file__).parents[2] / "integrations" / "amlb" / "extensions" / "ripieno"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"amlb_{name}", ADAPTER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


adapter = load("conversion")


def test_types_of_tasks() -> None:
    kinds = [adapter.task_kind(t) for t in ("binary", "multiclass", "regression")]
    assert kinds == ["classification", "classification", "regression"]
    with pytest.raises(ValueError, match=r"no task of type 'timeseries': it takes binary, multiclass, regression"):
        adapter.task_kind("timeseries")


def test_parameters_go_to_the_estimator_and_to_the_adapter() -> None:
    read = adapter.read_parameters({"space": "table", "budget": 5, "_save_artifacts": ["front", "models"]})
    assert read.search == {"space": "table", "budget": 5, "split": adapter.SPLIT}
    assert (read.images, read.artefacts) == (False, ("front", "models"))
    assert adapter.read_parameters({}).search["budget"] == adapter.LARGEST
    assert adapter.read_parameters({}).artefacts == ("leaderboard",)
    assert adapter.read_parameters({"_images": [28, 28]}).images == (28, 28)


def test_all_parameters_are_those_of_the_estimators() -> None:
    from inspect import signature

    from ripieno import EnsembleClassifier

    known = set(signature(EnsembleClassifier).parameters)
    assert set(adapter.SEARCH_PARAMETERS) <= known
    assert set(adapter.BENCHMARK_PARAMETERS) <= known


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spce": "table"}, r"parameter 'spce' is unknown: it must be one of algorithm, budget, .*_save_artifacts$"),
        ({"hours": 1}, r"parameter 'hours' is set by the benchmark's max_runtime_seconds: leave it out"),
        ({"_images": "yes"}, r"_images is 'yes': it must be true, \[height, width\] or"),
        ({"_images": [28]}, r"_images is \[28\]: it must be true"),
        ({"_save_artifacts": ["frnt"]}, r"_save_artifacts names 'frnt': it must be leaderboard, front, models"),
    ],
)
def test_parameters_that_do_not_fit_are_one_clear_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        adapter.read_parameters(given)
    assert "\n" not in str(caught.value)


def test_the_fit_gets_the_time_that_the_start_leaves() -> None:
    assert adapter.fit_seconds(3600, 20) == 3600 - 20 - 10
    assert adapter.fit_seconds(60, 8) == 60 - 8 - 10
    with pytest.raises(ValueError, match=r"max_runtime_seconds 12 is too little: .* give at least 23"):
        adapter.fit_seconds(12, 8)


def test_memory_bounds_the_trials_at_a_time() -> None:
    assert adapter.slots_for(2, 16_000) is None
    assert adapter.slots_for(8, 6_100) == 3
    assert adapter.slots_for(2, 500) == 1


def test_columns_of_a_frame_keep_their_missing_values() -> None:
    frame = pd.DataFrame(
        {
            "age": [39.0, np.nan, 20.0],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "old": [True, False, True],
            "job": pd.Categorical(["clerk", None, "cook"]),
            "zip": pd.Categorical(["10", "20", None]),
        }
    )
    columns = adapter.samples_of(frame, False)
    np.testing.assert_array_equal(columns["age"], [39, np.nan, 20])
    np.testing.assert_array_equal(columns["n"], [1, np.nan, 3])
    assert columns["old"].tolist() == [1, 0, 1]
    assert columns["job"].tolist() == ["clerk", None, "cook"]
    assert columns["zip"].tolist() == ["10", "20", None]
    assert adapter.column_kinds(frame) == {"zip": "category"}


def test_many_columns_of_numbers_are_an_array() -> None:
    wide = pd.DataFrame(np.arange(12_000, dtype=float).reshape(2, 6000))
    assert adapter.samples_of(wide, False).shape == (2, 6000)
    assert isinstance(adapter.samples_of(wide.iloc[:, :5000], False), dict)


def test_columns_become_images() -> None:
    grey = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 256
    images = adapter.samples_of(pd.DataFrame(grey.reshape(2, -1)), True)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], grey)
    colour = np.random.default_rng(0).random((2, 4, 4, 3)).astype(np.float32)
    planes = pd.DataFrame(colour.transpose(0, 3, 1, 2).reshape(2, -1))
    np.testing.assert_array_equal(adapter.samples_of(planes, True), colour)
    np.testing.assert_array_equal(adapter.samples_of(pd.DataFrame(colour.reshape(2, -1)), (4, 4, 3)), colour)
    assert adapter.samples_of(pd.DataFrame(colour[..., 0].reshape(2, -1)), (2, 8)).shape == (2, 2, 8, 1)


@pytest.mark.parametrize(
    ("frame", "shape", "message"),
    [
        (pd.DataFrame(np.zeros((2, 783))), True, r"783 columns are no square images"),
        (
            pd.DataFrame(np.zeros((2, 784))),
            (28, 27),
            r"_images is \[28, 27, 1\], 756 values, but there are 784 columns",
        ),
        (pd.DataFrame({"a": [1.0, np.nan]}), True, r"some values are missing or infinite"),
        (pd.DataFrame({"a": ["x", "y"]}), True, r"column 'a' holds no numbers"),
    ],
)
def test_columns_that_are_no_images_are_one_clear_line(frame: object, shape: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter.samples_of(frame, shape)


def test_rows_of_rare_classes_are_repeated() -> None:
    codes = np.array([0, 0, 0, 0, 1, 2, 2])
    rows = adapter.rows_of_rare_classes(codes)
    assert sorted(rows.tolist()) == [4, 4, 5]
    assert not len(adapter.rows_of_rare_classes(codes[:4]))


def test_probabilities_have_a_column_for_each_class() -> None:
    predicted = np.array([[0.25, 0.75], [0.6, 0.4]], np.float32)
    probabilities = adapter.class_probabilities(predicted, np.array([0, 2]), 4)
    np.testing.assert_allclose(probabilities, [[0.25, 0, 0.75, 0], [0.6, 0, 0.4, 0]])
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_the_guard_ends_the_largest_child_above_the_limit() -> None:
    guard = load("memory_guard")
    code = "import sys; held = bytes(range(256)) * (int(sys.argv[1]) << 12); print(flush=True); sys.stdin.read()"
    children = [
        subprocess.Popen([sys.executable, "-c", code, mb], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for mb in ("1", "400")
    ]
    try:
        for child in children:
            assert child.stdout
            child.stdout.readline()
        # the second child alone is over the limit; without it, this process and the first are not
        used = sum(guard._private_memory(guard.psutil.Process(child.pid)) for child in children)
        limit = used / guard.MB + guard._private_memory(guard.psutil.Process()) / guard.MB
        with guard.MemoryGuard(limit - 200, interval=0.01):
            assert children[1].wait(20) == -9
        time.sleep(0.05)
        assert children[0].poll() is None
    finally:
        for child in children:
            child.kill()
            child.communicate()
