"""The nodes of columns encode raw values as `table_encoding` does."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from ripieno.backends.column_nodes import MATRIX
from ripieno.backends.merge_onnx import columns_onnx
from ripieno.data.column_values import EARLIEST, LATEST, MISSING
from ripieno.data.table_encoding import encode
from ripieno.errors import DataError, LibraryError
from ripieno.types import Column, Input

DATE = Column("since", "date", (), ("year", "month", "day", "weekday", "hour", "age"), 20000.25)
CATEGORY = Column("plan", "category", ("gold", "12", "größer", "-3"))


def run(columns: tuple[Column, ...], given: dict[str, np.ndarray]) -> np.ndarray:
    """Return the matrix of a graph of `columns`; each of `given` is (batch,)."""
    content = columns_onnx(Input((sum(c.width for c in columns),), "float32", columns=columns))
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([MATRIX], {name: values[:, np.newaxis] for name, values in given.items()})[0])


def test_dates_have_the_parts_of_the_calendar() -> None:
    generator = np.random.default_rng(0)
    around = np.arange(-800, 800, dtype=np.float64)  # 1968 to 1972, with a leap day
    centuries = np.array([np.datetime64(f"{year}-{end}", "D").astype(float) for year in (1600, 1900, 2000, 2100)
                          for end in ("02-28", "03-01", "12-31", "01-01")])  # fmt: skip
    far = np.array([EARLIEST, LATEST - 0.5, np.nan])
    days = np.concatenate([around, around + 0.999, centuries, generator.uniform(EARLIEST, LATEST, 2000), far])
    np.testing.assert_array_equal(run((DATE,), {"since": days}), encode((DATE,), {"since": days}, "x", DataError))


def test_categories_have_their_index_and_missing_ones_none() -> None:
    texts = [*CATEGORY.categories, "12.0", "-3.00", "silver", "", *sorted(MISSING)]
    given = np.array(texts, object)
    expected = encode((CATEGORY,), {"plan": texts}, "x", DataError)
    found = run((CATEGORY,), {"plan": given})
    np.testing.assert_array_equal(np.delete(found, 5, axis=0), np.delete(expected, 5, axis=0))
    assert found[5] == -1  # a graph knows one spelling of a whole number with a point


def test_columns_stand_in_their_order_beside_each_other() -> None:
    columns = (Column("b"), DATE, CATEGORY, Column("a"), dataclasses.replace(DATE, name="until", parts=("hour",)))
    given = {
        "a": np.array([1.5, np.nan], np.float32),
        "b": np.array([-2, 3e38], np.float32),
        "since": np.array([19.75, np.nan]),
        "until": np.array([np.nan, 0.5]),
        "plan": np.array(["größer", "?"], object),
    }
    expected = encode(columns, {name: list(values) for name, values in given.items()}, "x", DataError)
    np.testing.assert_array_equal(run(columns, given), expected)


def test_a_column_named_as_a_tensor_of_the_graph_is_refused() -> None:
    with pytest.raises(LibraryError, match=r"column 'columns/matrix' has the name of another tensor .*; rename it"):
        run((Column(MATRIX),), {MATRIX: np.zeros(1, np.float32)})
