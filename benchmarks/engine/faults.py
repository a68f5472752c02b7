"""Workers killed and stopped under load: wrong, lost and doubled answers, and the seconds until a worker is up again.

    python benchmarks/engine/faults.py [--quick] [--minutes 10]

Six clients send requests of 1 to 80 images to real networks in two process workers. Every answer is compared with a
reference computed beforehand; any two images differ in it by far more than the tolerance. One fault in eight hits both
workers at once, one in eight kills a worker again while it loads. A doubled answer shows in the engine's count of
requests, a doubled prediction in its count of samples per member: both must equal the clients' counts. Each half minute
is a round with an engine of its own, kept in a journal next to the results: a restarted run continues after the last
whole round. Writes benchmarks/results/engine-faults.{json,txt}. Targets: at least 200 SIGKILLs in 10 minutes and
50 SIGSTOPs; no answer wrong, lost or doubled.
"""

from __future__ import annotations

import argparse
import json
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
from record import RESULTS, record

from ripieno import backends
from ripieno.engine import Engine, RestartPolicy
from ripieno.library.bundle import model_path
from ripieno.types import Bundle

SIZES = (Size(4, 1), Size(8, 1), Size(8, 2))
PATIENCE = RestartPolicy(ping=1.0, check=0.2, stall=20.0)
TOLERANCE = 1e-5
ROUND = 30.0
"""Length of a round in seconds."""
KILLS, STOPS = 12, 3
"""Faults per round; 20 rounds make 240 and 60."""
COUNTS = ("requests", "right", "wrong", "lost", "doubled", "predicted twice", "restarts", "processes left")


class Clients:
    """Threads that send requests without pause and check every answer."""

    def __init__(self, engine: Engine, images: np.ndarray, truth: np.ndarray, count: int, seed: int) -> None:
        self.engine, self.images, self.truth = engine, images, truth
        self.asked = self.samples = self.right = self.wrong = self.lost = self.called_back = 0
        self.errors: set[str] = set()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask, args=(random.Random(seed + i),)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self, dice: random.Random) -> None:
        while not self.stop.is_set():
            size = dice.choice((1, 1, 1, 3, 16, 80))
            at = dice.randrange(len(self.images) - size)
            with self.lock:
                self.asked += 1
                self.samples += size
            try:
                future = self.engine.submit(self.images[at : at + size])
                future.add_done_callback(self._called)
                answer = future.result(timeout=120)
                good = not answer.partial and answer.predictions.shape == self.truth[at : at + size].shape
                good = good and bool(np.abs(answer.predictions - self.truth[at : at + size]).max() < TOLERANCE)
            except Exception as error:
                with self.lock:
                    self.lost += 1
                    self.errors.add(str(error))
                continue
            with self.lock:
                self.right += good
                self.wrong += not good

    def _called(self, _: object) -> None:
        with self.lock:
            self.called_back += 1

    def finish(self) -> None:
        """Stop sending and wait for the open requests."""
        self.stop.set()
        for thread in self.threads:
            thread.join()


def strike(engine: Engine, number: int, dice: random.Random) -> list[float]:
    """Hit a random worker that is up, or both, or one twice; return the seconds until each is up again."""
    before = engine.stats().lanes
    up = [i for i, worker in enumerate(before) if worker.up]
    way = dice.random()
    struck = up if way < 1 / 8 else [dice.choice(up)]
    for worker in struck:
        os.kill(before[worker].process, number)
    begin, times = time.monotonic(), {}
    again = way > 7 / 8 and number == signal.SIGKILL
    while len(times) < len(struck):
        for worker in struck:
            now = engine.stats().lanes[worker]
            if again and now.process not in (0, before[worker].process) and not now.up:
                os.kill(now.process, number)
                again = False
            if worker not in times and now.up and now.restarts > before[worker].restarts:
                times[worker] = time.monotonic() - begin
        if time.monotonic() - begin > 60:
            raise RuntimeError(f"Not all of the workers {struck} restarted within 60 s after signal {number}")
        time.sleep(0.005)
    return list(times.values())


def one_round(bundle: Bundle, images: np.ndarray, truth: np.ndarray, seed: int, seconds: float) -> dict[str, object]:
    """Run a round of faults; return recovery times by signal, and the counts of the requests."""
    dice = random.Random(seed)
    share = seconds / ROUND
    acts = [signal.SIGKILL] * round(KILLS * share) + [signal.SIGSTOP] * round(STOPS * share)
    dice.shuffle(acts)
    times: dict[str, list[float]] = {"SIGKILL": [], "SIGSTOP": []}
    with Engine(bundle, isolation="process", patience=PATIENCE) as engine:
        clients = Clients(engine, images, truth, 6, seed * 100)
        try:
            begin = time.monotonic()
            for i, number in enumerate(acts):
                time.sleep(max(0.0, begin + i * seconds / len(acts) + dice.random() * 0.3 - time.monotonic()))
                times[number.name] += strike(engine, number, dice)
        finally:
            clients.finish()
        stats = engine.stats()
    left = psutil.Process().children(recursive=True)
    return {
        "times": times,
        "errors": sorted(clients.errors),
        "requests": clients.asked,
        "right": clients.right,
        "wrong": clients.wrong,
        "lost": clients.lost + stats.failed,
        "doubled": abs(stats.requests - clients.asked) + abs(clients.called_back - clients.asked),
        "predicted twice": sum(abs(member.samples - clients.samples) for member in stats.members.values()),
        "restarts": sum(worker.restarts for worker in stats.lanes),
        "processes left": len(left),
    }


def unlike_images(count: int, seed: int) -> np.ndarray:
    """Return images that random networks can distinguish: each with its own brightness, colour and stripes."""
    dice = np.random.default_rng(seed)
    waves = dice.uniform(0.05, 1.5, (count, 2, 1, 1, 1)) * np.indices(SHAPE[:2])[None, :, :, :, None]
    stripes = np.sin(waves.sum(1) + dice.uniform(0, 6, (count, 1, 1, 3)))
    level, depth = dice.uniform(40, 215, (count, 1, 1, 3)), dice.uniform(5, 80, (count, 1, 1, 3))
    return np.clip(level + depth * stripes, 0, 255).astype(np.uint8)


def apart(truth: np.ndarray) -> float:
    """Return the smallest difference, in any class, between the answers to two images."""
    return min(float(np.abs(truth[i + 1 :] - truth[i]).max(1).min()) for i in range(len(truth) - 1))


def main() -> None:
    """Kill, stop, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 30 seconds")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total = ROUND if options.quick else options.minutes * 60
    count = max(1, round(total / ROUND))
    name = "engine-faults" + "-quick" * options.quick
    RESULTS.mkdir(exist_ok=True)
    journal = RESULTS / f"{name}-{options.seed}-{count}.jsonl"
    rounds = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder), SIZES)
        bundle = lay_out(Path(folder), members, [range(len(members))] * 2, 32, 2)
        images = unlike_images(512, options.seed)
        device = bundle.allocation.devices[0]
        loaded = [backends.load("onnx", model_path(bundle, m.id), m, device, 1) for m in members]
        truth = np.mean([member.infer(images) for member in loaded], axis=0)
        if (least := apart(truth)) < 10 * TOLERANCE:
            sys.exit(f"Two images differ by only {least:.1e}: a wrong answer could pass as right. Pass another --seed.")
        for number in range(len(rounds), count):
            done = one_round(bundle, images, truth, options.seed + number, min(ROUND, total))
            rounds.append(done)
            with journal.open("a") as file:
                file.write(json.dumps(done) + "\n")
            counts = ", ".join(f"{key} {done[key]}" for key in COUNTS)
            print(f"round {number + 1} of {count}: {counts}", flush=True)
    rows = []
    for fault in ("SIGKILL", "SIGSTOP"):
        if taken := [seconds for done in rounds for seconds in done["times"][fault]]:
            p50, p99 = np.percentile(taken, [50, 99])
            rows.append(
                {
                    "fault": fault,
                    "times": len(taken),
                    "recovery p50 s": float(p50),
                    "p99 s": float(p99),
                    "longest s": max(taken),
                }
            )
    sums = {key: sum(done[key] for done in rounds) for key in COUNTS}
    rows.append({"fault": "all", "times": sum(row["times"] for row in rows), **sums})
    settings = {"seconds": total, "seed": options.seed, "tolerance": TOLERANCE, "images apart": f"{least:.1e}"}
    record(name, settings, rows, "; ".join(sorted({error for done in rounds for error in done["errors"]})))
    journal.unlink()
    if any(sums[key] for key in ("wrong", "lost", "doubled", "predicted twice", "processes left")):
        sys.exit(1)


if __name__ == "__main__":
    main()
