"""The training loop: a job becomes a member, or a failure with its reason.

Theory of operation. The state of a trial is its checkpoint. A job restores it, then trains epoch after epoch. Each
epoch ends with a validation and a new checkpoint; the job ends with the member of its last epoch. All randomness of an
epoch comes from (seed, trial, epoch), and the learning rate from (start, stop, epoch). A trial killed at any point
therefore resumes from its last finished epoch to bit-equal weights (same machine, same threads, on a CPU). They do not
depend on the preparation of batches: see `BatchPipeline`. Losses are summed on the device and read once per epoch from
a GPU, and batches are copied there from pinned memory. The loop waits for a GPU only for geometric augmentation, since
kornia checks that its matrices are invertible, and during the measurement of data loading.
"""

from __future__ import annotations

import dataclasses
import traceback
from contextlib import closing
from pathlib import Path

import torch

from ripieno import clock, files
from ripieno.data import open_dataset
from ripieno.errors import RipienoError, error_summary
from ripieno.library import Library
from ripieno.train.checkpoint import read_checkpoint, weights_bytes, write_checkpoint
from ripieno.train.network_trainer import DivergedError, NetworkTrainer, TrainingConfig
from ripieno.types import Failure, Job, JobResult, Member

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

    Writes a checkpoint each epoch and adds the member to the library; a member that exists is returned at once. After
    `config.deadline` the job stops at the end of its current epoch and makes the member of that epoch. A job that
    starts later makes the member of the last finished epoch, or of the first one when there is none. Every error is
    reported as the result's failure; none is raised.
    """
    started = clock.now()
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    member, failure = None, None
    try:
        member = _train(config, job)
    except Exception as error:  # reported in the result: one trial must not end the search
        failure = _failure(config, job, error)
    finally:
        torch.set_num_threads(threads)
    return JobResult(job, member, failure, started=started, finished=clock.now())


def _train(config: TrainingConfig, job: Job) -> Member:
    library = Library(config.run)
    if (existing := library.find_job_member(job)) is not None:
        return existing
    dataset = open_dataset(config.dataset)
    trainer = NetworkTrainer(config, job, dataset)
    path = library.checkpoint_path(job.trial)
    progress = read_checkpoint(path, trainer.fingerprint, job.stop, trainer.network, trainer.optimizer)
    answers = None
    with closing(trainer.pipeline):
        while progress.epoch < job.stop:
            if progress.epoch and config.deadline is not None and clock.now() >= config.deadline:
                break
            progress, answers = trainer.epoch(progress)
            write_checkpoint(path, progress, trainer.network, trainer.optimizer)
    ended = dataclasses.replace(job, stop=progress.epoch)
    if (existing := library.find_job_member(ended)) is not None:
        return existing
    if answers is None:  # a checkpoint without its member
        answers = trainer.answers()
    member = trainer.member(ended.member, progress, answers)
    library.add(member, answers, trainer.labels, weights_bytes(trainer.network))
    return member


def _failure(config: TrainingConfig, job: Job, error: Exception) -> Failure:
    """Convert an error to a failure, and write a log with its traceback."""
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
