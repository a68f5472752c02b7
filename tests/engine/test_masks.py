"""The engine predicts every pixel: members, combiners, spread and cascades are those computed offline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine import Cascade, Engine
from ripieno.engine.combiner import find_fault
from ripieno.errors import EngineError
from ripieno.tasks.calibration import apply_temperature, combine_calibrated
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Combiner
from tests.server.stand_in import MEMBERS, direct_answers, write_mask_bundle

SHAPE = (8, 12, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_mask_bundle(tmp_path_factory.mktemp("masks"), SHAPE)


def pictures(samples: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (samples, *SHAPE), dtype=np.uint8)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_masks_members_and_spread_are_those_computed_offline(bundle: Bundle, isolation: str) -> None:
    images = pictures(20)
    own = direct_answers(bundle, images)
    with Engine(bundle, isolation=isolation, capacity=8) as engine:
        answer = engine.submit(images, spread=True, each=True, disagreement=True).result(30)
        nothing = engine.submit(images[:0], spread=True, each=True).result(30)
    mean = own.mean(0)
    np.testing.assert_allclose(answer.predictions, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.member_predictions, own, rtol=1e-5, atol=1e-6)
    chosen = np.take_along_axis(own.std(0), mean.argmax(-1)[..., None], -1).mean((1, 2, 3))
    np.testing.assert_allclose(answer.std, chosen, rtol=1e-4, atol=1e-6)
    disagreement = kind_of(bundle.task).member_disagreement(own, np.full(len(own), 1 / len(own)))
    np.testing.assert_allclose(answer.disagreement, disagreement, rtol=1e-3, atol=1e-6)
    assert nothing.predictions.shape == (0, 8, 12, 4)
    assert nothing.std is not None
    assert nothing.std.shape == (0,)


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote"])
def test_what_is_scored_is_what_is_served(bundle: Bundle, combiner: Combiner) -> None:
    ensemble = dataclasses.replace(bundle.ensemble, combiner=combiner, weights=(0.25, 0.75))
    images = pictures(7)
    with Engine(dataclasses.replace(bundle, ensemble=ensemble)) as engine:
        served = engine.predict(images)
    own = direct_answers(bundle, images)
    np.testing.assert_array_equal(combine_calibrated(own, ensemble, kind_of(bundle.task)), served)
    if combiner == "vote":
        second = np.take_along_axis(served, own[1].argmax(-1)[..., None], -1)
        assert second.min() == 0.75


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_masks_are_served_at_the_temperatures_that_were_scored(bundle: Bundle, isolation: str) -> None:
    warm = dataclasses.replace(bundle.ensemble, temperatures=(1.6, 0.5), temperature=0.7)
    images = pictures(5)
    own = direct_answers(bundle, images)
    kind = kind_of(bundle.task)
    with Engine(dataclasses.replace(bundle, ensemble=warm), isolation=isolation) as engine:
        answer = engine.submit(images, each=True).result(30)
    np.testing.assert_allclose(answer.predictions, combine_calibrated(own, warm, kind), atol=1e-6)
    assert np.abs(answer.predictions - own.mean(0)).max() > 0.05
    each = [apply_temperature(p, t, kind) for p, t in zip(own, warm.temperatures, strict=True)]
    np.testing.assert_allclose(answer.member_predictions, each, atol=1e-6)


def test_a_cascade_stops_pictures_whose_pixels_are_certain_on_average(bundle: Bundle) -> None:
    images = pictures(30)
    own = direct_answers(bundle, images)
    confidence = own[0].max(-1).mean((1, 2))
    cascade = Cascade(MEMBERS, float(np.median(confidence)))
    depth = np.where(confidence >= cascade.threshold, 1, 2)
    with Engine(bundle, cascade=cascade) as engine:
        answer = engine.submit(images).result(30)
    np.testing.assert_array_equal(answer.members_evaluated, depth)
    stopped = np.where(depth[:, None, None, None] == 1, own[0], own.mean(0))
    np.testing.assert_allclose(answer.predictions, stopped, rtol=1e-4, atol=1e-5)


def test_the_member_whose_pixels_are_not_finite_is_named(tmp_path: Path) -> None:
    values = np.ones((3, 2, 4, 5, 2), np.float32)
    values[1, 1, 3, 4, 0] = np.nan
    assert find_fault(values, values.mean(0)) == (1, 1)
    values[1] = 1.0
    values[2, 0, 0, 0, 0] = 3e38
    assert find_fault(values, np.full((2, 4, 5, 2), np.inf, np.float32)) == (2, 0)


def test_pictures_of_another_size_are_refused(bundle: Bundle) -> None:
    with Engine(bundle) as engine, pytest.raises(EngineError, match="must be"):
        engine.predict(np.zeros((2, 8, 13, 3), np.uint8))
