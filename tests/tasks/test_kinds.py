"""The test kit of the kinds of tasks: every kind passes it, and each against definitions of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import NDArray

from ripieno.errors import RipienoError, SelectionError
from ripieno.tasks import metrics
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import TASKS, kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, RANKING_METRICS, Ensemble, Task, classification, loss_key

SAMPLES = 200


@dataclass(frozen=True)
class Example:
    """A task with targets, and predictions of five members that are right to a degree."""

    task: Task
    targets: NDArray[Any]
    members: NDArray[np.float32]

    @property
    def kind(self) -> TaskKind:
        return kind_of(self.task)


def examples() -> dict[str, Example]:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, SAMPLES)
    logits = np.eye(3)[classes] * 1.5 + rng.normal(size=(5, SAMPLES, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels = (rng.random((SAMPLES, 4)) < (0.1, 0.3, 0.5, 0.9)).astype(np.uint8)
    sigmoids = 1 / (1 + np.exp(-(3.0 * labels - 2 + rng.normal(size=(5, SAMPLES, 4)))))
    values = (rng.normal(size=(SAMPLES, 2)) * (1, 1000) + (0, 5000)).astype(np.float32)
    noisy = values + rng.normal(size=(5, SAMPLES, 2)) * (0.5, 800)
    masks = rng.integers(0, 3, (SAMPLES, 4, 5)).astype(np.uint8)
    scores = np.eye(3)[masks] * 1.5 + rng.normal(size=(5, *masks.shape, 3))
    pixels = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    masks[rng.random(masks.shape) < 0.2] = IGNORED
    tasks = {
        "classification": (classification(("a", "b", "c")), classes, probabilities),
        "multilabel": (Task("multilabel", (4,), ("p", "q", "r", "s")), labels, sigmoids),
        "regression": (Task("regression", (1,), ("x",)), values[:, :1], noisy[..., :1]),
        "several targets": (Task("regression", (2,), ("x", "y")), values, noisy),
        "segmentation": (Task("segmentation", (4, 5, 3), ("a", "b", "c")), masks, pixels),
    }
    return {name: Example(task, t, p.astype(np.float32)) for name, (task, t, p) in tasks.items()}


EXAMPLES = examples()


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


def test_every_kind_has_an_example() -> None:
    others = {"policy", "command"}  # of policies: see test_policy; of commands there are no data
    assert {e.task.kind for e in EXAMPLES.values()} == set(TASKS) - others == set(RANKING_METRICS) - others


def test_the_ranking_metric_is_the_first_and_lower_is_better(example: Example) -> None:
    kind = example.kind
    assert kind.metrics[0] == RANKING_METRICS[kind.name]
    assert not METRICS[kind.metrics[0]].higher_is_better
    assert kind.default_metric in kind.metrics


def test_its_own_task_targets_and_predictions_are_accepted(example: Example) -> None:
    kind, task = example.kind, example.task
    kind.check_task(task, "here", RipienoError)
    kind.check_targets(example.targets, task, "here", RipienoError)
    kind.check_training(example.targets, task, "here", RipienoError)
    read = kind.read_targets(example.targets.tolist(), task, "targets", RipienoError)
    assert read.dtype == example.targets.dtype
    assert np.array_equal(read, example.targets)
    for dtype in (np.float16, np.float32, np.float64):
        given = example.members[0].astype(dtype)
        assert np.array_equal(kind.read_predictions("m", given, task, RipienoError), given)


def broken(example: Example) -> dict[str, tuple[NDArray[Any], str]]:
    right = example.members[0]
    holed, wide = right.copy(), np.concatenate([right, right], axis=-1)
    holed[7, ..., 0] = np.nan
    return {
        "NaN": (holed, r"m.*NaN or infinit.* sample 7"),
        "wide": (wide, rf"m: predictions of {wide.shape[-1]} .* must be of {right.shape[-1]}"),
        "cube": (right[None], "m: predictions have shape"),
        "text": (right.astype("U9"), "m: predictions are of type"),
    }


@pytest.mark.parametrize("fault", ["NaN", "wide", "cube", "text"])
def test_predictions_that_are_none_are_refused_in_one_line(example: Example, fault: str) -> None:
    values, words = broken(example)[fault]
    with pytest.raises(RipienoError, match=words) as caught:
        example.kind.read_predictions("m", values, example.task, RipienoError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["multilabel", "classification", "segmentation"])
def test_probabilities_beyond_one_are_refused(name: str) -> None:
    example = EXAMPLES[name]
    with pytest.raises(RipienoError, match=r"sample 0, expected probabilities in 0..1; logits need a (sigm|softm)"):
        example.kind.read_predictions("m", example.members[0] * 0 + 1.5, example.task, RipienoError)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("classification", ["a", "z"], "contain 'z'"),
        ("classification", [0, None], "no value for sample 1"),
        ("multilabel", [[0, 1, 0, 2]], "contain 2 for sample 0: expected 0 or 1"),
        ("multilabel", [[0, 1, 0]], r"shape \(1, 3\), expected \(samples, 4\)"),
        ("multilabel", [["a", "b", "c", "d"]], "contain 'a' for sample 0: expected a number"),
        ("multilabel", [[0, 1, 0, 1], [1, 0, None, 1]], "NaN or infinity in 1 places, first in sample 1"),
        ("regression", [1.0, np.nan], "NaN or infinity in 1 places, first in sample 1"),
        ("regression", ["1.5", "2"], "contain '1.5' for sample 0: expected a number"),
        ("regression", [[1.0, 2.0]], r"shape \(1, 2\), expected \(samples, 1\)"),
        ("regression", [1e300, 1.0], "NaN or infinity"),
        ("several targets", [[1.0], [1.0, 2.0]], "are no array"),
        ("several targets", np.ma.masked_less([[1.0, 2.0]], 1.5), "missing values"),
        ("several targets", [], "at least one sample"),
        (
            "segmentation",
            np.full((2, 4, 5), 3),
            "contain 3 in sample 0: expected 0 to 2 for 3 classes, or 255 for an ig",
        ),
        ("segmentation", np.full((2, 4, 5), 0.5), "contain 0.5 in sample 0"),
        ("segmentation", np.full((2, 4, 5), 256), "contain 256 in sample 0"),
        ("segmentation", np.zeros((2, 5, 4)), "are 5 x 4 pixels, expected 4 x 5"),
        ("segmentation", np.zeros((2, 5)), r"have shape \(2, 5\), must be \(samples, height, width\)"),
        ("segmentation", [[[0, 1]], [[1]]], "are no array: give all masks one height and width"),
        ("segmentation", [[["a"]]], "have type <U1, expected whole numbers"),
    ],
)
def test_targets_that_are_none_are_refused_in_one_line(name: str, values: Any, words: str) -> None:
    example = EXAMPLES[name]
    with pytest.raises(RipienoError, match=words) as caught:
        example.kind.read_targets(values, example.task, "targets", RipienoError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("classification", "class 'b'"),
        ("multilabel", "label 'p' is 1 in all 200 samples"),
        ("regression", "target 'x' is 1 in all 200 samples"),
        ("several targets", "target 'x' is 1 in all 200 samples"),
        ("segmentation", "no training mask with class 'b' and 1 more"),
    ],
)
def test_constant_targets_cannot_be_learnt(name: str, words: str) -> None:
    example = EXAMPLES[name]
    constant = example.targets.copy()
    constant[..., 0] = 1
    constant = np.zeros_like(constant) if name in ("classification", "segmentation") else constant
    with pytest.raises(RipienoError, match=words):
        example.kind.check_training(constant, example.task, "here", RipienoError)


def test_a_task_with_a_name_twice_or_of_another_shape_is_refused(example: Example) -> None:
    names = example.task.names
    for task in (
        Task(example.task.kind, (len(names) + 1,), names),
        Task(example.task.kind, (2,), ("same", "same")),
        Task(example.task.kind, (0,), ()),
    ):
        with pytest.raises(RipienoError, match="here"):
            example.kind.check_task(task, "here", RipienoError)


def test_metrics_are_those_of_scikit_learn(example: Example) -> None:
    predictions, targets = example.members[0].astype(np.float64), example.targets
    figures = example.kind.scores(predictions, targets, example.task)
    assert tuple(figures) == example.kind.metrics
    sk = sklearn.metrics
    if example.kind.is_pixelwise:
        flat, rows = targets[targets != IGNORED], predictions[targets != IGNORED]
    expected = {
        "classification": lambda: {
            "cross_entropy": -np.log(predictions[np.arange(SAMPLES), targets]).mean(),
            "accuracy": sk.accuracy_score(targets, predictions.argmax(axis=1)),
            "macro_f1": sk.f1_score(targets, predictions.argmax(axis=1), average="macro"),
        },
        "multilabel": lambda: {
            "binary_cross_entropy": np.mean([sk.log_loss(t, p) for t, p in zip(targets.T, predictions.T, strict=True)]),
            "macro_f1": sk.f1_score(targets, predictions >= 0.5, average="macro"),
            "mean_average_precision": sk.average_precision_score(targets, predictions, average="macro"),
        },
        "segmentation": lambda: {
            "cross_entropy": -np.log(rows[np.arange(len(flat)), flat]).mean(),
            "mean_iou": sk.jaccard_score(flat, rows.argmax(axis=1), average="macro"),
            "mean_dice": sk.f1_score(flat, rows.argmax(axis=1), average="macro"),
            "pixel_accuracy": sk.accuracy_score(flat, rows.argmax(axis=1)),
        },
        "regression": lambda: {
            "squared_error": 1 - sk.r2_score(targets, predictions)
            if len(example.task.names) > 1
            else sk.mean_squared_error(targets, predictions),
            "rmse": sk.root_mean_squared_error(targets, predictions),
            "mae": sk.mean_absolute_error(targets, predictions),
            "r2": sk.r2_score(targets, predictions),
        },
    }[example.task.kind]()
    assert figures == pytest.approx(expected, rel=1e-6)


def test_losses_carry_the_split_and_hold_the_ranking_loss(example: Example) -> None:
    losses = example.kind.losses(example.members[0], example.targets, example.task, "test")
    assert loss_key(example.task, "test") in losses
    assert list(losses) == [f"test_{name}" for name in example.kind.metrics]


def test_a_perfect_member_has_the_best_scores(example: Example) -> None:
    targets = np.where(example.targets == IGNORED, 0, example.targets) if example.kind.is_pixelwise else example.targets
    perfect = np.eye(3)[targets] if example.kind.activation == "softmax" else targets.astype(np.float64)
    figures = example.kind.scores(perfect, example.targets, example.task)
    assert figures == pytest.approx({n: float(METRICS[n].higher_is_better) for n in figures}, abs=1e-12)


def test_likelihoods_give_the_loss_of_a_mean(example: Example) -> None:
    rows = [example.kind.likelihood(p, example.targets) for p in example.members]
    mean = example.members.mean(axis=0)
    if rows[0] is None:
        assert example.task.kind == "regression"
        return
    assert all(row is not None and row.ndim == 1 for row in rows)
    loss = example.kind.scores(mean, example.targets, example.task)[example.kind.metrics[0]]
    assert metrics.cross_entropy(np.mean(rows, axis=0)) == pytest.approx(loss, rel=1e-6)
    assert example.kind.keeps_likelihood == (rows[0].size < example.members[0].size)


def test_combiners_keep_the_shape_and_only_classes_are_voted_on(example: Example) -> None:
    for combiner in example.kind.combiners:
        weights = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
        combined = example.kind.combine(example.members, weights, combiner)
        assert combined.shape == example.members.shape[1:]
        assert combined.dtype == np.float32
        if combiner == "weighted":
            np.testing.assert_allclose(combined, np.average(example.members, 0, weights), rtol=1e-5)
        if combiner == "median" and example.task.kind != "classification":
            assert np.array_equal(combined, np.median(example.members, axis=0))
    if example.kind.activation != "softmax":
        with pytest.raises(SelectionError, match=r"combiner 'vote' does not fit task .*: expected one of mean, weig"):
            example.kind.combine(example.members, None, "vote")


def test_few_samples_are_combined_to_the_same_bytes_as_many(example: Example) -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(5))
    whole = example.kind.combine(example.members, weights, "weighted")
    few = example.kind.combine(example.members[:, 3:4], weights, "weighted")
    assert few.tobytes() == whole[3:4].tobytes()


def test_an_ensemble_is_combined_as_its_task_says(example: Example) -> None:
    ids = tuple(map(str, range(5)))
    combiner = example.kind.combiners[-1]
    ensemble = Ensemble("B1", ids, (0.2,) * 5, "smobf", {}, {}, {}, combiner=combiner)
    combined = combine_calibrated(example.members, ensemble, example.kind)
    assert combined.tobytes() == example.kind.combine(example.members, None, combiner).tobytes()


def test_spread_is_a_deviation_of_what_is_predicted(example: Example) -> None:
    mean = example.members.mean(axis=0)
    spread = example.kind.spread(example.members, mean, np.full(5, 0.2))
    if example.task.kind == "classification":
        chosen = example.members[:, np.arange(SAMPLES), mean.argmax(axis=1)]
        np.testing.assert_allclose(spread, chosen.std(axis=0), rtol=1e-5)
    elif example.kind.is_pixelwise:
        chosen = np.take_along_axis(example.members, mean.argmax(axis=-1)[None, ..., None], axis=-1)
        np.testing.assert_allclose(spread, chosen.std(axis=0).mean(axis=(1, 2, 3)), rtol=1e-5)
    else:
        np.testing.assert_allclose(spread, example.members.std(axis=0), rtol=1e-4)
    one = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    assert example.kind.spread(example.members, mean, one).max() == 0


def test_confidence_is_a_share_or_absent(example: Example) -> None:
    found = example.kind.confidence(example.members[0])
    if example.task.kind == "regression":
        assert found is None
    else:
        assert found is not None
        assert found.shape == (SAMPLES,)
        assert found.min() >= 1 / 3
        assert found.max() <= 1


def test_the_least_sure_label_decides_the_confidence() -> None:
    found = TASKS["multilabel"].confidence(np.array([[0.9, 0.2, 0.99]]))
    assert found == pytest.approx([0.8])


def test_disagreement_is_the_mean_over_pairs(example: Example) -> None:
    members, kind = list(example.members), example.kind

    def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
        if kind.name == "classification":
            return float((a.argmax(axis=1) != b.argmax(axis=1)).mean())
        if kind.is_pixelwise:
            return float((a.argmax(axis=-1) != b.argmax(axis=-1))[example.targets != IGNORED].mean())
        if kind.name == "multilabel":
            return float(((a >= 0.5) != (b >= 0.5)).mean())
        return float((np.abs(a.astype(np.float64) - b) / example.targets.std(axis=0, dtype=np.float64)).mean())

    expected = [np.mean([difference(a, b) for b in members if b is not a]) for a in members]
    assert kind.disagreement(members, example.targets) == pytest.approx(expected, rel=1e-6)
    assert kind.disagreement([members[0]] * 3, example.targets) == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_stratum_of_several_labels_is_the_rarest() -> None:
    targets = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]], np.uint8)
    assert TASKS["multilabel"].strata(targets).tolist() == [1, 2, 2, 3, 0]


def test_strata_are_classes_or_quantiles_of_a_single_target() -> None:
    assert EXAMPLES["classification"].kind.strata(EXAMPLES["classification"].targets) is not None
    assert EXAMPLES["several targets"].kind.strata(EXAMPLES["several targets"].targets) is None
    targets = EXAMPLES["regression"].targets
    strata = EXAMPLES["regression"].kind.strata(targets)
    assert strata is not None
    assert np.bincount(strata).tolist() == [20] * 10
    assert all(targets[strata == s].max() <= targets[strata == s + 1].min() for s in range(9))


def f1_at(threshold: float, probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    return float(sklearn.metrics.f1_score(targets, probabilities >= threshold, zero_division=0))


def test_thresholds_are_the_best_of_each_label() -> None:
    example = EXAMPLES["multilabel"]
    found = example.kind.fit_thresholds(example.members[0], example.targets)
    for threshold, p, t in zip(found, example.members[0].T, example.targets.T, strict=True):
        picked = p[:, np.newaxis] >= np.linspace(0, 1, 2001)
        every = 2 * (picked & (t[:, np.newaxis] == 1)).sum(axis=0) / (picked.sum(axis=0) + t.sum())
        assert f1_at(0.25, p, t) == pytest.approx(every[500])
        assert f1_at(threshold, p, t) >= every.max() - 1e-12
    at = example.kind.scores(example.members[0], example.targets, example.task, found)
    assert at["macro_f1"] > example.kind.scores(example.members[0], example.targets, example.task)["macro_f1"]
    assert all(
        EXAMPLES[n].kind.fit_thresholds(EXAMPLES[n].members[0], EXAMPLES[n].targets) == ()
        for n in ("classification", "regression")
    )


@pytest.mark.parametrize(
    ("probabilities", "targets", "expected"),
    [
        ([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1], 0.5),  # all of 0.4..0.6 are best
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.7, 0.8, 0.9, 0.9], [0, 0, 1, 1], 0.85),
        ([0.3, 0.3, 0.3], [1, 1, 1], 0.15),  # everything is predicted
        ([0.3, 0.9, 0.6], [0, 0, 0], 0.5),  # nothing to fit to
    ],
)
def test_of_equal_thresholds_the_one_nearest_a_half_is_taken(
    probabilities: list[float], targets: list[int], expected: float
) -> None:
    found = TASKS["multilabel"].fit_thresholds(np.array(probabilities)[:, None], np.array(targets)[:, None])
    assert found == pytest.approx((expected,))


def test_a_label_without_a_sample_does_not_count() -> None:
    example = EXAMPLES["multilabel"]
    wider = np.hstack([example.members[0], np.zeros((SAMPLES, 1), np.float32)])
    targets = np.hstack([example.targets, np.zeros((SAMPLES, 1), np.uint8)])
    for name in ("macro_f1", "mean_average_precision"):
        assert METRICS[name].function(wider, targets) == METRICS[name].function(example.members[0], example.targets)
        assert METRICS[name].function(wider[:, 4:], targets[:, 4:]) == 1.0


def test_a_certain_mistake_costs_the_log_of_the_floor_once() -> None:
    assert METRICS["binary_cross_entropy"].function(np.array([[0.0]]), np.array([[1]])) == pytest.approx(
        -np.log(metrics.FLOOR)
    )


def test_a_constant_target_has_finite_metrics() -> None:
    targets, task = np.full((5, 2), 3.0, np.float32), EXAMPLES["several targets"].task
    figures = TASKS["regression"].scores(targets + 1, targets, task)
    assert figures == {"squared_error": 1.0, "rmse": 1.0, "mae": 1.0, "r2": 0.0}
    assert TASKS["regression"].scores(targets, targets, task)["r2"] == 1.0


def test_one_target_may_be_a_vector() -> None:
    example = EXAMPLES["regression"]
    flat = example.kind.scores(example.members[0][:, 0], example.targets[:, 0], example.task)
    assert flat == example.kind.scores(example.members[0], example.targets, example.task)


def test_metrics_are_shown_in_their_own_way() -> None:
    assert METRICS["accuracy"].format(0.8765) == "87.65 %"
    assert METRICS["rmse"].format(0.25) == "0.2500"
    assert METRICS["squared_error"].format(123456.0) == "123456"
    assert METRICS["r2"].as_loss(0.75) == 0.25
    assert METRICS["rmse"].as_loss(0.75) == 0.75


def test_the_shown_metric_is_the_task_s_or_the_kind_s() -> None:
    kind = TASKS["classification"]
    assert kind.metric_of(classification(("a", "b"), "macro-f1")) == "macro_f1"
    assert kind.metric_of(Task("classification", (2,), ("a", "b"))) == "accuracy"


def test_labels_are_text_where_a_kind_has_any(example: Example) -> None:
    found = example.kind.labels(example.members[0], example.task)
    assert (found is None) == (example.task.kind in ("regression", "segmentation"))
    assert found is None or len(found) == SAMPLES
    assert len(example.kind.outputs) == 1 + (found is not None or example.kind.is_pixelwise)


def test_labels_of_a_multilabel_are_joined_and_heed_thresholds() -> None:
    task = Task("multilabel", (3,), ("a", "b", "c"))
    predictions = np.array([[0.6, 0.5, 0.2], [0.1, 0.2, 0.3]])
    assert TASKS["multilabel"].labels(predictions, task) == ["a|b", ""]
    assert TASKS["multilabel"].labels(predictions, task, (0.7, 0.2, 0.2)) == ["b|c", "b|c"]


def test_the_errors_of_samples_are_0_for_the_truth_and_their_mean_is_a_score(example: Example) -> None:
    kind, mean = example.kind, example.members.mean(axis=0)
    errors = kind.errors(mean, example.targets)
    assert errors.shape == (SAMPLES,)
    scores = kind.scores(mean, example.targets, example.task)
    if kind.name == "classification":
        assert errors.mean() == pytest.approx(1 - scores["accuracy"])
    elif kind.name == "multilabel":
        assert errors.mean() == pytest.approx(np.mean((mean >= 0.5) != example.targets))
    elif kind.name == "segmentation":
        counted = (example.targets != IGNORED).sum(axis=(1, 2))
        assert errors @ counted / counted.sum() == pytest.approx(1 - scores["pixel_accuracy"])
    else:
        assert errors.mean() == pytest.approx(scores["squared_error"], rel=1e-5)
    known = np.where(example.targets == IGNORED, 0, example.targets) if kind.is_pixelwise else example.targets
    truth = np.eye(3)[known] if kind.activation == "softmax" else known
    assert not kind.errors(truth, example.targets).any()


def test_wrong_predictions_are_less_certain_than_right_ones(example: Example) -> None:
    kind, mean = example.kind, example.members.mean(axis=0)
    disagreement = kind.member_disagreement(example.members, np.full(5, 0.2))
    certainty = kind.certainty(mean, disagreement)
    assert disagreement.shape == certainty.shape == (SAMPLES,)
    errors = kind.errors(mean, example.targets)
    if kind.name != "regression":  # whose noise is equal everywhere here
        assert certainty[errors > np.median(errors)].mean() < certainty[errors <= np.median(errors)].mean()
        assert kind.entropy(mean).shape == (SAMPLES,)
    else:
        assert kind.entropy(mean) is None
