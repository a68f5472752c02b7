"""Latency at a given rate: samples arrive one by one whether or not the earlier ones were answered.

A bench that sends the next request when one is answered slows down with the engine and hides what waiting costs. Here
each sample's time runs from when it was due, even when it could be handed over only later.
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
"""Samples of which a p99 means anything."""
PARTS = 4
"""Equal parts of the samples, from which the spread is computed."""


@dataclass(frozen=True)
class Latency:
    """What was measured; times in seconds."""

    p50: float
    p99: float
    spread: float
    """relative width of plus and minus one standard error of `p99`"""
    rate: float
    """samples per second that were sent"""
    samples: int


def measure_latency(engine: Engine, rate: float, seconds: float = 1.0, seed: int = 0) -> Latency:
    """Send single samples to `engine`, `rate` a second at random times, for `seconds` and at least `LEAST` of them.

    Raises EngineError for a `rate` or `seconds` that are no positive number, and when one is not answered.
    """
    if not 0 < rate < math.inf:
        raise EngineError(f"rate {rate:g} must be samples per second, above 0")
    seconds = check_duration(seconds, "seconds", error=EngineError)
    generator = np.random.default_rng(seed)
    count = max(LEAST, round(rate * seconds))
    images = random_images(engine.bundle.input, 8, generator)
    engine.predict(images)  # what the first request has to set up is no waiting
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
            raise EngineError(f"a request failed: {error}") from error
        answered[number] = when
    waits = answered - start - due
    parts = np.array([np.quantile(part, 0.99) for part in np.array_split(waits, PARTS)])
    p50, p99 = (float(q) for q in np.quantile(waits, [0.5, 0.99]))
    return Latency(p50, p99, float(2 * parts.std(ddof=1) / np.sqrt(PARTS) / p99), rate, count)
