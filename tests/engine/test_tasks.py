"""The engine answers predictions of any task, in threads and in processes, as they are computed offline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine import Cascade, Engine, judge_cascade, plan_cascade
from ripieno.errors import EngineError
from ripieno.tasks.calibration import apply_temperature, combine_calibrated
from ripieno.tasks.registry import TASKS, kind_of
from ripieno.types import Bundle, Combiner
from tests.server.stand_in import MEMBERS, SHAPE, direct_answers, write_small_bundle

KINDS = ("multilabel", "regression")
LABELS = TASKS["multilabel"]


@pytest.fixture(params=KINDS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path, kind=request.param)


def pictures(samples: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (samples, *SHAPE), dtype=np.uint8)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_predictions_members_and_spread_are_those_computed_offline(bundle: Bundle, isolation: str) -> None:
    images = pictures(20)
    own = direct_answers(bundle, images)
    with Engine(bundle, isolation=isolation) as engine:
        answer = engine.submit(images, spread=True, each=True, disagreement=True).result(30)
        nothing = engine.submit(images[:0], spread=True, each=True, disagreement=True).result(30)
        alone = engine.predict(images, [MEMBERS[1]])
    np.testing.assert_allclose(answer.predictions, own.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.member_predictions, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.std, own.std(0), rtol=1e-4, atol=1e-5)
    disagreement = kind_of(bundle.task).member_disagreement(own, np.full(2, 0.5))
    np.testing.assert_allclose(answer.disagreement, disagreement, rtol=1e-3, atol=1e-6)
    assert nothing.disagreement is not None
    assert nothing.disagreement.shape == (0,)
    np.testing.assert_allclose(alone, own[1], rtol=1e-5, atol=1e-6)
    assert answer.std is not None
    assert answer.std.shape == answer.predictions.shape
    assert (nothing.predictions.shape, nothing.std.shape) == ((0, 4), (0, 4))  # type: ignore[union-attr]
    assert nothing.member_predictions.shape == (2, 0, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("combiner", ["median", "weighted"])
def test_what_is_scored_is_what_is_served(bundle: Bundle, combiner: Combiner) -> None:
    ensemble = dataclasses.replace(bundle.ensemble, combiner=combiner, weights=(0.25, 0.75))
    images = pictures(7)
    with Engine(dataclasses.replace(bundle, ensemble=ensemble)) as engine:
        served = engine.predict(images)
    own = direct_answers(bundle, images)
    expected = np.median(own, axis=0) if combiner == "median" else np.average(own, axis=0, weights=ensemble.weights)
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(combine_calibrated(own, ensemble, kind_of(bundle.task)), served)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("combiner", ["weighted", "median"])
def test_labels_are_served_at_the_temperatures_that_were_scored(
    tmp_path: Path, isolation: str, combiner: Combiner
) -> None:
    bundle = write_small_bundle(tmp_path, kind="multilabel")
    warm = {"temperatures": (1.6, 0.5), "temperature": 0.7}
    ensemble = dataclasses.replace(bundle.ensemble, combiner=combiner, weights=(0.25, 0.75), **warm)  # type: ignore[arg-type]
    images = pictures(9)
    own = direct_answers(bundle, images)
    each = [apply_temperature(p, t, LABELS) for p, t in zip(own, ensemble.temperatures, strict=True)]
    with Engine(dataclasses.replace(bundle, ensemble=ensemble), isolation=isolation) as engine:
        answer = engine.submit(images, each=True).result(30)
        alone = engine.predict(images, [MEMBERS[1]])
    np.testing.assert_allclose(answer.predictions, combine_calibrated(own, ensemble, LABELS), atol=1e-6)
    assert np.abs(answer.predictions - combine_calibrated(own, bundle.ensemble, LABELS)).max() > 0.05
    np.testing.assert_allclose(answer.member_predictions, each, atol=1e-6)
    np.testing.assert_allclose(alone, each[1], atol=1e-6)


def test_values_beyond_the_root_of_the_largest_number_are_answered(tmp_path: Path) -> None:
    """Their squares are infinite in single precision: they must not be taken for a fault of the member."""
    from ripieno.engine.combiner import find_fault, is_finite

    values = np.full((2, 3, 1), 1e25, np.float32)
    assert not is_finite(values[0])
    assert find_fault(values, values[0]) is None


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_several_labels_stop_once_the_least_certain_one_is_certain(tmp_path: Path, temperature: float) -> None:
    bundle = write_small_bundle(tmp_path, kind="multilabel")
    bundle = dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, temperature=temperature))
    images = pictures(60)
    each = direct_answers(bundle, images)
    means = [apply_temperature(p, temperature, LABELS) for p in (each[0], each.mean(0))]
    targets = (np.random.default_rng(1).random(each[0].shape) < each.mean(0)).astype(np.uint8)
    confidence = np.maximum(means[0], 1 - means[0]).min(axis=1)
    cascade = Cascade(MEMBERS, float(np.median(confidence)) - 1e-6)
    depth = np.where(confidence >= cascade.threshold, 1, 2)
    stopped = np.where(depth[:, None] == 1, *means)
    with Engine(bundle, cascade=cascade) as engine:
        answer = engine.submit(images).result(30)
    np.testing.assert_array_equal(answer.members_evaluated, depth)
    np.testing.assert_allclose(answer.predictions, stopped, atol=1e-5)
    effect = judge_cascade(cascade, MEMBERS, each, targets, [1.0, 3.0], task=bundle.task, temperature=temperature)
    scores, whole = (kind_of(bundle.task).scores(p, targets, bundle.task) for p in (stopped, means[1]))
    assert effect.asked == depth.mean() != 1
    assert effect.loss == pytest.approx(scores["binary_cross_entropy"], abs=1e-5)
    assert effect.whole_loss == pytest.approx(whole["binary_cross_entropy"], abs=1e-5)
    assert (effect.score, effect.whole_score) == pytest.approx((scores["macro_f1"], whole["macro_f1"]))


def test_a_planned_cascade_of_several_labels_stays_within_its_tolerance(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path, kind="multilabel")
    own = direct_answers(bundle, pictures(60))
    targets = (np.random.default_rng(1).random(own[0].shape) < own.mean(0)).astype(np.uint8)
    effect = plan_cascade(MEMBERS, own, targets, [1.0, 3.0], tolerance=0.05, task=bundle.task).effects["valid"]
    assert effect.saved > 0
    assert effect.loss - effect.whole_loss <= 0.05


def test_a_cascade_of_values_is_refused_in_one_line(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path, kind="regression")
    with pytest.raises(EngineError, match=r"^A cascade needs a confidence, which a regression task does not have\."):
        Engine(bundle, cascade=Cascade(MEMBERS, 0.9))
