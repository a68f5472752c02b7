"""A real search whose workers and drivers are killed at random, beside the same search left alone.

    python benchmarks/search/faults.py [--quick] [--data ../shared/data] [--trials N] [--seed N]

Fashion-MNIST, 1,500 images, `ripieno tune` bounded by trials on 2 slots, twice with the same seed. The second time 20
workers are killed by SIGKILL and the driver 3 times, each as soon as a number of members drawn at random is there and a
moment drawn at random has passed; a driver killed is started again. Then the two libraries are compared: members lost,
doubled, with another configuration, and by how much their predictions differ. Fails unless the first three are zero.
A job killed three times before it ended an epoch is a failure by design, and its member lost: short epochs and many
trials make that unlikely (with 16 trials on 5,000 images, epochs of 4 s and a kill every 7 s, one or two were).
Writes benchmarks/results/search-faults.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "house"))
from record import record
from search import fashion  # type: ignore[attr-defined]

from ripieno.library import Library

ROOT = Path(__file__).parents[2]
WAIT = 2.0
"""Most seconds between a kill's turn and the kill: about what a worker needs to start again."""


class Search:
    """`ripieno tune` in a process of its own."""

    def __init__(self, command: Sequence[str], run: Path) -> None:
        self.library = Library(run)
        self._command = [*command, "--run", str(run)]
        self._log = run.with_suffix(".log")
        self.start()

    def start(self) -> None:
        """Start it, or go on."""
        with open(self._log, "a") as log:
            self.driver = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def finish(self) -> None:
        """Wait for its end."""
        if self.driver.wait() != 0:
            raise SystemExit(f"the search ended with {self.driver.returncode}: {self._log.read_text()[-2000:]}")

    def until(self, members: int) -> None:
        """Wait for so many members."""
        while self.driver.poll() is None and len(self.library) < members:
            time.sleep(0.02)

    def kill_driver(self) -> bool:
        """SIGKILL, and start it again; False when there was none."""
        self.driver.kill()
        killed = self.driver.wait() == -signal.SIGKILL
        if killed:
            self.start()
        return killed

    def kill_worker(self, chance: random.Random) -> bool:
        """SIGKILL to one of the workers, as soon as there is one; False when the search ended before."""
        while self.driver.poll() is None:
            with suppress(psutil.Error):
                children = psutil.Process(self.driver.pid).children()
                workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
                if workers:
                    chance.choice(workers).kill()
                    return True
            time.sleep(0.02)
        return False


def disturb(search: Search, members: int, workers: int, drivers: int, seed: int) -> tuple[int, int]:
    """Kill at random until the search ends with about `members`; how many workers and drivers were killed."""
    chance = random.Random(seed)
    plan = [(chance.uniform(0, 0.9 * members), kind) for kind in ["worker"] * workers + ["driver"] * drivers]
    killed = Counter[str]()
    for when, kind in sorted(plan):
        search.until(round(when))
        time.sleep(chance.uniform(0, WAIT))
        killed[kind] += search.kill_worker(chance) if kind == "worker" else search.kill_driver()
    search.finish()
    return killed["worker"], killed["driver"]


def results(library: Library) -> Counter[tuple[int, int]]:
    """How often the journal has a result of each job."""
    found: Counter[tuple[int, int]] = Counter()
    for line in library.journal_path.read_text().splitlines():
        for event in json.loads(line).get("user_attr", {}).values():
            if isinstance(event, dict) and event.get("event") == "arrived":
                found[event["trial"], event["stop"]] += 1
    return found


def row(name: str, library: Library, quiet: Library, seconds: float, killed: tuple[int, int]) -> dict[str, object]:
    """`library` beside the quiet one."""
    here, there = ({m.id: dict(m.configuration) for m in one.members()} for one in (library, quiet))
    both = sorted(here.keys() & there.keys())
    # float64: the difference of two half floats is rounded
    gaps = [np.abs(library.probabilities(m).astype(float) - quiet.probabilities(m)).max() for m in both]
    return {
        "search": name,
        "seconds": seconds,
        "workers killed": killed[0],
        "drivers killed": killed[1],
        "members": len(here),
        "lost": len(there.keys() - here.keys()),
        "added": len(here.keys() - there.keys()),
        "doubled": sum(count > 1 for count in results(library).values()),
        "other configuration": sum(here[m] != there[m] for m in both),
        "largest gap of a probability": float(max(gaps)),
    }


def main() -> None:
    """Search twice, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trials = options.trials or (6 if options.quick else 80)
    images, epochs, workers, drivers = (800, 3, 4, 1) if options.quick else (1500, 9, 20, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = fashion(options.data)
        np.savez(folder / "fashion.npz", images=x[:images], labels=y[:images])
        command = [sys.executable, "-m", "ripieno", "tune", str(folder / "fashion.npz"), "--space", "resnet-tiny"]
        command += ["--slots", "2", "--seed", str(options.seed), "--trials", str(trials), "--epochs", str(epochs)]
        started = time.time()
        alone = Search(command, folder / "quiet")
        alone.finish()
        middle = time.time()
        disturbed = Search(command, folder / "disturbed")
        killed = disturb(disturbed, len(alone.library), workers, drivers, options.seed)
        rows = [
            row("left alone", alone.library, alone.library, middle - started, (0, 0)),
            row("disturbed", disturbed.library, alone.library, time.time() - middle, killed),
        ]
    wrong = {kind: rows[1][kind] for kind in ("lost", "added", "doubled", "other configuration") if rows[1][kind]}
    settings = {"images": images, "trials": trials, "epochs": epochs, "seed": options.seed}
    note = "the libraries differ" if wrong else "the libraries are the same"
    record("search-faults" + ("-quick" if options.quick else ""), settings, rows, note)
    if wrong or killed != (workers, drivers):
        raise SystemExit(f"{note}; killed {killed} of {(workers, drivers)}")


if __name__ == "__main__":
    main()
