"""Storm test: mixed traffic, disconnecting clients, and faults in turns; requests lost, leaked or answered wrong.

    python benchmarks/serving/soak.py --storm [--minutes 10] [--seed 0]

`ripieno serve` with two worker processes, and the clients of `traffic`: JSON, raw tensors, pictures, forms and gRPC, of
1 to 1,024 images. Some disconnect within the body, after it, or within the answer, or cancel their call. The faults, in
turns: SIGKILL of a worker, of all, of one that is starting; SIGSTOP of a worker, with SIGCONT soon or never; SIGHUP
after the bundle's files were overwritten in place, by those of another bundle with equal names, or by broken ones.
The server gets no time to recover between two turns. Every answer is compared with the answers of the bundles
that may have given it; those of the two differ by far more than the tolerance. At the end SIGTERM, just after
a SIGKILL, under the same traffic; clients continue until their connection or the port is closed.

Writes benchmarks/results/serving-storm.{json,txt}: the outcomes of the requests by kind, and the conditions with the
observed values. Exits with status 1 unless all conditions hold: nothing wrong; nothing lost (no answer, an incomplete
one, or none within two minutes), also after SIGTERM; no refusal but 503 and 504; no SIGHUP without effect or log line;
under 512 MiB of resident memory; as many descriptors as at the start; no process, temporary file or traceback left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import uvloop
from faults import TOLERANCE, apart, unlike_images
from networks import SHAPE
from record import record
from target import SIZES, Server, damage, deploy, write_bundles
from traffic import PATIENCE, Known, Traffic, pictures

from ripieno.types import Input

MOST_MIB = 512
MORE_DESCRIPTORS = 8
"""Permitted growth of open descriptors: gRPC's threads and timers open some late."""
SETTLING = 90.0
"""Recovery timeout in seconds: an idle server must be in its initial state by then."""
LAST = 5.0
"""Seconds of traffic before SIGTERM."""
ENDING = 120.0
"""Stop timeout of the server in seconds."""
OUTCOMES = ("right", "wrong", "lost", "left", "503", "504", "turned away")
REFUSED = "reload of model"
"""Log message of a failed reload."""
TURNS = {
    "kill one": 5,
    "kill all": 2,
    "kill one that starts": 2,
    "pause one": 4,
    "stop one": 1,
    "exchange": 3,
    "exchange for broken": 2,
}
"""Faults per round, in random order."""


class Faults:
    """Faults of the server, in turns."""

    def __init__(self, server: Server, folder: Path, known: Known, seed: int) -> None:
        self.server, self.folder, self.known = server, folder, known
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.silent = self.broken = 0
        """SIGHUPs with neither effect nor log line, and those that activated a broken bundle"""
        self._exchanging: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Inject one fault after the other, until cancelled."""
        while True:
            round_ = [what for what, times in TURNS.items() for _ in range(times)]
            self.dice.shuffle(round_)
            for what in round_:
                await getattr(self, what.replace(" ", "_"))()
                await asyncio.sleep(self.dice.uniform(0.5, 2.0))

    async def finish(self) -> None:
        """Wait for the current reload."""
        if self._exchanging is not None:
            await self._exchanging

    def signal(self, number: signal.Signals, process: int) -> None:
        """Send a signal, and count it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
            self.counts[number.name] += 1

    async def kill_one(self) -> None:
        """Kill a worker that is up."""
        if up := await self.server.up():
            self.signal(signal.SIGKILL, self.dice.choice(up))

    async def kill_all(self) -> None:
        """Kill all workers that are up."""
        for process in await self.server.up():
            self.signal(signal.SIGKILL, process)

    async def kill_one_that_starts(self) -> None:
        """Kill a worker, and then its replacement while it starts."""
        before = {worker.pid for worker in self.server.workers()}
        await self.kill_one()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for worker in self.server.workers():
                if worker.pid not in before:
                    self.signal(signal.SIGKILL, worker.pid)
                    return
            await asyncio.sleep(0.01)

    async def pause_one(self) -> None:
        """Stop a worker for some seconds; it may belong to an engine that is loading."""
        if workers := self.server.workers():
            worker = self.dice.choice(workers).pid
            self.signal(signal.SIGSTOP, worker)
            await asyncio.sleep(self.dice.uniform(0.1, 3))
            self.signal(signal.SIGCONT, worker)

    async def stop_one(self) -> None:
        """Stop a worker for good: the server must detect it."""
        if up := await self.server.up():
            self.signal(signal.SIGSTOP, self.dice.choice(up))

    async def exchange(self) -> None:
        """Exchange the bundle for the other one."""
        await self._deployed(broken=False)

    async def exchange_for_broken(self) -> None:
        """Reload the server with a bundle that cannot answer."""
        await self._deployed(broken=True)

    async def _deployed(self, broken: bool) -> None:
        """Deploy the other bundle and send SIGHUP; the next turns run during the reload."""
        await self.finish()
        now = next(iter(self.known.valid))
        deploy(self.folder / str(1 - now), self.folder / "bundle")
        if broken:
            damage(self.folder / "bundle", self.dice)
        else:
            self.known.valid = frozenset({0, 1})
        refusals = self.server.log_text().count(REFUSED)
        self.signal(signal.SIGHUP, self.server.popen.pid)
        self._exchanging = asyncio.create_task(self._settle(now, broken, refusals))

    async def _settle(self, before: int, broken: bool, refusals: int) -> None:
        """Wait until the active bundle is known again: the other one, or the one before."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if (await self.server.overview())["bundles"]["ensemble"]["ensemble"] != f"storm{before}":
                self.broken += broken
                self.counts["exchanged"] += 1
                self.known.valid = frozenset({1 - before})
                return
            if self.server.log_text().count(REFUSED) > refusals:
                self.counts["refused"] += 1
                self.known.valid = frozenset({before})
                return
            await asyncio.sleep(0.1)
        self.silent += 1


class Watch:
    """Monitor of the server's peak memory."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.most = 0.0

    async def run(self, traffic: Traffic, faults: Faults) -> None:
        """Check repeatedly, and print the status once a minute."""
        began = reported = time.monotonic()
        while True:
            self.most = max(self.most, self.server.mib())
            self.server.workers()
            if time.monotonic() - reported > 60:
                reported = time.monotonic()
                outcomes = ", ".join(f"{traffic.total(o)} {o}" for o in OUTCOMES)
                struck = ", ".join(f"{n} {what}" for what, n in sorted(faults.counts.items()))
                print(f"{(reported - began) / 60:.0f} min: {outcomes}; {struck}; {self.most:.0f} MiB", file=sys.stderr)
            await asyncio.sleep(0.25)


async def quiet(server: Server, most: int) -> int:
    """Wait until an idle server has at most `most` descriptors, and all workers; return its descriptors."""
    until = time.monotonic() + SETTLING
    while time.monotonic() < until and (server.descriptors() > most or len(await server.up()) < 2):
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)  # the check itself used a connection
    return server.descriptors()


async def storm(
    server: Server, folder: Path, known: Known, minutes: float, seed: int
) -> tuple[Traffic, dict, list[str]]:
    """Run the storm; return its traffic, the observations, and the failed conditions."""
    traffic = Traffic(server.url, server.grpc, known, seed)
    faults, watch = Faults(server, folder, known, seed), Watch(server)
    asyncio.get_running_loop().call_later(2.0, traffic.stop)
    await traffic.run()  # opens everything that a server opens once
    start = await quiet(server, 1 << 20)
    watching = asyncio.create_task(watch.run(traffic, faults))
    striking = asyncio.create_task(faults.run())
    clients = asyncio.create_task(traffic.run())
    await asyncio.wait([striking, clients], timeout=60 * minutes, return_when=asyncio.FIRST_COMPLETED)
    if striking.done() or clients.done():
        await asyncio.gather(striking, clients)  # an error of the benchmark itself ends it
    striking.cancel()
    traffic.stop()
    await clients
    await faults.finish()
    end = await quiet(server, start + MORE_DESCRIPTORS)
    lost = traffic.total("lost")
    clients = asyncio.create_task(traffic.run())
    await asyncio.sleep(min(LAST, 60 * minutes))
    lag = await server.lag()
    await faults.kill_one()
    watching.cancel()
    under_way, terminated = traffic.under_way, time.monotonic()
    traffic.ending = True
    server.popen.send_signal(signal.SIGTERM)
    try:
        code = str(await asyncio.to_thread(server.popen.wait, ENDING))
    except subprocess.TimeoutExpired:
        code = f"none within {ENDING:g} s"
        server.popen.kill()
    took = time.monotonic() - terminated
    traffic.stop()
    await clients
    left, traces = server.left(), len(re.findall("Traceback|unhandled", server.log_text()))
    errors = traffic.server_errors()
    seen = {
        **dict(sorted(faults.counts.items())),
        "requests": sum(sum(counts.values()) for counts in traffic.counts.values()),
        **{o: traffic.total(o) for o in OUTCOMES},
        "other statuses": errors,
        "most MiB": round(watch.most),
        "event loop late by ms at most": round(1000 * lag),
        "descriptors at the start": start,
        "at the end": end,
        "under way at SIGTERM": under_way,
        "unanswered after it": traffic.total("lost") - lost,
        "seconds to end": round(took, 1),
        "exit code": code,
        "left behind": left,
        "silent SIGHUPs": faults.silent,
        "broken bundles in place": faults.broken,
        "tracebacks": traces,
    }
    bad = {
        "wrong answers": seen["wrong"],
        "lost requests": seen["lost"],
        "statuses": errors,
        "memory": watch.most > MOST_MIB,
        "descriptors": end > start + MORE_DESCRIPTORS,
        "exit code": code != "0",
        "things left behind": left,
        "silent SIGHUPs": faults.silent,
        "broken bundles in place": faults.broken,
        "tracebacks": traces,
    }
    return traffic, seen, [what for what, is_bad in bad.items() if is_bad]


def once(minutes: float, seed: int) -> tuple[Traffic, dict, list[str], float]:
    """Run a server and a storm; return traffic, observations, failed conditions, and the answers' distance."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        images = unlike_images(256, seed)
        shown, samples = pictures(images[:8][:, ::-1], Input(SHAPE))
        images = np.concatenate([images, samples])
        truths, members = write_bundles(folder, images)
        answers = [np.concatenate([t[i] for t in truths] + [t.mean(axis=0) for t in truths]) for i in range(len(SIZES))]
        least = min(apart(t) for t in answers)
        if least < 10 * TOLERANCE:
            sys.exit(f"Two answers differ by only {least:.1e}: a wrong one could pass as right. Pass another --seed.")
        deploy(folder / "0", folder / "bundle")
        server = Server(folder)
        try:
            known = Known(images, truths, members, shown)
            return *uvloop.run(storm(server, folder, known, minutes, seed)), least
        finally:
            server.popen.kill()
            server.popen.wait()
            lines = [line for line in server.log_text().splitlines() if "no answer within" not in line]
            print("the server's last log lines:", *lines[-12:], sep="\n  ", file=sys.stderr)


def run(minutes: float, seed: int, name: str) -> None:
    """Record a storm of `minutes`. Exits with status 1 if a condition fails."""
    traffic, seen, bad, least = once(minutes, seed)
    rows = []
    for kind, counts in sorted(traffic.counts.items()):
        rows.append({"kind": kind, **{o: counts[o] for o in OUTCOMES}, "longest s": traffic.longest[kind]})
    settings = {"minutes": minutes, "seed": seed, "tolerance": TOLERANCE, "answers apart": f"{least:.1e}"}
    errors = "; ".join(f"{n} x {text}" for text, n in traffic.errors.most_common(8)) or "none"
    summary = ", ".join(f"{what} {value}" for what, value in seen.items())
    note = f"{summary}\nerrors: {errors}\nfailed conditions: {', '.join(bad) or 'none'}"
    record(name, settings, rows, note)
    if bad:
        sys.exit(1)
