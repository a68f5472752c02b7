from __future__ import annotations

import numpy as np
import pytest

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.latency import arrivals, latencies, p99
from ripieno.allocation.worst_fit import worst_fit
from ripieno.types import BatchProfile, Device, Placement, Profile
from tests.allocation.instances import random_problem

POINTS = (BatchProfile(1, 0.1, 0.0, 1), BatchProfile(4, 0.2, 0.0, 1))
COSTS = ProfileCosts({k: {m: Profile(m, k, "onnx", POINTS) for m in "ab"} for k in ("gpu", "slow")})
GPU, OTHER = Device("cuda:0", "gpu", 9), Device("cuda:1", "gpu", 9)


def test_a_lone_sample_waits_for_every_member_of_its_device() -> None:
    placements = (Placement("a", "cuda:0", 4), Placement("b", "cuda:0", 4))
    assert latencies(placements, [GPU], COSTS, np.array([1.0])) == pytest.approx([0.2])


def test_members_on_devices_of_their_own_answer_together() -> None:
    placements = (Placement("a", "cuda:0", 4), Placement("b", "cuda:1", 4))
    assert latencies(placements, [GPU, OTHER], COSTS, np.array([1.0])) == pytest.approx([0.1])


def test_what_comes_meanwhile_goes_together_in_the_next_batch() -> None:
    # the first alone until 0.1; then four in 0.2, the sixth alone after them
    times = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    found = latencies((Placement("a", "cuda:0", 4),), [GPU], COSTS, times) + times
    assert found == pytest.approx([0.1, 0.3, 0.3, 0.3, 0.3, 0.4])


def test_replicas_share_the_queue() -> None:
    placements = (Placement("a", "cuda:0", 1), Placement("a", "cuda:1", 1))
    found = latencies(placements, [GPU, OTHER], COSTS, np.zeros(4))
    assert sorted(found) == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_many_samples_at_once_take_as_long_as_the_throughput_says() -> None:
    for seed in range(5):
        problem = random_problem(seed, 3, 4, 3, tightness=4)
        placements = worst_fit(problem.members, problem.devices, problem.costs, 8)
        count = 4000
        last = latencies(placements, problem.devices, problem.costs, np.zeros(count)).max()
        pace = throughput_model.predict(placements, problem.devices, problem.costs).throughput
        assert count / last == pytest.approx(pace, rel=0.05)


def test_waiting_grows_with_the_rate() -> None:
    placements = (Placement("a", "cuda:0", 4),)
    slow, fast = (p99(placements, [GPU], COSTS, arrivals(rate, 2000, np.random.default_rng(0))) for rate in (1.0, 18.0))
    assert 0.1 <= slow < fast < 5


def test_arrivals_ascend_at_their_rate() -> None:
    times = arrivals(50.0, 5000, np.random.default_rng(1))
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(100, rel=0.05)
