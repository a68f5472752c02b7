"""The profile behind `packing`: every pack's workers train networks of every size for a moment; kept with the run."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ripieno import files
from ripieno.cluster import LocalPool, cpu_slots, gpu_slots
from ripieno.errors import RipienoError
from ripieno.pipeline.packing import SECONDS, SHARE, Pack, Rate, choose, cpu_packs, gpu_packs, said, sizes, worth
from ripieno.pipeline.runs import Progress, quiet
from ripieno.search import Space
from ripieno.train import Task
from ripieno.train.beside import PATIENCE, train_beside
from ripieno.train.ways import Speed
from ripieno.types import Configuration, Job, Outcome

DRAWN = 48
"""Configurations drawn from a space to know its sizes by."""


@dataclass(frozen=True)
class Record:
    """`RUN/packing.json`."""

    machine: str
    packs: tuple[Pack, ...]
    rates: tuple[Rate, ...]
    chosen: Pack


def packed(
    task: Task,
    space: Space,
    cost: Callable[[Configuration], float],
    gpus: Sequence[str],
    seconds: float | None,
    progress: Progress = quiet,
) -> tuple[Pack, str] | None:
    """The pack for a search of `seconds` and why, in one line; None: a profile is not worth its time (`worth`).

    The first start decides: what it measured is taken at once on such a machine, and a search that began with an equal
    split goes on with it. `gpus` are the numbers of those to train on.
    """
    path = task.run / "packing.json"
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} cores, {len(gpus)} GPUs"
    packs = gpu_packs(cores, len(gpus)) if gpus else cpu_packs(cores)
    kept = _kept(path)
    if kept is None or kept.machine != machine:
        begun = kept is None and (task.run / "run.json").exists()
        if begun or not worth(packs, seconds):
            return None
        middles = sizes(drawn(space, task.seed), cost)
        most = SHARE * (seconds or 0.0)
        rates = profile(task, packs, middles, gpus[:1], most=most, progress=progress)
        kept = Record(machine, packs, rates, choose(packs, rates))
        files.write_json(path, kept)
    line = said(kept.chosen, kept.packs, kept.rates)
    progress(line, len(packs), len(packs))
    return kept.chosen, line


def drawn(space: Space, seed: int, count: int = DRAWN) -> list[Configuration]:
    """`count` random configurations of `space`."""
    from ripieno.search.study import Journal

    journal = Journal(None, space, "random", seed)
    return [journal.configuration(trial) for trial in range(count)]


def profile(
    task: Task,
    packs: Sequence[Pack],
    middles: Mapping[str, Configuration],
    gpus: Sequence[str] = (),
    seconds: float = SECONDS,
    most: float = math.inf,
    progress: Progress = quiet,
) -> tuple[Rate, ...]:
    """Images per second of every pack and size, 0 where one of the trials failed; `gpus` names at most one.

    No pack is begun after `most` seconds: on a busy machine those left are not measured, and so not chosen.
    """
    rates: list[Rate] = []
    started = time.monotonic()
    for done, pack in enumerate(packs):
        if time.monotonic() - started > most:
            break
        progress("packing: trying how many trials to run at a time", done, len(packs))
        slots = gpu_slots(gpus, pack.slots, pack.threads) if gpus else cpu_slots(pack.slots, pack.threads)
        rates += [Rate(pack, size, images) for size, images in _measured(task, pack, slots, middles, seconds).items()]
    progress("packing: trying how many trials to run at a time", len(packs), len(packs))
    return tuple(rates)


def _measured(
    task: Task, pack: Pack, slots: Sequence[Mapping[str, str]], middles: Mapping[str, Configuration], seconds: float
) -> dict[str, float]:
    """Images per second by size."""
    found = {}
    mine = dataclasses.replace(task, threads=pack.threads, spare=pack.spare)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = partial(train_beside, mine, folder, len(slots), seconds)
        with LocalPool(work, slots, limit=PATIENCE + 10 * seconds) as pool:
            for size, configuration in middles.items():
                for trial in range(len(slots)):
                    pool.submit(Job(trial, configuration, 0, 1))
                outcomes: list[Outcome] = []
                while len(outcomes) < len(slots):
                    outcomes += pool.wait()
                failed = any(outcome.failure for outcome in outcomes)
                speeds = [files.read_json(p, Speed) for p in folder.glob("*.json")]
                found[size] = 0.0 if failed else sum(speed.rate for speed in speeds)
                for path in folder.iterdir():
                    path.unlink()
    return found


def _kept(path: Path) -> Record | None:
    try:
        return files.read_json(path, Record) if path.exists() else None
    except RipienoError:  # of another version: measured again
        return None
