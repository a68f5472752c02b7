"""Lanes killed and stopped under load: is any answer wrong, lost or doubled, and how long does a lane take to return?

    python benchmarks/engine/faults.py [--quick] [--minutes 10]

Real networks in process lanes, several clients with requests of 1 to 80 images, every answer compared with the
reference computed beforehand. Writes benchmarks/results/engine-faults.{json,txt}. Targets: at least 200 SIGKILLs in 10
minutes and 50 SIGSTOPs, nothing wrong, lost or doubled.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from networks import SHAPE, Size, lay_out, write_members
from record import record

from ripieno import backends
from ripieno.engine import Engine, Patience
from ripieno.library.bundle import model_path

SIZES = (Size(4, 1), Size(8, 1), Size(8, 2))
PATIENCE = Patience(ping=1.0, check=0.2, stall=20.0)


class Clients:
    """Threads that ask without pause and check every answer."""

    def __init__(self, engine: Engine, images: np.ndarray, truth: np.ndarray, count: int, seed: int) -> None:
        self.engine, self.images, self.truth = engine, images, truth
        self.asked = self.right = self.wrong = self.lost = self.called_back = 0
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask, args=(random.Random(seed + i),)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self, dice: random.Random) -> None:
        while not self.stop.is_set():
            size = dice.choice((1, 1, 1, 3, 16, 80))
            at = dice.randrange(len(self.images) - size)
            future = self.engine.submit(self.images[at : at + size])
            future.add_done_callback(self._called)
            with self.lock:
                self.asked += 1
            try:
                answer = future.result(timeout=120).probabilities
                good = bool(np.allclose(answer, self.truth[at : at + size], atol=1e-5))
            except Exception as error:
                with self.lock:
                    self.lost += 1
                    self.errors.append(str(error))
                continue
            with self.lock:
                self.right += good
                self.wrong += not good

    def _called(self, _: object) -> None:
        with self.lock:
            self.called_back += 1

    def finish(self) -> None:
        """Ask no more, wait for the rest."""
        self.stop.set()
        for thread in self.threads:
            thread.join()


def strike(engine: Engine, number: int, dice: random.Random) -> float:
    """Hit a random lane that is up; seconds until it is up again."""
    lane = dice.choice([i for i, lane in enumerate(engine.stats().lanes) if lane.up])
    before = engine.stats().lanes[lane]
    os.kill(before.process, number)
    begin = time.monotonic()
    while True:
        now = engine.stats().lanes[lane]
        if now.up and now.restarts > before.restarts:
            return time.monotonic() - begin
        if time.monotonic() - begin > 60:
            raise RuntimeError(f"lane {lane} did not return after signal {number}")
        time.sleep(0.005)


def main() -> None:
    """Kill, stop, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 seconds")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 20.0 if options.quick else options.minutes * 60
    kills, stops = (8, 2) if options.quick else (round(options.minutes * 22), round(options.minutes * 5.2))
    dice = random.Random(options.seed)
    acts = [signal.SIGKILL] * kills + [signal.SIGSTOP] * stops
    dice.shuffle(acts)
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder), SIZES)
        bundle = lay_out(Path(folder), members, [range(len(members))] * 2, 32, 2)
        images = np.random.default_rng(options.seed).integers(0, 256, (512, *SHAPE), np.uint8)
        device = bundle.allocation.devices[0]
        loaded = [backends.load("onnx", model_path(bundle, m.id), m, device, 1) for m in members]
        truth = np.mean([member.infer(images) for member in loaded], axis=0)
        times: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
        with Engine(bundle, isolation="process", patience=PATIENCE) as engine:
            clients = Clients(engine, images, truth, 6, options.seed)
            begin = time.monotonic()
            for i, number in enumerate(acts):
                time.sleep(max(0.0, begin + i * seconds / len(acts) + dice.random() * 0.3 - time.monotonic()))
                times[number].append(strike(engine, number, dice))
            clients.finish()
            stats = engine.stats()
        left = [p.pid for p in psutil.Process().children(recursive=True)]
    rows = [
        {
            "fault": signal.Signals(number).name,
            "times": len(taken),
            "recovery p50 s": float(np.median(taken)),
            "p99 s": float(np.percentile(taken, 99)),
            "longest s": max(taken),
        }
        for number, taken in times.items()
        if taken
    ]
    rows.append(
        {
            "fault": "all",
            "times": len(acts),
            "requests": clients.asked,
            "right": clients.right,
            "wrong": clients.wrong,
            "lost": clients.lost,
            "doubled": clients.called_back - clients.asked,
            "restarts": sum(lane.restarts for lane in stats.lanes),
            "processes left": len(left),
        }
    )
    settings = {"seconds": seconds, "seed": options.seed}
    record("engine-faults" + "-quick" * options.quick, settings, rows, "; ".join(sorted(set(clients.errors))))
    if clients.wrong or clients.lost or clients.called_back != clients.asked or left:
        sys.exit(1)


if __name__ == "__main__":
    main()
