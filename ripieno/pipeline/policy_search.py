"""Search of a policy of augmentation, by small networks on a part of the training data, and its judgement.

Theory of operation. The same engine searches as in `tune`: a trial is a policy, and its loss that of a small network
(proxy) that was trained with it for a few epochs, on training samples held out of it. The best policy is then judged
once: proxies of equal seeds are trained with and without it, and compared on validation samples of the run, which had
no part in the search. All of it is in RUN/augment, a folder of its own: proxies are no members of the run's library.

RUN/augment/search/             library of the search; dataset/ has the proxies' samples
RUN/augment/judged/             dataset/ has the same training samples, and validation samples of the run
RUN/augment/with/, without/     libraries of the proxies that are compared
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno import clock
from ripieno.data.augmentation_policy import LearntPolicy, policy_from_text, write_policy
from ripieno.durations import check_duration
from ripieno.errors import SearchError, require
from ripieno.library import Library
from ripieno.pipeline.execution import ExecutionConfig, PoolName
from ripieno.pipeline.preparation import DataOptions, DataSource, prepare
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.resources import sleep_while_waiting
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, Configuration, DataKind, Dataset, Job, JobResult, Member, loss_key

if TYPE_CHECKING:
    from ripieno.cluster import Pool
    from ripieno.search.progress import Snapshot
    from ripieno.train import TrainingConfig

ALGORITHM = "bohb"
"""Hyperband of few rungs, with a sampler that learns: operations are categories."""
EPOCHS = 9
"""Most epochs of a proxy."""
MINUTES = 5.0
"""Minutes of a search, where neither they nor trials are given."""
SEARCH_SHARE = 0.6
"""Share of the time for the search; the rest is for the judgement."""
FEWEST_PAIRS, MOST_PAIRS = 3, 6
"""Pairs of proxies that are compared: those that the time is divided for, and the most."""
MARGIN = 1.3
"""Factor by which a proxy of the comparison may be slower than the slowest one of the search."""
TRAINED, HELD_OUT = 4000, 2000
"""Samples that a proxy is trained on, and those of the search and of the judgement, at most."""
VALUES = 100_000_000
"""Values of the samples that a proxy is trained on, at most; but at least `LEAST` samples."""
LEAST = 200
FEWEST_SAMPLES = 20
"""Training samples that a search needs."""
_OPTIMISER: Configuration = {"optimizer": "adamw", "schedule": "rung"}


@dataclass(frozen=True)
class PolicyOptions:
    """Options of the search of a policy."""

    minutes: float | None = None
    """bound of the search and the judgement; 5 without `trials`"""
    trials: int | None = None
    """bound of the number of policies that are tried"""
    epochs: int = EPOCHS
    """most epochs of a proxy"""
    seed: int = 0
    out: str | Path | None = None
    """file of the policy; None: `augmentation.json` in the run"""

    def __post_init__(self) -> None:
        if self.minutes is not None:
            check_duration(self.minutes, "minutes", unit=60, error=SearchError)
        for name in ("trials", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SearchError(f"{name} {value}: it must be at least 1")


@dataclass(frozen=True)
class PolicyResult:
    """A learnt policy and its judgement on validation samples that had no part in the search; losses are nats or so."""

    policy: LearntPolicy
    path: Path
    """file of the policy"""
    metric: str
    """name of the loss that is compared"""
    loss: float
    """mean loss of the proxies with the policy"""
    loss_without: float
    interval: tuple[float, float]
    """of `loss` - `loss_without`, 95 %, over pairs of seeds"""
    pairs: int
    samples: int
    """validation samples"""
    trials: int
    """policies tried"""

    @property
    def difference(self) -> float:
        """Mean of `loss` - `loss_without`; below 0 where the policy is better."""
        return self.loss - self.loss_without

    @property
    def is_better(self) -> bool:
        """True when the whole interval is below 0."""
        return self.interval[1] < 0

    @property
    def verdict(self) -> str:
        """One sentence on whether the policy beat no augmentation."""
        if self.is_better:
            return "the policy is better than no augmentation"
        if self.interval[0] > 0:
            return "the policy is worse than no augmentation: better leave it out"
        return "the policy did not show to be better than no augmentation: the interval holds 0"


def augment(
    data: DataSource | None = None,
    run: str | Path = "run",
    *,
    minutes: float | None = None,
    trials: int | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    out: str | Path | None = None,
    slots: int | None = None,
    pool: PoolName = ExecutionConfig.pool,
    device: str = ExecutionConfig.device,
    options: DataOptions | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> PolicyResult:
    """Search a policy of augmentation for the data of `run` and write it as JSON to `out`, for `tune`.

    A run without data gets `data`, read as `tune` reads them with `options`. A policy has three steps, each an
    operation with its probability and magnitude. Small networks are trained with each policy for at most `epochs`
    epochs on a part of the training samples, and ranked by their loss on others. The best policy is then compared with
    none by pairs of equal seeds, on validation samples that the search did not see.

    Bounded by `minutes` (5 by default), by the number of policies `trials`, or by both. Called again on the same run it
    goes on where it was stopped. The files are in RUN/augment, and the networks are no members of the run.

    Raises DataError for data that cannot be used, SearchError for too few samples, for settings that contradict an
    earlier start, and where no network can be trained.
    """
    chosen = PolicyOptions(minutes, trials, epochs, seed, out)
    execution = ExecutionConfig(pool=pool, device=device, slots=slots)
    return search_policy(data, run, chosen, execution, options or DataOptions(), progress, notes, watch)


def search_policy(
    data: DataSource | None,
    run: str | Path,
    options: PolicyOptions,
    execution: ExecutionConfig,
    data_options: DataOptions,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> PolicyResult:
    """Search a policy as `augment` describes it."""
    library = Library(run)
    sleep_while_waiting()  # before PyTorch is loaded
    require("torch")
    from ripieno.data.fitting_operations import fitting_operations
    from ripieno.search import run_search
    from ripieno.search.policy_space import policy_space
    from ripieno.search.settings import Settings
    from ripieno.train import TrainingConfig

    minutes = options.minutes
    if minutes is None and options.trials is None:
        minutes = MINUTES
    started = clock.now()
    dataset = prepare(data, library, data_options, progress, notes)
    folder = library.path / "augment"
    searched = Library(folder / "search")
    write_parts(dataset, folder, options.seed)
    operations = fitting_operations(dataset)
    family, fixed = proxy(dataset)
    hours = None if minutes is None else minutes / 60
    settings = Settings(
        policy_space(family, fixed, operations),
        ALGORITHM,
        options.trials,
        options.epochs,
        seed=options.seed,
        metric=loss_key(dataset.task),
        hours=hours,
    )
    task = TrainingConfig(
        run=folder.resolve(),
        family=family,
        epochs=options.epochs,
        seed=options.seed,
        device="cuda" if execution.on_gpu() else "cpu",
        threads=execution.threads(),
        spare=execution.spare(),
        deadline=None if minutes is None else started + 60 * minutes,
    )
    work = functools.partial(train_proxy, task, dataset.kind)
    with execution.open(work, searched.logs_path) as workers:
        deadline = None if minutes is None else started + 60 * SEARCH_SHARE * minutes
        last = run_search(searched, settings, workers, deadline=deadline, watch=watch)
        best = best_policy(searched.members())
        if best is None:
            raise SearchError(
                f"no network was trained for a policy, all {last.jobs} jobs failed or the time was too short: see "
                f"{searched.logs_path}, or give more --minutes"
            )
        policy = policy_from_text(best.configuration["policy"], dataset.kind)
        epochs = options.epochs
        if minutes is not None:
            left = started + 60 * minutes - clock.now()
            epochs = comparable_epochs(searched.members(), epochs, workers.slots, left, minutes)
        losses = compare(policy, fixed, epochs, settings.metric, workers, task.deadline, progress)
    return _result(library, options, policy, losses, settings.metric, folder, last.trials)


def proxy(dataset: Dataset) -> tuple[str, Configuration]:
    """Return family and configuration of the networks by which policies of `dataset` are judged."""
    if kind_of(dataset.task).is_pixelwise:
        sizes: Configuration = {"width": 8, "levels": 3, "blocks": 1, "stem_stride": 4, "epoch_samples": 500}
        return "unet", {**_OPTIMISER, "learning_rate": 0.003, "batch_size": 8, "weight_decay": 0.001, **sizes}
    if dataset.kind == "series":
        return "lite", {**_OPTIMISER, "batch_size": 32}
    if dataset.kind == "table":
        return "mlp", {**_OPTIMISER, "units": 128}
    blocks = {f"blocks_{number}": 1 for number in range(1, 5)}
    sizes = {"convolution": "v1", "activation": "relu", "stem_filters": 16, "width": 12, **blocks}
    return "resnet", {**_OPTIMISER, "learning_rate": 0.01, "batch_size": 64, "weight_decay": 0.001, **sizes}


def write_parts(dataset: Dataset, folder: Path, seed: int) -> None:
    """Write the data sets of the search and of the judgement to `folder`, unless they are there."""
    from ripieno.data import write_dataset

    train, searched, judged = divide(dataset, seed)
    rows = np.sort(np.concatenate([train, searched, judged]))
    place = {name: np.isin(rows, part) for name, part in (("search", searched), ("judged", judged))}
    for name, held in place.items():
        path = folder / name / "dataset"
        if (path / "dataset.json").exists():
            continue
        other = place["judged" if name == "search" else "search"]
        split = np.where(held, SPLITS.index("valid"), np.where(other, SPLITS.index("test"), SPLITS.index("train")))
        changed: dict[str, Any] = {"folds": None, "files": None, "doubted": (), "split_by": "", "path": None}
        part = dataclasses.replace(
            dataset,
            inputs=np.asarray(dataset.inputs[rows]),
            targets=np.asarray(dataset.targets[rows]),
            split=split.astype(np.uint8),
            **changed,
        )
        write_dataset(part, path)


def divide(dataset: Dataset, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train proxies on, to rank policies by, and to judge the best one by.

    The last are of the validation split, of a fold where there is none; all others are training samples. Raises
    SearchError for too few training samples.
    """
    rows = np.random.default_rng([seed, 1]).permutation(dataset.rows("train"))
    if len(rows) < FEWEST_SAMPLES:
        raise SearchError(f"there are {len(rows)} training samples; a policy needs at least {FEWEST_SAMPLES}")
    if dataset.folds is not None and dataset.fold_count > 2:
        judged, rows = rows[dataset.folds[rows] == 0], rows[dataset.folds[rows] != 0]
        held = dataset.folds[rows] == 1
    elif dataset.folds is not None:
        count = len(rows) // 5
        judged, rows = rows[:count], rows[count:]
        held = np.arange(len(rows)) < len(rows) // 4
    else:
        judged = np.random.default_rng([seed, 2]).permutation(dataset.rows("valid"))
        held = np.arange(len(rows)) < len(rows) // 5
    size = max(1, dataset.inputs[0].size)
    most = min(TRAINED, max(LEAST, VALUES // size))
    return rows[~held][:most], rows[held][: most // 2], judged[: min(HELD_OUT, most)]


def train_proxy(config: TrainingConfig, kind: DataKind, job: Job) -> JobResult:
    """Train the proxy of a trial of the search, or one of those that are compared."""
    from ripieno.search.policy_space import policy_configuration
    from ripieno.train import train_job

    if "operation_1" in job.configuration:
        own = "search", "search"
        translated = dataclasses.replace(job, configuration=policy_configuration(job.configuration, kind))
    else:
        own, translated = ("with" if job.configuration.get("policy") else "without", "judged"), job
    run, data = (config.run / name for name in own)
    result = train_job(dataclasses.replace(config, run=run, dataset=data / "dataset"), translated)
    return dataclasses.replace(result, job=job)


def best_policy(members: list[Member]) -> Member | None:
    """Return the proxy of the least loss among those of the most epochs; None where there are none."""
    most = max((member.epoch for member in members), default=0)
    return min((m for m in members if m.epoch == most), key=lambda m: (m.loss, m.id), default=None)


def comparable_epochs(members: Sequence[Member], epochs: int, slots: int, left: float, minutes: float) -> int:
    """Return the epochs, at most `epochs`, of which the fewest pairs can be compared in the `left` seconds.

    The slowest of the `members` of the search tells the time of an epoch. Raises SearchError with the least time where
    not even one epoch fits into the `minutes` of search and comparison.
    """
    epoch = MARGIN * max(member.seconds / member.epoch for member in members) * math.ceil(2 * FEWEST_PAIRS / slots)
    if epoch > left:
        least = max(minutes + (epoch - left) / 60, epoch / (1 - SEARCH_SHARE) / 60)
        raise SearchError(
            f"{minutes:g} minutes are too few to compare a policy with no augmentation: give at least "
            f"{math.ceil(10 * least) / 10:g}; what was trained is kept"
        )
    return min(epochs, int(left / epoch))


def compare(
    policy: LearntPolicy,
    fixed: Configuration,
    epochs: int,
    metric: str,
    pool: Pool,
    deadline: float | None,
    progress: ProgressFunction = no_progress,
) -> list[tuple[float, float]]:
    """Train pairs of proxies of equal seeds; return the losses of each, with `policy` and without.

    Pairs in which a proxy failed, or was cut by the deadline, are left out. None begins after the deadline.
    """
    step, losses = "comparing with no augmentation", dict[tuple[int, bool], float]()
    waiting, done = 0, 0

    def collect(most: int) -> None:
        nonlocal waiting, done
        while waiting > most:
            for result in pool.wait(1.0):
                waiting, done = waiting - 1, done + 1
                if result.member is not None and result.member.epoch == epochs:
                    key = result.job.trial, bool(result.job.configuration.get("policy"))
                    losses[key] = result.member.losses[metric]
                progress(step, min(done, 2 * MOST_PAIRS), 2 * MOST_PAIRS)

    progress(step, 0, 2 * MOST_PAIRS)
    for pair in range(MOST_PAIRS):
        if pair >= FEWEST_PAIRS:
            collect(max(0, pool.slots - 2))
        if deadline is not None and clock.now() >= deadline:
            break
        for configuration in ({**fixed, "policy": policy.text}, {**fixed}):
            pool.submit(Job(pair, configuration, 0, epochs))
            waiting += 1
    collect(0)
    progress(step, 2 * MOST_PAIRS, 2 * MOST_PAIRS)
    pairs = sorted({number for number, _ in losses})
    return [(losses[n, True], losses[n, False]) for n in pairs if (n, True) in losses and (n, False) in losses]


def interval_of(differences: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences, by Student's t; at least two are needed."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(differences) - 1, 0.975)) * stdev(differences) / len(differences) ** 0.5
    return fmean(differences) - half, fmean(differences) + half


def _result(
    library: Library,
    options: PolicyOptions,
    policy: LearntPolicy,
    losses: list[tuple[float, float]],
    metric: str,
    folder: Path,
    trials: int,
) -> PolicyResult:
    """Write the policy and return it with its judgement. Raises SearchError where fewer than two pairs were trained."""
    from ripieno.data import open_dataset

    if len(losses) < 2:
        raise SearchError(
            f"fewer than two pairs of networks were trained to judge the policy: they failed, see "
            f"{folder / 'with' / 'logs'}, or the time was too short, give more --minutes; what was trained is kept"
        )
    path = Path(options.out) if options.out is not None else library.path / "augmentation.json"
    result = PolicyResult(
        policy=policy,
        path=path,
        metric=metric.removeprefix("valid_"),
        loss=fmean(loss for loss, _ in losses),
        loss_without=fmean(loss for _, loss in losses),
        interval=interval_of([one - other for one, other in losses]),
        pairs=len(losses),
        samples=len(open_dataset(folder / "judged" / "dataset").rows("valid")),
        trials=trials,
    )
    write_policy(path, policy)
    return result
