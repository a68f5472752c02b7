"""Invalid arguments raise one line that names the fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.selection import front, select_members

TRUTH = np.array([[0.9, 0.3], [0.3, 0.9], [0.5, 0.5]])
CUBE = np.stack([TRUTH, 1 - TRUTH], axis=-1)
NAMES = ["ann", "bob", "cid"]


def changed(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    copy = array.copy()
    copy[place] = value
    return copy


HOLE = changed(TRUTH, (1, 0), np.nan)
UNEVEN = changed(CUBE, (1, 0, 0), 0.7)
TWO = {"seconds": [9, 3, 4], "bytes": [1, 1, 1]}
BOUNDS = {"seconds": 2, "bytes": 9}
CUBED = {"predictions": CUBE, "labels": [0, 1]}

CASES: list[tuple[str, dict[str, Any]]] = [
    (r"type <U3: expected float16", {"predictions": [["bad", "bad"]]}),
    (r"type object", {"predictions": np.array([[None, None]])}),
    (r"type complex128", {"predictions": TRUTH + 0j}),
    (r"shape \(2,\): expected \(members, samples", {"predictions": TRUTH[0]}),
    (r"shape \(3, 1, 2, 2\)", {"predictions": CUBE[:, None]}),
    (r"shape \(\)", {"predictions": 0.5}),
    (r"at least one", {"predictions": np.zeros((0, 2))}),
    (r"predictions are empty", {"predictions": []}),
    (r"every axis must have at least one", {"predictions": np.zeros((2, 0))}),
    (r"members differ in shape", {"predictions": [[0.1, 0.2], [0.3]]}),
    (r"shapes \(1,\) and \(2,\)", {"predictions": [TRUTH[0], TRUTH[1][:1]]}),
    (r"at least two classes", {"predictions": np.ones((2, 3, 1)), "labels": [0, 0, 0]}),
    (r"bob: 1 predictions are NaN or infinite, first of sample 0", {"predictions": HOLE, "names": NAMES}),
    (r"bob: 1 predictions are NaN", {"predictions": HOLE.astype(np.float16), "names": NAMES}),
    (
        r"cid: a prediction is -0\.5 .*softmax",
        {"predictions": changed(TRUTH, (2, 1), -0.5), "names": NAMES},
    ),
    (
        r"ann: a prediction is 7",
        {"predictions": changed(TRUTH, (0, 1), 7.0).astype(np.float16), "names": NAMES},
    ),
    (r"cid: 1 predictions are NaN or infinite", {"predictions": changed(TRUTH, (2, 1), np.inf), "names": NAMES}),
    (r"bob: predictions of sample 0 sum to 1\.4", {"predictions": UNEVEN, "labels": [0, 0], "names": NAMES}),
    (r"needs labels: pass \(2,\) integers", {"predictions": CUBE}),
    (r"labels have shape \(3,\), expected \(2,\)", {"predictions": CUBE, "labels": [0, 1, 0]}),
    (r"labels contain 2: expected 0 to 1 for 2 classes", {"predictions": CUBE, "labels": [0, 2]}),
    (r"labels contain -1: expected 0 to 1", {"predictions": CUBE, "labels": [-1, 0]}),
    (r"labels have type float64", {"predictions": CUBE, "labels": [0.5, 1.0]}),
    (r"labels have type <U1", {"predictions": CUBE, "labels": ["a", "b"]}),
    (r"costs have shape \(2, 1\): expected \(3,\)", {"costs": [1.0, 2.0]}),
    (r"costs have shape \(\)", {"costs": 3.0}),
    (r"costs are not numbers", {"costs": ["a", "b", "c"]}),
    (r"bob costs nan", {"costs": [1.0, np.nan, 1.0], "names": NAMES}),
    (r"ann costs -1", {"costs": [-1.0, 1.0, 1.0], "names": NAMES}),
    (r"cid costs inf", {"costs": [1.0, 1.0, np.inf], "names": NAMES}),
    (r"empty mapping", {"costs": {}}),
    (r"costs of 'seconds' have shape \(2,\)", {"costs": {"seconds": [1.0, 2.0]}}),
    (r"one budget for several costs \(seconds, bytes\)", {"costs": TWO, "budget": 3}),
    (r"budget on unknown cost 'hours': expected .* seconds", {"costs": {"seconds": [1, 1, 1]}, "budget": {"hours": 3}}),
    (r"1 budgets for 2 columns", {"costs": np.ones((3, 2)), "budget": {"seconds": 3}}),
    (r"budget 0 ", {"costs": [1, 1, 1], "budget": 0}),
    (r"budget nan ", {"costs": [1, 1, 1], "budget": float("nan")}),
    (r"budget '5' ", {"costs": [1, 1, 1], "budget": "5"}),
    (r"budget True ", {"costs": [1, 1, 1], "budget": True}),
    (r"the cheapest, member 0, costs 2", {"costs": [2, 3, 4], "budget": 1}),
    (r"the cheapest, member 1, costs 3 of 2 seconds, 1 of 9 bytes", {"costs": TWO, "budget": BOUNDS}),
    (r"unknown method 'magic': expected one of smobf", {"method": "magic"}),
    (r"unknown loss 'hinge': expected one of cross-entropy", {"loss": "hinge"}),
    (r"unknown combiner 'max': expected one of mean", {"combiner": "max"}),
    (r"accuracy needs labels and predictions \(members, samples, classes\)", {"loss": "accuracy", "labels": [0, 1]}),
    (r"combiner vote needs labels and predictions", {"combiner": "vote"}),
    (r"gives no weights", {"combiner": "weighted", "method": "smobf"}),
    (r"a median has no weights", {**CUBED, "combiner": "median", "method": "replacement"}),
    (r"size 0", {"size": 0}),
    (r"size 2\.5", {"size": 2.5}),
    (r"size 4 exceeds the library", {"size": 4}),
    (r"prune 0", {"prune": 0}),
    (r"prune 1\.5", {"prune": 1.5}),
    (r"weights \(\)", {"weights": ()}),
    (r"weights \(2,\)", {"weights": (2,)}),
    (r"2 names for 3 members", {"names": ["a", "b"]}),
    (r"two members are named 'a'", {"names": ["a", "b", "a"]}),
    (r"squared-error needs labels", {"loss": "squared-error"}),
    (r"targets have shape \(3,\): expected \(2,\)", {"loss": "squared-error", "labels": [1.0, 2.0, 3.0]}),
    (r"targets contain NaN", {"loss": "squared-error", "labels": [1.0, np.nan]}),
    (r"member 1 predicts NaN or infinity", {"predictions": HOLE, "loss": "squared-error", "labels": [1.0, 2.0]}),
    (
        r"median does not support regression",
        {**CUBED, "loss": "squared-error", "labels": CUBE[0], "combiner": "median"},
    ),
    (r"certify is unsupported here", {**CUBED, "loss": "accuracy", "certify": True}),
]


@pytest.mark.parametrize(("message", "arguments"), CASES, ids=[message for message, _ in CASES])
def test_bad_arguments_are_one_clear_line(message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(SelectionError, match=message) as caught:
        select_members(**{"predictions": TRUTH, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"budgets are empty", {"budgets": []}),
        (r"points 0", {"points": 0}),
        (r"costs have 2 kinds: pass budgets", {"costs": {"a": [1, 1, 1], "b": [1, 1, 1]}}),
        (r"budget -1", {"budgets": [3, -1]}),
    ],
)
def test_bad_fronts_are_one_clear_line(message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(SelectionError, match=message):
        front(TRUTH, **arguments)


def test_arguments_are_left_as_they_were() -> None:
    truth, costs = TRUTH.copy(), np.array([1.0, 2.0, 3.0])
    select_members(truth, costs=costs, budget=4.0, method="swap")
    assert (truth == TRUTH).all()
    assert costs.tolist() == [1.0, 2.0, 3.0]


def test_sums_of_costs_may_pass_their_budget_by_rounding_only() -> None:
    assert len(select_members(TRUTH, costs=[0.1, 0.2, 0.3], budget=0.6, method="forward", size=3).members) == 3
    assert len(select_members(TRUTH, costs=[0.1, 0.2, 0.3], budget=0.599, method="forward", size=3).members) == 2


def test_masked_arrays_are_refused_where_something_is_masked() -> None:
    plain = np.ma.masked_array(TRUTH, mask=False)
    assert select_members(plain, costs=[1, 1, 1], budget=3, method="smobf").members
    hole = np.ma.masked_array(TRUTH, mask=np.arange(TRUTH.size).reshape(TRUTH.shape) == 1)
    for words in (
        {"predictions": hole},
        {"predictions": list(hole)},
        {"predictions": TRUTH, "costs": np.ma.masked_equal([1.0, 2.0, 3.0], 2.0), "budget": 9.0},
    ):
        with pytest.raises(SelectionError, match="masked"):
            select_members(**words)
