"""Calibrated members, the temperature of the ensemble, and the expected loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import Choice, front, select_members
from ripieno.selection.problem_builder import MEASURES
from ripieno.tasks.calibration import apply_temperature, fit_temperature
from ripieno.tasks.combiners import combine
from ripieno.tasks.evidence import fold_masks
from ripieno.tasks.metrics import cross_entropy, true_class
from ripieno.types import Combiner

Library = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]


def overconfident(seed: int = 0, members: int = 8, samples: int = 1200, classes: int = 4) -> Library:
    """Return predictions twice too certain, labels and costs."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (samples, classes))
    labels = np.array([rng.choice(classes, p=row / row.sum()) for row in np.exp(logits)])
    noisy = 2.0 * (logits + rng.normal(0, rng.uniform(0.5, 1.5, (members, 1, 1)), (members, samples, classes)))
    cube = np.exp(noisy - noisy.max(axis=2, keepdims=True))
    return (cube / cube.sum(axis=2, keepdims=True)).astype(np.float32), labels, rng.lognormal(0, 0.7, members)


def part(library: Library, rows: slice | NDArray[np.bool_]) -> Library:
    return library[0][:, rows], library[1][rows], library[2]


def score(choice: Choice, library: Library) -> float:
    return cross_entropy(choice.combine(library[0]), library[1])


@pytest.mark.parametrize("method", ["smobf-r", "smobf", "replacement", "top-k", "best", "swap"])
@pytest.mark.parametrize("calibrate", ["none", "members", "joint"])
def test_the_loss_is_that_of_what_combine_returns(method: Any, calibrate: Any) -> None:
    cube, labels, costs = library = overconfident(samples=200)
    choice = select_members(cube, labels, costs, float(costs.mean() * 3), method, calibrate=calibrate, size=3)
    assert choice.loss == pytest.approx(score(choice, library), abs=2e-6)


@pytest.mark.parametrize("combiner", ["mean", "vote", "median"])
@pytest.mark.parametrize("loss", ["cross-entropy", "accuracy", "macro-f1", "squared-error"])
def test_so_it_is_for_every_loss_and_combiner(combiner: Combiner, loss: Any) -> None:
    cube, labels, costs = overconfident(samples=150)
    if loss == "squared-error" and combiner == "median":
        pytest.skip("a median is scored by cross-entropy, accuracy or macro-F1")
    choice = select_members(cube, labels, costs, 4.0, "smobf", loss=loss, combiner=combiner, calibrate="members")
    assert choice.loss == pytest.approx(MEASURES[loss](choice.combine(cube), labels), abs=2e-6)
    assert any(t != 1 for t in choice.temperatures)


def test_calibrated_members_predict_unseen_samples_better() -> None:
    library = overconfident()
    seen, unseen = part(library, slice(0, 400)), part(library, slice(400, None))
    scores = {
        mode: score(select_members(*seen, 3.0, "smobf-r", calibrate=mode), unseen)
        for mode in ("none", "members", "joint")
    }
    assert scores["members"] < scores["none"] - 0.03
    assert scores["joint"] < scores["none"] - 0.03


def test_members_are_calibrated_by_default_where_no_method_is_named() -> None:
    cube, labels, costs = overconfident()
    choice = select_members(cube, labels, costs, 3.0)
    assert all(t > 1.3 for t in choice.temperatures)
    assert choice.temperatures == tuple(fit_temperature(cube[m], labels) for m in choice.members)
    assert select_members(cube, labels, costs, 3.0, "smobf").temperatures == (1.0,) * len(
        select_members(cube, labels, costs, 3.0, "smobf").members
    )
    rows = true_class(cube, labels)
    assert set(select_members(rows, None, costs, 3.0).temperatures) == {1.0}
    for combiner in ("vote", "median"):
        assert set(select_members(cube, labels, costs, 3.0, combiner=combiner).temperatures) == {1.0}


def test_one_temperature_of_the_ensemble_is_fitted_after_selection() -> None:
    cube, labels, costs = overconfident()
    choice = select_members(cube, labels, costs, 3.0)
    calibrated = np.stack(
        [apply_temperature(cube[m], t) for m, t in zip(choice.members, choice.temperatures, strict=True)]
    )
    combined = combine(calibrated, choice.weights, "weighted")
    assert choice.temperature == pytest.approx(fit_temperature(combined, labels), rel=1e-3)
    assert choice.temperature < 1.0, "a mean of calibrated members is less certain than it should be"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("needs labels and predictions", {"rows": True, "calibrate": "members"}),
        ("needs labels and predictions", {"rows": True, "calibrate": "joint"}),
        ("unknown calibration 'all'", {"calibrate": "all"}),
        ("certify is unsupported with calibrate joint", {"calibrate": "joint", "certify": True}),
        ("calibrate joint needs the cross-entropy of a mean", {"calibrate": "joint", "combiner": "vote"}),
        ("starts -1 is invalid", {"starts": -1}),
        ("cv 1 is invalid", {"cv": 1}),
        ("cv 2.5 is invalid", {"cv": 2.5}),
    ],
)
def test_bad_arguments_are_one_clear_line(message: str, arguments: dict[str, Any]) -> None:
    cube, labels, _ = overconfident(samples=50)
    given = (true_class(cube, labels), None) if arguments.pop("rows", False) else (cube, labels)
    with pytest.raises(SelectionError, match=message) as caught:
        select_members(*given, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("calibrate", ["none", "members"])
def test_more_budget_never_gives_a_higher_loss_at_the_final_temperature(calibrate: Any) -> None:
    cube, labels, costs = overconfident(samples=200, members=12)
    budgets = [float(costs.min() * k) for k in (1, 1.5, 2, 3, 4, 8, 20)]
    losses = [c.loss for c in front(cube, labels, costs, budgets, calibrate=calibrate)]
    assert losses == sorted(losses, reverse=True)
    steps = [c.loss for c in front(cube, labels, costs, calibrate=calibrate)]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == len(steps)


def test_the_expected_loss_is_that_of_a_literal_cross_validation() -> None:
    cube, labels, _ = library = overconfident(samples=500)
    choice = select_members(*library, 3.0, "smobf-r", calibrate="members", cv=5)
    losses = np.empty(len(labels))
    for held in fold_masks(len(labels), 5):
        fold = select_members(*part(library, ~held), 3.0, "smobf-r", calibrate="members")
        truth = true_class(fold.combine(cube[:, held]), labels[held])
        losses[held] = -np.log(truth)
    assert choice.expected_loss == pytest.approx(losses.mean(), abs=5e-3)
    assert choice.expected_loss_error == pytest.approx(losses.std() / len(losses) ** 0.5, rel=0.05)


def test_the_expected_loss_is_nearer_to_that_of_unseen_samples_than_the_loss() -> None:
    flattery, bias = [], []
    for seed in range(6):
        library = overconfident(seed, members=20, samples=1600)
        seen, unseen = part(library, slice(0, 100)), part(library, slice(100, None))
        choice = select_members(*seen)
        assert choice.expected_loss is not None
        test = score(choice, unseen)
        flattery.append(test - choice.loss)
        bias.append(test - choice.expected_loss)
    assert abs(np.mean(bias)) < np.mean(flattery) / 2


def test_the_expected_loss_is_off_where_a_method_is_named_or_samples_are_too_few() -> None:
    cube, labels, costs = overconfident(samples=60)
    assert select_members(cube, labels, costs, 3.0).expected_loss is not None
    assert select_members(cube, labels, costs, 3.0, "smobf").expected_loss is None
    assert select_members(cube, labels, costs, 3.0, cv=0).expected_loss is None
    assert select_members(cube[:, :4], labels[:4], costs, 3.0).expected_loss is None
    assert select_members(true_class(cube, labels), None, costs, 3.0).expected_loss is not None


@pytest.mark.parametrize("loss", ["accuracy", "macro-f1", "squared-error"])
def test_every_loss_has_an_expected_one(loss: Any) -> None:
    cube, labels, costs = overconfident(samples=300)
    choice = select_members(cube, labels, costs, 3.0, loss=loss, cv=3)
    assert choice.expected_loss is not None
    assert choice.expected_loss_error is not None
    assert abs(choice.expected_loss - choice.loss) < 6 * choice.expected_loss_error + 0.05
