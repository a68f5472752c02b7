"""One check of predictions: it accepts probabilities of every type up to rounding, and names what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.errors import LibraryError, SelectionError
from ripieno.tasks import probabilities
from ripieno.tasks.probabilities import HIGHEST, SUM_TOLERANCE, check_probabilities

ROWS = np.random.default_rng(0).dirichlet(np.ones(4), 50)


def fault(values: NDArray[Any]) -> str:
    with pytest.raises(SelectionError) as caught:
        check_probabilities("bob", values, SelectionError)
    return str(caught.value)


def changed(row: int, column: int, value: float, dtype: type = np.float64) -> NDArray[Any]:
    copy = ROWS.astype(dtype)
    copy[row, column] = value
    return copy


@pytest.fixture(params=[1, 20, 1 << 17], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check by single rows, by five rows, and all at once."""
    monkeypatch.setattr(probabilities, "BLOCK", request.param)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_of_any_type_and_layout_pass(dtype: type) -> None:
    for values in (ROWS.astype(dtype), np.asfortranarray(ROWS.astype(dtype)), ROWS.astype(dtype)[::-2]):
        check_probabilities("bob", values, SelectionError)
        check_probabilities("bob", values[:, 0], SelectionError)
    check_probabilities("bob", np.eye(3, dtype=dtype), SelectionError)


def test_the_rounding_of_half_precision_passes() -> None:
    uniform = np.full((5, 1000), 0.001, np.float16)
    assert abs(float(uniform[0].astype(np.float64).sum()) - 1) > 1e-4
    check_probabilities("bob", uniform, SelectionError)
    check_probabilities("bob", np.array([[1 + 2**-10, 0.0]], np.float16), SelectionError)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", [0, 17, 49])
@pytest.mark.parametrize("column", [0, 3])
def test_a_single_wrong_number_is_found_wherever_it_is(dtype: type, row: int, column: int) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        line = fault(changed(row, column, wrong, dtype))
        assert line.startswith(f"bob: 1 predictions are NaN or infinite, first of sample {row};")
    assert f"a prediction is -0.25 for sample {row}," in fault(changed(row, column, -0.25, dtype))
    assert "a prediction is -0.000" in fault(changed(row, column, -0.0005, dtype))
    assert f"is 7 for sample {row}, expected probabilities in 0..1" in fault(changed(row, column, 7, dtype))
    assert f"predictions of sample {row} sum to " in fault(changed(row, column, ROWS[row, column] + 0.04, dtype))


def test_a_probability_above_one_is_found_though_the_sum_is_tolerated() -> None:
    values = np.array([[0.5, 0.5], [1.01, 0.0]], np.float32)
    assert "a prediction is 1.01 for sample 1" in fault(values)


def test_probabilities_of_one_class_need_only_be_in_range() -> None:
    check_probabilities("bob", np.array([0.2, 0.9], np.float32), SelectionError)
    assert "a prediction is 1.5 for sample 1" in fault(np.array([0.2, 1.5]))
    assert "NaN" in fault(np.array([0.2, np.nan], np.float16))


def test_the_error_is_of_the_class_that_is_passed() -> None:
    with pytest.raises(LibraryError):
        check_probabilities("bob", changed(0, 0, 3), LibraryError)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    off=st.floats(-0.05, 0.05),
    classes=st.integers(2, 40),
)
def test_the_fast_pass_decides_as_the_definition(seed: int, dtype: type, off: float, classes: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.full(classes, 0.5), 30)
    values[rng.integers(30), rng.integers(classes)] += off
    values = values.astype(dtype)
    sums = values.astype(np.float64).sum(axis=1)
    margin = 1e-4  # rounding of sums in single precision
    sound = values.min() >= 0 and values.max() <= HIGHEST and np.abs(sums - 1).max() <= SUM_TOLERANCE - margin
    wrong = values.min() < 0 or values.max() > HIGHEST or np.abs(sums - 1).max() > SUM_TOLERANCE + margin
    if sound:
        check_probabilities("bob", values, SelectionError)
    elif wrong:
        fault(values)
