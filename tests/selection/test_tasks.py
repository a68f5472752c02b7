"""Selection for several labels and for regressions: its losses are those of the task, of what is served."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ripieno
from ripieno.errors import SelectionError
from ripieno.selection import front
from ripieno.tasks.metrics import METRICS, metric_key
from ripieno.tasks.registry import TASKS
from ripieno.types import Task

MEMBERS, SAMPLES = 8, 120
COSTS = np.linspace(1, 3, MEMBERS)
CASES = ("multilabel", "flat regression", "regression", "several targets")


def case(name: str, seed: int = 0) -> tuple[str, NDArray[np.float32], NDArray[Any]]:
    """Return the kind of task, predictions of members that are right to a degree, and targets."""
    rng = np.random.default_rng(seed)
    if name == "multilabel":
        labels = (rng.random((SAMPLES, 3)) < (0.2, 0.5, 0.7)).astype(np.uint8)
        logits = 2.5 * labels - 1.2 + rng.normal(size=(MEMBERS, SAMPLES, 3)) * np.linspace(1, 2, MEMBERS)[:, None, None]
        return name, (1 / (1 + np.exp(-logits))).astype(np.float32), labels
    values = rng.normal(size=(SAMPLES, 2)) * (1, 300) + (0, 1000)
    noise = rng.normal(size=(MEMBERS, SAMPLES, 2)) * (0.8, 250) * np.linspace(1, 2, MEMBERS)[:, None, None]
    predictions = (values + noise).astype(np.float32)
    if name == "flat regression":
        return "regression", predictions[..., 1], values[:, 1]
    if name == "regression":
        return name, predictions[..., 1:], values[:, 1:]
    return "regression", predictions, values


def figure(kind: str, loss: str, predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    metric = METRICS[metric_key(loss or TASKS[kind].metrics[0])]
    return metric.as_loss(metric.function(predictions, targets))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("combiner", ["mean", "median"])
def test_the_exact_choice_has_the_lowest_loss_of_what_is_served(name: str, combiner: Any) -> None:
    kind, predictions, targets = case(name)
    choice = ripieno.select_members(
        predictions, targets, COSTS, budget=5.0, task=kind, method="exact", combiner=combiner, cv=0
    )
    fitting = (s for k in range(1, 6) for s in itertools.combinations(range(MEMBERS), k) if COSTS[list(s)].sum() <= 5)
    best = min(figure(kind, "", TASKS[kind].combine(predictions[list(s)], None, combiner), targets) for s in fitting)
    assert choice.loss == pytest.approx(best, rel=1e-5)
    assert choice.combine(predictions).dtype == np.float32
    assert figure(kind, "", choice.combine(predictions), targets) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["smobf-r", "smobf", "swap", "replacement", "forward", "top-k", "best"])
def test_every_method_reports_the_loss_of_what_it_combines(name: str, method: Any) -> None:
    kind, predictions, targets = case(name)
    choice = ripieno.select_members(predictions, targets, COSTS, budget=9.0, task=kind, method=method)
    assert choice.task == kind
    assert choice.cost <= 9.0
    assert choice.loss == pytest.approx(figure(kind, "", choice.combine(predictions), targets), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_defaults_are_weighted_and_cross_validated_and_labels_are_calibrated(name: str) -> None:
    kind, predictions, targets = case(name)
    choice = ripieno.select_members(predictions, targets, COSTS, budget=9.0, task=kind)
    assert choice.combiner == "weighted"
    temperatures = {choice.temperature, *choice.temperatures}
    assert temperatures != {1.0} if kind == "multilabel" else temperatures == {1.0}
    assert choice.expected_loss is not None
    assert choice.expected_loss_error is not None
    assert choice.loss < choice.expected_loss + 2 * choice.expected_loss_error
    assert choice.expected_loss == pytest.approx(choice.loss, rel=0.5)
    singles = [figure(kind, "", p, targets) for p in predictions]
    assert choice.loss < min(singles)


def test_the_expected_loss_is_that_of_the_samples_held_out() -> None:
    """With one member there is nothing to select: the expected loss is its loss."""
    for name in CASES:
        kind, predictions, targets = case(name)
        for loss in [None, *(n.replace("_", "-") for n in TASKS[kind].metrics)]:
            options: dict[str, Any] = {"task": kind, "loss": loss, "cv": 4, "calibrate": "none"}
            choice = ripieno.select_members(predictions[:1], targets, budget=1, **options)
            # a loss that is no mean over samples differs a little between folds and the whole
            exact = loss in (None, "squared-error", "mae", "binary-cross-entropy")
            assert choice.expected_loss == pytest.approx(choice.loss, rel=1e-5 if exact else 0.25)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("multilabel", "macro-f1"),
        ("multilabel", "mean-average-precision"),
        ("several targets", "rmse"),
        ("regression", "mae"),
        ("several targets", "mae"),
        ("flat regression", "r2"),
        ("several targets", "r2"),
    ],
)
def test_every_metric_of_the_task_is_a_loss(name: str, loss: Any) -> None:
    kind, predictions, targets = case(name)
    choice = ripieno.select_members(predictions, targets, COSTS, budget=9.0, task=kind, loss=loss)
    assert choice.loss == pytest.approx(figure(kind, loss, choice.combine(predictions), targets), rel=1e-4, abs=1e-6)
    own = ripieno.select_members(predictions, targets, COSTS, budget=9.0, task=kind)
    assert choice.loss <= figure(kind, loss, own.combine(predictions), targets) + 1e-6


@pytest.mark.parametrize("name", CASES)
def test_the_front_falls_and_every_budget_gets_the_best(name: str) -> None:
    kind, predictions, targets = case(name)
    ensembles = front(predictions, targets, COSTS, task=kind, points=6)
    assert all(a.cost < b.cost and a.loss > b.loss for a, b in itertools.pairwise(ensembles))
    for budget, choice in zip((3.0, 9.0), front(predictions, targets, COSTS, [3.0, 9.0], task=kind), strict=True):
        alone = ripieno.select_members(predictions, targets, COSTS, budget, task=kind)
        assert choice.loss <= alone.loss + 1e-12


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("method", ["smobf-r", "swap", "replacement", "forward"])
def test_the_unit_of_a_target_does_not_change_what_is_selected(unit: float, method: Any) -> None:
    kind, predictions, targets = case("regression")
    wide = predictions.astype(np.float64)
    # without the weights of equation 2, which set the raw loss against the budget
    options: dict[str, Any] = {"task": kind, "method": method, "weights": [0.0], "cv": 0}
    here = ripieno.select_members(wide, targets, COSTS, 12.0, **options)
    there = ripieno.select_members(wide * unit, targets * unit, COSTS, 12.0, **options)
    assert there.steps == here.steps
    assert there.loss == pytest.approx(here.loss * unit**2, rel=1e-9)


def test_each_of_several_targets_counts_alike_whatever_its_unit() -> None:
    kind, predictions, targets = case("several targets")
    scaled = np.array([1000.0, 0.001])
    here = ripieno.select_members(predictions, targets, COSTS, 9.0, task=kind, cv=0)
    there = ripieno.select_members(predictions * scaled, targets * scaled, COSTS, 9.0, task=kind, cv=0)
    assert there.members == here.members
    assert there.loss == pytest.approx(here.loss, rel=1e-5)


def test_the_loss_of_a_single_target_is_in_the_square_of_its_unit() -> None:
    kind, predictions, targets = case("flat regression")
    choice = ripieno.select_members(predictions, targets, COSTS, 5.0, task=kind, method="best")
    expected = np.square(predictions[choice.members[0]].astype(np.float64) - targets).mean()
    assert choice.loss == pytest.approx(expected, rel=1e-9)


def test_squared_errors_without_a_task_stay_as_they_were() -> None:
    _, predictions, targets = case("several targets")
    choice = ripieno.select_members(predictions, targets, COSTS, 9.0, "smobf", loss="squared-error")
    mean = predictions[list(choice.members)].astype(np.float64).mean(axis=0)
    assert choice.loss == pytest.approx(np.square(mean - targets).sum(axis=1).mean(), rel=1e-9)
    assert choice.task == "classification"


def test_labels_are_another_name_of_targets() -> None:
    kind, predictions, targets = case("multilabel")
    by_name = ripieno.select_members(predictions, labels=targets, budget=3, task=kind)
    assert by_name == ripieno.select_members(predictions, targets=targets, budget=3, task=kind)
    assert len(front(predictions, labels=targets, budgets=[3], task=kind)) == 1
    with pytest.raises(SelectionError, match="targets and labels are two names of one argument"):
        ripieno.select_members(predictions, targets, budget=3, task=kind, labels=targets)


def test_labels_without_a_value_are_taken_of_a_data_set_whose_targets_were_checked() -> None:
    _, predictions, targets = case("multilabel")
    targets = targets.copy()
    targets[:, 1] = 0
    task = Task("multilabel", (3,), ("a", "b", "c"))
    assert ripieno.select_members(predictions, targets, budget=3, task=task).members
    with pytest.raises(SelectionError, match="label '1' is 0 in all 120 samples"):
        ripieno.select_members(predictions, targets, budget=3, task="multilabel")


def test_certificates_hold_for_several_labels() -> None:
    kind, predictions, targets = case("multilabel")
    choice = ripieno.select_members(predictions, targets, task=kind, certify=True)
    whole = ripieno.select_members(predictions, targets, task=kind, method="exact", prune=1.0)
    assert choice.certificate is not None
    assert 0 <= choice.loss - whole.loss <= choice.certificate or choice.loss <= whole.loss


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("regression", {"targets": "NaN"}, "targets contain NaN or infinity in 1 places, first in sample 5"),
        ("regression", {"targets": "constant"}, "target '0' is 1 in all 120 samples"),
        ("regression", {"targets": "text"}, "targets contain '.*' for sample 0: expected a number"),
        ("regression", {"targets": "short"}, "targets are of 119 samples, predictions of 120"),
        ("regression", {"targets": "wide"}, r"targets have shape \(120, 2\), expected \(samples, 1\)"),
        ("regression", {"targets": "masked"}, "targets are masked at 1 positions"),
        ("regression", {"targets": None}, r"task regression needs targets: pass an array \(120, 1\)"),
        ("regression", {"predictions": "NaN"}, "member 2 predicts NaN or infinity"),
        ("regression", {"predictions": "text"}, "predictions have type <U"),
        ("regression", {"predictions": "cube"}, r"expected \(members, samples\[, targets\]\)"),
        ("regression", {"combiner": "vote"}, "combiner 'vote' does not fit task regression"),
        ("regression", {"calibrate": "members"}, "calibrate members does not fit task regression: pass calibrate none"),
        (
            "regression",
            {"loss": "cross-entropy"},
            "loss cross-entropy does not fit task regression: expected one of sq",
        ),
        ("several targets", {"targets": "constant"}, "target '0' is 1 in all 120 samples"),
        ("multilabel", {"targets": "NaN"}, "targets contain NaN"),
        ("multilabel", {"targets": "constant"}, "label '0' is 1 in all 120 samples"),
        ("multilabel", {"targets": "text"}, "targets contain '.*' for sample 0"),
        ("multilabel", {"targets": "two"}, "targets contain 2 for sample 0: expected 0 or 1 for each label"),
        ("multilabel", {"targets": None}, "task multilabel needs targets"),
        ("multilabel", {"predictions": "NaN"}, "member 2: 1 predictions are NaN or infinite"),
        ("multilabel", {"predictions": "two"}, "a prediction is 2 for sample 5, .* logits need a sigmoid first"),
        ("multilabel", {"predictions": "flat"}, r"predictions have shape .* expected \(members, samples, labels\)"),
        ("multilabel", {"combiner": "vote"}, "combiner 'vote' does not fit task multilabel"),
        (
            "multilabel",
            {"calibrate": "joint", "loss": "macro-f1"},
            "calibrate joint needs the cross-entropy of a mean",
        ),
        (
            "multilabel",
            {"loss": "accuracy"},
            "loss accuracy does not fit task multilabel: expected one of binary-cross",
        ),
        ("multilabel", {"task": "ranking"}, "unknown task 'ranking': expected one of classification, multilabel, regr"),
        ("multilabel", {"task": "classification", "loss": "mae"}, "loss mae does not fit task classification"),
        ("multilabel", {"size": 20}, "size 20 exceeds the library"),
    ],
)
def test_bad_input_is_refused_in_one_line(name: str, change: dict[str, Any], words: str) -> None:
    kind, predictions, targets = case(name)
    targets = targets.astype(np.float64)
    broken_targets = {
        "NaN": lambda t: _with(t, np.nan),
        "constant": _constant,
        "text": lambda t: t.astype("U9"),
        "short": lambda t: t[:-1],
        "wide": lambda t: np.hstack([t, t]),
        "masked": lambda t: np.ma.array(t, mask=np.arange(t.size).reshape(t.shape) == 3),
        "two": lambda t: t + 2 * (np.arange(SAMPLES)[:, None] == 0) * (1 - t),
    }
    broken_predictions = {
        "NaN": lambda p: _member(p, np.nan),
        "two": lambda p: _member(p, 2.0),
        "text": lambda p: p.astype("U9"),
        "cube": lambda p: p[..., None],
        "flat": lambda p: p[..., 0],
    }
    arguments: dict[str, Any] = {"predictions": predictions, "targets": targets, "task": kind, "budget": 4, **change}
    if isinstance(change.get("targets"), str):
        arguments["targets"] = broken_targets[change["targets"]](targets)
    if "predictions" in change:
        arguments["predictions"] = broken_predictions[change["predictions"]](predictions)
    for call in (ripieno.select_members, front):
        given = {**arguments, "budgets": [arguments["budget"]]} if call is front else arguments
        with pytest.raises(SelectionError, match=words) as caught:
            call(**{k: v for k, v in given.items() if not (call is front and k == "budget")})
        assert "\n" not in str(caught.value)


def _with(targets: NDArray[Any], value: float) -> NDArray[Any]:
    changed = targets.copy()
    changed[5, 0] = value
    return changed


def _constant(targets: NDArray[Any]) -> NDArray[Any]:
    changed = targets.copy()
    changed[:, 0] = 1
    return changed


def _member(predictions: NDArray[Any], value: float) -> NDArray[Any]:
    changed = predictions.copy()
    changed[2, 5, 0] = value
    return changed
