"""The server against its peers: the same ensemble, the same client, the same cores, in turns within one run.

    python benchmarks/serving/peers.py --install [NAMES]     an environment for each peer, under runs/peers
    python benchmarks/serving/peers.py [--quick] [--peers NAMES] [--again]

Every peer has a file in benchmarks/serving/peers/ with its server and its settings. It is measured beside two of ours,
`onnx` (ONNX Runtime, fp32, as every peer) and `auto` (what `auto` chose), and beside the floors of both: raw loops over
the same networks, one a core. In a round each load is put on floor, ours, floor of auto, auto and the peer, one after
the other, for `--seconds` each; who is not asked is stopped (SIGSTOP), so that its idling costs the others nothing.
Shares are medians of ratios within a round, our own figures are those of all rounds beside all peers. Memory is the
proportional set of the whole process tree after the last round. An answer that is off by more than 1e-4 (0.1 for
`auto`, which may take a lower precision) ends a peer's turn.

What was measured is kept in runs/peers/measured.jsonl, so that a run that was cut goes on with the next peer; --again
forgets it. Writes benchmarks/results/serving-peers.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from bundles import bundles_under
from client import LOADS, Client, Load, Server, WrongAnswerError
from floor import ProcessFloor, answers
from install import HOMES, NAMES, Peer, install, read_peer, why_not
from record import machine, record
from servers import CannotStartError, Running, ours, start

JOURNAL = HOMES / "measured.jsonl"
Row = dict[str, object]
NEAR = 0.1
"""How far `auto` may be from fp32: `ripieno.pipeline.fitting.Terms.near`."""


def main() -> None:
    """Install, or measure what is missing and report all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", nargs="*", metavar="NAME", choices=NAMES, help="make environments, then end")
    parser.add_argument("--peers", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="one short round; a result of its own, never resumed")
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--isolation", default="auto", choices=("auto", "thread", "process"), help="of our lanes")
    options = parser.parse_args()
    if options.install is not None:
        for name in options.install or NAMES:
            sys.stdout.write(f"{name}: {install(read_peer(name)) or 'installed'}\n")
        return
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, options.seconds)
    settings = {"rounds": rounds, "seconds": seconds, "isolation": options.isolation}
    known = {} if options.again or options.quick else read_journal(settings)
    missing = [read_peer(name) for name in options.peers if name not in known]
    if missing:
        with Bench(len(os.sched_getaffinity(0)), rounds, seconds, options.isolation) as bench:
            for peer in missing:
                known[peer.name] = {"peer": peer.name, "machine": machine(), **settings, **bench.measure(peer)}
                if not options.quick:
                    with JOURNAL.open("a") as journal:
                        journal.write(json.dumps(known[peer.name]) + "\n")
    report([known[name] for name in options.peers], settings, "serving-peers" + "-quick" * options.quick)


def read_journal(settings: Row) -> dict[str, Row]:
    """What was measured here with the same settings, by peer; peers that did not answer are tried again."""
    lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
    wanted = {"machine": machine(), **settings}
    found = [json.loads(line) for line in lines]
    found = [one for one in found if "why not" not in one and all(one[key] == wanted[key] for key in wanted)]
    return {one["peer"]: one for one in found}


class Bench:
    """Our servers, the floors and the client; peers come one by one."""

    def __init__(self, cores: int, rounds: int, seconds: float, isolation: str) -> None:
        self.cores, self.rounds, self.seconds = cores, rounds, seconds
        HOMES.mkdir(parents=True, exist_ok=True)
        bundles = bundles_under(HOMES, cores)
        self.folder = bundles["onnx"].path
        self.backends = {name: sorted(b.chosen.values(), key=str) for name, b in bundles.items()}
        images = np.random.default_rng(0).integers(0, 256, (160, *bundles["onnx"].input.shape), dtype=np.uint8)
        self.client = Client(images, answers(bundles["onnx"], images))
        self.floors = {name: ProcessFloor(bundle, cores) for name, bundle in bundles.items()}
        self.batches = {
            name: max((8, 16, 32, 64), key=lambda batch, floor=floor: floor.run(batch, min(1.0, seconds)))
            for name, floor in self.floors.items()
        }
        self.ours = {name: ours(bundle.path, isolation) for name, bundle in bundles.items()}
        for name, running in self.ours.items():
            running.server = Server(running.server.address, within=1e-4 if name == "onnx" else NEAR)
            running.wait(self.client)
            self._warm(running)

    def measure(self, peer: Peer) -> Row:
        """Rounds of everything beside one peer: by load lists of figures; or why there are none."""
        began = time.monotonic()
        if reason := why_not(peer):
            return {"why not": reason}
        try:
            with start(peer, self.folder, self.cores) as other:
                other.wait(self.client)
                self._warm(other)
                other.pause()
                taken: dict[str, list[Row]] = {load.name: [] for load in LOADS}
                for _ in range(self.rounds):
                    for load in LOADS:
                        taken[load.name].append(self._round(load, other))
                other.resume()
                crew = {**self.ours, "peer": other}
                memory = {name: running.memory() for name, running in crew.items()}
        except (CannotStartError, WrongAnswerError) as error:
            return {"why not": f"{error}"}
        took = round(time.monotonic() - began)
        return {"taken": taken, "memory": memory, "batches": self.batches, "backends": self.backends, "took": took}

    def _round(self, load: Load, other: Running) -> Row:
        """A load on everything in turn."""
        seen: Row = {}
        for name, running in self.ours.items():
            seen[f"{name} floor"] = self.floors[name].run(self.batches[name], self.seconds)
            seen[name] = self._asked(running, load)
        other.resume()
        seen["peer"] = self._asked(other, load)
        other.pause()
        return seen

    def _asked(self, running: Running, load: Load) -> list[float]:
        seen = self.client.ask(running.server, load, self.seconds)
        return [seen.throughput, seen.p50, seen.p99, seen.worst]

    def _warm(self, running: Running) -> None:
        for load in LOADS:
            self.client.ask(running.server, load, min(1.0, self.seconds))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.ours.values():
            running.stop()
        for floor in self.floors.values():
            floor.close()
        self.client.close()


def report(blocks: list[Row], settings: Row, name: str) -> None:
    """A row for each server and load: ours from all blocks, each peer's from its own."""
    good = [block for block in blocks if "why not" not in block]
    rows = [row for who in ("onnx", "auto") for row in _rows(f"ripieno, {who}", who, good)] if good else []
    rows += [row for block in good for row in _rows(read_peer(str(block["peer"])).title, "peer", [block])]
    notes = [f"{read_peer(str(b['peer'])).title}: not measured, {b['why not']}" for b in blocks if "why not" in b]
    notes += [f"{peer.title}: {peer.settings}" for peer in (read_peer(str(b["peer"])) for b in good)]
    chosen = f"floors' batches {good[0]['batches']}; auto runs {good[0]['backends']['auto']}" if good else ""
    record(name, settings, rows, "\n".join(filter(None, [chosen, *notes])))


def _rows(title: str, who: str, blocks: Iterable[Row]) -> list[Row]:
    """A server's rows, one a load: medians of its rounds."""
    rows = []
    for load in (load.name for load in LOADS):
        rounds = [one for block in blocks for one in block["taken"][load]]
        floor = "auto floor" if who == "auto" else "onnx floor"
        speed, p50, p99, _ = np.median([one[who] for one in rounds], axis=0)
        low, _, high = np.quantile([one[who][0] / one[floor] for one in rounds], (0.25, 0.5, 0.75))
        row: Row = {"server": title, "load": load, "images/s": speed, "p50 ms": p50, "p99 ms": p99}
        row["of floor"] = float(np.median([one[who][0] / one[floor] for one in rounds]))
        row["quartiles"] = f"{low:.3f}-{high:.3f}"
        row["ours x"] = "" if who != "peer" else float(np.median([one["onnx"][0] / one[who][0] for one in rounds]))
        row["auto x"] = "" if who != "peer" else float(np.median([one["auto"][0] / one[who][0] for one in rounds]))
        row["MiB"] = float(np.median([block["memory"][who] for block in blocks]))
        row["worst error"] = max(one[who][3] for one in rounds)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
