"""Open-loop latency: samples arrive at a given rate, independent of earlier answers.

A closed-loop benchmark sends the next request after an answer; it slows down with the engine and hides the waiting
time. Here the latency of each sample is measured from its due time, even if it was submitted later.
"""

from __future__ import annotations

import math
import queue
import time
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ripieno.data.pixels import random_images
from ripieno.durations import check_duration
from ripieno.engine.engine import Engine
from ripieno.engine.inference_result import Answer
from ripieno.errors import EngineError

LEAST = 200
"""Fewest samples for a meaningful p99."""
PARTS = 4
"""Number of equal parts of the samples; the spread is computed from them."""


@dataclass(frozen=True)
class Latency:
    """Measured latency; times in seconds."""

    p50: float
    p99: float
    spread: float
    """relative width of plus and minus one standard error of `p99`"""
    rate: float
    """samples sent per second"""
    samples: int


def measure_latency(engine: Engine, rate: float, seconds: float = 1.0, seed: int = 0) -> Latency:
    """Send single samples to `engine` at random times, `rate` per second, for `seconds` and at least `LEAST` samples.

    Raises EngineError if `rate` or `seconds` is not a positive number, and if a sample is not answered.
    """
    if not 0 < rate < math.inf:
        raise EngineError(f"rate {rate:g} must be a number of samples per second above 0")
    seconds = check_duration(seconds, "seconds", error=EngineError)
    generator = np.random.default_rng(seed)
    count = max(LEAST, round(rate * seconds))
    images = random_images(engine.bundle.input, 8, seed)
    engine.predict(images)  # the setup by the first request does not count as waiting
    due = np.cumsum(generator.exponential(1 / rate, count))
    answers: queue.SimpleQueue[tuple[int, float, Future[Answer]]] = queue.SimpleQueue()
    start = time.perf_counter()

    def send(number: int) -> None:
        future = engine.submit(images[number % 8 : number % 8 + 1])
        future.add_done_callback(lambda answer: answers.put((number, time.perf_counter(), answer)))

    for number, moment in enumerate(due):
        if (early := start + moment - time.perf_counter()) > 0:
            time.sleep(early)
        send(number)
    answered = np.zeros(count)
    for _ in range(count):
        number, when, future = answers.get()
        if error := future.exception():
            raise EngineError(f"A request failed: {error}") from error
        answered[number] = when
    waits = answered - start - due
    parts = np.array([np.quantile(part, 0.99) for part in np.array_split(waits, PARTS)])
    p50, p99 = (float(q) for q in np.quantile(waits, [0.5, 0.99]))
    return Latency(p50, p99, float(2 * parts.std(ddof=1) / np.sqrt(PARTS) / p99), rate, count)
