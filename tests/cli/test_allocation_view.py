"""An allocation in words: a large model error is never said without what is known of its cause."""

from __future__ import annotations

import pytest

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.explain import Explanation, explain
from ripieno.cli import allocation_view
from ripieno.types import Allocation, BatchProfile, Device, Placement, Profile

COSTS = ProfileCosts({"cpu-1-core": {"a": Profile("a", "cpu-1-core", "onnx", (BatchProfile(8, 0.08, 0.0, 20),))}})


def benched(throughput: float, share: float, filled: float | None = 1.0) -> Explanation:
    """One member that the model gives 100 samples/s."""
    device, placement = Device("cpu:0", "cpu-1-core", 100, (0,)), Placement("a", "cpu:0", 8)
    made = Allocation("x", "B1", (device,), (placement,), throughput=throughput, shares=(share,), filled=filled)
    return explain(made, COSTS)


@pytest.mark.parametrize(
    ("found", "others", "why"),
    [
        (benched(21.0, 1.0), 0.6, "other programs took 60% of the processors"),
        (benched(66.0, 0.99, 0.66), 0.0, "batches were 66% full"),
        (benched(40.0, 0.4), 0.0, "the busiest lane computed 40% of the time"),
        (benched(21.1, 0.99), 0.0, "a sample took 4.7 times as long to compute as when its member was measured alone"),
        (benched(300.0, 0.99), 0.0, "a sample took 0.33 times as long"),
        (benched(98.0, 0.99), 0.0, "no cause was recorded in the last bench"),
        (None, None, "no cause was recorded in the last bench"),
    ],
)
def test_a_large_error_is_said_with_its_reason(found: Explanation | None, others: float | None, why: str) -> None:
    said = allocation_view.error([3.73], others=others, found=found)
    assert "373.0%" in said
    assert why in said
    assert "\n" not in said


def test_a_small_error_needs_no_reason() -> None:
    said = allocation_view.error([0.03, -0.05], others=0.02, found=benched(70.0, 0.7, 0.7))
    assert said == "model error: 4.0% in the median of 2 benches, at most 5.0%"


def test_other_programs_are_named_whatever_the_error() -> None:
    assert "other programs took 40%" in allocation_view.error([0.03], others=0.4, found=benched(98.0, 1.0))
