"""The profile behind `packing`: workers of every pack train networks of every size for a moment; kept with the run."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ripieno import files
from ripieno.cluster import LocalPool, cpu_slots, gpu_slots
from ripieno.errors import RipienoError
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.pipeline.trial_packing import (
    SECONDS,
    SHARE,
    TURN_SECONDS,
    TURNS,
    PackingConfig,
    PackingRate,
    best_alternative,
    choose_packing,
    cpu_packs,
    describe,
    gpu_packs,
    is_worth_profiling,
    representative_configurations,
)
from ripieno.resources import usable_cores
from ripieno.search import Space
from ripieno.train import TrainingConfig
from ripieno.train.concurrent_probe import PATIENCE, train_concurrently
from ripieno.train.loading_strategy import StrategyTiming
from ripieno.types import Configuration, Job, JobResult

DRAWN = 48
"""Configurations drawn from a space to know its sizes by."""


@dataclass(frozen=True)
class PackingRecord:
    """`RUN/packing.json`."""

    machine: str
    packs: tuple[PackingConfig, ...]
    rates: tuple[PackingRate, ...]
    chosen: PackingConfig
    turns: tuple[tuple[PackingRate, ...], ...] = ()
    """of the equal split and its rival"""


def find_packing(
    task: TrainingConfig,
    space: Space,
    cost: Callable[[Configuration], float],
    gpus: Sequence[str],
    seconds: float | None,
    progress: ProgressFunction = no_progress,
) -> tuple[PackingConfig, str] | None:
    """The pack for a search of `seconds` and why, in one line; None: a profile is not worth its time (`worth`).

    The first start decides: what it measured is taken at once on such a machine, and a search that began with an equal
    split goes on with it. `gpus` are the numbers of those to train on.
    """
    path = task.run / "packing.json"
    cores = len(usable_cores())
    machine = f"{cores} cores, {len(gpus)} GPUs"
    packs = gpu_packs(cores, len(gpus)) if gpus else cpu_packs(cores)
    kept = _kept(path)
    if kept is None or kept.machine != machine:
        begun = kept is None and (task.run / "run.json").exists()
        if begun or not is_worth_profiling(packs, seconds):
            return None
        middles = representative_configurations(sample_configurations(space, task.seed), cost)
        most = SHARE * (seconds or 0.0)
        kept = measure_and_choose(task, machine, packs, middles, gpus[:1], most, progress)
        files.write_json(path, kept)
    line = describe(kept.chosen, kept.packs, kept.rates, kept.turns)
    progress(line, len(packs), len(packs))
    return kept.chosen, line


def sample_configurations(space: Space, seed: int, count: int = DRAWN) -> list[Configuration]:
    """`count` random configurations of `space`."""
    from ripieno.search.journal import Journal

    journal = Journal(None, space, "random", seed)
    return [journal.configuration(trial) for trial in range(count)]


def measure_and_choose(
    task: TrainingConfig,
    machine: str,
    packs: Sequence[PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    most: float = math.inf,
    progress: ProgressFunction = no_progress,
) -> PackingRecord:
    """Look at all `packs`, measure the equal split and its rival in turn, choose. `gpus` names at most one.

    Nothing is begun after `most` seconds: on a busy machine what is left is not measured, and so not chosen.
    """
    until = time.monotonic() + most
    rates = profile(task, packs, middles, gpus, until=until, progress=progress)
    other = best_alternative(packs, rates)
    turns = () if other is None else measure_alternately(task, (packs[0], other), middles, gpus, until)
    return PackingRecord(machine, tuple(packs), rates, choose_packing(packs, rates, turns), turns)


def profile(
    task: TrainingConfig,
    packs: Sequence[PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    seconds: float = SECONDS,
    until: float = math.inf,
    progress: ProgressFunction = no_progress,
) -> tuple[PackingRate, ...]:
    """Images per second of every pack and size, one after the other; 0 where one of the trials failed.

    No pack is begun after `until` (of the monotonic clock).
    """
    rates: list[PackingRate] = []
    for done, pack in enumerate(packs):
        if time.monotonic() > until:
            break
        progress("packing: trying how many trials to run at a time", done, len(packs))
        with _workers(task, pack, gpus, seconds) as measure:
            rates += measure(middles)
    progress("packing: trying how many trials to run at a time", len(packs), len(packs))
    return tuple(rates)


def measure_alternately(
    task: TrainingConfig,
    packs: tuple[PackingConfig, PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    until: float = math.inf,
    turns: int = TURNS,
    seconds: float = TURN_SECONDS,
) -> tuple[tuple[PackingRate, ...], ...]:
    """What each of two packs does in each of `turns`, first one, then the other, then the other way round, and so on.

    No turn is begun after `until`. Before the first all workers train once: they start up.
    """
    found: list[tuple[PackingRate, ...]] = []
    with _workers(task, packs[0], gpus, seconds) as one, _workers(task, packs[1], gpus, seconds) as other:
        some = dict(list(middles.items())[:1])
        for measure in (one, other):
            measure(some)
        while len(found) < turns and time.monotonic() <= until:
            order = (one, other) if len(found) % 2 == 0 else (other, one)
            found.append(tuple(rate for measure in order for rate in measure(middles)))
    return tuple(found)


@contextmanager
def _workers(
    task: TrainingConfig, pack: PackingConfig, gpus: Sequence[str], seconds: float
) -> Iterator[Callable[[Mapping[str, Configuration]], list[PackingRate]]]:
    """The workers of `pack`, as a function that measures configurations by size for `seconds` each."""
    slots = gpu_slots(gpus, pack.slots, pack.threads) if gpus else cpu_slots(pack.slots, pack.threads)
    mine = dataclasses.replace(task, threads=pack.threads, spare=pack.spare)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = partial(train_concurrently, mine, folder, len(slots), seconds)
        with LocalPool(work, slots, limit=PATIENCE + 10 * seconds) as pool:
            yield lambda middles: [PackingRate(pack, size, _images(pool, folder, middles[size])) for size in middles]


def _images(pool: LocalPool, folder: Path, configuration: Configuration) -> float:
    """Images per second of all trials of `configuration` together."""
    for trial in range(pool.slots):
        pool.submit(Job(trial, configuration, 0, 1))
    outcomes: list[JobResult] = []
    while len(outcomes) < pool.slots:
        outcomes += pool.wait()
    failed = any(outcome.failure for outcome in outcomes)
    speeds = [files.read_json(path, StrategyTiming) for path in folder.glob("*.json")]
    for path in folder.iterdir():
        path.unlink()
    return 0.0 if failed else sum(speed.rate for speed in speeds)


def _kept(path: Path) -> PackingRecord | None:
    try:
        return files.read_json(path, PackingRecord) if path.exists() else None
    except RipienoError:  # of another version: measured again
        return None
