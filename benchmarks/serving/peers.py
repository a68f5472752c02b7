"""The server against its peers: the same ensemble, the same client, the same cores, in turns within one run.

    python benchmarks/serving/peers.py --install [NAMES]     an environment for each peer, under runs/peers
    python benchmarks/serving/peers.py [--quick] [--peers NAMES] [--again]

Every peer has a file in benchmarks/serving/peers/ with its server and its candidate settings: networks concurrently, or
one after the other with more threads each, with batches or without. First every setting of a peer is measured briefly,
in turns, at every load; at each load the setting with the most images per second is used from then on. A round then
puts each load on our server and on the peer in its best setting, one after the other, for `--seconds` each, and runs
the floor once: raw loops over the same networks, one per core. `auto` is another peer: our server with the backends
that `auto` chose (and its own floor); all others run ONNX Runtime in float32. An idle server is stopped
(SIGSTOP), so that it costs the others nothing.

Shares and ratios are medians (ranges) of ratios within a round; our own figures cover all rounds with all
peers. Memory is the proportional set of the whole process tree after the last round. An answer that is off by more than
1e-4 (0.1 for `auto`, which may use a lower precision) ends a setting's turn.

Measurements are saved in runs/peers/measured.jsonl, so that an interrupted run resumes with the next peer; --again
deletes them, and the choice of `auto`. Takes thirteen minutes on two cores; writes
benchmarks/results/serving-peers.{json,txt} and prints the table of the docs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from bundles import bundles_under
from client import LOADS, Client, Load, WrongAnswerError
from floor import ProcessFloor, answers
from install import HOMES, NAMES, install, read_peer, why_not
from record import machine, record
from servers import CannotStartError, Running, awake, ours, start

from ripieno.types import Bundle

JOURNAL = HOMES / "measured.jsonl"
Row = dict[str, object]
AUTO = "auto"
NEAR = 0.1
"""Tolerance of `auto` against fp32: `ripieno.pipeline.backend_selection.Tolerances.near`."""
TRIAL = 0.5
"""Seconds of a setting's trial, twice at each load, to find the best."""


def main() -> None:
    """Install, or measure the missing peers and report all."""
    every = (AUTO, *NAMES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", nargs="*", metavar="NAME", choices=NAMES, help="make environments, then exit")
    parser.add_argument("--peers", nargs="+", metavar="NAME", choices=every, default=every, help=", ".join(every))
    parser.add_argument("--quick", action="store_true", help="one short round; a separate result, never resumed")
    parser.add_argument("--again", action="store_true", help="discard saved choices and measurements")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument(
        "--isolation", default="auto", choices=("auto", "thread", "process"), help="isolation of our workers"
    )
    options = parser.parse_args()
    if options.install is not None:
        for name in options.install or NAMES:
            sys.stdout.write(f"{name}: {install(read_peer(name)) or 'installed'}\n")
        return
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, options.seconds)
    settings = {"rounds": rounds, "seconds": seconds, "isolation": options.isolation}
    if options.again:
        for kept in (JOURNAL, HOMES / "library", *HOMES.glob("auto-*")):
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
    known = {} if options.quick else read_journal(settings)
    missing = [name for name in options.peers if name not in known]
    if missing:
        with PeerBenchmark(len(os.sched_getaffinity(0)), rounds, seconds, options.isolation) as benchmark:
            for name in missing:
                known[name] = {"peer": name, "machine": machine(), **settings, **benchmark.measure(name)}
                outcome = known[name].get("why not") or known[name]["best"]
                print(f"{name}: {outcome}", file=sys.stderr, flush=True)
                if not options.quick:
                    with JOURNAL.open("a") as journal:
                        journal.write(json.dumps(known[name]) + "\n")
    report([known[name] for name in options.peers], settings, "serving-peers" + "-quick" * options.quick)


def read_journal(settings: Row) -> dict[str, Row]:
    """Return the measurements of this machine with the same settings, by peer.

    Peers that did not answer are tried again.
    """
    lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
    wanted = {"machine": machine(), **settings}
    found = [json.loads(line) for line in lines]
    found = [one for one in found if "taken" in one and all(one.get(key) == wanted[key] for key in wanted)]
    return {one["peer"]: one for one in found}


class PeerBenchmark:
    """Our server, the floor and the client; peers are measured one by one."""

    def __init__(self, cores: int, rounds: int, seconds: float, isolation: str) -> None:
        self.cores, self.rounds, self.seconds, self.isolation = cores, rounds, seconds, isolation
        HOMES.mkdir(parents=True, exist_ok=True)
        self.bundles = bundles_under(HOMES, cores)
        bundle = self.bundles["onnx"]
        images = np.random.default_rng(0).integers(0, 256, (160, *bundle.input.shape), dtype=np.uint8)
        self.client = Client(images, answers(bundle, images))
        self.floor = Floor(self.bundles["onnx"], cores, seconds)
        self.ours = ours(bundle.path, isolation)
        self.ours.wait(self.client)

    def measure(self, name: str) -> Row:
        """Measure rounds of floor, ours and one peer; return figures by load, or the reason for none."""
        began = time.monotonic()
        if reason := why_not(read_peer(name)) if name != AUTO else "":
            return {"why not": reason}
        with contextlib.ExitStack() as stack:
            running, failed = self._started(name, stack)
            if not running:
                return {"why not": "; ".join(dict.fromkeys(failed.values()))}
            trial = self._trial(running)
            best = {load.name: max(running, key=lambda s, load=load: trial[s][load.name]) for load in LOADS}
            for setting in set(running) - set(best.values()):
                running.pop(setting).stop()
            floor = self.floor
            if name == AUTO:
                floor = stack.enter_context(contextlib.closing(Floor(self.bundles[AUTO], self.cores, self.seconds)))
            taken: dict[str, list[Row]] = {load.name: [] for load in LOADS}
            for _ in range(self.rounds):
                share = {"onnx floor": self.floor.run(), "floor": 0.0}
                share["floor"] = floor.run() if name == AUTO else share["onnx floor"]
                for load in LOADS:
                    seen: Row = {**share, "onnx": self._asked(self.ours, load)}
                    with awake(running[best[load.name]]) as other:
                        seen["peer"] = self._asked(other, load)
                    taken[load.name].append(seen)
            memory = {"onnx": self.ours.memory(), **{setting: one.memory() for setting, one in running.items()}}
            found: Row = {"best": best, "trial": trial, "failed": failed, "memory": memory, "batch": floor.batch}
            if name == AUTO:
                found["backends"] = sorted(self.bundles[AUTO].chosen.values(), key=str)
            return {"taken": taken, **found, "took": round(time.monotonic() - began)}

    def _started(self, name: str, stack: contextlib.ExitStack) -> tuple[dict[str, Running], dict[str, str]]:
        """Start a peer in every setting; return the warm, paused servers, and the reasons of failures."""
        made: dict[str, Callable[[], Running]]
        if name == AUTO:
            made = {AUTO: lambda: ours(self.bundles[AUTO].path, self.isolation, NEAR)}
        else:
            peer, folder = read_peer(name), self.bundles["onnx"].path
            made = {s: lambda s=s: start(peer, s, folder, self.cores) for s in peer.settings}
        running, failed = dict[str, Running](), dict[str, str]()
        for setting, make in made.items():
            server = stack.enter_context(make())
            try:
                server.wait(self.client)
                running[setting] = server
                server.pause()
            except (CannotStartError, WrongAnswerError) as error:
                failed[setting] = str(error)
                server.stop()
        return running, failed

    def _trial(self, running: dict[str, Running]) -> dict[str, dict[str, float]]:
        """Return images per second by setting and load: the better of two turns of all settings."""
        found = {setting: dict.fromkeys((load.name for load in LOADS), 0.0) for setting in running}
        for _ in range(2 if len(running) > 1 else 0):
            for load in LOADS:
                for setting, server in running.items():
                    with awake(server):
                        seen = self.client.ask(server.server, load, min(TRIAL, self.seconds))
                    found[setting][load.name] = max(found[setting][load.name], seen.throughput)
        return found

    def _asked(self, running: Running, load: Load) -> list[float]:
        seen = self.client.ask(running.server, load, self.seconds)
        return [seen.throughput, seen.p50, seen.p99, seen.worst]

    def __enter__(self) -> PeerBenchmark:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.stop()
        self.floor.close()
        self.client.close()


class Floor:
    """The raw loops over a bundle's networks, at their best batch size."""

    def __init__(self, bundle: Bundle, cores: int, seconds: float) -> None:
        self._loops, self._seconds = ProcessFloor(bundle, cores), seconds
        self.batch = max((8, 16, 32, 64), key=lambda batch: self._loops.run(batch, min(1.0, seconds)))

    def run(self) -> float:
        """Return images per second."""
        return self._loops.run(self.batch, self._seconds)

    def close(self) -> None:
        """End the processes."""
        self._loops.close()


def report(blocks: list[Row], settings: Row, name: str) -> None:
    """Write and print the table of all blocks, with a note for each setting and each unmeasured peer."""
    good = [block for block in blocks if "why not" not in block]
    rows = report_rows(good)
    notes = [f"{title(block)}: not measured, {block['why not']}" for block in blocks if "why not" in block]
    for block in good:
        if block["peer"] == AUTO:
            notes.append(f"floor's batch {block['batch']}, of auto; auto runs {block['backends']}")
            continue
        words = read_peer(str(block["peer"])).settings
        notes += [f"{title(block)}, {setting}: {words[setting]}" for setting in words if setting in block["trial"]]
        notes += [f"{title(block)}, {setting}: failed, {why}" for setting, why in block["failed"].items()]
        notes += [f"{title(block)}, images/s of the trial: {_trial_in_words(block['trial'])}"]
    record(name, settings, rows, "\n".join(notes))
    print("\n" + markdown(rows))


def report_rows(blocks: Sequence[Row]) -> list[Row]:
    """Return a row for each server and load: ours from all blocks, each peer's from its own."""
    rows = _rows("ripieno", "onnx", blocks) if blocks else []
    return rows + [row for block in blocks for row in _rows(title(block), "peer", [block])]


def title(block: Row) -> str:
    """Return the name of a block's peer, for tables."""
    return "ripieno on `auto`" if block["peer"] == AUTO else read_peer(str(block["peer"])).title


def _trial_in_words(trial: dict[str, dict[str, float]]) -> str:
    return "; ".join(f"{s} {', '.join(f'{speed:,.0f}' for speed in by.values())}" for s, by in trial.items())


def _rows(title: str, who: str, blocks: Sequence[Row]) -> list[Row]:
    """Return a server's rows, one per load: medians of its rounds."""
    rows = []
    for load in (load.name for load in LOADS):
        rounds = [one for block in blocks for one in block["taken"][load]]
        speed, p50, p99, _ = np.median([one[who] for one in rounds], axis=0)
        shares = [one[who][0] / one["onnx floor" if who == "onnx" else "floor"] for one in rounds]
        row: Row = {"server": title, "load": load, "images/s": speed, "p50 ms": p50, "p99 ms": p99}
        row |= {"of floor": float(np.median(shares)), "range": spread(shares)}
        if who == "peer":
            ratios = [one["onnx"][0] / one[who][0] for one in rounds]
            sooner = [one["onnx"][1] / one[who][1] for one in rounds]
            row |= {"ours x": float(np.median(ratios)), "range x": spread(ratios)}
            row |= {"p50 x": float(np.median(sooner)), "range p50": spread(sooner)}
            row["setting"] = blocks[0]["best"][load]
        row["MiB"] = float(np.median([b["memory"][who if who == "onnx" else b["best"][load]] for b in blocks]))
        row["worst error"] = max(one[who][3] for one in rounds)
        rows.append(row)
    return rows


def spread(values: Sequence[float]) -> str:
    """Return minimum and maximum, as text."""
    return f"{min(values):.2f}-{max(values):.2f}"


def short(milliseconds: float) -> str:
    """Format with two digits, or as whole milliseconds."""
    return f"{milliseconds:,.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of docs/benchmarks.md: share of the floor (range); p50, p99 in ms; settings; MiB."""
    lines = [f"| server | {' | '.join(load.name for load in LOADS)} | settings, by load | MiB |", "|---" * 7 + "|"]
    for title in dict.fromkeys(row["server"] for row in rows):
        own = [row for row in rows if row["server"] == title]
        cells = [f"{r['of floor']:.2f} ({r['range']}); {short(r['p50 ms'])}, {short(r['p99 ms'])}" for r in own]
        settings = [str(row.get("setting", "")) for row in own]
        text = settings[0] if len(set(settings)) == 1 else " / ".join(settings)
        weights = sorted({round(row["MiB"]) for row in own})
        weight = " to ".join(f"{w:,}" for w in dict.fromkeys((weights[0], weights[-1])))
        lines.append(f"| {title} | {' | '.join(cells)} | {text} | {weight} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
