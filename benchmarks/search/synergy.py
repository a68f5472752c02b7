"""Jobs on a server of GPUs, with equal shares of its processors and memory against shares by what each job needs.

    python benchmarks/search/synergy.py [--jobs 400] [--seeds 12] [--data FOLDER]

Replays measured speeds of networks by processors and memory (`synergy/profiles.csv`, of Synergy's simulator; Mohan et
al. 2022) on one server of 8 GPUs, with 3 processors and one step of memory for each. Jobs of one GPU arrive at random,
so that at the equal share's speed the GPUs would be busy for a share of the time, the load; or all at once, as a search
that leaves no GPU idle. They wait in a queue; shares are divided again whenever a job starts or ends. The hours of a
job at the speed of the equal share are drawn evenly on a logarithmic scale from .5 to 8.

    equal           3 processors and one step of memory for each GPU
    by sensitivity  each running job has the least that keeps its speed of the equal share; what is left goes, step by
                    step, where it adds most speed

Mixes: `all` draws from the twelve networks, `images` and `language` from those kinds, `one kind` has a single network a
seed, as a search has: its trials need much the same. Reported is the mean time from arrival to end of equal shares as a
percentage of that of shares by sensitivity (above 100: sensitivity is faster), with 95 % intervals over seeds. No clock
is read. Writes benchmarks/results/search-synergy.{json,txt}.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from record import record
from seeds import interval

ROOT = Path(__file__).resolve().parents[2]
GPUS, CPUS_EACH, MEMORY_EACH = 8, 3, 1
LOADS = (0.5, 0.8, 0.95, np.inf)
"""Shares of the time that GPUs would be busy; infinite: all jobs arrive at once."""
MIXES = {
    "all": None,
    "images": ("alexnet", "mobilenet", "res18", "res50", "shufflenet"),
    "language": ("bert", "gnmt", "lstm", "transformer"),
    "one kind": None,
}
Share = tuple[int, int]
"""Processors and steps of memory of a job."""
Speeds = Mapping[Share, float]
"""Speed of a network by its share, relative to that with the equal share."""


@dataclass(eq=False)
class WaitingJob:
    """Job with its arrival and the hours that are left at the speed of the equal share."""

    speeds: Speeds
    arrival: float
    left: float


def read_profiles(path: Path) -> dict[str, Speeds]:
    """Return the speeds of each network on one GPU."""
    found: dict[str, dict[Share, float]] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["gpus"] == "1":
                found[row["model"]][int(row["cpus"]), int(row["memory_step"])] = float(row["relative_speed"])
    equal = (CPUS_EACH, MEMORY_EACH)
    return {name: {share: value / speeds[equal] for share, value in speeds.items()} for name, speeds in found.items()}


def equal_shares(jobs: Sequence[WaitingJob]) -> list[Share]:
    """Return the same share for each of the running `jobs`."""
    return [(CPUS_EACH, MEMORY_EACH)] * len(jobs)


def shares_by_sensitivity(jobs: Sequence[WaitingJob]) -> list[Share]:
    """Return for each of the running `jobs` at least the speed of the equal share, and the rest where it adds most.

    A step to more of one kind may add nothing until a later one does, so steps of any size are compared by the speed
    that they add for a unit of processors and memory, each as a part of the server's.
    """
    shares = [min((s for s, speed in job.speeds.items() if speed >= 1), key=_size) for job in jobs]
    cpus = GPUS * CPUS_EACH - sum(share[0] for share in shares)
    memory = GPUS * MEMORY_EACH - sum(share[1] for share in shares)
    while True:
        steps = [
            ((job.speeds[to] - job.speeds[now]) / (_size(to) - _size(now)), number, to)
            for number, (job, now) in enumerate(zip(jobs, shares, strict=True))
            for to in job.speeds
            if job.speeds[to] > job.speeds[now] and 0 <= to[0] - now[0] <= cpus and 0 <= to[1] - now[1] <= memory
        ]
        if not steps:
            return shares
        _, number, to = max(steps)
        cpus, memory = cpus - to[0] + shares[number][0], memory - to[1] + shares[number][1]
        shares[number] = to


def _size(share: Share) -> float:
    return share[0] / (GPUS * CPUS_EACH) + share[1] / (GPUS * MEMORY_EACH)


def simulate(jobs: Sequence[WaitingJob], divide: Callable[[Sequence[WaitingJob]], list[Share]]) -> float:
    """Return the mean hours from arrival to end of `jobs`, which are in the order of their arrival."""
    waiting, running, now, total = list(jobs), list[WaitingJob](), 0.0, 0.0
    while waiting or running:
        while waiting and waiting[0].arrival <= now and len(running) < GPUS:
            running.append(waiting.pop(0))
        speeds = [job.speeds[share] for job, share in zip(running, divide(running), strict=True)]
        ends = [now + job.left / speed for job, speed in zip(running, speeds, strict=True)]
        then = min(ends, default=np.inf)
        if waiting and len(running) < GPUS:
            then = min(then, max(now, waiting[0].arrival))
        for job, speed in zip(running, speeds, strict=True):
            job.left -= (then - now) * speed
        ended = [job for job, end in zip(running, ends, strict=True) if end <= then]
        total += sum(then - job.arrival for job in ended)
        running = [job for job in running if job not in ended]
        now = then
    return total / len(jobs)


def draw_jobs(profiles: Mapping[str, Speeds], mix: str, load: float, count: int, seed: int) -> list[WaitingJob]:
    """Return `count` jobs of a mix, in the order of their arrival."""
    generator = np.random.default_rng([seed, list(MIXES).index(mix)])
    names = sorted(MIXES[mix] or profiles)
    if mix == "one kind":
        names = [names[seed % len(names)]]
    hours = np.exp(generator.uniform(np.log(0.5), np.log(8), count))
    arrivals = np.cumsum(generator.exponential(hours.mean() / (GPUS * load), count))
    chosen = generator.choice(names, count)
    return [WaitingJob(profiles[n], float(a), float(h)) for n, a, h in zip(chosen, arrivals, hours, strict=True)]


def main() -> None:
    """Simulate all mixes, loads and seeds, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    profiles = read_profiles(options.data / "synergy" / "profiles.csv")
    table: list[dict[str, Any]] = []
    for mix in MIXES:
        for load in LOADS:
            equal, sensitive = (
                [simulate(draw_jobs(profiles, mix, load, options.jobs, seed), divide) for seed in range(options.seeds)]
                for divide in (equal_shares, shares_by_sensitivity)
            )
            ratios = [a / b for a, b in zip(equal, sensitive, strict=True)]
            table.append(
                {"mix": mix, "load": "all at once" if np.isinf(load) else load, "hours, equal": float(np.mean(equal))}
                | {
                    "hours, by sensitivity": float(np.mean(sensitive)),
                    "equal % of by sensitivity": interval(ratios, 100),
                }
            )
            print(table[-1], flush=True)
    record(
        "search-synergy", {"jobs": options.jobs, "seeds": options.seeds, "gpus": GPUS, "cpus": GPUS * CPUS_EACH}, table
    )


if __name__ == "__main__":
    main()
