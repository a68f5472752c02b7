"""Labels are class names first, and positions only if no class name is a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.errors import DataError, LibraryError
from ripieno.tasks.labels import check_classes, check_names, label_indices, number_of, read_labels

TEXT_SORTED = ("0", "1", "10", "11", "2")


@pytest.mark.parametrize(
    ("values", "classes", "indices"),
    [
        ([1, 2, 3, 1], ("1", "2", "3", "4"), [0, 1, 2, 0]),
        ([10, 2, 11], TEXT_SORTED, [2, 4, 3]),
        (np.array([1.0, 10.0]), TEXT_SORTED, [1, 2]),
        ([1, 0], ("1", "0"), [0, 1]),
        (["2", "10"], TEXT_SORTED, [4, 2]),
        (["1.0", "2.0"], ("1", "2"), [0, 1]),
        (["001", "002"], ("001", "002", "1"), [0, 1]),
        ([b"cat", b"dog"], ("cat", "dog"), [0, 1]),
        ([2, 0, 1], ("cat", "dog", "emu"), [2, 0, 1]),
        (["2", "0"], ("cat", "dog", "emu"), [2, 0]),
        ([True, False], ("False", "True"), [1, 0]),
        ([True, False], ("no", "yes"), [1, 0]),
        (np.array([" cat", "dog "]), ("cat", "dog"), [0, 1]),
        (np.array(["cat", 7], dtype=object), ("cat", "7"), [0, 1]),
        ([], ("cat", "dog"), []),
    ],
)
def test_labels_are_met_by_name_and_else_by_position(values: Any, classes: tuple[str, ...], indices: list[int]) -> None:
    assert label_indices(values, classes).tolist() == indices


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([0, 1, 2], ("1", "2", "3"), r"contain 0, which is ambiguous.*1, 2, 3.*by position it is class '1'"),
        ([1, 2], ("001", "002"), r"contain 1, which is ambiguous.*by position it is class '002'"),
        ([5], ("1", "2"), r"contain 5, .*by position it is no class"),
        ([0, 3], ("cat", "dog"), r"contain 3: expected 0 to 1 for 2 classes"),
        ([-1, 0], ("cat", "dog"), r"contain -1: expected 0 to 1"),
        (["cow"], ("cat", "dog"), r"contain 'cow', which is not one of the 2 class names: the classes are cat, dog"),
        (["cat", "1"], ("cat", "dog"), r"contain 'cat'|contain 1|contain '1'"),
        ([0.5], ("cat", "dog"), r"contain 0.5 for sample 0"),
        ([0, None], ("cat", "dog"), r"no value for sample 1"),
        ([0.0, float("nan")], ("cat", "dog"), r"no value for sample 1"),
    ],
)
def test_labels_that_are_no_class_or_two_are_refused(values: Any, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        label_indices(values, classes, "labels of x.csv", DataError)
    assert str(caught.value).startswith("labels of x.csv ")
    assert "\n" not in str(caught.value)


def test_pandas_categories_are_names_whatever_their_codes_are() -> None:
    pandas = pytest.importorskip("pandas")
    words = pandas.Series(pandas.Categorical(["dog", "cat", "dog"], categories=["dog", "cat"]))
    assert label_indices(words, ("cat", "dog")).tolist() == [1, 0, 1]
    numbers = pandas.Series([10, 2], dtype="category")
    assert label_indices(numbers, TEXT_SORTED).tolist() == [2, 4]
    with pytest.raises(DataError, match="no value for sample 1"):
        label_indices(pandas.Series([1, None], dtype="Int64"), ("0", "1"), error=DataError)


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("007", 7), ("7.0", 7), ("-1", -1), ("7.5", None), ("1e3", None), ("inf", None), ("", None)],
)
def test_a_number_is_what_spells_a_whole_one(text: str, number: int | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_indices_of_any_whole_type_are_read_as_int64(dtype: type) -> None:
    found = read_labels(np.array([0, 2, 1], dtype), 3, "labels", DataError, samples=3)
    assert (found.dtype, found.tolist()) == (np.int64, [0, 2, 1])
    assert read_labels([], 3, "labels", DataError).tolist() == []
    assert read_labels([7, -1], None, "labels", DataError).tolist() == [7, -1]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([0, 3], "labels of x contain 3: expected 0 to 2 for 3 classes"),
        ([-1, 0], "labels of x contain -1: expected 0 to 2 for 3 classes"),
        ([0.5, 1], "labels of x have type float64, expected whole numbers, the indices of the classes"),
        ([np.nan, 1], "labels of x have type float64, expected whole numbers, the indices of the classes"),
        (["a", "b"], "labels of x have type <U1, expected whole numbers, the indices of the classes"),
        ([[0], [1]], "labels of x have shape (2, 1), expected (2,), one label for each sample"),
        ([0, 1, 1], "labels of x have shape (3,), expected (2,), one label for each sample"),
    ],
)
def test_what_is_no_index_of_a_class_is_one_line(labels: list[Any], line: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(labels, 3, "labels of x", DataError, samples=2)
    assert str(caught.value) == line


def test_names_must_differ_and_classes_must_be_two() -> None:
    check_names(["a", "b"], "models", LibraryError)
    check_classes(["a", "b"], "x", LibraryError)
    with pytest.raises(LibraryError, match="two models are named 'a'; each must have its own name"):
        check_names(["b", "a", "c", "a"], "models", LibraryError)
    with pytest.raises(LibraryError, match="two classes of x are named 'a'"):
        check_classes(["a", "a"], "x", LibraryError)
    for names, found in (["a"], "only the class 'a'"), ([], "no class"):
        with pytest.raises(LibraryError, match=f"x: there is {found}; expected at least two"):
            check_classes(names, "x", LibraryError)
