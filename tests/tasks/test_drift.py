"""Drift: the tests of windows, and when a drift begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from ripieno.tasks.drift import (
    BEGIN,
    END,
    LEVEL,
    WINDOW,
    Distribution,
    DriftDetector,
    DriftEvent,
    Measured,
    ValidationStatistics,
    compare,
    distribution_of,
    measure,
)
from ripieno.tasks.registry import kind_of
from ripieno.types import Column, Floats, Input, Task

CLASSES = ("cat", "dog", "owl")


def described(values: Floats, categories: tuple[str, ...] = ()) -> Distribution:
    return distribution_of(Measured("x", "inputs", np.asarray(values, np.float64), categories))


def test_ordered_values_are_compared_as_kolmogorov_and_smirnov_do() -> None:
    rng = np.random.default_rng(0)
    known, window = rng.normal(size=5000), rng.normal(0.4, size=WINDOW)
    reference = described(known)
    found, exact = compare(reference, reference.count(window)), ks_2samp(known, window, method="asymp")
    assert found.distance == pytest.approx(exact.statistic, abs=0.02)
    assert found.distance <= exact.statistic, "bins hide differences and make none"
    assert np.log10(found.p) == pytest.approx(np.log10(exact.pvalue), abs=0.8)
    assert found.change == "higher"
    assert compare(reference, reference.count(-window)).change == "lower"
    assert compare(reference, reference.count(3 * known[:WINDOW])).change == "wider"
    assert compare(reference, reference.count(known[:WINDOW] / 3)).change == "narrower"


def test_categories_are_compared_as_pearson_does() -> None:
    reference = described(np.repeat([0, 1, 2], [200, 200, 100]), CLASSES)
    counts = np.array([20, 30, 50])
    found = compare(reference, counts)
    assert found.p == pytest.approx(chi2_contingency([[200, 200, 100], counts], correction=False).pvalue)
    assert found.change == "more owl, less cat"
    assert found.distance == pytest.approx(0.3)


@pytest.mark.parametrize("categories", [2, 10, 1000])
@pytest.mark.parametrize("samples", [60, 2000])
def test_clean_windows_differ_as_rarely_as_the_level_says(categories: int, samples: int) -> None:
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(categories, 0.5))
    ps = []
    for _ in range(20):
        reference = described(rng.choice(categories, samples, p=shares), tuple(map(str, range(categories))))
        ps += [compare(reference, reference.count(rng.choice(categories, WINDOW, p=shares))).p for _ in range(50)]
    assert np.mean(np.array(ps) < 0.01) < 0.03


def test_rare_categories_are_joined_but_a_flood_of_one_is_seen() -> None:
    reference = described(np.repeat([0, 1, 2], [4970, 20, 10]), CLASSES)
    assert compare(reference, np.array([98, 1, 1])).p > LEVEL
    assert compare(reference, np.array([70, 30, 0])).p < 1e-6


def test_values_that_differ_in_the_last_digits_are_the_same() -> None:
    known = np.repeat([0.25, 0.5, 0.75, 1.0], 250)
    for subject in ("confidence", "inputs"):
        reference = distribution_of(Measured("x", subject, known))
        for nudge in (-1e-7, 1e-7):
            assert compare(reference, reference.count(known + nudge)).distance == 0


def test_missing_values_are_counted_apart() -> None:
    reference = described(np.append(np.arange(95.0), [np.nan] * 5))
    window = np.append(np.arange(50.0), [np.nan] * 50)
    found = compare(reference, reference.count(window))
    assert found.p < 1e-6
    assert found.change == "more missing"


def detector(subjects: int = 1) -> DriftDetector:
    known = np.arange(1000) / 1000
    names = [f"x{i}" for i in range(subjects)]
    return DriftDetector(
        ValidationStatistics(1000, tuple(distribution_of(Measured(n, "inputs", known)) for n in names))
    )


def window(low: float, *, names: tuple[str, ...] = ("x0",)) -> dict[str, Floats]:
    return dict.fromkeys(names, np.linspace(low, 1, WINDOW))


def test_a_drift_begins_after_windows_in_a_row_and_ends_after_others() -> None:
    found = detector()
    for _ in range(BEGIN - 1):
        assert found.add(window(0.6)) is None
    assert found.add(window(0)) is None, "one clean window starts the count again"
    events = [found.add(window(0.6)) for _ in range(BEGIN + 3)]
    assert events == [None] * (BEGIN - 1) + [DriftEvent(True, ("x0 (higher)",))] + [None] * 3
    assert found.drifting
    assert found.moved == ("x0 (higher)",)
    events = [found.add(window(0)) for _ in range(END)]
    assert events[:-1] == [None] * (END - 1)
    assert events[-1] == DriftEvent(False, ("x0 (higher)",)), "what had moved, not what the last window did"
    assert not found.drifting
    assert found.moved == ()
    assert found.drifts == 1


def test_the_level_is_divided_among_the_distributions_of_a_subject() -> None:
    """What is rare in one distribution is not in one of a thousand."""
    few, many = detector(1), detector(1000)
    shifted = window(0.25)
    for _ in range(BEGIN):
        few.add(shifted)
        many.add(shifted)
    assert few.drifting
    assert not many.drifting


def test_clean_windows_begin_no_drift() -> None:
    """Ten numbers of three subjects."""
    rng = np.random.default_rng(2)
    known = rng.beta(5, 1, (500, 10))
    subjects = ("confidence", "predictions", *["inputs"] * 8)
    parts = tuple(
        distribution_of(Measured(str(i), subject, known[:, i]))  # type: ignore[arg-type]
        for i, subject in enumerate(subjects)
    )
    found = DriftDetector(ValidationStatistics(500, parts))
    for _ in range(500):
        values = rng.beta(5, 1, (WINDOW, 10))
        assert found.add({str(i): values[:, i] for i in range(10)}) is None


def test_few_values_of_a_distribution_are_not_compared() -> None:
    found = detector()
    for _ in range(BEGIN):
        assert found.add({"x0": np.full(WINDOW // 4, 5.0)}) is None
        assert found.add({}) is None
    assert not found.drifting


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("classification", ["confidence", "disagreement", "predicted classes"]),
        ("multilabel", ["confidence", "disagreement", "label cat", "label dog", "label owl"]),
        ("regression", ["disagreement", "value cat", "value dog", "value owl"]),
        ("segmentation", ["confidence", "disagreement", "pixels of cat", "pixels of dog", "pixels of owl"]),
    ],
)
def test_every_kind_of_task_has_its_numbers(kind: str, names: list[str]) -> None:
    output = (4, 4, 3) if kind == "segmentation" else (3,)
    rng = np.random.default_rng(0)
    predictions = rng.dirichlet([1, 1, 1], (7, *output[:-1])).astype(np.float32)
    found = measure(
        kind_of(Task(kind, output, CLASSES)),
        Task(kind, output, CLASSES),
        Input((4, 4, 2)),
        rng.integers(0, 256, (7, 4, 4, 2), np.uint8),
        predictions,
        np.ones(7, np.float32),
    )
    of_inputs = [f"{what} of channel {i}" for i in (1, 2) for what in ("mean", "standard deviation")]
    assert [m.name for m in found] == names + of_inputs
    assert all(m.values.shape == (7,) for m in found)
    shares = [m.values for m in found if m.name.startswith("pixels")]
    assert not shares or np.allclose(np.sum(shares, axis=0), 1)


def test_columns_of_a_table_are_compared_by_their_kind() -> None:
    columns = (Column("age"), Column("plan", "category", ("gold", "tin")), Column("at", "date", (), ("year", "month")))
    rows = np.array([[30, 1, 2020, 1], [np.nan, -1, 2021, 2]], np.float32)
    task = Task("regression", (1,), ("price",))
    taken = Input((4,), "float32", columns=columns)
    found = {m.name: m for m in measure(kind_of(task), task, taken, rows, np.zeros((2, 1)))}
    assert list(found) == ["value price", "column age", "column plan", "column at year", "column at month"]
    assert found["column plan"].categories == ("gold", "tin", "other")
    assert found["column plan"].values.tolist() == [1, 2]
