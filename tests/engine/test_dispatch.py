from __future__ import annotations

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Engine, RestartPolicy
from ripieno.engine.request import Request
from ripieno.engine.ring import BatchAssignment
from ripieno.errors import EngineError

QUICK = RestartPolicy(check=0.05, stall=1.0, back_off=0.01, longest_back_off=0.05)


def started(bundle, isolation, **options) -> Engine:
    return Engine(bundle, isolation=isolation, load=fake.load, patience=QUICK, **options)


def check(engine, samples=5):
    """Check that the engine answers correctly."""
    images = fake.images(samples, seed=99)
    answer = engine.submit(images).result(timeout=30).predictions
    np.testing.assert_allclose(answer, fake.each(engine.bundle, images).mean(0), atol=1e-6)


def test_a_deadline_between_the_pieces_of_a_request_keeps_what_all_of_them_have(isolation):
    bundle = fake.bundle([fake.member(0), fake.member(1, delay=0.05)], lanes=2, spread_out=True)
    first, second = fake.images(6, seed=1), fake.images(6, seed=2)
    own = fake.each(bundle, second)
    with started(bundle, isolation, capacity=8) as engine:
        before = engine.submit(first, each=True)
        # it crosses the end of the ring: the slow member predicts two samples at 0.4 s, the other four at 0.6 s
        late = {"deadline": 0.5, "partial": True}
        answer = engine.submit(second, spread=True, each=True, disagreement=True, **late).result(timeout=30)
        np.testing.assert_allclose(before.result().member_predictions, fake.each(bundle, first), atol=1e-6)
        assert answer.partial
        assert answer.members == bundle.ensemble.members[:1]
        np.testing.assert_allclose(answer.member_predictions, own[:1], atol=1e-6)
        np.testing.assert_allclose(answer.predictions[:2], own[:, :2].mean(0), atol=1e-6)
        np.testing.assert_allclose(answer.predictions[2:], own[0, 2:], atol=1e-6)
        assert (answer.std[:2] > 0).all()
        assert (answer.std[2:] == 0).all()
        assert (answer.disagreement[:2] > 0).all()
        assert answer.disagreement[2:] == pytest.approx(0, abs=1e-6)
        assert engine.ready
        check(engine)


def test_a_member_that_dies_between_the_pieces_of_a_request_is_in_none_of_each(isolation):
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE), fake.member(1)], lanes=1)
    images = fake.images(12)
    images[10].flat[0] = fake.RAISE  # in the second piece: the ring holds eight
    own = fake.each(bundle, images)
    with started(bundle, isolation, capacity=8, min_members=1) as engine:
        answer = engine.submit(images, each=True).result(timeout=30)
        assert answer.partial
        assert answer.members == bundle.ensemble.members[1:]
        np.testing.assert_allclose(answer.member_predictions, own[1:], atol=1e-6)
        np.testing.assert_allclose(answer.predictions[:8], own[:, :8].mean(0), atol=1e-6)
        np.testing.assert_allclose(answer.predictions[8:], own[1, 8:], atol=1e-6)
        check(engine)


def test_no_request_is_answered_without_members_though_none_need_remain(isolation):
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE)], lanes=1)
    images = fake.images(2)
    images[1].flat[0] = fake.RAISE
    with started(bundle, isolation, min_members=0) as engine:
        with pytest.raises(EngineError, match="is unavailable: its worker died 3 times"):
            engine.submit(images).result(timeout=30)
        check(engine)


def test_an_answer_that_cannot_be_assembled_fails_its_own_request_alone(isolation, monkeypatch):
    with started(fake.bundle(), isolation) as engine:
        monkeypatch.setattr(Request, "answer", lambda *_: 1 / 0)
        with pytest.raises(EngineError, match=r"assembled: ZeroDivisionError: division by zero\. Please report this"):
            engine.submit(fake.images(3)).result(timeout=30)
        monkeypatch.undo()
        assert engine.ready
        check(engine)


def test_an_engine_that_broke_is_not_ready_and_says_why(isolation):
    with started(fake.bundle(), isolation) as engine:
        assert engine.ready
        engine._event_loop.soon(lambda: 1 / 0)
        engine._event_loop.wait_for(lambda: None)
        assert not engine.ready
        with pytest.raises(EngineError, match="Internal engine error: ZeroDivisionError"):
            engine.predict(fake.images(1))


def test_a_member_that_answers_in_a_wrong_shape_fails_the_request_that_it_does_so_for(isolation):
    bundle = fake.bundle([fake.member(0, bad=fake.SHORT), fake.member(1)], lanes=1)
    wrong = fake.images(1)
    wrong[0].flat[0] = fake.SHORT
    with started(bundle, isolation) as engine:
        with pytest.raises(EngineError, match=r"died 3 times.* returned shape \(1, 2\), expected \(1, 3\)"):
            engine.submit(wrong).result(timeout=30)
        check(engine)


def test_what_was_right_before_a_wrong_answer_in_the_same_report_is_delivered():
    bundle = fake.bundle([fake.member(i, delay=0.3) for i in range(2)], lanes=2, spread_out=True)
    images = fake.images(1)
    right = fake.each(bundle, images)[0]
    with started(bundle, "thread") as engine:
        first, second = (engine.submit(images, [member]) for member in bundle.ensemble.members)
        assignments = {assignment.unit: assignment.id for assignment in engine._ring.assignments.values()}
        with pytest.raises(EngineError, match="The backend returned shape"):
            engine._dispatcher.completed(
                0, [(assignments[0], 0.3, [(0, right)]), (assignments[1], 0.3, [(1, right[:, 1:])])]
            )
        assert first.done()
        assert second.result(timeout=30).predictions.shape == (1, fake.CLASSES)


def test_a_worker_reports_a_task_together_with_the_next_only_when_that_one_is_short():
    with started(fake.bundle(), "thread") as engine:
        seconds = [1.0, 1e-6, 1e-6, 1.0]
        assignments = [BatchAssignment(n, 0, 0, [(n, n + 1)], 1, 0, 0.0, 0.0, each) for n, each in enumerate(seconds)]
        assert [task.hold for task in engine._dispatcher._tasks(assignments)] == [True, True, False, False]
