"""The one training loop: a job becomes a member, or a failure with its reason.

Theory of operation. A trial lives in its checkpoint. A job restores it, trains epoch after epoch, each ending with a
validation and a new checkpoint, and ends with the member of its last epoch. All randomness of an epoch comes from
(seed, trial, epoch) and the learning rate from (start, stop, epoch), so that a trial killed anywhere goes on from its
last finished epoch to bit-equal weights (same machine, same threads, on a CPU), whoever prepares its batches: see
`Feed`. Losses are summed on the device and on a GPU read once an epoch: nothing in the loop waits for the device.
"""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno import files
from ripieno.data import open_dataset
from ripieno.data.augment import Augmentation
from ripieno.errors import ModelError, RipienoError
from ripieno.library import Library
from ripieno.models import architecture
from ripieno.models.build import FAMILIES, build
from ripieno.models.cost import megaflops
from ripieno.train import optim
from ripieno.train.checkpoint import Progress, fingerprint, read_checkpoint, weights_bytes, write_checkpoint
from ripieno.train.evaluate import predict, scores
from ripieno.train.feed import Feed
from ripieno.train.plan import Plan
from ripieno.types import Configuration, Dataset, Epoch, Failure, Job, Member, Outcome


@dataclass(frozen=True)
class Task:
    """What all jobs of a search share."""

    run: Path
    """folder of the library"""
    dataset: Path
    """folder of the prepared data set"""
    family: str
    """a built-in family or the user's `module:function`, which is trusted: the user gave it"""
    epochs: int
    """the most any job trains"""
    seed: int
    threads: int = 1
    device: str = "cpu"
    """as torch names it: `cpu`, `cuda:0`"""
    spare: int = 0
    """cores that may prepare data beside each trainer"""
    compiled: bool = False
    """whether networks are trained through torch.compile: worth its minute on a GPU, for trials of hours"""
    deadline: float | None = None
    """Unix time after which a job stops at the end of its running epoch"""


class Diverged(Exception):  # noqa: N818
    """The loss is no longer a number."""


def train_job(task: Task, job: Job) -> Outcome:
    """Train the job's trial to epoch `job.stop`, from its checkpoint where there is one, else from the beginning.

    Writes a checkpoint each epoch and adds the member to the library; gives back at once the one that is there
    already. At `task.deadline` it stops at the end of the running epoch and makes the member of that epoch; a job
    that starts later makes the member of the last finished epoch (of the first one when there is none). Whatever goes
    wrong is told by the outcome's failure: nothing is raised.
    """
    started = time.time()
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    member, failure = None, None
    try:
        member = _train(task, job)
    except Exception as error:  # told by the outcome: one trial must not end the search
        failure = _failure(task, job, error)
    finally:
        torch.set_num_threads(threads)
    return Outcome(job, member, failure, started=started, finished=time.time())


def _train(task: Task, job: Job) -> Member:
    library = Library(task.run)
    if job.member in library:
        return library.member(job.member)
    dataset = open_dataset(task.dataset)
    trial = _Trial(task, job, dataset)
    path = library.checkpoint_path(job.trial)
    progress = read_checkpoint(path, trial.fingerprint, job.stop, trial.network, trial.optimizer)
    answers = None
    with closing(trial.feed):
        while progress.epoch < job.stop:
            if progress.epoch and task.deadline is not None and time.time() >= task.deadline:
                break
            progress, answers = trial.epoch(progress)
            write_checkpoint(path, progress, trial.network, trial.optimizer)
    name = dataclasses.replace(job, stop=progress.epoch).member
    if name in library:
        return library.member(name)
    if answers is None:  # a checkpoint that had no member yet
        answers = trial.answers()
    member = trial.member(name, progress, answers)
    library.add(member, answers, trial.labels, weights_bytes(trial.network))
    return member


class _Trial:
    """A network in training: what its job needs at every epoch."""

    def __init__(self, task: Task, job: Job, dataset: Dataset) -> None:
        check_names(task.family, job.configuration)
        self.task, self.job, self.dataset = task, job, dataset
        self.device = torch.device(task.device)
        self.recipe = optim.recipe(job.configuration)
        self.augment = augmentation(job.configuration, dataset)
        self.fingerprint = fingerprint(task.seed, job.trial, task.family, job.configuration, dataset)
        with self._seeded(0):
            self.network = build(
                task.family,
                job.configuration,
                dataset.input,
                len(dataset.classes),
                dataset.mean,
                dataset.std,
                trusted=(task.family,),
            )
        # channels-last: what the images are, and quicker than NCHW on CPUs (1.1 to 1.9 times) as on GPUs
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optim.make_optimizer(self.recipe, self.network)
        self.body = torch.compile(self.network.body) if task.compiled else self.network.body
        plan = Plan(dataset, self.recipe.batch_size, self.augment, self._generators, self.device.type)
        record = Library(task.run).path / "feeds" / f"{self._kind()}.json"
        self.feed = Feed(dataset, plan, self.device, job.stop, task.spare, record)
        self.rows = dataset.rows("valid")
        self.labels: NDArray[np.int64] = dataset.labels[self.rows]

    def _kind(self) -> str:
        """What trials have in common for which the same way of preparing data is best: a plain name."""
        if self.task.family == "resnet":
            family, work = "resnet", int(megaflops(self.job.configuration, self.dataset.input) * 1e6)
        else:
            family, work = "own", sum(p.numel() for p in self.network.parameters())
        changed = "plain" if self.augment.is_identity else "warped" if self.augment.warps else "light"
        # within a factor of four they are of one size
        size = max(0, work.bit_length() - 1) // 2
        return f"{self.device.type}-{self.task.threads}-{self.task.spare}-{changed}-{family}-{size}"

    def _seeds(self, epoch: int) -> tuple[int, int, int]:
        """Of an epoch: for the order, for augmentation, for the layers."""
        sequence = np.random.SeedSequence((self.task.seed, self.job.trial, epoch))
        order, draws, layers = (int(n) >> 1 for n in sequence.generate_state(3, np.uint64))
        return order, draws, layers

    def _generators(self, epoch: int) -> tuple[np.random.Generator, torch.Generator]:
        """Of an epoch, for the order and for augmentation."""
        order, draws, _ = self._seeds(epoch)
        return np.random.default_rng(order), torch.Generator().manual_seed(draws)

    @contextmanager
    def _seeded(self, epoch: int) -> Iterator[None]:
        """Initial weights and dropout draw from torch's global generator: it is seeded inside and given back after."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self._seeds(epoch)[2])
            yield

    def epoch(self, progress: Progress) -> tuple[Progress, NDArray[np.float32]]:
        """Train one epoch and validate: the progress after it, and the validation probabilities."""
        started = time.perf_counter()
        number = progress.epoch + 1
        with self._seeded(number):
            loss = self._pass(number)
        waited = self.feed.waited()
        answers = self.answers()
        found = scores(answers, self.labels)
        if not math.isfinite(found["cross_entropy"]):
            raise Diverged(f"the validation loss is not finite after epoch {number}")
        score = found["macro_f1" if self.dataset.metric == "macro-f1" else "accuracy"]
        seconds = time.perf_counter() - started
        curve = (*progress.curve, Epoch(number, loss, found["cross_entropy"], score, seconds, waited))
        return Progress(self.fingerprint, number, progress.seconds + seconds, curve), answers

    def _pass(self, epoch: int) -> float:
        """One pass over the training split; the mean loss (label smoothing and augmentation included)."""
        network, optimizer, smoothing = self.network, self.optimizer, self.recipe.label_smoothing
        plan = self.feed.plan
        rates = iter(optim.learning_rates(self.recipe, self.job.start, self.job.stop, epoch, plan.steps))
        total, on_cpu = torch.zeros((), device=self.device), self.device.type == "cpu"
        network.train()
        for batches in self.feed.batches(epoch):
            for images, labels in batches:
                rate = next(rates)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = self._loss(images, labels, smoothing)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach() * len(labels)
            if on_cpu:  # where looking costs nothing
                _check_loss(total, epoch)
        return _check_loss(total, epoch) / plan.samples

    def _loss(self, images: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        # bfloat16 where the device gains; the loss stays float32
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.body(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def answers(self) -> NDArray[np.float32]:
        """Probabilities (samples, classes) of the validation split."""
        return predict(self.network, self.dataset.images, device=self.device, rows=self.rows)

    def member(self, name: str, progress: Progress, answers: NDArray[np.float32]) -> Member:
        """The network as it stands."""
        return Member(
            id=name,
            trial=self.job.trial,
            epoch=progress.epoch,
            family=self.task.family,
            configuration=dict(self.job.configuration),
            input=self.dataset.input,
            classes=self.dataset.classes,
            losses={f"valid_{key}": value for key, value in scores(answers, self.labels).items()},
            parameters=sum(p.numel() for p in self.network.parameters()),
            seconds=progress.seconds,
            created=time.time(),
            curve=progress.curve,
        )


def _check_loss(total: Tensor, epoch: int) -> float:
    """`total` as a number; waits for the device. Raises Diverged when it is none."""
    value = total.item()
    if not math.isfinite(value):
        raise Diverged(f"the training loss is not finite in epoch {epoch}")
    return value


_AUGMENTATION = frozenset(f.name for f in dataclasses.fields(Augmentation)) - {"value_range"}


def augmentation(configuration: Configuration, dataset: Dataset) -> Augmentation:
    """The augmentation in `configuration`; absent names change nothing. Raises DataError for a value out of range.

    The span of float images, which channel shifts are a part of, is taken as four standard deviations.
    """
    chosen = {name: value for name, value in configuration.items() if name in _AUGMENTATION}
    span = 255.0 if dataset.images.dtype == np.uint8 else 4 * float(np.mean(dataset.std))
    return Augmentation(**chosen, value_range=span)  # type: ignore[arg-type]


def check_names(family: str, configuration: Configuration) -> None:
    """Raise ModelError for a hyperparameter that nothing reads; a user's family may read any."""
    unknown = sorted(set(configuration) - architecture.NAMES - optim.NAMES - _AUGMENTATION)
    if family in FAMILIES and unknown:
        known = ", ".join(sorted(architecture.NAMES | optim.NAMES | _AUGMENTATION))
        raise ModelError(f"{unknown[0]!r} is no hyperparameter of {family}; there are: {known}")


def _failure(task: Task, job: Job, error: Exception) -> Failure:
    """What to tell of an error, with a log of the whole story."""
    detail = "".join(traceback.format_exception(error))
    lines = str(error).strip().splitlines() or [""]
    message = lines[0] if isinstance(error, RipienoError | Diverged) else f"{type(error).__name__}: {lines[0]}"
    log = Library(task.run).logs_path / f"{job.member}.log"
    try:
        files.write_bytes(log, f"{job}\n{task}\n\n{detail}".encode())
    except RipienoError:  # a full disk may be the very cause
        log = Path()
    where = "" if log == Path() else str(log)
    if isinstance(error, Diverged):
        return Failure("diverged", message, "", where)
    return Failure("memory" if _is_memory(error) else "error", message, detail, where)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, on the machine or on the device."""
    text = str(error)
    words = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "CUDA out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in text for word in words)
