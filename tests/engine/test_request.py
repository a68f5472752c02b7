from __future__ import annotations

import threading
from concurrent.futures import as_completed, wait

import numpy as np

from ripieno.engine.request import AnswerFuture, ExecutionPlan, PartialResult, Request


def test_a_thread_that_waits_for_a_future_is_notified_of_its_cancelling():
    future, dropped = AnswerFuture(), []
    future.dropped = lambda: dropped.append(1)
    waiting = threading.Thread(target=wait, args=([future],), daemon=True)
    waiting.start()
    assert future.cancel()
    waiting.join(5)
    assert not waiting.is_alive()
    assert list(as_completed([future], timeout=0)) == [future]
    assert dropped == [1]


def test_a_future_can_be_cancelled_twice_and_resolved_after_it(caplog):
    request = Request(1, ExecutionPlan((0,)), 1)
    assert request.future.cancel()
    assert request.future.cancel()
    request.resolve(part(0, 1, (0,)))
    request.reject(ValueError())
    assert request.future.cancelled()
    assert not caplog.records


def part(offset: int, samples: int, members: tuple[int, ...]) -> PartialResult:
    """Part with numbers that differ by member and sample."""
    each = np.add.outer(10 * np.array(members), np.arange(offset, offset + samples)).astype(np.float32)[:, :, None]
    return PartialResult(offset, each.mean(0), members, each=each)


def test_an_answer_in_one_part_leaves_out_members_that_died_after_it_was_combined():
    request = Request(2, ExecutionPlan((0, 2), each=True), 0, parts=[part(0, 2, (0, 1, 2))], partial=True)
    answer = request.answer((0, 2), ("a", "c"))
    assert answer.member_predictions.tolist() == [[[0], [1]], [[20], [21]]]
    assert answer.members == ("a", "c")


def test_parts_of_different_members_are_joined_by_those_they_share():
    parts = [part(2, 1, (1, 2)), part(0, 2, (0, 1, 2)), part(3, 1, (0, 2))]
    answer = Request(4, ExecutionPlan((0, 1, 2), each=True), 0, parts=parts).answer((2,), ("c",))
    assert answer.member_predictions.tolist() == [[[20], [21], [22], [23]]]
    assert answer.predictions.shape == (4, 1)


def test_parts_that_share_no_member_have_nothing_of_each():
    parts = [part(0, 1, (0,)), part(1, 1, (1,))]
    assert Request(2, ExecutionPlan((0, 1), each=True), 0, parts=parts).answer((), ()).member_predictions.shape == (
        0,
        2,
        1,
    )
