from __future__ import annotations

import numpy as np

from ripieno.backends.compare import time_alternately

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)


class Clock:
    """A clock that advances only during work."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def __call__(self) -> float:
        return self.now


class Worker:
    def __init__(self, clock: Clock, seconds: float, first: float = 0.0) -> None:
        self.clock, self.seconds, self.first = clock, seconds, first

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.clock.calls += 1
        self.clock.now += self.seconds * (10 if 100 < self.clock.calls < 300 else 1) + self.first
        self.first = 0.0
        return np.empty((len(images), 2), np.float32)

    def close(self) -> None:
        pass


def test_each_is_timed_by_its_best_turn_whatever_slowed_the_others() -> None:
    clock = Clock()
    times = time_alternately(
        {"a": Worker(clock, 0.002), "b": Worker(clock, 0.003)}, IMAGES, rounds=9, seconds=0.05, clock=clock
    )
    assert times.keys() == {"a", "b"}
    assert np.allclose([times["a"], times["b"]], [0.002, 0.003])


def test_the_first_call_is_warm_up() -> None:
    clock = Clock()
    assert np.isclose(time_alternately({"a": Worker(clock, 0.4, first=9.0)}, IMAGES, rounds=1, clock=clock)["a"], 0.4)
