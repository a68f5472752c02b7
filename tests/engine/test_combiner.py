from __future__ import annotations

from ripieno.engine.combiner import runs
from ripieno.engine.request import ExecutionPlan, Request
from ripieno.engine.ring import RequestSlice


def request_slice(start: int, stop: int, plan: ExecutionPlan) -> RequestSlice:
    return RequestSlice(Request(stop - start, plan, 0), 0, start, stop, 0.0, [], 0, frozenset())


def test_only_neighbours_with_one_plan_that_do_not_meet_at_the_buffers_end_are_combined_together():
    whole, alone = ExecutionPlan((0, 1)), ExecutionPlan((0,))
    slices = [
        request_slice(5, 6, whole),
        request_slice(6, 7, whole),
        request_slice(7, 8, alone),
        request_slice(8, 10, alone),
        request_slice(11, 12, alone),
    ]
    assert [(plan, [s.start for s in run]) for plan, run in runs(slices, 8)] == [
        (whole, [5, 6]),
        (alone, [7]),
        (alone, [8]),
        (alone, [11]),
    ]
