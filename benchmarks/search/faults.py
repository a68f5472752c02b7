"""A real search with workers and drivers killed at random, against the same search undisturbed.

    python benchmarks/search/faults.py [--quick] [--data ../shared/data] [--trials N] [--seed N]

Fashion-MNIST, 1,500 images, `ripieno tune` bounded by trials on 2 slots, twice with the same seed. In the second search
SIGKILL ends 20 workers and 3 drivers, each after a random number of members and a random delay. A killed driver is
restarted. Then the two libraries are compared: members lost, doubled, with another configuration, and the differences
of their predictions. The first three must be zero. A job killed three times before it completed an epoch fails by
design and loses its member. Short epochs and many trials make that unlikely (with 16 trials on 5,000 images, epochs of
4 s and a kill every 7 s, one or two failed). Writes benchmarks/results/search-faults.{json,txt}.
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
"""Maximum delay of a kill in seconds: about the restart time of a worker."""


class Search:
    """`ripieno tune` in a separate process."""

    def __init__(self, command: Sequence[str], run: Path) -> None:
        self.library = Library(run)
        self._command = [*command, "--run", str(run)]
        self._log = run.with_suffix(".log")
        self.start()

    def start(self) -> None:
        """Start or resume the search."""
        with open(self._log, "a") as log:
            self.driver = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def finish(self) -> None:
        """Wait until the search ends."""
        if self.driver.wait() != 0:
            raise SystemExit(f"The search exited with {self.driver.returncode}: {self._log.read_text()[-2000:]}")

    def until(self, members: int) -> None:
        """Wait until the library has `members` members."""
        while self.driver.poll() is None and len(self.library) < members:
            time.sleep(0.02)

    def kill_driver(self) -> bool:
        """Kill the driver by SIGKILL and restart it; return False if it had ended."""
        self.driver.kill()
        killed = self.driver.wait() == -signal.SIGKILL
        if killed:
            self.start()
        return killed

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill a worker by SIGKILL, as soon as one exists; return False if the search ended before."""
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
    """Kill at random until the search ends with about `members`; return the killed workers and drivers."""
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
    """Count the results of each job in the journal."""
    found: Counter[tuple[int, int]] = Counter()
    for line in library.journal_path.read_text().splitlines():
        for event in json.loads(line).get("user_attr", {}).values():
            if isinstance(event, dict) and event.get("event") == "arrived":
                found[event["trial"], event["stop"]] += 1
    return found


def row(name: str, library: Library, quiet: Library, seconds: float, killed: tuple[int, int]) -> dict[str, object]:
    """Compare `library` with the undisturbed one; return a row."""
    here, there = ({m.id: dict(m.configuration) for m in one.members()} for one in (library, quiet))
    both = sorted(here.keys() & there.keys())
    # float64, because the difference of two half floats would be rounded
    gaps = [np.abs(library.predictions(m).astype(float) - quiet.predictions(m)).max() for m in both]
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
        command += ["--free", "off"]
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
