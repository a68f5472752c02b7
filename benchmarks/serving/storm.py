"""Mixed traffic, clients that leave, and faults by turns: what does a server lose, leak or answer wrong?

    python benchmarks/serving/soak.py --storm [--minutes 10] [--seed 0]

`ripieno serve` over two lane processes, and the clients of `traffic`: JSON, raw tensors, pictures, forms and gRPC, one
image to 1,024, some of which leave within the body, after it, within the answer, or cancel their call. Meanwhile, by
turns: SIGKILL of a lane, of all, of one that is just starting; SIGSTOP of a lane, with SIGCONT soon or never; SIGHUP
after the bundle's files were written over, in place, by those of another bundle of the same names, or by broken ones.
Between two turns the server is never given time to recover. Every answer is compared with the answers of the bundles
that may have given it, and those of the two differ by far more than the comparison allows. At last SIGTERM, just after
a SIGKILL, with the same traffic under way; clients go on until their connection is closed or the port is.

Writes benchmarks/results/serving-storm.{json,txt}: what became of the requests by kind, and what must hold, with what
was seen. Ends with status 1 unless all of it holds: nothing wrong; nothing lost (closed unanswered, answered halfway,
or unanswered after two minutes), after SIGTERM neither; no refusal but 503 and 504; no SIGHUP without effect or word;
under 512 MiB of resident memory; as many descriptors as at the start; no process, temporary file or traceback left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import uvloop
from faults import TOLERANCE, apart, unlike_images
from networks import SHAPE, Size, lay_out, write_network
from record import record
from traffic import PATIENCE, Known, Traffic, pictures

from ripieno import backends, files
from ripieno.types import Input

SIZES = (Size(8, 1), Size(12, 1), Size(16, 1))
MOST_MIB = 512
MORE_DESCRIPTORS = 8
"""Descriptors that a server may have more at the end than at the start: gRPC's threads and timers open some late."""
SETTLING = 90.0
"""Seconds within which a server without clients must be as it was at the start."""
LAST = 5.0
"""Seconds of traffic before SIGTERM."""
ENDING = 120.0
"""Seconds within which a server must end."""
OUTCOMES = ("right", "wrong", "lost", "left", "503", "504", "turned away")
REFUSED = "was not exchanged"
"""What a server's log says of a SIGHUP without effect."""
TURNS = {
    "kill one": 5,
    "kill all": 2,
    "kill one that starts": 2,
    "pause one": 4,
    "stop one": 1,
    "exchange": 3,
    "exchange for broken": 2,
}
"""Faults of a round, in an order drawn anew for each."""


def write_bundles(folder: Path, images: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """Two bundles, `0` and `1`, of other weights under the same names; what each member answers, and the members."""
    truths = []
    for number in (0, 1):
        home, members = folder / str(number), []
        for i, size in enumerate(SIZES):
            path = home / "members" / f"{i:05d}-e001" / "model.onnx"
            made, _ = write_network(path, size, 10 * number + i)
            members.append(dataclasses.replace(made, id=path.parent.name))
        bundle = lay_out(home, members, [range(len(members))] * 2, 32, 2)
        bundle = dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, name=f"storm{number}"))
        files.write_json(home / "bundle.json", bundle)
        device = bundle.allocation.devices[0]
        paths = [home / "members" / m.id / "model.onnx" for m in members]
        loaded = [backends.load("onnx", p, m, device, 1) for p, m in zip(paths, members, strict=True)]
        truths.append(np.stack([member.infer(images) for member in loaded]))
    return truths, [m.id for m in members]


def deploy(source: Path, target: Path) -> None:
    """Write a bundle's files over those of another, one after the other, as a copy does."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place.with_suffix(".new"))
            place.with_suffix(".new").replace(place)


def damage(bundle: Path, dice: random.Random) -> None:
    """Break a bundle's files as they lie."""
    networks = sorted(bundle.glob("members/*/model.onnx"))
    way = dice.randrange(3)
    if way == 0:
        (bundle / "bundle.json").write_text('{"version": 1}')
    elif way == 1:
        network = dice.choice(networks)
        network.write_bytes(network.read_bytes()[: -dice.randrange(1, 2000)])
    else:  # networks that load, and answer NaN
        network = dice.choice(networks)
        content = network.read_bytes()
        at = content.rindex(np.zeros(100, "<f4").tobytes())  # the biases of the last layer
        network.write_bytes(content[:at] + np.full(100, np.nan, "<f4").tobytes() + content[at + 400 :])


class Server:
    """`ripieno serve` as a process, and what can be seen of it from outside."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        command = [sys.executable, "-m", "ripieno", "serve", str(folder / "bundle"), "--json"]
        command += ["--port", "0", "--grpc-port", "0", "--isolation", "process"]
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        assert self.popen.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = self.popen.stdout.readline()
            if not line:
                sys.exit(f"the server did not start: {self.said()}")
            said += line
        ready = json.loads(said[said.index("{") :])
        self.url, self.grpc = ready["url"], ready["grpc"]
        self.process = psutil.Process(self.popen.pid)
        self.seen: set[psutil.Process] = set()

    def said(self) -> str:
        """Its standard error."""
        return self.log.read_text(errors="replace")

    def lanes(self) -> list[psutil.Process]:
        """Processes of the lanes there are, up or not."""
        found = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        self.seen.update(found)
        return found

    def descriptors(self) -> int:
        """How many it has open."""
        return self.process.num_fds()

    def mib(self) -> float:
        """Its resident memory, without its lanes'."""
        return self.process.memory_info().rss / (1 << 20)

    async def overview(self) -> dict:
        """`GET /overview`."""

        def get() -> dict:
            with urllib.request.urlopen(self.url + "/overview", timeout=PATIENCE) as response:
                return json.load(response)

        return await asyncio.to_thread(get)

    async def up(self) -> list[int]:
        """Processes of the lanes that are up."""
        lanes = (await self.overview())["bundles"]["ensemble"]["engine"]["lanes"]
        return [lane["process"] for lane in lanes if lane["up"]]

    def left(self) -> list[str]:
        """What should have gone with it, once it has ended."""
        left = [f"process {p.pid}" for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return left + [str(path) for path in self.temporary.glob("ripieno*")]


class Faults:
    """What is done to the server, by turns."""

    def __init__(self, server: Server, folder: Path, known: Known, seed: int) -> None:
        self.server, self.folder, self.known = server, folder, known
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.silent = self.broken = 0
        """SIGHUPs that neither took effect nor were said to have failed, and those that put a broken bundle in place"""
        self._exchanging: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """One turn after the other, until cancelled."""
        while True:
            round_ = [what for what, times in TURNS.items() for _ in range(times)]
            self.dice.shuffle(round_)
            for what in round_:
                await getattr(self, what.replace(" ", "_"))()
                await asyncio.sleep(self.dice.uniform(0.5, 2.0))

    async def finish(self) -> None:
        """Wait for the exchange that is under way."""
        if self._exchanging is not None:
            await self._exchanging

    def signal(self, number: signal.Signals, process: int) -> None:
        """Send a signal, and count it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
            self.counts[number.name] += 1

    async def kill_one(self) -> None:
        """Kill a lane that is up."""
        if up := await self.server.up():
            self.signal(signal.SIGKILL, self.dice.choice(up))

    async def kill_all(self) -> None:
        """Kill all that are up."""
        for process in await self.server.up():
            self.signal(signal.SIGKILL, process)

    async def kill_one_that_starts(self) -> None:
        """Kill a lane, and again what is started in its place."""
        before = {lane.pid for lane in self.server.lanes()}
        await self.kill_one()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for lane in self.server.lanes():
                if lane.pid not in before:
                    self.signal(signal.SIGKILL, lane.pid)
                    return
            await asyncio.sleep(0.01)

    async def pause_one(self) -> None:
        """Stop a lane for some seconds; it may be one of an engine that is being loaded."""
        if lanes := self.server.lanes():
            lane = self.dice.choice(lanes).pid
            self.signal(signal.SIGSTOP, lane)
            await asyncio.sleep(self.dice.uniform(0.1, 3))
            self.signal(signal.SIGCONT, lane)

    async def stop_one(self) -> None:
        """Stop a lane for good: the server has to find out."""
        if up := await self.server.up():
            self.signal(signal.SIGSTOP, self.dice.choice(up))

    async def exchange(self) -> None:
        """Exchange the bundle for the other one."""
        await self._deployed(broken=False)

    async def exchange_for_broken(self) -> None:
        """Tell the server of a bundle that cannot answer."""
        await self._deployed(broken=True)

    async def _deployed(self, broken: bool) -> None:
        """Deploy the other bundle and say so; the next turns come while the exchange is under way."""
        await self.finish()
        now = next(iter(self.known.valid))
        deploy(self.folder / str(1 - now), self.folder / "bundle")
        if broken:
            damage(self.folder / "bundle", self.dice)
        else:
            self.known.valid = frozenset({0, 1})
        refusals = self.server.said().count(REFUSED)
        self.signal(signal.SIGHUP, self.server.popen.pid)
        self._exchanging = asyncio.create_task(self._settle(now, broken, refusals))

    async def _settle(self, before: int, broken: bool, refusals: int) -> None:
        """Wait until the bundle that answers is known again: the other one, or the one before."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if (await self.server.overview())["bundles"]["ensemble"]["ensemble"] != f"storm{before}":
                self.broken += broken
                self.counts["exchanged"] += 1
                self.known.valid = frozenset({1 - before})
                return
            if self.server.said().count(REFUSED) > refusals:
                self.counts["refused"] += 1
                self.known.valid = frozenset({before})
                return
            await asyncio.sleep(0.1)
        self.silent += 1


class Watch:
    """The most memory the server took."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.most = 0.0

    async def run(self, traffic: Traffic, faults: Faults) -> None:
        """Look again and again, and say how it stands once a minute."""
        began = said = time.monotonic()
        while True:
            self.most = max(self.most, self.server.mib())
            self.server.lanes()
            if time.monotonic() - said > 60:
                said = time.monotonic()
                outcomes = ", ".join(
                    f"{traffic.total(o)} {o}" for o in ("right", "wrong", "lost", "left", "503", "504")
                )
                struck = ", ".join(f"{n} {what}" for what, n in sorted(faults.counts.items()))
                print(f"{(said - began) / 60:.0f} min: {outcomes}; {struck}; {self.most:.0f} MiB", file=sys.stderr)
            await asyncio.sleep(0.25)


async def quiet(server: Server, most: int) -> int:
    """Wait until a server that nobody asks has at most `most` descriptors, and all lanes; how many it has then."""
    until = time.monotonic() + SETTLING
    while time.monotonic() < until and (server.descriptors() > most or len(await server.up()) < 2):
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)  # the look itself was a connection
    return server.descriptors()


async def for_a_while(traffic: Traffic, seconds: float) -> None:
    """Traffic that ends by itself."""
    clients = asyncio.create_task(traffic.run())
    await asyncio.sleep(seconds)
    traffic.stop()
    await clients


async def storm(
    server: Server, folder: Path, known: Known, minutes: float, seed: int
) -> tuple[Traffic, dict, list[str]]:
    """The storm itself: its traffic, what was seen, and what does not hold."""
    traffic = Traffic(server.url, server.grpc, known, seed)
    faults, watch = Faults(server, folder, known, seed), Watch(server)
    await for_a_while(traffic, 2.0)  # what is opened once is open now
    start = await quiet(server, 1 << 20)
    watching = asyncio.create_task(watch.run(traffic, faults))
    striking = asyncio.create_task(faults.run())
    await for_a_while(traffic, 60 * minutes)
    if striking.done():
        striking.result()  # trouble of our own ends the benchmark
    striking.cancel()
    await faults.finish()
    end = await quiet(server, start + MORE_DESCRIPTORS)
    lost = traffic.total("lost")
    clients = asyncio.create_task(traffic.run())
    await asyncio.sleep(min(LAST, 60 * minutes))
    await faults.kill_one()
    watching.cancel()
    under_way, told = traffic.under_way, time.monotonic()
    traffic.ending = True
    server.popen.send_signal(signal.SIGTERM)
    try:
        code = await asyncio.to_thread(server.popen.wait, ENDING)
    finally:
        traffic.stop()
    took = time.monotonic() - told
    await clients
    left, traces = server.left(), len(re.findall("Traceback|mistake of ours|unhandled", server.said()))
    errors = traffic.server_errors()
    seen = {
        **dict(sorted(faults.counts.items())),
        "requests": sum(sum(counts.values()) for counts in traffic.counts.values()),
        **{o: traffic.total(o) for o in OUTCOMES},
        "other statuses": errors,
        "most MiB": round(watch.most),
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
        "exit code": code,
        "things left behind": left,
        "silent SIGHUPs": faults.silent,
        "broken bundles in place": faults.broken,
        "tracebacks": traces,
    }
    return traffic, seen, [what for what, is_bad in bad.items() if is_bad]


def once(minutes: float, seed: int) -> tuple[Traffic, dict, list[str], float]:
    """Serve, ask, strike, judge: the traffic, what was seen, what does not hold, and how far answers are apart."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        images = unlike_images(256, seed)
        shown, samples = pictures(images[:8][:, ::-1], Input(SHAPE))
        images = np.concatenate([images, samples])
        truths, members = write_bundles(folder, images)
        told = [np.concatenate([t[i] for t in truths] + [t.mean(axis=0) for t in truths]) for i in range(len(SIZES))]
        least = min(apart(t) for t in told)
        if least < 10 * TOLERANCE:
            sys.exit(f"two answers differ by {least:.1e} only: a wrong one might pass for a right one")
        deploy(folder / "0", folder / "bundle")
        server = Server(folder)
        try:
            known = Known(images, truths, members, shown)
            return *uvloop.run(storm(server, folder, known, minutes, seed)), least
        finally:
            server.popen.kill()
            server.popen.wait()
            lines = [line for line in server.said().splitlines() if not line.startswith("no answer within")]
            print("the server's last words:", *lines[-12:], sep="\n  ", file=sys.stderr)


def run(minutes: float, seed: int, name: str) -> None:
    """Write down what a storm of so many minutes did. Exits with status 1 when something does not hold."""
    traffic, seen, bad, least = once(minutes, seed)
    rows = []
    for kind, counts in sorted(traffic.counts.items()):
        rows.append({"kind": kind, **{o: counts[o] for o in OUTCOMES}, "longest s": traffic.longest[kind]})
    settings = {"minutes": minutes, "seed": seed, "tolerance": TOLERANCE, "answers apart": f"{least:.1e}"}
    errors = "; ".join(f"{n} x {text}" for text, n in traffic.errors.most_common(8)) or "none"
    told = ", ".join(f"{what} {value}" for what, value in seen.items())
    note = f"{told}\nerrors: {errors}\ndoes not hold: {', '.join(bad) or 'nothing, all holds'}"
    record(name, settings, rows, note)
    if bad:
        sys.exit(1)
