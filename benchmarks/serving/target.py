"""The server under test: two bundles, one written over the other in place, and `ripieno serve` seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import psutil
from networks import Size, lay_out, write_network
from traffic import PATIENCE

from ripieno import backends, files

SIZES = (Size(8, 1), Size(12, 1), Size(16, 1))


def write_bundles(folder: Path, images: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """Write two bundles, `0` and `1`, with equal names and different weights.

    Return the answers of each member, and the members.
    """
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
    """Break a bundle's files in place."""
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
    """`ripieno serve` as a process, and its state seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        command = [sys.executable, "-m", "ripieno", "serve", str(folder / "bundle"), "--json"]
        command += ["--port", "0", "--grpc-port", "0", "--isolation", "process"]
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.popen.stdout is not None
        output = ""
        while not output.rstrip().endswith("}"):
            line = self.popen.stdout.readline()
            if not line:
                sys.exit(f"The server did not start: {self.log_text()}")
            output += line
        ready = json.loads(output[output.index("{") :])
        self.url, self.grpc = ready["url"], ready["grpc"]
        self.process = psutil.Process(self.popen.pid)
        self.seen: set[psutil.Process] = set()

    def log_text(self) -> str:
        """Return its standard error."""
        return self.log.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that exist, up or not."""
        found = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        self.seen.update(found)
        return found

    def descriptors(self) -> int:
        """Return the number of its open descriptors."""
        return self.process.num_fds()

    def mib(self) -> float:
        """Return its resident memory, without its workers'."""
        return self.process.memory_info().rss / (1 << 20)

    async def get(self, path: str) -> bytes:
        """Return the document at `path`."""

        def get() -> bytes:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as response:
                return response.read()

        return await asyncio.to_thread(get)

    async def overview(self) -> dict:
        """Return `GET /overview`."""
        return json.loads(await self.get("/overview"))

    async def lag(self) -> float:
        """Return the largest delay of its event loop in seconds, as the server reports it.

        The machine's other work is included.
        """
        found = re.search(rb"^ripieno_event_loop_lag_max_seconds (\S+)", await self.get("/metrics"), re.MULTILINE)
        return float(found[1]) if found else math.nan

    async def up(self) -> list[int]:
        """Return the processes of the workers that are up."""
        workers = (await self.overview())["bundles"]["ensemble"]["engine"]["lanes"]
        return [worker["process"] for worker in workers if worker["up"]]

    def left(self) -> list[str]:
        """Return what it left behind after its end: processes and temporary files."""
        left = [f"process {p.pid}" for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return left + [str(path) for path in self.temporary.glob("ripieno*")]
