"""Library: the folder of a run, and the one class that knows the names of its files.

RUN/run.json                       how the search was asked for
RUN/warm_start.json                what the search took from earlier runs: see `ripieno.pipeline.warm_start`
RUN/dataset/                       inputs.npy targets.npy split.npy dataset.json
RUN/journal.log                    the study (search)
RUN/library/ID/member.json         written last: a member exists when this does
RUN/library/ID/weights.safetensors or model.onnx, valid.npy, truth.npy (and test.npy once evaluated)
RUN/library/ID/calibrated.npy      probabilities of the true class at the member's temperature, once selected from
RUN/library/ID/pixels.npy          of masks, the predictions that the temperature was fitted to
RUN/library/targets-valid.npy      targets of the cached predictions; `labels-valid.npy` in version 1
RUN/checkpoints/TRIAL.safetensors  last finished epoch of a trial, with optimiser state
RUN/checkpoints/TRIAL-eEPOCH-NAME.npy  a tensor of it that its trainer sets apart: the memory for replay of a policy
RUN/progress/TRIAL.json            epoch and batch of a trial that is training: see `ripieno.library.trial_progress`
RUN/backbones/                     weights of pretrained backbones: see `ripieno.library.backbones`
RUN/features/BACKBONE.npy          features of the data set's samples by a frozen backbone: see `ripieno.train.features`
RUN/soups/BACKBONE.json            averages tried of the trials on a backbone: see `ripieno.library.soups`
RUN/recent/FINGERPRINT/ID.npy      predictions of recent inputs: see `ripieno.pipeline.recent_predictions`
RUN/profiles/DEVICE.json           measured costs, a profile a member and backend
RUN/cost-models.json               models of costs before training: see `ripieno.pipeline.cost_samples`
RUN/ensembles/B80.json             selected ensembles
RUN/augmentation.json              a learnt policy of augmentation; RUN/augment/ has the libraries of its search
RUN/front.json                     the best ensemble for every budget
RUN/allocations/NAME.json          where they run
RUN/cascades/NAME.json             what asking their members in turn saves and costs
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.backend_id import file_of
from ripieno.deprecation import warn_renamed
from ripieno.errors import LibraryError, error_summary
from ripieno.library.broken import read_or_none, read_sound, warn_broken, write_over
from ripieno.library.check import read_predictions
from ripieno.shell_command import command
from ripieno.tasks.calibration import CalibratedRows, MemberCalibration
from ripieno.tasks.pixel_calibration import pixel_calibration
from ripieno.tasks.pixels import prediction_blocks, sample_blocks
from ripieno.tasks.registry import check_task, kind_of
from ripieno.types import Allocation, Cascade, Ensemble, Front, Job, Member, Profile, Split, Task, loss_key

W = TypeVar("W", Ensemble, Allocation)
CALIBRATED = "calibrated.npy"
"""Rows of a calibrated member, (3, samples[, labels]): see `CalibratedRows`. Of masks the truth only,
(counted pixels,), where the temperature is not 1."""
SAMPLE = "pixels.npy"
"""Of masks, predictions (pixels, classes) of the pixels that the temperature is fitted to."""


class Library:
    """A folder of members with their predictions, costs, ensembles and allocations; safe for many writers.

    `path` is the run's folder; it need not exist yet. `trusted` names the user's own model families
    (`module:function`) that may be imported to run its members. A list leaves broken files out with a
    `BrokenFileWarning`; a broken file asked for by name raises LibraryError.
    """

    def __init__(self, path: str | Path, trusted: Iterable[str] = ()) -> None:
        self.path = Path(path)
        self.trusted = tuple(trusted)
        self._seen: dict[str, tuple[tuple[object, ...], Member]] = {}  # sound ones, and what their files were then

    # names

    @property
    def dataset_path(self) -> Path:
        """Folder of the data set."""
        return self.path / "dataset"

    @property
    def journal_path(self) -> Path:
        """The study's journal."""
        return self.path / "journal.log"

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def logs_path(self) -> Path:
        """Folder of logs of workers."""
        return self.path / "logs"

    def features_path(self, backbone: str) -> Path:
        """Features of the samples by a frozen backbone (its id), present or not."""
        return self.path / "features" / f"{plain_name(backbone)}.npy"

    def soup_path(self, backbone: str) -> Path:
        """Record of the averages that were tried of the trials on a backbone (its id), present or not."""
        return self.path / "soups" / f"{plain_name(backbone)}.json"

    def member_path(self, member: str) -> Path:
        """Folder of a member, present or not."""
        return self.path / "library" / plain_name(member)

    def recent_path(self, fingerprint: str, member: str) -> Path:
        """Predictions of recent inputs, which the fingerprint names, by a member, present or not."""
        return self.path / "recent" / plain_name(fingerprint) / f"{plain_name(member)}.npy"

    def checkpoint_path(self, trial: int) -> Path:
        """Checkpoint of a trial, present or not."""
        return self.path / "checkpoints" / f"{trial:05d}.safetensors"

    def progress_path(self, trial: int) -> Path:
        """Progress of a trial that is training, present or not."""
        return self.path / "progress" / f"{trial:05d}.json"

    def weights_path(self, member: str) -> Path:
        """Weights of a trained member, present or not."""
        return self.member_path(member) / "weights.safetensors"

    def onnx_path(self, member: str) -> Path:
        """ONNX file of a member, imported or exported, present or not."""
        return self.member_path(member) / "model.onnx"

    def model_path(self, member: str, backend: str) -> Path:
        """Return the path of the model file for `backend` (see `ripieno.backends.backend_id`), present or not."""
        return self.member_path(member) / file_of(backend)

    def targets_path(self, split: Split) -> Path:
        """Return the path of the targets of the cached predictions of `split`, present or not."""
        former = self.path / "library" / f"labels-{split}.npy"  # of version 1
        return former if former.exists() else self.path / "library" / f"targets-{split}.npy"

    # members

    def ids(self) -> list[str]:
        """Ids of all members, sorted; see `members` for those that are broken."""
        return list(self._sound())

    def __len__(self) -> int:
        return len(self._sound())

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and (self.member_path(member) / "member.json").exists()

    def member(self, member: str) -> Member:
        """One member. Raises LibraryError naming it when it is absent or broken."""
        if member not in self:
            raise LibraryError(f"no member {member!r} in {self.path}: `{command('show', self.path)}` lists them")
        try:
            return self._read_member(member)
        except LibraryError as error:
            raise LibraryError(f"{error}: restore it from a copy, or do without this member") from error

    def _read_member(self, member: str) -> Member:
        path = self.member_path(member) / "member.json"
        found = files.read_json(path, Member)
        if found.id != member:
            raise LibraryError(f"{path} is of member {found.id!r}, not of {member!r}")
        check_task(found.task, str(path), LibraryError)
        return found

    def members(self) -> list[Member]:
        """All members, sorted by id.

        Members with an unreadable `member.json` or unreadable validation predictions are skipped: one
        `BrokenFileWarning` names them, and their files stay as they are.
        """
        return list(self._sound().values())

    def _sound(self) -> dict[str, Member]:
        names = sorted(p.parent.name for p in (self.path / "library").glob("[!.]*/member.json"))
        path = self.targets_path("valid")
        try:
            samples = len(files.read_array(path)) if names and path.exists() else None
        except LibraryError:  # a reader of the labels reports it
            samples = None
        return read_sound(f"the members of {self.path}", names, lambda name: self._checked(name, samples))

    def _checked(self, member: str, samples: int | None) -> Member:
        """One member with its validation predictions. Raises LibraryError when one of them is broken."""
        folder = self.member_path(member)
        stamp = (samples, *(_stamp(folder / name) for name in ("member.json", "valid.npy", _truth_name("valid"))))
        if member in self._seen and self._seen[member][0] == stamp:
            return self._seen[member][1]
        found = self._read_member(member)
        shapes: dict[str, tuple[int | None, ...]] = {
            "valid.npy": (samples, *kind_of(found.task).kept_shape(found.task))
        }
        if kind_of(found.task).keeps_likelihood:
            # of pixels, the ignored ones are left out
            shapes[_truth_name("valid")] = (None if kind_of(found.task).is_pixelwise else samples,)
        for name, shape in shapes.items():
            held = files.read_array(folder / name).shape
            if len(held) != len(shape) or any(n not in (None, m) for n, m in zip(shape, held, strict=True)):
                due = ", ".join("samples" if n is None else str(n) for n in shape)
                raise LibraryError(f"{folder / name} has shape {held}, not ({due}{',' * (len(shape) == 1)})")
        if (key := loss_key(found.task)) not in found.losses:
            raise LibraryError(f"{folder / 'member.json'} has no {key} among its losses")
        self._seen[member] = stamp, found
        return found

    def find_job_member(self, job: Job) -> Member | None:
        """Return the member of `job` if it exists; one of that name with another configuration does not count."""
        found = read_sound(f"the members of {self.path}", [job.member] if job.member in self else [], self._read_member)
        member = found.get(job.member)
        return member if member is not None and member.configuration == dict(job.configuration) else None

    def add(
        self, member: Member, valid: NDArray[Any], targets: NDArray[Any], weights: bytes | memoryview | None = None
    ) -> None:
        """Add a trained or imported member with its validation predictions.

        `valid` is (samples, *task.output), of classes rows that sum to one, and may be memory-mapped; predictions of
        pixels are kept in half precision. `targets` are as in `Dataset`. `weights` is
        the content of `weights.safetensors` or of `model.onnx` after `member.format`, None for a member known by
        predictions only. Adding a member again replaces it, and all that was made of the old one goes: files,
        predictions, profiles. Raises LibraryError when they are no predictions and targets of the member's task or the
        samples do not match those of the library; it is then unchanged.
        """
        targets = _as_targets(targets, member.task)
        valid = read_predictions(member.id, valid, targets, member.task)
        folder = self.member_path(member.id)
        self._keep_targets("valid", targets)
        content = {"onnx": "model.onnx"}.get(member.format, "weights.safetensors")
        self._clear_member(member.id, {"valid.npy", _truth_name("valid"), *([content] if weights is not None else [])})
        if weights is not None:
            files.write_bytes(folder / content, weights)
        self._write_predictions(member, "valid", valid, targets)
        files.write_json(folder / "member.json", member)

    def _clear_member(self, member: str, written: Collection[str] = ()) -> None:
        """Drop a member and all that was made of it, but for files that are `written` next."""
        folder = self.member_path(member)
        # member.json first: a writer killed here leaves no member, not parts of two; dots may be another writer's files
        for path in (folder / "member.json", *folder.glob("[!.]*")):
            if path.name not in written and not path.is_dir():
                files.remove_file(path)
        self.forget_profiles(member)

    def update(self, member: Member) -> None:
        """Write what is known of a member that is there. Raises LibraryError when it is not."""
        self.member(member.id)
        files.write_json(self.member_path(member.id) / "member.json", member)

    def remove(self, member: str) -> None:
        """Remove a member with its profiles."""
        self._clear_member(member)
        files.remove_tree(self.member_path(member))

    def _keep_targets(self, split: Split, targets: NDArray[Any]) -> None:
        path = self.targets_path(split)
        if not path.exists():
            files.write_array(path, targets)
        elif not _equal(files.read_array(path), targets):
            raise LibraryError(
                f"these {len(targets)} {split} targets or labels differ from those of {self.path}: "
                "all members of a library must be judged on the same samples in the same order"
            )

    # predictions

    def write_predictions(
        self, member: str, split: Split, predictions: NDArray[Any] | Iterable[NDArray[Any]], targets: NDArray[Any]
    ) -> None:
        """Cache predictions (samples, *task.output) of a member; of classes also those of the true one (`truth.npy`).

        Predictions of pixels are kept in half precision, and may come in blocks of samples, in their order. Raises
        LibraryError when the member is absent, the targets are none of its task, or the samples are not those of the
        library.
        """
        self._write_predictions(self.member(member), split, predictions, targets)

    def _write_predictions(
        self, member: Member, split: Split, predictions: NDArray[Any] | Iterable[NDArray[Any]], targets: NDArray[Any]
    ) -> None:
        task, kind = member.task, kind_of(member.task)
        if not isinstance(predictions, np.ndarray) and not kind.is_pixelwise:
            predictions = np.concatenate(list(predictions))
        if isinstance(predictions, np.ndarray) and predictions.shape != (
            shape := (len(targets), *kind.kept_shape(task))
        ):
            due = ", ".join(map(str, shape))
            raise LibraryError(f"predictions of {member.id} have shape {predictions.shape}, must be ({due})")
        targets = _as_targets(targets, task)
        self._keep_targets(split, targets)
        folder = self.member_path(member.id)
        if split == "valid":
            self._forget_calibration(member.id)
        if kind.is_pixelwise:
            self._write_pixels(member, split, predictions, targets)
            return
        assert isinstance(predictions, np.ndarray)
        files.write_array(folder / f"{split}.npy", np.ascontiguousarray(predictions))
        truth = kind.likelihood(predictions, targets) if kind.keeps_likelihood else None
        if truth is not None:
            half = truth.dtype == np.float16
            files.write_array(folder / _truth_name(split), truth if half else truth.astype(np.float32))

    def _write_pixels(
        self, member: Member, split: Split, predictions: NDArray[Any] | Iterable[NDArray[Any]], targets: NDArray[Any]
    ) -> None:
        """Write predictions of pixels in half precision, and the likelihoods of what is written, block by block."""
        kind, folder, done = kind_of(member.task), self.member_path(member.id), 0
        with (
            files.array_writer(folder / f"{split}.npy", member.task.output, np.float16) as append,
            files.array_writer(folder / _truth_name(split), (), np.float16) as append_truth,
        ):
            for block in _small_blocks(predictions):
                half = np.asarray(block, np.float16)
                truth = kind.likelihood(half, targets[done : done + len(half)])
                assert truth is not None, f"{kind.name} keeps no likelihood"
                append(half)
                append_truth(truth)
                done += len(half)
            if done != len(targets):
                raise LibraryError(f"predictions of {member.id} are of {done} samples, must be of {len(targets)}")

    def has_predictions(self, member: str, split: Split) -> bool:
        """Return whether predictions on `split` are cached and readable."""
        return self._readable(member, f"{split}.npy")

    def has_truth(self, member: str, split: Split = "valid") -> bool:
        """Return whether probabilities of the true class on `split` are cached and readable."""
        return self._readable(member, _truth_name(split))

    def _readable(self, member: str, name: str) -> bool:
        path = self.member_path(member) / name
        return path in read_sound(f"predictions in {self.path}", [path] if path.exists() else [], files.read_array)

    def predictions(self, member: str, split: Split = "valid") -> NDArray[Any]:
        """Return cached predictions (samples, *task.output), memory-mapped. Raises LibraryError when absent."""
        return files.read_array(self.member_path(member) / f"{split}.npy")

    def true_class_probabilities(self, members: Iterable[str], split: Split = "valid") -> NDArray[np.float32]:
        """Return probabilities of the true class, (members, samples): all that the cross-entropy of a mean needs."""
        rows = [files.read_array(self.member_path(m) / _truth_name(split), mapped=False) for m in members]
        return np.stack(rows).astype(np.float32, copy=False)

    def true_class_mapped(self, members: Iterable[str], split: Split = "valid") -> list[NDArray[Any]]:
        """Return one memory-mapped row per member, in the stored dtype: for millions of samples."""
        return [files.read_array(self.member_path(m) / _truth_name(split)) for m in members]

    def probabilities(self, member: str, split: Split = "valid") -> NDArray[Any]:
        """Return `predictions(member, split)`: the former name, for one version."""
        warn_renamed("Library.probabilities", "predictions")
        return self.predictions(member, split)

    def has_probabilities(self, member: str, split: Split) -> bool:
        """Return `has_predictions(member, split)`: the former name, for one version."""
        warn_renamed("Library.has_probabilities", "has_predictions")
        return self.has_predictions(member, split)

    def write_probabilities(
        self, member: str, split: Split, probabilities: NDArray[Any], labels: NDArray[np.int64]
    ) -> None:
        """Call `write_predictions(member, split, probabilities, labels)`: the former name, for one version."""
        warn_renamed("Library.write_probabilities", "write_predictions")
        self.write_predictions(member, split, probabilities, labels)

    def labels(self, split: Split = "valid") -> NDArray[Any]:
        """Return `targets(split)`: the former name, for one version."""
        warn_renamed("Library.labels", "targets")
        return self.targets(split)

    def made(self, job: Job) -> Member | None:
        """Return `find_job_member(job)`: the former name, for one version."""
        warn_renamed("Library.made", "find_job_member")
        return self.find_job_member(job)

    def truth(self, members: Iterable[str], split: Split = "valid") -> NDArray[np.float32]:
        """Return `true_class_probabilities(members, split)`: the former name, for one version."""
        warn_renamed("Library.truth", "true_class_probabilities")
        return self.true_class_probabilities(members, split)

    def mapped_truth(self, members: Iterable[str], split: Split = "valid") -> list[NDArray[Any]]:
        """Return `true_class_mapped(members, split)`: the former name, for one version."""
        warn_renamed("Library.mapped_truth", "true_class_mapped")
        return self.true_class_mapped(members, split)

    def calibration(self, member: str) -> MemberCalibration | None:
        """Return the kept temperature of a member and its rows, memory-mapped; None where there is none to read."""
        path, known = self.member_path(member), self.member(member)
        if known.temperature is None:
            return None
        try:
            if kind_of(known.task).is_pixelwise:
                return self._pixel_calibration(path, known)
            rows = files.read_array(path / CALIBRATED) if (path / CALIBRATED).exists() else np.empty(0)
        except LibraryError:  # it can be fitted again
            return None
        if rows.shape != (3, *self.targets().shape):
            return None
        return MemberCalibration(known.temperature, CalibratedRows(*rows))

    def _pixel_calibration(self, path: Path, member: Member) -> MemberCalibration | None:
        """Return the calibration of a member of masks; at a temperature of 1 its truth is that of its predictions."""
        plain = files.read_array(path / _truth_name("valid"))
        kept = path / CALIBRATED
        if member.temperature is None or not (path / SAMPLE).exists() or (member.temperature != 1) != kept.exists():
            return None
        truth, sample = files.read_array(kept) if kept.exists() else plain, files.read_array(path / SAMPLE)
        if truth.shape != plain.shape or sample.ndim != 2 or sample.shape[1] != len(member.task.names):
            return None
        return pixel_calibration(member.temperature, truth, sample)

    def write_calibration(self, member: str, calibration: MemberCalibration) -> None:
        """Keep the temperature of a member and its rows at it. Raises LibraryError when the member is absent."""
        path = self.member_path(member)
        # rows that exist are at the temperature in member.json, even after a crash between
        self._remove_calibration(member)
        self.update(dataclasses.replace(self.member(member), temperature=calibration.temperature))
        if calibration.sample is None:
            files.write_array(path / CALIBRATED, np.stack(calibration.rows).astype(np.float32, copy=False))
            return
        if calibration.temperature != 1.0:
            files.write_array(path / CALIBRATED, calibration.rows.truth)
        files.write_array(path / SAMPLE, calibration.sample)

    def _remove_calibration(self, member: str) -> None:
        for name in (SAMPLE, CALIBRATED):
            files.remove_file(self.member_path(member) / name)

    def _forget_calibration(self, member: str) -> None:
        self._remove_calibration(member)
        if member in self and self.member(member).temperature is not None:
            self.update(dataclasses.replace(self.member(member), temperature=None))

    def targets(self, split: Split = "valid") -> NDArray[Any]:
        """Return the targets of the cached predictions of `split`. Raises LibraryError when there are none."""
        return files.read_array(self.targets_path(split), mapped=False)

    # profiles

    def profiles(self, device: str, backend: str | None = None) -> dict[str, Profile]:
        """Profiles measured on devices of kind `device` by `backend` (`onnx`, `openvino:bf16`), by member; maybe none.

        Without a backend, by the one that most members were measured with (ties: the first name), for seconds of two
        backends do not compare.
        """
        found = self._all_profiles(device)
        counts = Counter(p.backend for p in found)
        backend = backend or max(sorted(counts), key=lambda name: counts[name], default="")
        return {p.member: p for p in found if p.backend == backend}

    def _all_profiles(self, device: str) -> list[Profile]:
        found, reasons = self._read_profiles(device)
        warn_broken(f"the profiles of {self.path}", reasons)
        return found

    def _read_profiles(self, device: str) -> tuple[list[Profile], list[str]]:
        """Sound profiles, and why others are none: one that is broken does not take the file's others with it."""
        path = self._named("profiles", device)
        if not path.exists():
            return [], []
        try:
            items = files.read_json(path, list[Any])
        except LibraryError as error:
            return [], [str(error)]
        found, reasons = [], []
        for number, item in enumerate(items):
            try:
                found.append(_checked_profile(files.convert(item, Profile)))
            except (msgspec.ValidationError, ValueError) as error:
                reasons.append(f"{path} item {number}: {error_summary(error)}")
        return found, reasons

    def profile_devices(self) -> list[str]:
        """Kinds of device that profiles exist for, sorted."""
        return sorted(p.stem for p in (self.path / "profiles").glob("*.json"))

    def usual_device(self) -> str:
        """Kind of device that most members were measured on (ties: the first name); empty when none was.

        Seconds of two kinds do not compare: what stands on one axis must come from one kind.
        """
        measured = {kind: len(self.profiles(kind)) for kind in self.profile_devices()}
        return max((kind for kind in measured if measured[kind]), key=lambda kind: measured[kind], default="")

    def write_profiles(self, device: str, profiles: Iterable[Profile]) -> Path:
        """Keep profiles of devices of kind `device`, replacing those of the same members by the same backends."""
        merged = {(p.member, p.backend): p for p in (*self._all_profiles(device), *profiles)}
        return self._replace_profiles(device, [merged[key] for key in sorted(merged)])

    def forget_profiles(self, member: str) -> None:
        """Delete the profiles of a member, on all devices."""
        for device in self.profile_devices():
            known = self._all_profiles(device)
            kept = [p for p in known if p.member != member]
            if len(kept) < len(known):
                self._replace_profiles(device, kept)

    def _replace_profiles(self, device: str, profiles: list[Profile]) -> Path:
        path = self._named("profiles", device)
        if self._read_profiles(device)[1]:  # a newer version may still read the rest
            files.set_aside(path)
        files.write_json(path, profiles)
        return path

    # ensembles and allocations

    def write_ensemble(self, ensemble: Ensemble) -> Path:
        """Write an ensemble under its name."""
        return self._write("ensembles", ensemble.name, ensemble)

    def ensemble(self, name: str) -> Ensemble:
        """One ensemble by name. Raises LibraryError that lists the names there are."""
        return self._kept("ensembles", name, Ensemble, command("select", self.path, budget="B"), "select")

    def ensembles(self) -> list[Ensemble]:
        """All ensembles, cheapest budget first."""
        return sorted(self._all("ensembles", Ensemble), key=lambda e: (tuple(e.budget.values()), e.name))

    def write_front(self, front: Front) -> Path:
        """Keep the front of all budgets."""
        path = self.path / "front.json"
        write_over(path, front, Front)
        return path

    def front(self) -> Front | None:
        """Return the front of all budgets, None when there is none yet."""
        return read_or_none(f"the fronts of {self.path}", self.path / "front.json", Front)

    def forget_front(self) -> None:
        """Drop the front; absent is fine."""
        files.remove_file(self.path / "front.json")

    def write_allocation(self, allocation: Allocation) -> Path:
        """Write an allocation under its name."""
        return self._write("allocations", allocation.name, allocation)

    def allocation(self, name: str) -> Allocation:
        """One allocation by name. Raises LibraryError that lists the names there are."""
        return self._kept("allocations", name, Allocation, command("allocate", self.path, "ENSEMBLE"), "allocate")

    def write_cascade(self, ensemble: str, cascade: Cascade) -> Path:
        """Keep what a cascade of an ensemble saves and costs."""
        return self._write("cascades", ensemble, cascade)

    def cascade(self, ensemble: str) -> Cascade | None:
        """Return the cascade last planned for an ensemble; None without one."""
        return read_or_none(f"the cascades of {self.path}", self._named("cascades", ensemble), Cascade)

    def forget_cascade(self, ensemble: str) -> None:
        """Drop the cascade of an ensemble; absent is fine."""
        files.remove_file(self._named("cascades", ensemble))

    def allocations(self) -> list[Allocation]:
        """All allocations, by name."""
        return self._all("allocations", Allocation)

    def _kept(self, folder: str, name: str, kind: type[W], make: str, verb: str) -> W:
        """Read a file by name; `make` is the command for the first one, `verb` the remedy of a broken one."""
        path, noun = self._named(folder, name), folder.removesuffix("s")
        if not path.exists():
            kept = self.ensembles() if kind is Ensemble else self.allocations()
            known = ", ".join(one.name for one in kept) or f"none yet: `{make}`"
            raise LibraryError(f"no {noun} {name!r} in {self.path}; there are: {known}")
        try:
            return _read_named(path, kind)
        except LibraryError as error:
            raise LibraryError(f"{error}: restore it from a copy, or {verb} the ensemble again") from error

    def _all(self, folder: str, kind: type[W]) -> list[W]:
        paths = sorted((self.path / folder).glob("[!.]*.json"))
        return list(read_sound(f"the {folder} of {self.path}", paths, lambda path: _read_named(path, kind)).values())

    def _named(self, folder: str, name: str) -> Path:
        return self.path / folder / f"{plain_name(name)}.json"

    def _write(self, folder: str, name: str, word: Ensemble | Allocation | Cascade) -> Path:
        path = self._named(folder, name)
        write_over(path, word, type(word))
        return path


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return values that change whenever the file changes; None when it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _as_targets(targets: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return targets in the type in which they are kept. Raises LibraryError unless they are those of `task`."""
    return kind_of(task).as_targets(targets, task, kind_of(task).targets_name, LibraryError)


def _small_blocks(predictions: NDArray[Any] | Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield predictions of pixels in blocks of samples that fit in memory."""
    for given in [predictions] if isinstance(predictions, np.ndarray) else predictions:
        yield from (given[block] for block in prediction_blocks(given))


def _equal(known: NDArray[Any], targets: NDArray[Any]) -> bool:
    """Return whether two arrays of targets are equal, without a copy of large ones."""
    if known.shape != targets.shape:
        return False
    numbers = int(np.prod(known.shape[1:]))
    return all(np.array_equal(known[block], targets[block]) for block in sample_blocks(len(known), numbers))


def _truth_name(split: Split) -> str:
    return "truth.npy" if split == "valid" else f"truth-{split}.npy"


def _read_named(path: Path, kind: type[W]) -> W:
    """Read an ensemble or an allocation. Raises LibraryError when it is broken or its name differs from the file's."""
    word = files.read_json(path, kind)
    if word.name != path.stem:
        raise LibraryError(f"{path} is of {word.name!r}, not of {path.stem!r}")
    if isinstance(word, Ensemble):
        for count, what in ((len(word.weights), "weights"), (len(word.temperatures), "temperatures")):
            if count != len(word.members) and (count or what == "weights"):
                raise LibraryError(f"{path} has {len(word.members)} members and {count} {what}")
    return word


def _checked_profile(profile: Profile) -> Profile:
    """Raise ValueError unless each point of a profile, one at least, is a time of a batch."""
    if not profile.points:
        raise ValueError("no points")
    for point in profile.points:
        if point.batch_size < 1 or not 0 < point.seconds < math.inf:
            raise ValueError(f"{point.seconds:g} seconds for a batch of {point.batch_size}")
    return profile


def plain_name(name: str) -> str:
    """`name` if it is a plain file name; LibraryError when it could leave its folder."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise LibraryError(f"{name!r} is not a name: it must not be empty, start with a dot or contain a slash")
    return name
