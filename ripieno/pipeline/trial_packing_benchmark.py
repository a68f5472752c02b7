"""Benchmark of trial packing: workers of every pack train networks of every size briefly; the run keeps the result."""

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
from ripieno.train.loading_strategy import StrategyTiming
from ripieno.train.speed import PATIENCE, train_concurrently
from ripieno.types import Configuration, Job, JobResult

DRAWN = 48
"""Configurations drawn from a space to find its three sizes."""
REDRAWN = 10
"""Draws for each configuration that is wanted, at most, where bounds leave some out."""


@dataclass(frozen=True)
class PackingRecord:
    """Content of `RUN/packing.json`."""

    machine: str
    packs: tuple[PackingConfig, ...]
    rates: tuple[PackingRate, ...]
    chosen: PackingConfig
    turns: tuple[tuple[PackingRate, ...], ...] = ()
    """rates of the equal split and its rival, by turn"""


def find_packing(
    config: TrainingConfig,
    space: Space,
    cost: Callable[[Configuration], float],
    gpus: Sequence[str],
    seconds: float | None,
    progress: ProgressFunction = no_progress,
    allow: Callable[[Configuration], bool] | None = None,
) -> tuple[PackingConfig, str] | None:
    """Return the pack for a search of `seconds`, and the reason in one line; None if a profile is not worth its time.

    The first start decides. Later starts on a machine of the same size use its record, and a search that began with the
    equal split keeps it. `gpus` are the numbers of the GPUs to train on. Configurations that `allow` refuses, by the
    bounds of the search, are not timed. See `is_worth_profiling`.
    """
    path = config.run / "packing.json"
    cores = len(usable_cores())
    machine = f"{cores} cores, {len(gpus)} GPUs"
    packs = gpu_packs(cores, len(gpus)) if gpus else cpu_packs(cores)
    record = _read_record(path)
    if record is None or record.machine != machine:
        begun = record is None and (config.run / "run.json").exists()
        if begun or not is_worth_profiling(packs, seconds):
            return None
        middles = representative_configurations(sample_configurations(space, config.seed, DRAWN, allow), cost)
        most = SHARE * (seconds or 0.0)
        record = measure_and_choose(config, machine, packs, middles, gpus[:1], most, progress)
        files.write_json(path, record)
    line = describe(record.chosen, record.packs, record.rates, record.turns)
    progress(line, len(packs), len(packs))
    return record.chosen, line


def sample_configurations(
    space: Space, seed: int, count: int = DRAWN, allow: Callable[[Configuration], bool] | None = None
) -> list[Configuration]:
    """Draw `count` random configurations of `space`, of those that `allow` accepts.

    They are fewer where few of `REDRAWN` times as many are accepted, and any where none is.
    """
    from ripieno.search.journal import Journal

    journal = Journal(None, space, "random", seed)
    if allow is None:
        return [journal.configuration(trial) for trial in range(count)]
    accepted: list[Configuration] = []
    for trial in range(REDRAWN * count):
        if len(accepted) < count and allow(journal.configuration(trial)):
            accepted.append(journal.configuration(trial))
    return accepted or [journal.configuration(trial) for trial in range(count)]


def measure_and_choose(
    config: TrainingConfig,
    machine: str,
    packs: Sequence[PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    most: float = math.inf,
    progress: ProgressFunction = no_progress,
) -> PackingRecord:
    """Measure all `packs`, then the equal split and its rival in turn, and choose. `gpus` names at most one GPU.

    No measurement starts after `most` seconds: on a busy machine the remaining packs are not measured, so not chosen.
    """
    until = time.monotonic() + most
    rates = profile(config, packs, middles, gpus, until=until, progress=progress)
    rival = best_alternative(packs, rates)
    turns = () if rival is None else measure_alternately(config, (packs[0], rival), middles, gpus, until)
    return PackingRecord(machine, tuple(packs), rates, choose_packing(packs, rates, turns), turns)


def profile(
    config: TrainingConfig,
    packs: Sequence[PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    seconds: float = SECONDS,
    until: float = math.inf,
    progress: ProgressFunction = no_progress,
) -> tuple[PackingRate, ...]:
    """Measure images per second of every pack and size, one after another; 0 where one of the trials failed.

    No pack starts after `until` (of the monotonic clock).
    """
    rates: list[PackingRate] = []
    for done, pack in enumerate(packs):
        if time.monotonic() > until:
            break
        progress("packing: measuring the number of concurrent trials", done, len(packs))
        with _workers(config, pack, gpus, seconds) as measure:
            rates += measure(middles)
    progress("packing: measuring the number of concurrent trials", len(packs), len(packs))
    return tuple(rates)


def measure_alternately(
    config: TrainingConfig,
    packs: tuple[PackingConfig, PackingConfig],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    until: float = math.inf,
    turns: int = TURNS,
    seconds: float = TURN_SECONDS,
) -> tuple[tuple[PackingRate, ...], ...]:
    """Measure two packs in each of `turns`; their order alternates from turn to turn.

    No turn starts after `until`. Before the first turn all workers train once, to exclude their start.
    """
    rates: list[tuple[PackingRate, ...]] = []
    with _workers(config, packs[0], gpus, seconds) as one, _workers(config, packs[1], gpus, seconds) as other:
        first_size = dict(list(middles.items())[:1])
        for measure in (one, other):
            measure(first_size)
        while len(rates) < turns and time.monotonic() <= until:
            order = (one, other) if len(rates) % 2 == 0 else (other, one)
            rates.append(tuple(rate for measure in order for rate in measure(middles)))
    return tuple(rates)


@contextmanager
def _workers(
    config: TrainingConfig, pack: PackingConfig, gpus: Sequence[str], seconds: float
) -> Iterator[Callable[[Mapping[str, Configuration]], list[PackingRate]]]:
    """Start the workers of `pack`; yield a function that measures configurations by size for `seconds` each."""
    slots = gpu_slots(gpus, pack.slots, pack.threads) if gpus else cpu_slots(pack.slots, pack.threads)
    packed = dataclasses.replace(config, threads=pack.threads, spare=pack.spare)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = partial(train_concurrently, packed, folder, len(slots), seconds)
        with LocalPool(work, slots, limit=PATIENCE + 10 * seconds) as pool:
            yield lambda middles: [PackingRate(pack, size, _images(pool, folder, middles[size])) for size in middles]


def _images(pool: LocalPool, folder: Path, configuration: Configuration) -> float:
    """Measure images per second of all trials of `configuration` together."""
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


def _read_record(path: Path) -> PackingRecord | None:
    try:
        return files.read_json(path, PackingRecord) if path.exists() else None
    except RipienoError:  # written by another version: measure again
        return None
