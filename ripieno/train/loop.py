"""The one training loop: a job becomes a member, or a failure with its reason.

Theory of operation. A trial lives in its checkpoint. A job restores it, trains epoch after epoch, each ending with a
validation and a new checkpoint, and ends with the member of its last epoch. All randomness of an epoch comes from
(seed, trial, epoch) and the learning rate from (start, stop, epoch), so that a trial killed anywhere goes on from its
last finished epoch to bit-equal weights (same machine, same threads, on a CPU), whoever prepares its batches: see
`Feed`. Losses are summed on the device and on a GPU read once an epoch, and batches go there from pinned memory. The
loop waits for a GPU only where pixels move, since kornia looks whether its matrices have an inverse, and while ways to
prepare batches are measured.
"""

from __future__ import annotations

import dataclasses
import traceback
from contextlib import closing
from pathlib import Path

import torch

from ripieno import clock, files
from ripieno.data import open_dataset
from ripieno.errors import RipienoError
from ripieno.library import Library
from ripieno.train.checkpoint import read_checkpoint, weights_bytes, write_checkpoint
from ripieno.train.config import TrainingConfig
from ripieno.train.network_trainer import DivergedError, NetworkTrainer
from ripieno.types import Failure, Job, JobResult, Member

OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",  # of the driver, not of torch's allocator
    "CUDA driver error: out of memory",
    "STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN, for their own workspaces
)
"""Words of errors that are of no class of their own: memory ran out."""


def train_job(task: TrainingConfig, job: Job) -> JobResult:
    """Train the job's trial to epoch `job.stop`, from its checkpoint where there is one, else from the beginning.

    Writes a checkpoint each epoch and adds the member to the library; gives back at once the one that is there
    already. At `task.deadline` it stops at the end of the running epoch and makes the member of that epoch; a job
    that starts later makes the member of the last finished epoch (of the first one when there is none). Whatever goes
    wrong is told by the outcome's failure: nothing is raised.
    """
    started = clock.now()
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    member, failure = None, None
    try:
        member = _train(task, job)
    except Exception as error:  # told by the outcome: one trial must not end the search
        failure = _failure(task, job, error)
    finally:
        torch.set_num_threads(threads)
    return JobResult(job, member, failure, started=started, finished=clock.now())


def _train(task: TrainingConfig, job: Job) -> Member:
    library = Library(task.run)
    if (made := library.find_job_member(job)) is not None:
        return made
    dataset = open_dataset(task.dataset)
    trial = NetworkTrainer(task, job, dataset)
    path = library.checkpoint_path(job.trial)
    progress = read_checkpoint(path, trial.fingerprint, job.stop, trial.network, trial.optimizer)
    answers = None
    with closing(trial.feed):
        while progress.epoch < job.stop:
            if progress.epoch and task.deadline is not None and clock.now() >= task.deadline:
                break
            progress, answers = trial.epoch(progress)
            write_checkpoint(path, progress, trial.network, trial.optimizer)
    ended = dataclasses.replace(job, stop=progress.epoch)
    if (made := library.find_job_member(ended)) is not None:
        return made
    if answers is None:  # a checkpoint that had no member yet
        answers = trial.answers()
    member = trial.member(ended.member, progress, answers)
    library.add(member, answers, trial.labels, weights_bytes(trial.network))
    return member


def _failure(task: TrainingConfig, job: Job, error: Exception) -> Failure:
    """What to tell of an error, with a log of the whole story."""
    detail = "".join(traceback.format_exception(error))
    lines = str(error).strip().splitlines() or [""]
    message = lines[0] if isinstance(error, RipienoError | DivergedError) else f"{type(error).__name__}: {lines[0]}"
    log = Library(task.run).logs_path / f"{job.member}.log"
    try:
        files.write_bytes(log, f"{job}\n{task}\n\n{detail}".encode())
    except RipienoError:  # a full disk may be the very cause
        log = Path()
    where = "" if log == Path() else str(log)
    if isinstance(error, DivergedError):
        return Failure("diverged", message, "", where)
    return Failure("memory" if _is_memory(error) else "error", message, detail, where)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, on the machine or on the device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in OUT_OF_MEMORY)
