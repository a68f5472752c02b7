"""Overhead of the engine: members that compute nothing, in thread and in process workers.

    python benchmarks/engine/overhead.py [--quick]

An idle request passes from its caller to a sleeping worker and back. `hand-over` is the time of this alone on this
machine, by a queue between two threads or a socket between two processes, measured in turns with the rest. On machines
that put cores to sleep (most virtual machines do), waking them is the larger part.

Writes benchmarks/results/engine-overhead.{json,txt}. Targets: an idle single-sample request spends at most 100 us in
the engine with thread workers, 200 us with process workers (p50).
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import null
from record import record

from ripieno.engine import Engine, bench

HAND_OVER = "bare hand-over"
LOADS = {"idle, 1 image": (1, 1), "8 x 1 image": (1, 8), "64 x 1 image": (1, 64), "4 x 64 images": (64, 4)}


def main() -> None:
    """Measure in turns over workers and loads; report medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    rounds, seconds = (3, 0.3) if options.quick else (options.rounds, options.seconds)
    rows = []
    for members, lanes in ((1, 1), (4, 2), (12, 2)):
        bundle = null.bundle(members, lanes)
        taken: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        bare = {"thread": between_threads, "process": between_processes}
        with (
            Engine(bundle, isolation="thread", load=null.load) as threads,
            Engine(bundle, isolation="process", load=null.load) as processes,
        ):
            for _ in range(rounds):
                for engine in (threads, processes):
                    taken.setdefault((engine.isolation, HAND_OVER), []).append(bare[engine.isolation](seconds / 4))
                    for load, (batch, in_flight) in LOADS.items():
                        if in_flight == 1:
                            figures = alone(engine, seconds)
                        else:
                            result = bench(bundle, engine=engine, seconds=seconds, batch=batch, in_flight=in_flight)
                            figures = (result.throughput, result.p50, result.p99)
                        taken.setdefault((engine.isolation, load), []).append(figures)
        for (isolation, load), figures in taken.items():
            speed, p50, p99 = np.median(figures, axis=0)
            speeds = [f[0] for f in figures]
            rows.append(
                {
                    "members": members,
                    "lanes": lanes,
                    "isolation": isolation,
                    "load": load,
                    "samples/s": float(speed),
                    "from": min(speeds),
                    "to": max(speeds),
                    "p50 us": p50 * 1e6,
                    "p99 us": p99 * 1e6,
                }
            )
    record("engine-overhead" + "-quick" * options.quick, {"rounds": rounds, "seconds": seconds}, rows)


def between_threads(seconds: float) -> tuple[float, float, float]:
    """Pass a word to a sleeping thread and back; return passes per second, p50 and p99 seconds."""
    there, back = queue.SimpleQueue[int](), queue.SimpleQueue[int]()

    def echo() -> None:
        while word := there.get():
            back.put(word)

    thread = threading.Thread(target=echo)
    thread.start()

    def call() -> None:
        there.put(1)
        back.get()

    found = timed(call, seconds)
    there.put(0)
    thread.join()
    return found


def between_processes(seconds: float) -> tuple[float, float, float]:
    """Pass a byte to a sleeping process and back; return the same as `between_threads`."""
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=_echo, args=(ours, theirs), daemon=True)
    process.start()
    theirs.close()

    def call() -> None:
        ours.send(b"1")
        ours.recv(1)

    found = timed(call, seconds)
    ours.close()
    process.join()
    return found


def _echo(ours: socket.socket, theirs: socket.socket) -> None:
    ours.close()
    while word := theirs.recv(1):
        theirs.send(word)


def alone(engine: Engine, seconds: float) -> tuple[float, float, float]:
    """Call from one client, one request at a time; return samples per second, p50 and p99 seconds."""
    image = np.zeros((1, *engine.bundle.input.shape), np.uint8)
    return timed(lambda: engine.predict(image), seconds)


def timed(call: Callable[[], object], seconds: float) -> tuple[float, float, float]:
    """Repeat `call`; return calls per second, p50 and p99 seconds."""
    for _ in range(50):
        call()
    times = []
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        call()
        times.append(time.perf_counter() - now)
    p50, p99 = np.percentile(times, [50, 99])
    return len(times) / sum(times), float(p50), float(p99)


if __name__ == "__main__":
    main()
