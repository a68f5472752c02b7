"""The training loop: a job becomes a member, or a failure with its reason.

Theory of operation. The state of a trial is its checkpoint: the tensors of its trainer, and its curve. A job restores
it, then trains epoch after epoch. Each epoch ends with a validation and a new checkpoint; the job ends with the member
of its last epoch. A trainer without tensors has no checkpoint, and trains again from its seed.

Networks: all randomness of an epoch comes from (seed, trial, epoch), and the learning rate from (start, stop, epoch). A
trial killed at any point therefore resumes from its last finished epoch to bit-equal weights (same machine, same
threads, on a CPU). They do not depend on the preparation of batches: see `BatchPipeline`. Losses are summed on the
device and read once per epoch from a GPU, and batches are copied there from pinned memory. The loop waits for a GPU
only for geometric augmentation, since kornia checks that its matrices are invertible, and during the measurement of
data loading.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno import clock, files
from ripieno.data import open_dataset
from ripieno.errors import RipienoError, error_summary
from ripieno.library import Library
from ripieno.library.trial_progress import ProgressWriter
from ripieno.models.family_config import member_family
from ripieno.profiles.energy import EnergyMeter
from ripieno.tasks.registry import kind_of
from ripieno.train.checkpoint import TrainingState, fingerprint, read_checkpoint, write_checkpoint
from ripieno.train.energy import open_meter
from ripieno.train.evaluate import DivergedError, losses_of
from ripieno.train.folds import FoldTrainer, kept_trainer, predict_valid
from ripieno.train.member_costs import measure_costs
from ripieno.train.member_writer import add_member
from ripieno.train.registry import make_trainer
from ripieno.train.trainer import Trainer, close, report_batches, reported_values, tensors_of, unit_of
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Dataset, Epoch, Failure, Job, JobResult, Member, loss_key


class OutOfTimeError(Exception):
    """The deadline of a search passed within an epoch."""


OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",  # from the driver, not from torch's allocator
    "CUDA driver error: out of memory",
    "STATUS_ALLOC_FAILED",  # from cuBLAS and cuDNN, for their own workspaces
)
"""Parts of messages of out-of-memory errors without their own exception class."""


def train_job(config: TrainingConfig, job: Job) -> JobResult:
    """Train the job's trial to epoch `job.stop`, from its checkpoint if there is one, else from the beginning.

    Writes a checkpoint each epoch and adds the member to the library; a member that exists is returned at once. No
    epoch starts that, in the time of the one before it, would end after `config.deadline`, and one that runs then is
    stopped after its batch: the job makes the member of the last finished epoch. Without one it fails for `time`, but
    where the library is empty the first epoch is finished. The first job of a trial then measures the costs
    `config.measured`, which are the result's values. Every error is reported as the result's failure; none is raised.
    """
    started = clock.now()
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    member, failure, values = None, None, {}
    try:
        member = _train(config, job)
        if config.measured and job.start == 0:
            values = _measure(config, job, member)
    except Exception as error:  # reported in the result: one trial must not end the search
        failure = _failure(config, job, error)
    finally:
        torch.set_num_threads(threads)
    return JobResult(job, member, failure, started=started, finished=clock.now(), values=values)


def _measure(config: TrainingConfig, job: Job, member: Member) -> dict[str, float]:
    """Return the costs that the search asks for; none, with a log, where they cannot be measured."""
    try:
        library = Library(config.run, (config.family,))
        return measure_costs(library, member, config.measured, config.device)
    except RipienoError as error:  # the member is sound
        _failure(config, job, error)
        return {}


def _train(config: TrainingConfig, job: Job) -> Member:
    library = Library(config.run)
    if (existing := library.find_job_member(job)) is not None:
        return existing
    dataset = open_dataset(config.dataset)
    path = library.checkpoint_path(job.trial)
    trainer, progress = _start(config, job, dataset, path)
    predictions = None
    shown = ProgressWriter(library.progress_path(job.trial))
    meter = open_meter(config)

    def on_batch(done: int, total: int) -> None:
        shown.batch(done, total)
        if config.deadline is not None and clock.now() > config.deadline and library.ids():
            raise OutOfTimeError

    report_batches(trainer, on_batch)
    try:
        try:
            while progress.epoch < job.stop and _has_time(progress, config.deadline):
                shown.start_epoch(progress.epoch + 1)
                progress, predictions = train_epoch(trainer, progress, dataset, meter)
                if (tensors := tensors_of(trainer)) is not None:
                    apart = getattr(trainer, "apart", ())
                    write_checkpoint(path, progress, tensors, *([apart] if apart else []))
        except OutOfTimeError:
            if progress.epoch == 0:
                raise
            close(trainer)
            trainer, progress = _start(config, job, dataset, path)  # as the last finished epoch left it
            if progress.epoch == 0:  # its trainer has no tensors
                raise
        ended = dataclasses.replace(job, stop=progress.epoch)
        if (existing := library.find_job_member(ended)) is not None:
            return existing
        if predictions is None:  # a checkpoint without its member
            predictions = predict_valid(trainer, dataset)
        member = dataclasses.replace(
            _describe(config, ended, dataset, progress),
            unit=unit_of(trainer),
            policy=getattr(kept_trainer(trainer), "policy_output", None),
            costs=reported_values(kept_trainer(trainer)),
        )
        return add_member(library, kept_trainer(trainer), member, dataset, predictions)
    finally:
        if meter is not None:
            meter.close()
        shown.close()
        close(trainer)


def _start(config: TrainingConfig, job: Job, dataset: Dataset, path: Path) -> tuple[Trainer, TrainingState]:
    """Start the trainer of `job`, from its checkpoint at `path` if there is one that can be used."""
    seeded = dataclasses.replace(job, seed=trial_seed(config.seed, job.trial))
    trial = fingerprint(config.seed, job.trial, config.family, job.configuration, dataset)
    trainer = _make(config, dataset)
    trainer.start(seeded, dataset)
    found = read_checkpoint(path, trial, job.stop)
    if found is None:
        return trainer, TrainingState(trial)
    progress, tensors = found
    try:
        trainer.load(tensors)
        return trainer, progress
    except Exception:  # of a user's trainer that has changed since: it may be half loaded
        close(trainer)
        trainer = _make(config, dataset)
        trainer.start(seeded, dataset)
        return trainer, TrainingState(trial)


def _has_time(progress: TrainingState, deadline: float | None) -> bool:
    """Return True when the next epoch is the first, or would end by the deadline in the time of the last one."""
    return deadline is None or not progress.curve or clock.now() + progress.curve[-1].seconds <= deadline


def _make(config: TrainingConfig, dataset: Dataset) -> Trainer:
    """Make the trainer of a trial; with folds, one of several models."""
    make = functools.partial(make_trainer, config)
    return FoldTrainer(make, dataset.fold_count) if dataset.folds is not None else make()


def train_epoch(
    trainer: Trainer, progress: TrainingState, dataset: Dataset, meter: EnergyMeter | None
) -> tuple[TrainingState, NDArray[Any]]:
    """Train one epoch and validate; return the new progress and the validation predictions.

    Raises DivergedError when a loss is not finite.
    """
    started = time.perf_counter()
    if meter is not None:
        meter.lap()
    number, unit = progress.epoch + 1, unit_of(trainer).removesuffix("s")
    loss = trainer.epoch()
    if loss is not None and not math.isfinite(loss):
        raise DivergedError(f"the training loss is not finite in {unit} {number}")
    waited = trainer.waited() if hasattr(trainer, "waited") else 0.0
    predictions = predict_valid(trainer, dataset)
    losses = losses_of(predictions, dataset, dataset.rows("valid"))
    valid_loss = losses[loss_key(dataset.task)]
    if not math.isfinite(valid_loss):
        raise DivergedError(f"the validation loss is not finite after {unit} {number}")
    seconds = time.perf_counter() - started
    loss = None if loss is None else float(loss)
    score = losses[f"valid_{kind_of(dataset.task).metric_of(dataset.task)}"]
    joules = None if meter is None else meter.lap()
    epoch = Epoch(number, loss, valid_loss, score, seconds, waited, joules)
    state = dataclasses.replace(
        progress, epoch=number, seconds=progress.seconds + seconds, curve=(*progress.curve, epoch)
    )
    return state, predictions


def _describe(config: TrainingConfig, job: Job, dataset: Dataset, progress: TrainingState) -> Member:
    """Describe the member of `job`, without what is known of its model only: see `add_member`."""
    return Member(
        id=job.member,
        trial=job.trial,
        epoch=progress.epoch,
        family=member_family(config.family, job.configuration),
        configuration=dict(job.configuration),
        input=dataset.input,
        task=dataset.task,
        losses={},
        parameters=0,
        seconds=progress.seconds,
        created=clock.now(),
        curve=progress.curve,
    )


def trial_seed(seed: int, trial: int) -> int:
    """Return the seed of a trial, below 2**32, from that of the search."""
    return int(np.random.SeedSequence((seed, trial)).generate_state(1, np.uint32)[0])


def _failure(config: TrainingConfig, job: Job, error: Exception) -> Failure:
    """Convert an error to a failure, and write a log with its traceback; of the end of the time there is none."""
    if isinstance(error, OutOfTimeError):
        return Failure("time", "the search ended before its first epoch")
    detail = "".join(traceback.format_exception(error))
    log = str(Library(config.run).logs_path / f"{job.member}.log")
    try:
        files.write_bytes(Path(log), f"{job}\n{config}\n\n{detail}".encode())
    except RipienoError:  # a full disk may be the cause
        log = ""
    if isinstance(error, DivergedError):
        return Failure("diverged", str(error), "", log)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in OUT_OF_MEMORY)
    message = error_summary(error, named=not isinstance(error, RipienoError))
    return Failure("memory" if memory else "error", message, detail, log)
