"""A job of a command: a configuration runs one instance after the other, and its mean figure is the loss.

Instances come in one order for all configurations, with the same seeds. A result is kept by configuration, instance
and seed in RUN/results, a file a configuration, and never computed again: a promotion runs the further instances only,
and so does a job that was killed.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from ripieno import clock, files
from ripieno.cluster.command_run import SOLVED, CommandRun, fill, run_command
from ripieno.errors import SearchError, error_summary
from ripieno.library.command_record import CommandMeasure
from ripieno.types import Configuration, Epoch, Failure, Input, Job, JobResult, Member, Task, loss_key

PENALTY = 10
"""Factor of the cutoff that a run counts that does not solve its instance: PAR10."""
TASK = Task("command", (1,), ("loss",))
"""Of results, for their display; no data are of it."""
METRIC = loss_key(TASK)


@dataclass(frozen=True)
class CommandConfig:
    """All that a job of a command needs."""

    run: Path
    words: tuple[str, ...]
    instances: tuple[str, ...]
    """in the order in which configurations run them"""
    cutoff: float
    """seconds"""
    measure: CommandMeasure
    seed: int

    def instance(self, number: int) -> tuple[str, int]:
        """Return instance and seed of unit `number`, from 1 on; after the last, all come again with other seeds."""
        turn, index = divmod(number - 1, len(self.instances))
        return self.instances[index], self.seed + turn

    def results_path(self, configuration: Configuration) -> Path:
        """Return the file of the results of a configuration."""
        text = msgspec.json.encode(dict(sorted(configuration.items())))
        return self.run / "results" / f"{hashlib.sha256(text).hexdigest()[:16]}.jsonl"


@dataclass(frozen=True)
class InstanceResult:
    """Result of a configuration on an instance."""

    instance: str
    seed: int
    loss: float
    seconds: float
    code: int | None
    """exit code; None: killed at the cutoff"""
    left: int = 0
    """number of processes that it left"""
    said: str = ""
    """last line of a run that failed"""

    @property
    def failed(self) -> bool:
        """True if the command ended by itself, and solved nothing."""
        return self.code is not None and self.code not in SOLVED


@dataclass(frozen=True)
class ResultsHeader:
    """First line of a file of results."""

    configuration: dict[str, bool | int | float | str]


def run_command_job(config: CommandConfig, job: Job) -> JobResult:
    """Run the instances of a job; errors are its failure. The member of the result is kept in no library."""
    started = clock.now()
    try:
        known = read_results(config.results_path(job.configuration))
        curve = [one_unit(config, job, number, known) for number in range(1, job.stop + 1)]
        if all(result.failed for result in curve):  # a crash of some is a matter of PAR10, one of all of the command
            last = curve[-1]
            raise SearchError(f"the command ended with code {last.code} on all instances; its last line: {last.said!r}")
    except SearchError as error:
        return JobResult(job, failure=Failure("error", error_summary(error), ""), started=started, finished=clock.now())
    losses = [result.loss for result in curve]
    epochs = tuple(
        Epoch(number, None, statistics.fmean(losses[:number]), 0.0, result.seconds)
        for number, result in enumerate(curve, start=1)
    )
    seconds = sum(epoch.seconds for epoch in epochs)
    member = Member(
        job.member, job.trial, job.stop, "command", dict(job.configuration), Input((1,), "float32"), TASK,
        {METRIC: statistics.fmean(losses)}, 0, seconds, epochs, unit="instances",
    )  # fmt: skip
    return JobResult(job, member, started=started, finished=clock.now())


def one_unit(
    config: CommandConfig, job: Job, number: int, known: dict[tuple[str, int], InstanceResult]
) -> InstanceResult:
    """Return the result of a unit, from those known or from a run, which is kept."""
    instance, seed = config.instance(number)
    found = known.get((instance, seed))
    if found is None:
        values = {**job.configuration, "instance": instance, "seed": seed, "cutoff": config.cutoff}
        ran = run_command(fill(config.words, values), config.cutoff)
        loss = loss_of(ran, config, instance)
        found = InstanceResult(instance, seed, loss, ran.seconds, ran.code, ran.left)
        if found.failed:
            found = replace(found, said=ran.last_line)
        keep_result(config.results_path(job.configuration), job.configuration, found)
        known[instance, seed] = found
    return found


def loss_of(ran: CommandRun, config: CommandConfig, instance: str) -> float:
    """Return the loss of a run: its seconds, or ten times the cutoff where it did not solve; or its last number.

    A run that is killed at the cutoff counts the number that it printed last. Raises SearchError where a number is
    expected and none was printed, or the command failed.
    """
    if config.measure == "runtime":
        return ran.seconds if ran.code in SOLVED else PENALTY * config.cutoff
    said = f"its last line: {ran.last_line!r}" if ran.last_line else "it printed nothing"
    if ran.code not in (0, None):
        raise SearchError(f"the command ended with code {ran.code} on {instance}; {said}")
    if ran.number is None or not math.isfinite(ran.number):
        raise SearchError(f"the command printed no number for {instance}; {said}")
    return ran.number


def read_results(path: Path) -> dict[tuple[str, int], InstanceResult]:
    """Return the results of a configuration by instance and seed; a line that a kill cut short is left out."""
    found: dict[tuple[str, int], InstanceResult] = {}
    if not path.exists():
        return found
    for line in path.read_bytes().splitlines()[1:]:
        try:
            result = msgspec.json.decode(line, type=InstanceResult)
        except msgspec.DecodeError:
            continue
        found[result.instance, result.seed] = result
    return found


def read_configuration(path: Path) -> Configuration | None:
    """Return the configuration of a file of results; None where its first line is cut short."""
    lines = path.read_bytes().splitlines()
    try:
        return msgspec.json.decode(lines[0], type=ResultsHeader).configuration if lines else None
    except msgspec.DecodeError:
        return None


def keep_result(path: Path, configuration: Configuration, result: InstanceResult) -> None:
    """Append a result to the file of its configuration."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, msgspec.json.encode(ResultsHeader(dict(configuration))) + b"\n")
    with open(path, "ab") as file:
        if file.tell() and path.read_bytes()[-1:] != b"\n":  # a kill cut the last line short
            file.write(b"\n")
        file.write(msgspec.json.encode(asdict(result)) + b"\n")


def mean_loss(results: Mapping[tuple[str, int], InstanceResult]) -> float:
    """Return the mean loss of results."""
    return statistics.fmean(result.loss for result in results.values())
