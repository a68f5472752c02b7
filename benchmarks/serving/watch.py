"""What watching costs: the server with and without `--watch`, in alternating turns in one run.

    python benchmarks/serving/watch.py [--rounds 5] [--seconds 2]

The engine's four networks (32x32x3, 100 classes), ONNX Runtime, thread workers; the client shares the cores, and the
idle server is stopped (SIGSTOP). The ratios are of watching to not watching within a round: images per second below 1
and milliseconds above 1 are its cost; medians (ranges). Writes benchmarks/results/serving-watch.{json,txt}.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from client import LOADS, Client, Server
from floor import answers
from networks import lay_out, write_members
from record import record
from servers import TREE, Running, awake, free_port

from ripieno import files
from ripieno.library.validation_statistics import FILE
from ripieno.tasks.drift import ValidationStatistics, distribution_of, measure
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle


def main() -> None:
    """Measure in turns, report medians of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of one measurement")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder))
        bundle = lay_out(Path(folder), members, [range(len(members))] * cores, 32, cores)
        files.write_json(Path(folder) / "bundle.json", bundle)
        expected = answers(bundle, images)
        write_statistics(bundle, images, expected)
        with (
            contextlib.closing(Client(images, expected)) as client,
            start(bundle.path, "--no-watch") as plain,
            start(bundle.path, "--watch") as watching,
        ):
            for server in (plain, watching):
                server.wait(client)
                server.pause()
            for load in LOADS:
                ratios = []
                for number in range(options.rounds):
                    seen = {}
                    for server in (plain, watching) if number % 2 else (watching, plain):
                        with awake(server):
                            seen[server] = client.ask(server.server, load, options.seconds)
                    one, other = seen[watching], seen[plain]
                    ratios.append((one.throughput / other.throughput, one.p50 / other.p50, one.p99 / other.p99))
                figures = [f"{np.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in zip(*ratios, strict=True)]
                rows.append({"load": load.name, **dict(zip(("images/s", "p50", "p99"), figures, strict=True))})
            with awake(watching):
                found = httpx.get(f"http://{watching.server.address}/v2/models/ensemble/drift", trust_env=False).json()
    taken, dropped = found["samples"], found["dropped_samples"]
    note = f"with --watch divided by without; {taken} samples compared, {dropped} dropped"
    record("serving-watch", {"rounds": options.rounds, "seconds": options.seconds}, rows, note)


def write_statistics(bundle: Bundle, images: np.ndarray, predictions: np.ndarray) -> None:
    """Write what is compared; the disagreement is none of the members': only its cost counts here."""
    kind = kind_of(bundle.task)
    disagreement = np.random.default_rng(1).random(len(images))
    found = measure(kind, bundle.task, bundle.input, images, predictions, disagreement)
    files.write_json(bundle.path / FILE, ValidationStatistics(len(images), tuple(map(distribution_of, found))))


def start(bundle: Path, watch: str) -> Running:
    """Start the server from the command line."""
    port = free_port()
    command = [sys.executable, "-m", "ripieno", "serve", str(bundle), "--port", str(port), watch]
    environment = {**os.environ, "PYTHONPATH": f"{TREE}:{os.environ.get('PYTHONPATH', '')}"}
    return Running(command, Server(f"127.0.0.1:{port}"), environment)


if __name__ == "__main__":
    main()
