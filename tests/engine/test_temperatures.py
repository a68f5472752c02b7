"""Temperatures in a running engine: it answers what is computed offline."""

from __future__ import annotations

import dataclasses

import fake_members as fake
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine import Cascade, Engine, RestartPolicy, judge_cascade, plan_cascade
from ripieno.errors import EngineError
from ripieno.tasks.calibration import apply_temperature, combine_calibrated
from ripieno.tasks.registry import TASKS
from ripieno.tasks.uncertainty import mutual_information
from ripieno.types import Bundle

TEMPERATURES, TEMPERATURE = (1.7, 0.4, 1.0), 0.6


def calibrated(bundle: Bundle) -> Bundle:
    temperatures = TEMPERATURES[: len(bundle.members)]
    return dataclasses.replace(
        bundle,
        ensemble=dataclasses.replace(bundle.ensemble, temperatures=temperatures, temperature=TEMPERATURE),
    )


def at_own(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of every member at its temperature, computed without an engine."""
    return np.stack([apply_temperature(p, t) for p, t in zip(fake.each(bundle, images), TEMPERATURES, strict=False)])


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote", "median"])
def test_the_engine_answers_what_is_computed_offline(isolation: str, combiner: str) -> None:
    bundle = calibrated(fake.bundle(combiner=combiner, weights=(0.5, 0.2, 0.3), batch_size=5))
    images = fake.images(40)
    own, scored = at_own(bundle, images), combine_calibrated(fake.each(bundle, images), bundle.ensemble)
    first, second, third = bundle.ensemble.members
    with Engine(bundle, isolation=isolation, load=fake.load) as engine:
        answer = engine.submit(images, spread=True, each=True, disagreement=True).result(timeout=30)
        np.testing.assert_allclose(answer.predictions, scored, atol=1e-6)
        np.testing.assert_allclose(answer.member_predictions, own, atol=1e-6)
        weights = np.full(3, 1 / 3) if combiner == "mean" else np.array(bundle.ensemble.weights)
        np.testing.assert_allclose(answer.std, TASKS["classification"].spread(own, scored, weights), atol=1e-6)
        disagreement = mutual_information(own, weights, "softmax")
        np.testing.assert_allclose(answer.disagreement, disagreement, atol=1e-6)
        np.testing.assert_allclose(engine.predict(images), scored, atol=1e-6)
        if combiner != "vote":
            np.testing.assert_allclose(engine.predict(images, [second]), own[1], atol=1e-6)
        two = dataclasses.replace(
            bundle.ensemble, members=(first, third), weights=(0.625, 0.375), temperatures=(1.7, 1.0)
        )
        fewer = combine_calibrated(fake.each(bundle, images)[[0, 2]], two)
        np.testing.assert_allclose(engine.predict(images, [first, third]), fewer, atol=1e-6)


def test_a_partial_answer_is_at_the_temperature_of_the_ensemble() -> None:
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE), fake.member(1), fake.member(2)], lanes=1)
    bundle = calibrated(bundle)
    images = fake.images(3)
    images[0].flat[0] = fake.RAISE
    with Engine(bundle, load=fake.load, min_members=1, patience=RestartPolicy(back_off=0.01)) as engine:
        answer = engine.submit(images).result(timeout=30)
    assert answer.partial
    expected = apply_temperature(at_own(bundle, images)[1:].mean(0), TEMPERATURE)
    np.testing.assert_allclose(answer.predictions, expected, atol=1e-6)


def test_a_late_answer_by_one_member_is_at_the_temperature_of_the_ensemble() -> None:
    bundle = calibrated(fake.bundle([fake.member(0), fake.member(1, delay=0.2)], lanes=2, spread_out=True))
    images = fake.images(2)
    expected = apply_temperature(at_own(bundle, images)[0], TEMPERATURE)
    for cascade in (None, Cascade(bundle.ensemble.members, 2.0)):
        with Engine(bundle, load=fake.load, cascade=cascade) as engine:
            answer = engine.submit(images, deadline=0.15, partial=True).result(timeout=30)
        assert answer.partial
        np.testing.assert_allclose(answer.predictions, expected, atol=1e-6)


@pytest.mark.parametrize("by", ["nan", "inf", "-inf"])
def test_predictions_that_are_not_finite_are_found_before_the_temperature_hides_them(by: str, isolation: str) -> None:
    bundle = calibrated(fake.bundle([fake.member(0, bad=fake.SPOIL, by=by), fake.member(1)], lanes=1))
    images = fake.images(4)
    images[2].flat[0] = fake.SPOIL
    with (
        Engine(bundle, load=fake.load, isolation=isolation) as engine,
        pytest.raises(EngineError, match=r"not finite .* for sample 2"),
    ):
        engine.submit(images).result(timeout=30)


def test_a_cascade_stops_by_the_running_mean_at_the_temperature_of_the_ensemble(isolation: str) -> None:
    bundle = calibrated(fake.bundle(lanes=2, batch_size=5, combiner="weighted", weights=(0.5, 0.2, 0.3)))
    images = fake.images(60)
    own, ids, weights = at_own(bundle, images), bundle.ensemble.members, np.array([0.5, 0.2, 0.3])
    order = [1, 2, 0]
    cascade = Cascade(tuple(ids[m] for m in order), 0.75)
    answers, depths = [], []
    for sample in range(len(images)):
        for depth in (1, 2, 3):
            asked = order[:depth]
            mean = apply_temperature(np.average(own[asked, sample], 0, weights[asked]), TEMPERATURE)
            if mean.max() >= cascade.threshold:
                break
        answers.append(mean)
        depths.append(depth)
    assert set(depths) == {1, 2, 3}
    labels = np.array(answers).argmax(1)
    effect = judge_cascade(cascade, ids, own, labels, [1.0] * 3, weights, temperature=TEMPERATURE)
    assert effect.asked == pytest.approx(np.mean(depths))
    scored = combine_calibrated(fake.each(bundle, images), bundle.ensemble)
    assert effect.whole_loss == pytest.approx(-np.log(scored[np.arange(60), labels]).mean(), abs=1e-6)
    with Engine(bundle, isolation=isolation, load=fake.load, cascade=cascade) as engine:
        answer = engine.submit(images).result(timeout=30)
        np.testing.assert_allclose(answer.predictions, answers, atol=1e-6)
        assert answer.members_evaluated is not None
        assert answer.members_evaluated.tolist() == depths
        np.testing.assert_allclose(engine.submit(images, cascade=False).result(30).predictions, scored, atol=1e-6)


def test_the_threshold_is_planned_at_the_temperature_of_the_ensemble() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    logits = rng.normal(size=(3, 400, 3))
    logits[:, np.arange(400), labels] += 2
    predictions = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    plain, cold = (
        plan_cascade(["a", "b", "c"], predictions, labels, [1.0] * 3, tolerance=0.05, temperature=t) for t in (1.0, 0.5)
    )
    assert cold.threshold > plain.threshold
    effect = judge_cascade(cold, ["a", "b", "c"], predictions, labels, [1.0] * 3, temperature=0.5)
    assert effect == cold.effects["valid"]
    assert effect.loss - effect.whole_loss <= 0.05
