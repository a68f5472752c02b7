"""Search of the configuration of any command: algorithm configuration by the schedulers and samplers of `tune`."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ripieno import clock, files
from ripieno.cluster.command_job import (
    METRIC,
    PENALTY,
    CommandConfig,
    mean_loss,
    read_configuration,
    read_results,
    run_command_job,
)
from ripieno.cluster.command_run import fill, instances_of, parse_command
from ripieno.durations import check_duration
from ripieno.errors import SearchError, require
from ripieno.library import Library
from ripieno.library.command_record import (
    COMMAND,
    CommandMeasure,
    CommandRecord,
    is_command_run,
    read_command_record,
)
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.search import run_search
from ripieno.search.algorithms import Algorithm
from ripieno.search.config_space import read_command_space
from ripieno.search.progress import Snapshot, Summary
from ripieno.search.settings import Settings, check_same, kept_settings
from ripieno.search.space import Space
from ripieno.search.warm_start import COLD, WarmStart
from ripieno.types import Configuration, Job

EPOCHS = 27
"""Largest number of instances of a trial where the user does not choose, or all instances where there are fewer."""


@dataclass(frozen=True)
class RankedConfiguration:
    """A configuration of a command, and what it reached."""

    configuration: Configuration
    loss: float
    """mean over its instances"""
    instances: int
    unsolved: int
    """instances that it did not solve; 0 where a number of the output is measured"""


def tune_command(
    command: str | None,
    run: str | Path = "run",
    *,
    instances: str | Path | None = None,
    cutoff: float | None = None,
    space: str | Path | None = None,
    measure: CommandMeasure | None = None,
    hours: float | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    algorithm: str | Path | Algorithm | None = None,
    seed: int | None = None,
    slots: int | None = None,
    pool: str = "local",
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> list[RankedConfiguration]:
    """Search the configuration of a command that solves `instances` fastest, and return all, the best first.

    `command` is a program with placeholders: `{instance}`, one for each range of `space`, and perhaps `{seed}` and
    `{cutoff}`; no shell runs it. `instances` is a folder of files, `space` a JSON file of ranges, ours or
    ConfigSpace's. A unit of training is one instance; all configurations run them in one order, drawn by the seed. The
    loss is the mean time with ten times the `cutoff` (seconds) for an instance that is not solved (PAR10); with
    `measure` "output" it is the mean of the last numbers on standard output. A run is killed at the cutoff, with its
    children. Results are kept by configuration, instance and seed, and never computed again. A run that exists is
    resumed, without a command. A default configuration of ConfigSpace's is tried first.

    The other arguments are those of `ripieno.tune`; `epochs` is the largest number of instances of a trial. Runs on
    cores that others share are slower: `slots` is the number of trials at a time.

    Raises SearchError for a command, instances, a space or a cutoff that cannot be used.
    """
    require("optuna")
    library = Library(run)
    read, default = (None, None) if space is None else read_command_space(space)
    record = _resolve_record(library.path, command, instances, cutoff, measure, seed, default)
    settings = _resolve_settings(library.path, record, read, hours, trials, epochs, algorithm)
    words = parse_command(record.command, [*settings.space.ranges, *settings.space.fixed])
    config = CommandConfig(library.path, words, record.instances, record.cutoff, record.measure, record.seed)
    execution = ExecutionConfig(pool=pool, device="cpu", slots=slots)  # type: ignore[arg-type]  # checked there
    files.check_writable(library.path if library.path.exists() else library.path.resolve().parent)
    deadline = None if settings.hours is None else clock.now() + 3600 * settings.hours
    work = functools.partial(run_command_job, config)
    with execution.open(work, library.logs_path, functools.partial(_advance, config)) as opened:
        files.write_json(library.path / COMMAND, record)
        first = WarmStart(portfolio=(record.default,)) if record.default else COLD
        last = run_search(library, settings, opened, deadline=deadline, watch=watch, warm_start=first)
    found = ranked_configurations(library.path)
    _check_result(library, last, found)
    if notes is not None and (left := _left(library.path)):
        notes.append(f"{left} runs of the command left processes behind, which were killed")
    return found


def _resolve_record(
    path: Path,
    command: str | None,
    instances: str | Path | None,
    cutoff: float | None,
    measure: CommandMeasure | None,
    seed: int | None,
    default: Configuration | None,
) -> CommandRecord:
    """Return what a search runs: what is given, else that of the run. Raises SearchError where they differ."""
    kept = read_command_record(path) if is_command_run(path) else None
    if measure is not None and measure not in get_args(CommandMeasure):
        raise SearchError(f"measure {measure!r} is unknown: expected {' or '.join(get_args(CommandMeasure))}")
    if kept is None:
        if kept_settings(path / "run.json") is not None:
            raise SearchError(f"{path} is the run of another search: use another folder with --run")
        for name, value in (("command", command), ("instances", instances), ("cutoff", cutoff)):
            if value is None:
                raise SearchError(f"{name} is missing: give --{name} ({name}=), as a search of a command needs one")
        kept = CommandRecord("", (), 0.0, "runtime", seed or 0)
    drawn = kept.seed if seed is None else seed
    found = kept.instances if instances is None else ordered(instances_of(Path(instances)), drawn)
    limit = kept.cutoff if cutoff is None else check_duration(cutoff, "cutoff", error=SearchError)
    first = kept.default if default is None else default
    given = CommandRecord(command or kept.command, found, limit, measure or kept.measure, drawn, first)
    if kept.command and (different := _difference(kept, given)):
        raise SearchError(f"{different} differs from that of {path}: leave it out to resume, or use another --run")
    return given


def _resolve_settings(
    path: Path,
    record: CommandRecord,
    space: Space | None,
    hours: float | None,
    trials: int | None,
    epochs: int | None,
    algorithm: str | Path | Algorithm | None,
) -> Settings:
    """Return the settings of a search: those given, else those of the run. Raises SearchError where they differ."""
    before = kept_settings(path / "run.json")
    if space is None and before is None:
        raise SearchError("space is missing: give --space (space=), a JSON file of the ranges that the command uses")
    most = epochs or (before.epochs if before else min(EPOCHS, len(record.instances)))
    chosen = algorithm or (before.algorithm if before else "hyperband")
    hours = 1.0 if hours is None and trials is None else hours
    if hours is not None:
        check_duration(hours, "hours", unit=3600, error=SearchError)
    read = before.space if before and space is None else space
    assert read is not None
    asked = Settings(read, chosen, trials, most, seed=record.seed, metric=METRIC, hours=hours, unit="instances")
    if before is not None:
        check_same(path, before, asked)
    return asked


def _difference(kept: CommandRecord, given: CommandRecord) -> str:
    fields = [f.name for f in dataclasses.fields(CommandRecord)]
    return next((name for name in fields if getattr(kept, name) != getattr(given, name)), "")


def ordered(instances: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return instances in an order drawn by `seed`: the first of them decide early."""
    return tuple(instances[i] for i in np.random.default_rng(seed).permutation(len(instances)))


def _advance(config: CommandConfig, job: Job) -> int:
    """Return a number that changes with every instance of a job's trial."""
    path = config.results_path(job.configuration)
    return path.stat().st_size if path.exists() else 0


def ranked_configurations(path: Path) -> list[RankedConfiguration]:
    """Return the configurations of a run of a command: those with most instances first, then by their loss."""
    record = read_command_record(path)
    found = []
    for file in sorted((path / "results").glob("*.jsonl")):
        results, configuration = read_results(file), read_configuration(file)
        if not results or configuration is None:
            continue
        limit = PENALTY * record.cutoff
        unsolved = sum(r.loss >= limit for r in results.values()) if record.measure == "runtime" else 0
        found.append(RankedConfiguration(configuration, mean_loss(results), len(results), unsolved))
    return sorted(found, key=lambda one: (-one.instances, one.loss, str(sorted(one.configuration.items()))))


def command_line(record: CommandRecord, configuration: Configuration) -> str:
    """Return the command with the values of a configuration; instance and seed stay placeholders."""
    kept = {name: f"{{{name}}}" for name in ("instance", "seed", "cutoff")}
    words = shlex.split(record.command)
    return " ".join(word if "{" in word else shlex.quote(word) for word in fill(words, {**configuration, **kept}))


def _left(path: Path) -> int:
    """Return the number of runs that left processes."""
    return sum(r.left > 0 for file in (path / "results").glob("*.jsonl") for r in read_results(file).values())


def _check_result(library: Library, last: Summary, found: Sequence[RankedConfiguration]) -> None:
    """Raise SearchError where no configuration has a result."""
    if not found:
        why = f"all {last.jobs} jobs failed" if last.ended == "trials" else "the time given was too short"
        raise SearchError(f"no configuration has a result, {why}: see {library.logs_path}")
