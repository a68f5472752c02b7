"""Ensemble -> distilled member: a small network that learns the ensemble's predictions, kept where that wins.

Theory of operation. The teacher predicts the training samples. The student, a network of the library, is trained twice
from the same first weights: on these predictions, and on the targets. The second training gets as many more epochs as
the teacher's predictions took time. The distilled network becomes a member only if its validation loss is below that of
the other one and below that of the member whose configuration it has. A record keeps the result, so that nothing is
trained twice. Both trainings resume from their last epoch.

RUN/distillation/MEMBER.json               a `DistillationRecord`
RUN/distillation/MEMBER-PART               predictions and checkpoints of an unfinished distillation
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ripieno import backends, clock, files
from ripieno.backends.batch_limit import limit_batch
from ripieno.data.dataset import BATCH, batches, open_dataset
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.broken import read_or_none
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.models.user_code import is_user_code
from ripieno.pipeline.costs import export_members, selection_candidates
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.resources import sleep_while_waiting, usable_cores
from ripieno.search.settings import kept_settings
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Device, Float32s, Job, Member, loss_key

if TYPE_CHECKING:
    from ripieno.train.distillation import TrainedStudent

TASKS = ("classification", "multilabel", "regression")
TEACHERS = 5
"""Trials that teach together where no ensemble was selected, at most."""


@dataclass(frozen=True)
class DistillationConfig:
    """Choice of the teacher and of the student."""

    teacher: str = ""
    """name of a selected ensemble, or id of a member; empty: the selected ensemble with the lowest validation loss, and
    without one the mean of the best trials, of at most `TEACHERS` as many as give the lowest loss"""
    student: str = ""
    """id of the member whose network is trained; empty: the one with the fewest parameters that `select` considers"""
    epochs: int | None = None
    """epochs of the distilled network; None: as many as the student's"""


@dataclass(frozen=True)
class DistillationRecord:
    """Result of one distillation."""

    key: str
    """hash of what determines it"""
    teacher: Mapping[str, float]
    """shares of the members that taught, by id"""
    epochs: tuple[int, int]
    """of the distilled network, and of the one trained on targets"""
    seconds: tuple[float, float]
    """of their training, the first with the teacher's predictions"""
    losses: tuple[float, float, float]
    """validation losses of the distilled network, the one trained on targets, and the student that the run had"""

    @property
    def kept(self) -> bool:
        """Victory of the distilled network over both others."""
        return self.losses[0] < min(self.losses[1:])

    def describe(self, student: str) -> str:
        """Describe the result in one line."""
        distilled, trained, before = self.losses
        against = f"{trained:.4f} on the targets in as much time" if trained <= before else f"{before:.4f} of {student}"
        outcome = "it wins" if self.kept else "it is not kept"
        by = abs(distilled - min(trained, before))
        return f"distilled, {student} has a loss of {distilled:.4f} against {against}: {outcome}, by {by:.4f}"


@dataclass(frozen=True)
class Distillation:
    """Result of `distil`: the record, and the member where the distilled network won."""

    student: Member
    record: DistillationRecord
    member: Member | None
    added: bool
    """whether the library did not have it before"""


def distil(
    library: Library, config: DistillationConfig, prune: float, progress: ProgressFunction = no_progress
) -> Distillation:
    """Distil a teacher of `library` into a small network, and add this where it wins; see the module's text.

    The caller holds the run's lock. Raises LibraryError for a task, teacher or student that cannot be used.
    """
    dataset = open_dataset(library.dataset_path)
    if dataset.task.kind not in TASKS:
        raise LibraryError(f"a {dataset.task.kind} cannot be distilled: only {', '.join(TASKS)} can; leave it out")
    if config.epochs is not None and config.epochs < 1:
        raise LibraryError(f"{config.epochs} epochs of distillation: at least 1 is needed")
    student, teacher = find_student(library, config.student, prune), find_teacher(library, config.teacher)
    epochs = config.epochs or max(1, student.epoch)
    return _Distillation(library, dataset, student, teacher, epochs, progress).make()


def find_student(library: Library, name: str, prune: float) -> Member:
    """Return the member called `name`, or the smallest that selection considers. Raises LibraryError if unfit."""
    if name:
        if name not in library:
            raise LibraryError(f"{library.path} has no member {name!r} as a student: `ripieno show` lists them")
        member = library.member(name)
        if reason := _unfit(member):
            raise LibraryError(f"{name} cannot be a student: {reason}; name another one, or none")
        return member
    fit = [m for m in selection_candidates(library, prune) if not _unfit(m)]
    if not fit:
        raise LibraryError(f"{library.path} has no student to distil: no candidate is a network that a search trained")
    return min(fit, key=lambda m: (m.parameters, m.loss, m.id))


def _unfit(member: Member) -> str:
    """Return why `member` cannot be a student; empty if it can."""
    if member.format != "safetensors" or member.trial == NO_TRIAL or member.variant_of:
        return "it is no network that a search trained"
    if member.backbone:
        return "it is a head of a shared backbone"
    return "its family is code of your own" if is_user_code(member.family) else ""


def find_teacher(library: Library, name: str) -> dict[str, float]:
    """Return the shares of the members that teach, by id. Raises LibraryError for members without a model."""
    ensembles = {ensemble.name: ensemble for ensemble in library.ensembles()}
    members = {member.id: member for member in library.members()}
    if name and name not in ensembles:
        if name not in members:
            raise LibraryError(
                f"{library.path} has no ensemble or member {name!r} as a teacher: `ripieno show` lists both"
            )
        shares = {name: 1.0}
    elif ensembles:
        key = loss_key(next(iter(members.values())).task)
        best = min(ensembles.values(), key=lambda e: (e.losses.get(key, math.inf), e.name))
        chosen = ensembles.get(name, best)
        shares = {}
        for chosen_id, share in zip(chosen.members, chosen.weights, strict=True):
            shares[chosen_id] = shares.get(chosen_id, 0.0) + share
    else:
        of_trial: dict[int, str] = {}
        for member in sorted(members.values(), key=lambda m: (m.loss, m.id)):
            if member.trial != NO_TRIAL and member.format != "predictions":
                of_trial.setdefault(member.trial, member.id)
        best_ids = _best_mean(library, list(of_trial.values())[:TEACHERS])
        shares = {best_id: 1 / len(best_ids) for best_id in best_ids}
    unusable = [m for m in shares if m not in members or members[m].format == "predictions"]
    if unusable or not shares:
        held = f"{unusable[0]} has" if unusable else f"{library.path} has"
        raise LibraryError(f"{held} no model that could teach: name another teacher, an ensemble or a member")
    return shares


def _best_mean(library: Library, ranked: Sequence[str]) -> Sequence[str]:
    """Return as many of the `ranked` members, the best first, as give the mean with the lowest validation loss."""
    total, best, lowest = np.zeros(()), ranked, math.inf
    for count, name in enumerate(ranked, start=1):
        task = library.member(name).task
        total = total + np.asarray(library.predictions(name), np.float64)
        mean = np.asarray(total / count, np.float32)
        loss = kind_of(task).losses(mean, library.targets(), task)[loss_key(task)]
        if loss < lowest:
            best, lowest = ranked[:count], loss
    return best


class _Distillation:
    """One distillation, with what determines it."""

    def __init__(
        self,
        library: Library,
        dataset: Dataset,
        student: Member,
        teacher: Mapping[str, float],
        epochs: int,
        progress: ProgressFunction,
    ) -> None:
        self._library, self._dataset, self._student, self._teacher = library, dataset, student, teacher
        self._epochs, self._progress = epochs, progress
        self._name = f"{student.id}-distilled"
        self._folder = library.path / "distillation"
        made = {member: [share, library.member(member).created] for member, share in teacher.items()}
        content = files.to_json({"student": [student.id, student.created], "teacher": made, "epochs": epochs})
        self._key = hashlib.sha256(content).hexdigest()

    def make(self) -> Distillation:
        """Distil, or read the record of having done so."""
        path = self._folder / f"{self._name}.json"
        record = read_or_none(f"the distillation of {self._library.path}", path, DistillationRecord)
        known = self._library.member(self._name) if self._name in self._library else None
        if known is not None and known.variant_of != self._student.id:
            raise LibraryError(f"{self._library.path} has another member {self._name}: remove it, or name a student")
        if record is not None and record.key == self._key and (known is not None or not record.kept):
            return Distillation(self._student, record, known if record.kept else None, False)
        return self._train(path)

    def _train(self, path: Path) -> Distillation:
        sleep_while_waiting()  # before PyTorch is loaded
        from ripieno.train import TrainingConfig
        from ripieno.train.distillation import train_student
        from ripieno.train.evaluate import DivergedError, losses_of

        settings, student = kept_settings(self._library.path / "run.json"), self._student
        config = TrainingConfig(
            run=self._library.path.resolve(),
            dataset=self._library.dataset_path.resolve(),
            family=settings.space.family if settings else student.family,
            seed=settings.seed if settings else 0,
            threads=len(usable_cores()),
            weights=settings.weights if settings else (),
        )
        taught, taught_seconds = self._teach()
        rows = self._dataset.rows("valid")

        def train(stop: int, name: str, targets: Float32s | None) -> TrainedStudent:
            job = Job(student.trial, student.configuration, 0, stop)
            stage = "training on the targets" if targets is None else "training on the teacher's predictions"
            return train_student(
                dataclasses.replace(config, epochs=stop),
                job,
                self._dataset,
                targets,
                self._part(f"{name}.safetensors"),
                lambda done: self._progress(stage, done, stop),
            )

        try:
            distilled = train(self._epochs, "distilled", taught)
            each = distilled.state.seconds / self._epochs
            more = round(taught_seconds / each) if each > 0 else 0
            plain = train(self._epochs + more, "targets", None)
        except DivergedError as error:
            raise LibraryError(f"{student.id} cannot be distilled: {error}; name another student") from error
        losses = losses_of(distilled.predictions, self._dataset, rows)
        key = loss_key(self._dataset.task)
        seconds = distilled.state.seconds + taught_seconds
        record = DistillationRecord(
            self._key,
            self._teacher,
            (self._epochs, self._epochs + more),
            (seconds, plain.state.seconds),
            (losses[key], losses_of(plain.predictions, self._dataset, rows)[key], student.loss),
        )
        member = None
        if record.kept:
            member = dataclasses.replace(
                student,
                id=self._name,
                trial=NO_TRIAL,
                epoch=0,
                losses=losses,
                parameters=distilled.parameters,
                seconds=seconds,
                curve=distilled.state.curve,
                created=clock.now(),
                costs={},
                temperature=None,
                averaged=(),
                variant_of=student.id,
            )
            targets = np.asarray(self._dataset.targets[rows])
            self._library.add(member, distilled.predictions, targets, distilled.weights)
        elif self._name in self._library:
            self._library.remove(self._name)  # of another teacher, or of a student before
        files.write_json(path, record)
        for part in self._folder.glob(f"{self._name}-{self._key[:8]}-*"):
            files.remove_file(part)
        return Distillation(student, record, member, member is not None)

    def _part(self, name: str) -> Path:
        """Return the path of a part of this unfinished distillation."""
        return self._folder / f"{self._name}-{self._key[:8]}-{name}"

    def _teach(self) -> tuple[Float32s, float]:
        """Return the teacher's mean predictions, zeros but for training samples, and the seconds that they took."""
        path, taken = self._part("taught.npy"), self._part("taught.json")
        if path.exists() and taken.exists():
            return files.read_array(path).astype(np.float32), files.read_json(taken, dict[str, float])["seconds"]
        members = [self._library.member(name) for name in self._teacher]
        export_members(self._library, members, self._progress)
        started = time.perf_counter()
        rows, task = self._dataset.rows("train"), self._dataset.task
        size = limit_batch(BATCH, task.output)
        found = np.zeros((len(self._dataset.inputs), *kind_of(task).kept_shape(task)), np.float32)
        for number, member in enumerate(members):
            self._progress("predicting the training samples", number, len(members))
            device = Device("cpu:0", "cpu", 0)
            path_of = self._library.onnx_path(member.id)
            trusted = (*self._library.trusted, member.family)
            runner = backends.load("onnx", path_of, member, device, len(usable_cores()), trusted=trusted)
            try:
                for start, inputs in enumerate(batches(self._dataset.inputs, rows, size)):
                    chosen = rows[start * size : start * size + len(inputs)]
                    found[chosen] += np.float32(self._teacher[member.id]) * runner.infer(inputs)
            finally:
                runner.close()
        self._progress("predicting the training samples", len(members), len(members))
        seconds = time.perf_counter() - started
        files.write_array(path, found)
        files.write_json(taken, {"seconds": seconds})
        return found, seconds
