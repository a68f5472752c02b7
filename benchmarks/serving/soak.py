"""Soak test: the server at 80 % of its capacity, with workers killed and bundles reloaded; wrong and lost answers.

    python benchmarks/serving/soak.py [--minutes 30] [--quick]
    python benchmarks/serving/soak.py --storm [--minutes 10]     mixed clients and faults in turns, see `storm`

Requests of 1 to 16 images arrive at a steady rate, even if the server falls behind. A request without a free connection
of the client waits for one, and its time counts from its arrival. SIGKILL ends a worker process every
20 s. Every 2 minutes a link switches between two bundles and the server gets SIGHUP. Every answer is compared
with the reference of the bundle active during the request (both, during a reload); any two
images and both bundles differ by far more than the tolerance. Memory is that of the server and its workers,
shared pages counted once, every 5 s outside a reload. Its slope is that of a regression line through all but the
first quarter, with the upper end of its 95 % interval. A full server may answer 503: that is counted, and the request
is sent again. Writes benchmarks/results/serving-soak.{json,txt}. Targets: nothing wrong, nothing lost, no growth that
would be 5 % over the run. Standard error gets a status line every minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from client import oip_request
from faults import TOLERANCE, apart, unlike_images
from networks import Size, lay_out, write_network
from record import record

from ripieno import backends, files
from ripieno.library.bundle import model_path

SIZES = (Size(8, 1), Size(12, 1), Size(16, 2))
ROWS = (1, 1, 1, 1, 4, 16)
"""Images per request, drawn with equal probability."""
SHARE = 0.8
"""Share of the capacity."""
PATIENCE = 30.0
"""Request timeout in seconds, including the wait for a connection; then the request is lost."""
CONNECTIONS = 256
"""Connections of the client at most, as usual for clients.

Without the limit, every waiting request would open another connection after a stall, and the refusals would use up the
cores that client and server share.
"""
AGAIN = 1.0
"""Seconds before a request answered with 503 is sent again, as its Retry-After says."""
SERVE = (
    "import sys; from ripieno.server import serve;"
    "serve(sys.argv[1], port=0, isolation='process', ready=lambda url: print(url, flush=True))"
)


def write_bundles(folder: Path, images: np.ndarray) -> list[np.ndarray]:
    """Write two bundles, `0` and `1`, with equal networks and different weights; return the answers of each."""
    truths = []
    cores = len(os.sched_getaffinity(0))
    for number in (0, 1):
        home = folder / str(number)
        indices = [10 * number + i for i in range(len(SIZES))]
        paths = [home / "members" / f"{i:05d}-e001" / "model.onnx" for i in indices]
        members = [write_network(p, s, i)[0] for p, s, i in zip(paths, SIZES, indices, strict=True)]
        bundle = lay_out(home, members, [range(len(members))] * cores, 32, cores)
        files.write_json(home / "bundle.json", bundle)
        device = bundle.allocation.devices[0]
        loaded = [backends.load("onnx", model_path(bundle, m.id), m, device, 1) for m in members]
        truths.append(np.mean([member.infer(images) for member in loaded], axis=0))
    return truths


@dataclass
class Seen:
    """Counts, errors and latencies of the requests."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


class Client:
    """Persistent connections; every answer is checked against the active bundles."""

    def __init__(self, url: str, images: np.ndarray, truths: list[np.ndarray], seed: int) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.images, self.truths = images, truths
        self.valid = frozenset({0})
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seen = Seen()
        self.dice = random.Random(seed)
        self.places = asyncio.Semaphore(CONNECTIONS)
        self.open = 0

    def draw(self) -> tuple[int, int]:
        """Draw the first image and the number of images of a request."""
        size = self.dice.choice(ROWS)
        return self.dice.randrange(len(self.images) - size), size

    async def ask(self, at: int, size: int) -> None:
        """Send one request; count it as right, wrong or lost."""
        before, began = self.valid, time.perf_counter()
        self.open += 1
        try:
            async with asyncio.timeout(PATIENCE):
                async with self.places:
                    while (answer := await self._answer(at, size)) is None:
                        self.seen.counts["refused"] += 1
                        await asyncio.sleep(AGAIN)
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.seen.counts["lost"] += 1
            self.seen.errors[f"{type(error).__name__}: {error}"[:200]] += 1
            return
        finally:
            self.open -= 1
        truths = [self.truths[i][at : at + size] for i in before | self.valid]
        good = any(answer.shape == t.shape and np.abs(answer - t).max() < TOLERANCE for t in truths)
        self.seen.counts["right" if good else "wrong"] += 1
        self.seen.counts["images"] += size
        self.seen.seconds.append(time.perf_counter() - began)

    async def _answer(self, at: int, size: int) -> np.ndarray | None:
        """Send a request; return the answer, or None on 503."""
        while self.idle and self.idle[-1][0].at_eof():  # the server closed the idle connection
            self.idle.pop()[1].close()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(oip_request(self.host, "ensemble", self.images[at : at + size]))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            body = await reader.readexactly(int(lines[b"content-length"]))
            if head.startswith(b"http/1.1 503"):
                writer.close()
                return None
            if not head.startswith(b"http/1.1 200"):
                raise ValueError(f"{head[9:12].decode()} {body[:150]!r}")
        except BaseException:
            writer.close()
            raise
        self.idle.append((reader, writer))
        raw = body[int(lines[b"inference-header-content-length"]) :]
        return np.frombuffer(raw, "<f4").reshape(size, -1)

    async def busy(self, seconds: float, in_flight: int = 32) -> float:
        """Keep `in_flight` requests outstanding; return images per second."""
        until = time.perf_counter() + seconds

        async def repeat() -> None:
            while time.perf_counter() < until:
                await self.ask(*self.draw())

        before = self.seen.counts["images"]
        await asyncio.gather(*(repeat() for _ in range(in_flight)))
        return (self.seen.counts["images"] - before) / seconds

    async def steady(self, rate: float, seconds: float) -> None:
        """Send requests at `rate` images per second, regardless of the answers; wait for the last."""
        tasks: set[asyncio.Task[None]] = set()
        due = began = time.perf_counter()
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            at, size = self.draw()
            task = asyncio.create_task(self.ask(at, size))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += size / rate
        await asyncio.gather(*tasks)


class Trouble:
    """Kills of workers, reloads of bundles and a memory monitor, during the requests."""

    def __init__(self, server: int, url: str, folder: Path, client: Client, seed: int) -> None:
        self.server, self.url, self.folder, self.client = psutil.Process(server), url, folder, client
        self.dice = random.Random(seed)
        self.kills = self.swaps = 0
        self.exchanging = asyncio.Lock()
        self.memory: list[tuple[float, float]] = []

    async def overview(self) -> dict[str, object]:
        """Return `GET /overview`."""
        while True:
            try:
                return json.loads(
                    await asyncio.to_thread(lambda: urllib.request.urlopen(self.url + "/overview").read())
                )
            except urllib.error.HTTPError as error:
                if error.code != 503:  # the server is at its connection limit
                    raise
                await asyncio.sleep(AGAIN)

    async def workers(self) -> dict[int, bool]:
        """Return the processes of the workers, and whether they are up."""
        engine = (await self.overview())["bundles"]["ensemble"]["engine"]
        return {worker["process"]: worker["up"] for worker in engine["lanes"]}

    async def kill(self, every: float) -> None:
        """Kill a worker that is up by SIGKILL, repeatedly."""
        while True:
            await asyncio.sleep(every)
            async with self.exchanging:
                up = [process for process, is_up in (await self.workers()).items() if is_up and process]
                if up:
                    os.kill(self.dice.choice(up), signal.SIGKILL)
                    self.kills += 1

    async def swap(self, every: float) -> None:
        """Exchange the bundle for the other, repeatedly."""
        while True:
            await asyncio.sleep(every)
            async with self.exchanging:
                old = await self.workers()
                link(self.folder, 1 - next(iter(self.client.valid)))
                self.client.valid = frozenset({0, 1})
                os.kill(self.server.pid, signal.SIGHUP)
                until = time.monotonic() + 60
                while set(await self.workers()) & set(old):
                    if time.monotonic() > until:
                        raise RuntimeError("The server did not reload the bundle within 60 s")
                    await asyncio.sleep(0.1)
                # the old engine answers its requests before its processes end
                while any(psutil.pid_exists(process) for process in old if process):
                    await asyncio.sleep(0.1)
                self.swaps += 1
                self.client.valid = frozenset({self.swaps % 2})

    async def watch(self, every: float) -> None:
        """Record the memory, but not while there are two engines."""
        while True:
            await asyncio.sleep(every)
            async with self.exchanging:
                self.memory.append((time.monotonic(), await asyncio.to_thread(self._mib)))

    async def say(self, every: float) -> None:
        """Print a status line at intervals."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(every)
            counts = ", ".join(f"{n} {what}" for what, n in sorted(self.client.seen.counts.items()))
            line = f"{(time.monotonic() - began) / 60:.0f} min: {counts}; {self.client.open} in flight"
            print(f"{line}, {self.kills} kills, {self.swaps} swaps, {self.memory[-1][1]:.0f} MiB", file=sys.stderr)

    def _mib(self) -> float:
        total = 0
        for process in [self.server, *self.server.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:  # a worker that was just killed
                continue
        return total / (1 << 20)


def link(folder: Path, number: int) -> None:
    """Switch the link `bundle` to one of the bundles, atomically."""
    (folder / "next").symlink_to(folder / str(number))
    (folder / "next").replace(folder / "bundle")


def slope(memory: list[tuple[float, float]]) -> tuple[float, float]:
    """Return MiB per minute of a regression line through all but the first quarter.

    The second value is the upper end of its 95 % interval.
    """
    times, sizes = np.array(memory[len(memory) // 4 :]).T
    minutes = (times - times.mean()) / 60
    rise = float(minutes @ sizes / (minutes @ minutes))
    rest = sizes - sizes.mean() - rise * minutes
    error = np.sqrt(rest @ rest / max(1, len(rest) - 2) / (minutes @ minutes))
    return rise, rise + 1.96 * float(error)


async def soak(
    server: subprocess.Popen[str], url: str, folder: Path, client: Client, options: argparse.Namespace
) -> dict:
    """Measure the capacity, then run the soak test."""
    seconds, kill, swap, look = (60, 5, 15, 1) if options.quick else (60 * options.minutes, 20, 120, 5)
    await client.busy(2)
    capacity = await client.busy(4 if options.quick else 15)
    trouble = Trouble(server.pid, url, folder, client, options.seed)
    client.seen = Seen()
    jobs = [trouble.kill(kill), trouble.swap(swap), trouble.watch(look), trouble.say(60)]
    tasks = [asyncio.create_task(job) for job in jobs]
    rate = SHARE * capacity
    await client.steady(rate, seconds)
    for task in tasks:
        if task.done():
            task.result()  # an error of the benchmark itself ends it
        task.cancel()
    rise, bound = slope(trouble.memory)
    counts, mib = client.seen.counts, [size for _, size in trouble.memory]
    p50, p99 = np.quantile(client.seen.seconds, [0.5, 0.99])
    return {
        "capacity /s": capacity,
        "asked /s": rate,
        "requests": counts["right"] + counts["wrong"] + counts["lost"],
        **{key: counts[key] for key in ("images", "right", "wrong", "lost", "refused")},
        "kills": trouble.kills,
        "swaps": trouble.swaps,
        "p50 ms": 1e3 * float(p50),
        "p99 ms": 1e3 * float(p99),
        "longest s": max(client.seen.seconds),
        "MiB": float(np.median(mib)),
        "most MiB": max(mib),
        "MiB/min": rise,
        "at most": bound,
        "minutes": seconds / 60,
    }


def main() -> None:
    """Serve, send requests, inject faults, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="duration (default: 30; with --storm 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one minute, a kill every 5 s, a reload every 15 s")
    parser.add_argument("--storm", action="store_true", help="mixed clients, and every kind of fault in turns")
    options = parser.parse_args()
    if options.storm:
        import storm

        minutes = options.minutes or (1 if options.quick else 10)
        storm.run(minutes, options.seed, "serving-storm" + "-quick" * options.quick)
        return
    options.minutes = options.minutes or 30
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        images = unlike_images(256, options.seed)
        truths = write_bundles(folder, images)
        least = min(apart(np.concatenate([t[:64] for t in truths])), *(apart(t) for t in truths))
        if least < 10 * TOLERANCE:
            sys.exit(f"Two answers differ by only {least:.1e}: a wrong one could pass as right. Pass another --seed.")
        link(folder, 0)
        server = subprocess.Popen([sys.executable, "-c", SERVE, home + "/bundle"], stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().strip()
            client = Client(url, images, truths, options.seed)
            row = uvloop.run(soak(server, url, folder, client, options))
        finally:
            server.terminate()
            code = server.wait(60)
    flat = row["at most"] * row.pop("minutes") < 0.05 * row["MiB"]
    errors = "; ".join(f"{n} x {text}" for text, n in client.seen.errors.most_common(5)) or "none"
    judged = f"memory {'is flat' if flat else 'GROWS'}" if not options.quick else "too short to judge memory"
    settings = {"share": SHARE, "seed": options.seed, "tolerance": TOLERANCE, "answers apart": f"{least:.1e}"}
    name = "serving-soak" + "-quick" * options.quick
    record(name, settings, [row], f"errors: {errors}; exit code {code}; {judged}")
    if row["wrong"] or row["lost"] or code or not (flat or options.quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
