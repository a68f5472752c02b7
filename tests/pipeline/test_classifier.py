"""The scikit-learn classifier, by scikit-learn's own checks where they apply."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import estimator_checks_generator

import ripieno
from ripieno import EnsembleClassifier

MANY_FITS = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_pipeline_consistency",
    "check_supervised_y_2d",
}
"""Each fits two to six classifiers: half a minute together, so only where `RIPIENO_ALL_CHECKS` is set."""
ALL = bool(os.environ.get("RIPIENO_ALL_CHECKS"))
EXPECTED_TO_FAIL = {
    "check_array_api_input": "ONNX Runtime returns NumPy arrays: other namespaces are converted",
}
SPACE = {
    "family": "resnet",
    "ranges": {"width": {"kind": "integer", "low": 4, "high": 4}},
    "fixed": {"learning_rate": 0.02, "batch_size": 16, "stem_filters": 8, "optimizer": "adamw", "schedule": "rung"}
    | {f"blocks_{i}": 1 for i in range(1, 5)},
}


ROWS = {
    "family": "mlp",
    "ranges": {"units": {"kind": "integer", "low": 8, "high": 8}},
    "fixed": {"learning_rate": 0.02, "batch_size": 16, "layers": 1, "epoch_samples": 200},
}
"""A space of rows, which the checks fit."""


def quick(space: Path, epochs: int = 1) -> EnsembleClassifier:
    """A classifier that is fitted in a fifth of a second; counted costs make it deterministic."""
    return EnsembleClassifier(
        {"parameters": 1e9}, trials=1, epochs=epochs, space=str(space), algorithm="random", pool="inline",
        folds=0, free="off",
    )  # fmt: skip


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "quick.json"
    path.write_text(json.dumps(SPACE))
    return path


@pytest.fixture(scope="module")
def space_of_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Use one core: a trial in this process uses all its cores, and threads of a tiny network only wait."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def named(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


CHECKS = [
    named(check)
    for _, check in estimator_checks_generator(EnsembleClassifier())
    if named(check) not in EXPECTED_TO_FAIL and (ALL or named(check) not in MANY_FITS)
]


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[f"{i}-{name}" for i, name in enumerate(CHECKS)])
def test_scikit_learns_check_passes(space_of_rows: Path, number: int) -> None:
    train = CHECKS[number] == "check_classifiers_train"
    found = [
        (estimator, check)
        for estimator, check in estimator_checks_generator(quick(space_of_rows, epochs=6 if train else 1))
        if named(check) not in EXPECTED_TO_FAIL and (ALL or named(check) not in MANY_FITS)
    ]
    estimator, check = found[number]
    check(estimator)


@pytest.fixture(scope="module")
def drawers(space: Path) -> tuple[EnsembleClassifier, np.ndarray, np.ndarray]:
    """A classifier of bright and dark pictures, its images and its labels."""
    generator = np.random.default_rng(0)
    names = np.array(["dark", "light"])[np.arange(40) % 2]
    images = (
        generator.integers(0, 120, (40, 8, 6, 3), np.uint8) + np.uint8(130) * (names == "light")[:, None, None, None]
    )
    return quick(space, epochs=4).fit(images.astype(np.uint8), names), images.astype(np.uint8), names


def test_images_and_names_of_classes(drawers: tuple[EnsembleClassifier, np.ndarray, np.ndarray]) -> None:
    fitted, images, names = drawers
    assert list(fitted.classes_) == ["dark", "light"]
    assert (fitted.n_features_in_, fitted.sample_shape_) == (8 * 6 * 3, (8, 6, 3))
    assert fitted.predict_proba(images).shape == (40, 2)
    assert (fitted.predict(images) == names).mean() > 0.9
    assert fitted.ensemble_.cost["parameters"] <= 1e9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[:, :4], r"samples of shape \(4, 6, 3\), the estimator was fitted on \(8, 6, 3\)"),
        (lambda x: x.reshape(len(x), -1), r"samples of shape \(144,\), the estimator was fitted on \(8, 6, 3\)"),
        (lambda x: x / 255, "other values than the whole numbers 0 to 255"),
        (lambda x: np.full(x.shape, np.nan), "NaN"),
    ],
)
def test_other_samples_are_refused_in_a_line(
    drawers: tuple[EnsembleClassifier, np.ndarray, np.ndarray], change: Any, says: str
) -> None:
    fitted, images, _ = drawers
    with pytest.raises(ValueError, match=says) as error:
        fitted.predict(change(images))
    assert "\n" not in str(error.value)


def test_a_copy_is_whole_by_itself_and_a_clone_is_not_fitted(
    drawers: tuple[EnsembleClassifier, np.ndarray, np.ndarray],
) -> None:
    fitted, images, _ = drawers
    other = copy.deepcopy(fitted)
    assert other.bundle_.path != fitted.bundle_.path
    assert np.array_equal(other.predict_proba(images), fitted.predict_proba(images))
    folder = other.run_
    del other
    assert not folder.exists()
    with pytest.raises(NotFittedError):
        clone(fitted).predict(images)
    assert clone(fitted).get_params() == fitted.get_params()


def test_what_it_fitted_can_be_served(drawers: tuple[EnsembleClassifier, np.ndarray, np.ndarray]) -> None:
    fitted, images, _ = drawers
    with ripieno.Engine(fitted.bundle_.path) as engine:
        assert np.array_equal(engine.predict(images), fitted.predict_proba(images))


def test_without_scikit_learn_the_rest_works_and_this_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import ripieno; ripieno.tune\n"
        "try: ripieno.EnsembleClassifier\n"
        "except ripieno.RipienoError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'ripieno[train]'" in done.stdout, done.stderr


def test_images_of_another_range_than_those_fitted_on_are_refused(space: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = (generator.uniform(0, 0.4, (40, 8, 6, 3)) + labels[:, None, None, None] * 0.6).astype(np.float32)
    fitted = quick(space, epochs=4).fit(images, labels)
    assert (fitted.predict(images.transpose(0, 3, 1, 2)) == labels).mean() > 0.9
    for other in ((images * 255).astype(np.uint8), images * 255, images * 2 - 1):
        with pytest.raises(ValueError, match="the network was trained on"):
            fitted.predict(other)


def test_a_size_that_no_image_can_have_is_refused(space: Path) -> None:
    with pytest.raises(ValueError, match="size is 99999"):
        quick(space).set_params(size=99_999).fit(np.zeros((40, 8, 6, 3), np.uint8), np.arange(40) % 2)
