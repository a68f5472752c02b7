"""The scikit-learn regressor, by scikit-learn's own checks where they are quick."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

import ripieno
from ripieno import EnsembleClassifier, EnsembleRegressor

MANY_FITS = {
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_fit_score_takes_y",
    "check_pipeline_consistency",
    "check_regressor_data_not_an_array",
    "check_regressor_multioutput",
    "check_regressors_int",
    "check_regressors_train",
    "check_supervised_y_2d",
}
"""Each fits two to six regressors, so only where `RIPIENO_ALL_CHECKS` is set."""
ALL = bool(os.environ.get("RIPIENO_ALL_CHECKS"))
EXPECTED_TO_FAIL = {"check_array_api_input"}
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
QUICK: dict[str, Any] = {
    "budget": {"parameters": 1e9},
    "trials": 1,
    "algorithm": "random",
    "pool": "inline",
    "folds": 0,
    "free": "off",
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("space") / "quick.json"
    path.write_text(json.dumps(SPACE))
    return str(path)


@pytest.fixture(scope="module")
def space_of_rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("space") / "rows.json"
    path.write_text(json.dumps(ROWS))
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Use one core: a trial in this process uses all its cores, and threads of a tiny network only wait."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # that of the classifier's tests is the first
    yield
    os.sched_setaffinity(0, cores)


def named(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


def checks(estimator: Any) -> list[tuple[Any, Any]]:
    found = estimator_checks_generator(estimator)
    return [(e, c) for e, c in found if named(c) not in EXPECTED_TO_FAIL and (ALL or named(c) not in MANY_FITS)]


CHECKS = [named(check) for _, check in checks(EnsembleRegressor())]


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[f"{i}-{name}" for i, name in enumerate(CHECKS)])
def test_scikit_learns_check_passes(space_of_rows: str, number: int) -> None:
    estimator, check = checks(EnsembleRegressor(epochs=1, space=space_of_rows, **QUICK))[number]
    check(estimator)


def pictures(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures and their brightness, from 0 to 1."""
    values = np.linspace(0, 1, count)
    noise = np.random.default_rng(0).integers(0, 40, (count, 8, 8, 1))
    return (200 * values[:, None, None, None] + noise).astype(np.uint8), values


def test_a_value_is_predicted_in_its_unit_and_served_alike(space: str) -> None:
    images, values = pictures()
    fitted = EnsembleRegressor(epochs=20, space=space, **QUICK).fit(images, 1000 * values)
    predicted = fitted.predict(images)
    assert predicted.shape == (120,)
    assert fitted.score(images, 1000 * values) > 0.8
    with ripieno.Engine(fitted.bundle_.path) as engine:
        assert np.array_equal(engine.predict(images)[:, 0], predicted)


def test_several_targets_are_predicted_together(space: str) -> None:
    images, values = pictures()
    targets = np.stack([values, 5 - 3 * values], axis=1)
    fitted = EnsembleRegressor(epochs=20, space=space, **QUICK).fit(images, targets)
    assert fitted.predict(images).shape == (120, 2)
    assert fitted.score(images, targets) > 0.7
    assert fitted.bundle_.task.names == ("y0", "y1")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (np.full(120, 3.0), "target 'y' is 3 in all"),
        (np.where(np.arange(120) == 7, np.nan, 1.0), "NaN"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(space: str, targets: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EnsembleRegressor(space=space, **QUICK).fit(pictures()[0], targets)


def test_a_classifier_of_columns_of_0_and_1_predicts_several_labels(
    space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images, values = pictures()
    order = np.random.default_rng(1).permutation(len(images))
    images, values = images[order], values[order]
    labels = np.stack([values > 0.5, values < 0.3], axis=1).astype(np.int64)
    fitted = EnsembleClassifier(epochs=20, space=space, verbose=1, **QUICK).fit(images, labels)
    probabilities, predicted = fitted.predict_proba(images), fitted.predict(images)
    assert probabilities.shape == predicted.shape == (120, 2)
    assert (predicted == labels).mean() > 0.8
    thresholds = fitted.ensemble_.thresholds
    assert len(thresholds) == 2
    assert np.array_equal(predicted, probabilities >= np.array(thresholds))
    fitted.ensemble_ = replace(fitted.ensemble_, thresholds=(0.0, 1.0))
    assert fitted.predict(images).mean(axis=0).tolist() == [1.0, 0.0]
    assert "1 members, best binary cross-entropy" in capsys.readouterr().out
