"""The view of an allocation: a large model error is always printed with its known causes."""

from __future__ import annotations

import pytest

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.explain import Explanation, explain
from ripieno.cli import allocation_view
from ripieno.types import Allocation, BatchProfile, Device, Placement, Profile

COSTS = ProfileCosts({"cpu-1-core": {"a": Profile("a", "cpu-1-core", "onnx", (BatchProfile(8, 0.08, 0.0, 20),))}})


def benchmarked(throughput: float, share: float, filled: float | None = 1.0) -> Explanation:
    """Return the explanation of one member for which the model predicts 100 samples/s."""
    device, placement = Device("cpu:0", "cpu-1-core", 100, (0,)), Placement("a", "cpu:0", 8)
    made = Allocation("x", "B1", (device,), (placement,), throughput=throughput, shares=(share,), filled=filled)
    return explain(made, COSTS)


@pytest.mark.parametrize(
    ("explanation", "others", "cause"),
    [
        (benchmarked(21.0, 1.0), 0.6, "other processes used 60% of the CPUs"),
        (benchmarked(66.0, 0.99, 0.66), 0.0, "batches were 66% full"),
        (benchmarked(40.0, 0.4), 0.0, "the busiest worker computed 40% of the time"),
        (benchmarked(21.1, 0.99), 0.0, "a sample took 4.7 times as long to compute as in the member's profile"),
        (benchmarked(300.0, 0.99), 0.0, "a sample took 0.33 times as long"),
        (benchmarked(98.0, 0.99), 0.0, "the last benchmark shows no cause"),
        (None, None, "the last benchmark shows no cause"),
    ],
)
def test_a_large_error_is_printed_with_its_cause(
    explanation: Explanation | None, others: float | None, cause: str
) -> None:
    line = allocation_view.error([3.73], others=others, explanation=explanation)
    assert "373.0%" in line
    assert cause in line
    assert "\n" not in line


def test_a_small_error_needs_no_cause() -> None:
    line = allocation_view.error([0.03, -0.05], others=0.02, explanation=benchmarked(70.0, 0.7, 0.7))
    assert line == "model error: median 4.0%, maximum 5.0% over 2 benchmarks"


def test_other_processes_are_named_whatever_the_error() -> None:
    line = allocation_view.error([0.03], others=0.4, explanation=benchmarked(98.0, 1.0))
    assert "other processes used 40%" in line
