"""The server against the floor of its backend, or against an older tree of its code, in alternating turns in one run.

    python benchmarks/serving/ours.py [--quick] [--wider 1.3]
    python benchmarks/serving/ours.py --against TREE [--quick] [--isolation thread]

The engine's four networks (32x32x3, 100 classes), ONNX Runtime, float32, thread workers and process workers, at the
floor's best batch size; the client shares the cores. `--wider` multiplies the filters of the networks: the same
requests need more computing, and the server's overhead weighs less. Writes
benchmarks/results/serving-ours{,-wider}.{json,txt}. Targets: 0.97 of the floor with 64 single images in flight and on
64-image requests, 0.94 with 8 in flight.

`--against TREE` (made by `git worktree add TREE COMMIT`) also starts the server of that tree, with the same Python, and
puts every load on both in turns over HTTP and gRPC. The order alternates, and the idle server is stopped (SIGSTOP).
The ratios are of this tree to the other within a round: images per second above 1 and milliseconds below 1 are this
tree's gain; medians (ranges). Measurements are saved in runs/against.jsonl until the run is complete: an interrupted
run resumes. Takes seven minutes; writes benchmarks/results/serving-against.{json,txt}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from client import LOADS, Client
from floor import ProcessFloor, answers
from networks import FOUR, Size, lay_out, write_members
from record import machine, record
from servers import TREE, awake, ours

from ripieno import files
from ripieno.types import Bundle

JOURNAL = TREE / "runs" / "against.jsonl"
Row = dict[str, object]


def main() -> None:
    """Measure in turns, report medians of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default: 2; with --against 1)")
    parser.add_argument("--wider", type=float, default=1.0)
    parser.add_argument("--against", type=Path, metavar="TREE", help="an older tree of this project")
    parser.add_argument("--isolation", nargs="+", default=("thread", "process"), choices=("thread", "process"))
    options = parser.parse_args()
    rounds, seconds = (
        (3, 0.7) if options.quick else (options.rounds, options.seconds or (1.0 if options.against else 2.0))
    )
    cores = len(os.sched_getaffinity(0))
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    settings: Row = {"rounds": rounds, "seconds": seconds, "wider": options.wider}
    with tempfile.TemporaryDirectory() as folder:
        sizes = [Size(round(options.wider * size.width), size.blocks) for size in FOUR]
        members, _ = write_members(Path(folder), sizes)
        groups = [range(len(members))] * cores
        bundle = lay_out(Path(folder), members, groups, 64, cores)
        with (
            contextlib.closing(Client(images, answers(bundle, images))) as client,
            contextlib.closing(ProcessFloor(bundle, cores)) as floor,
        ):
            tuned = max((8, 16, 32, 64), key=lambda batch: floor.run(batch, seconds))
            settings["floor batch"] = tuned
            bundle = lay_out(Path(folder), members, groups, tuned, cores)
            files.write_json(Path(folder) / "bundle.json", bundle)
            if options.against is None:
                rows = [
                    row
                    for isolation in options.isolation
                    for row in against_floor(bundle, isolation, client, floor, settings)
                ]
            else:
                tree = options.against.resolve()
                # on a noisy machine the best batch differs between runs: that alone is no reason to measure again
                settings = {"against": commit(tree), "this": commit(TREE), **settings}
                rows = against_tree(bundle, options.isolation, client, tree, settings, options.quick)
    name = "serving-against" if options.against else "serving-ours"
    record(name + "-wider" * (options.wider > 1) + "-quick" * options.quick, settings, rows)


def against_floor(bundle: Bundle, isolation: str, client: Client, floor: ProcessFloor, settings: Row) -> list[Row]:
    """Measure the server against the raw loops; return a row for each load."""
    rounds, seconds, tuned = settings["rounds"], settings["seconds"], settings["floor batch"]
    with ours(bundle.path, isolation) as running:
        running.wait(client)
        taken = {load: [] for load in LOADS}
        for _ in range(rounds):
            for load in LOADS:
                low = floor.run(tuned, seconds)
                seen = client.ask(running.server, load, seconds)
                taken[load].append((low, seen.throughput, seen.p50, seen.p99))
        memory = running.memory()
    rows = []
    for load, numbers in taken.items():
        low, high, p50, p99 = np.median(numbers, axis=0)
        shares = [b / a for a, b, *_ in numbers]
        row = {"isolation": isolation, "load": load.name, "floor /s": low, "server /s": high}
        row |= {"share": float(np.median(shares)), "from": min(shares), "to": max(shares)}
        rows.append(row | {"p50 ms": p50, "p99 ms": p99, "MiB": memory})
    return rows


def against_tree(
    bundle: Bundle, isolations: Sequence[str], client: Client, tree: Path, settings: Row, quick: bool
) -> list[Row]:
    """Measure the server against another tree's; return a row for each isolation, protocol and load."""
    key = {"machine": machine(), **{name: value for name, value in settings.items() if name != "floor batch"}}
    known = [json.loads(line) for line in JOURNAL.read_text().splitlines()] if JOURNAL.exists() and not quick else []
    blocks = []
    for isolation in isolations:
        for protocol in ("http", "grpc"):
            wanted = {"isolation": isolation, "protocol": protocol, **key}
            found = next((one for one in known if all(one.get(name) == wanted[name] for name in wanted)), None)
            if found is None:
                found = {**wanted, **both(bundle, isolation, protocol == "grpc", client, tree, settings)}
                print(f"{isolation}, {protocol}: measured", file=sys.stderr, flush=True)
                if not quick:
                    JOURNAL.parent.mkdir(exist_ok=True)
                    with JOURNAL.open("a") as journal:
                        journal.write(json.dumps(found) + "\n")
            blocks.append(found)
    if not quick:
        JOURNAL.unlink(missing_ok=True)
    return [row for block in blocks for row in compared(block)]


def both(bundle: Bundle, isolation: str, grpc: bool, client: Client, tree: Path, settings: Row) -> Row:
    """Measure both trees' servers in turns; return figures by load and round, and memory."""
    with (
        ours(bundle.path, isolation, grpc=grpc) as this,
        ours(bundle.path, isolation, tree=tree, grpc=grpc) as other,
    ):
        servers = {"this": this, "other": other}
        for server in servers.values():
            server.wait(client)
            server.pause()
        taken: dict[str, list[Row]] = {load.name: [] for load in LOADS}
        for turn in range(settings["rounds"]):
            order = list(servers) if turn % 2 else list(servers)[::-1]
            for load in LOADS:
                seen: Row = {}
                for name in order:
                    with awake(servers[name]) as server:
                        one = client.ask(server.server, load, settings["seconds"])
                        seen[name] = (one.throughput, one.p50, one.p99)
                taken[load.name].append(seen)
        return {"taken": taken, "memory": {name: server.memory() for name, server in servers.items()}}


def compared(block: Row) -> list[Row]:
    """Return a row for each load: ratios of this tree to the other within a round."""
    rows = []
    for load, rounds in block["taken"].items():
        row: Row = {"isolation": block["isolation"], "protocol": block["protocol"], "load": load}
        for index, name in enumerate(("images/s", "p50", "p99")):
            ratios = [one["this"][index] / one["other"][index] for one in rounds]
            row[name] = float(np.median([one["this"][index] for one in rounds]))
            row[f"{name} x"] = float(np.median(ratios))
            row[f"{name} range"] = f"{min(ratios):.3f}-{max(ratios):.3f}"
        rows.append(row | {"MiB": block["memory"]["this"], "MiB other": block["memory"]["other"]})
    return rows


def commit(tree: Path) -> str:
    """Return the commit of a tree, with a plus if its files differ from it."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
