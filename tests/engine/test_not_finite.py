"""A member's NaN or infinity is an error that names the member; nothing but finite numbers is answered."""

from __future__ import annotations

import warnings

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Cascade, Engine
from ripieno.engine.combiner import EnsembleCombiner, find_fault, is_finite
from ripieno.engine.request import ExecutionPlan, Request
from ripieno.engine.ring import RequestSlice
from ripieno.engine.ring_memory import Memory
from ripieno.errors import EngineError, EngineTimeoutError
from ripieno.tasks.registry import TASKS

NAME = "00001-e001"


def spoiling(by: float = float("nan"), combiner: str = "mean", **options):
    """Bundle of three members; the second returns numbers that are not finite for the images that `images` marks."""
    members = [fake.member(0), fake.member(1, bad=fake.SPOIL, by=str(by), **options), fake.member(2)]
    return fake.bundle(members, lanes=1, combiner=combiner)


def images(samples: int, *spoilt: int, seed: int = 0) -> np.ndarray:
    made = fake.images(samples, seed)
    for index in spoilt:
        made[index].flat[0] = fake.SPOIL
    return made


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote", "median"])
@pytest.mark.parametrize("by", ["nan", "inf", "-inf"])
def test_a_request_with_an_answer_that_is_not_finite_fails_and_names_member_and_sample(
    isolation: str, combiner: str, by: str
) -> None:
    bundle = spoiling(float(by), combiner)
    with Engine(bundle, isolation=isolation, load=fake.load) as engine:
        with pytest.raises(EngineError, match=f"Member {NAME} returned predictions that are not finite.* sample 3"):
            engine.predict(images(5, 3))
        assert np.isfinite(engine.predict(images(5))).all()
        stats = engine.stats()
    assert (stats.requests, stats.failed, stats.pending) == (1, 1, 0)
    assert sum(worker.restarts for worker in stats.lanes) == 0


def test_requests_in_the_same_batch_are_answered(isolation: str) -> None:
    bundle = spoiling()
    with Engine(bundle, isolation=isolation, load=fake.load, max_delay=0.05) as engine:
        sound = [engine.submit(images(2, seed=i)) for i in range(3)]
        bad = engine.submit(images(2, 1))
        sound += [engine.submit(images(2, seed=i)) for i in range(3, 6)]
        with pytest.raises(EngineError, match=NAME):
            bad.result(20)
        for i, future in enumerate(sound):
            expected = fake.each(bundle, images(2, seed=i)).mean(0)
            np.testing.assert_allclose(future.result(20).predictions, expected, atol=1e-6)


def test_a_large_request_fails_once_and_leaves_the_ring_empty(isolation: str) -> None:
    with Engine(spoiling(), isolation=isolation, load=fake.load, capacity=16) as engine:
        with pytest.raises(EngineError, match="sample 70"):
            engine.predict(images(100, 70))
        assert engine.predict(images(40)).shape == (40, fake.CLASSES)
        assert engine.stats().failed == 1
        assert engine.stats().pending == 0


def test_with_min_members_a_request_is_answered_without_the_member_and_says_so(isolation: str) -> None:
    bundle = spoiling()
    asked = images(20, 4, 11)
    with Engine(bundle, isolation=isolation, load=fake.load, min_members=2) as engine:
        answer = engine.submit(asked).result(20)
        assert answer.partial
        assert answer.members == (bundle.ensemble.members[0], bundle.ensemble.members[2])
        assert np.isfinite(answer.predictions).all()
        rest = fake.each(bundle, asked)[[0, 2]].mean(0)
        np.testing.assert_allclose(answer.predictions[[4, 11]], rest[[4, 11]], atol=1e-6)
        assert engine.stats().failed == 0


def test_what_waited_for_the_member_alone_is_answered_too(isolation: str) -> None:
    """The member is slow and fails on the first of many pieces; the others have predicted all of them by then."""
    members = [fake.member(0), fake.member(1, bad=fake.SPOIL, delay=0.02)]
    bundle = fake.bundle(members, lanes=2, spread_out=True)
    asked = images(60, 0)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=64, min_members=1) as engine:
        answer = engine.submit(asked).result(20)
        assert engine.stats().pending == 0
    assert answer.partial
    np.testing.assert_allclose(answer.predictions[-1], fake.each(bundle, asked)[0, -1], atol=1e-6)


def test_a_cascade_names_the_sample_of_those_that_are_not_yet_sure() -> None:
    members = [fake.member(0), fake.member(1, bad=fake.SPOIL)]
    bundle = fake.bundle(members, lanes=1)
    asked = images(30, *range(30))
    sure = fake.each(bundle, asked)[0].max(1)
    asked, sure = asked[np.argsort(-sure)], np.sort(sure)[::-1]
    cascade = Cascade(bundle.ensemble.members, float(sure[9:11].mean()))
    with Engine(bundle, isolation="thread", load=fake.load, cascade=cascade) as engine:
        error = engine.submit(asked).exception(20)
    assert f"Member {NAME}" in str(error)
    assert "sample 10" in str(error)


def test_a_slice_with_a_fault_gets_no_part() -> None:
    bundle = fake.bundle(2)
    memory = Memory(8, 2, (fake.CLASSES,), bundle.input)
    memory.predictions[:] = 1 / fake.CLASSES
    memory.predictions[1, 5, 2] = np.nan
    plan = ExecutionPlan((0, 1))
    slices = [RequestSlice(Request(4, plan, 4), 0, i, i + 4, 0.0, [0, 0], 0, frozenset()) for i in (0, 4)]
    (fault,) = EnsembleCombiner(bundle.ensemble, memory, TASKS["classification"]).finish(slices)
    assert fault.request_slice is slices[1]
    assert (fault.member, fault.sample) == (1, 1)
    assert [len(request_slice.request.parts) for request_slice in slices] == [1, 0]


def test_what_members_predict_each_is_finite_too(isolation: str) -> None:
    bundle = spoiling()
    with Engine(bundle, isolation=isolation, load=fake.load, min_members=1) as engine:
        answer = engine.submit(images(6, 2), each=True, spread=True).result(20)
    assert answer.member_predictions is not None
    assert answer.std is not None
    assert np.isfinite(answer.member_predictions).all()
    assert np.isfinite(answer.std).all()


def test_a_cascade_that_asks_the_member_fails_and_one_that_may_goes_on_without_it(isolation: str) -> None:
    bundle = spoiling()
    cascade = Cascade((NAME, bundle.ensemble.members[0], bundle.ensemble.members[2]), 2.0)
    asked = images(10, 6)
    with Engine(bundle, isolation=isolation, load=fake.load, cascade=cascade) as engine:
        with pytest.raises(EngineError, match=f"Member {NAME} .* sample 6"):
            engine.predict(asked)
        assert np.isfinite(engine.predict(images(10))).all()
        assert engine.stats().failed == 1
    with Engine(bundle, isolation=isolation, load=fake.load, cascade=cascade, min_members=2) as engine:
        answer = engine.submit(asked).result(20)
    assert answer.partial
    np.testing.assert_allclose(answer.predictions, fake.each(bundle, asked)[[0, 2]].mean(0), atol=1e-6)


def test_a_late_answer_leaves_out_the_member_that_is_not_finite() -> None:
    members = [fake.member(0, bad=fake.SPOIL), fake.member(1), fake.member(2, delay=0.7)]
    bundle = fake.bundle(members, lanes=3, spread_out=True)
    with Engine(bundle, isolation="thread", load=fake.load) as engine:
        answer = engine.submit(images(1, 0), deadline=0.3, partial=True).result(20)
        assert answer.members == ("00001-e001",)
        assert np.isfinite(answer.predictions).all()
        alone = [fake.member(0, bad=fake.SPOIL), fake.member(2, delay=0.7)]
    with Engine(fake.bundle(alone, lanes=2, spread_out=True), isolation="thread", load=fake.load) as engine:
        future = engine.submit(images(1, 0), deadline=0.3, partial=True)
        with pytest.raises(EngineTimeoutError):
            future.result(20)


def test_a_spoilt_request_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Engine(spoiling(float("inf")), isolation="thread", load=fake.load) as engine:
            for by in (0, 1):
                assert isinstance(engine.submit(images(4, by), spread=True).exception(20), EngineError)
    assert [str(w.message) for w in seen] == []


def test_finite_numbers_whose_sum_is_not_are_the_fault_of_the_largest() -> None:
    predictions = np.zeros((2, 3, 2), np.float32)
    predictions[1, 2] = 3e38
    answer = np.full((3, 2), 0.5, np.float32)
    answer[2] = np.inf
    assert find_fault(predictions, answer) == (1, 2)
    assert find_fault(predictions, np.full((3, 2), 0.5, np.float32)) is None
    with np.errstate(over="ignore"):
        assert not is_finite(predictions)
