"""Members that can still win on recent samples, and their predictions of these, kept in their run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import backends, files
from ripieno.backends import Backend
from ripieno.backends.backend_id import HALF, MODEL, QUANTISED, WEIGHTS
from ripieno.data.dataset import BATCH, batches
from ripieno.errors import EngineError, LibraryError, MissingExtraError, ModelError, SelectionError
from ripieno.library import Library
from ripieno.library.evaluate import open_member
from ripieno.models.backbone_id import BACKBONES
from ripieno.pipeline.costs import cost_table, ensure_profiles
from ripieno.pipeline.recent_data import RecentData
from ripieno.pipeline.runs import ProgressFunction
from ripieno.resources import usable_cores
from ripieno.selection.costs import ROUNDING
from ripieno.shell_command import command
from ripieno.tasks.pixels import BLOCK
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Device, Member

MOST = 200
"""Members of a run that predict recent samples, those of the lowest validation losses."""
MEASURED_SHARE = 0.2
"""Share of a run whose missing costs are measured: that of `select`."""
RUNNERS = {MODEL: "onnx", WEIGHTS: "torch", HALF: "onnx:fp16", QUANTISED: "onnx:int8"}
"""Backends that run a member's file on the CPU, the first file that it has."""
FAILURES = (EngineError, ModelError, MissingExtraError, LibraryError)


@dataclass(frozen=True)
class RecentCandidate:
    """A member that may be part of the new ensemble."""

    id: str
    """among all candidates; that of the deployed bundle where it is one of its members"""
    member: Member
    """as its run or bundle describes it"""
    root: Path
    """folder of its run or bundle"""
    library: Library | None
    """its run; None for a deployed member that no run has"""

    @property
    def files(self) -> Path:
        """Folder of its models."""
        return self.root / ("members" if self.library is None else "library") / self.member.id


def deployed_candidates(bundle: Bundle) -> list[RecentCandidate]:
    """Return the members of a bundle's ensemble, in its order."""
    known = {member.id: member for member in bundle.members}
    return [RecentCandidate(name, known[name], bundle.path, None) for name in bundle.ensemble.members]


def find_candidates(
    libraries: Sequence[Library],
    bundle: Bundle,
    bounds: Mapping[str, float],
    device: Device,
    progress: ProgressFunction,
    notes: list[str],
) -> list[RecentCandidate]:
    """Return the deployed members, then those of all libraries that fit the budget `bounds` alone.

    A member that is not the bundle's keeps its id unless another has it: then the name of its run precedes it. Missing
    costs of the best members are measured on `device`. Raises LibraryError or SelectionError for a library that has
    no member of the bundle's task and input, or none that can be run and has a cost.
    """
    found = {candidate.id: candidate for candidate in deployed_candidates(bundle)}
    for library in libraries:
        fitting = [m for m in library.members() if (m.input, m.task) == (bundle.input, bundle.task)]
        if not fitting:
            raise LibraryError(
                f"{library.path} has no member with the input {list(bundle.input.shape)} {bundle.input.dtype} and the "
                f"task of {bundle.path}: give the runs that searched for this task"
            )
        runnable = [m for m in fitting if m.format != "predictions"]
        if not runnable:
            raise LibraryError(f"{library.path} holds only predictions, which cannot answer recent inputs")
        ensure_profiles(library, tuple(bounds), MEASURED_SHARE, device, progress=progress)
        try:
            costs = cost_table(library, tuple(bounds), device.kind)
        except SelectionError:
            if all(_find_deployed(found, member) is None for member in runnable):
                raise
            costs = None
        ranked = sorted(runnable, key=lambda m: (m.loss, m.id))
        alone = {kind: {} if costs is None else costs.alone(kind) for kind in bounds}
        unknown = [m for m in ranked if any(m.id not in known for known in alone.values())]
        if unknown:
            measure = command("measure", library.path, prune=1)
            notes.append(f"{len(unknown)} of {len(ranked)} members of {library.path} have no cost and are left out: "
                         f"`{measure}` measures all that can be run")  # fmt: skip
        within = [
            m for m in ranked
            if all(alone[kind].get(m.id, np.inf) <= bound * (1 + ROUNDING) for kind, bound in bounds.items())
        ]  # fmt: skip
        for member in runnable:
            if (own := _find_deployed(found, member)) is not None:
                found[own] = RecentCandidate(own, member, library.path, library)
        for member in within[:MOST]:
            if _find_deployed(found, member) is None:
                name = _free_name(library, member, found)
                found[name] = RecentCandidate(name, member, library.path, library)
    return list(found.values())


def _find_deployed(found: Mapping[str, RecentCandidate], member: Member) -> str | None:
    """Return the id of the same network among the candidates; None where it is not one of them."""
    for name, candidate in found.items():
        if (name == member.id or name.endswith(f"-{member.id}")) and _origin(candidate.member) == _origin(member):
            return name
    return None


def _origin(member: Member) -> tuple[object, ...]:
    """Return what stays the same of a member in its run and in bundles."""
    return member.created, member.family, member.trial, member.epoch, dict(member.configuration), member.parameters


def _free_name(library: Library, member: Member, found: Mapping[str, RecentCandidate]) -> str:
    if member.id not in found:
        return member.id
    run = re.sub(r"[^\w.-]", "-", library.path.resolve().name)
    names = (f"{run}{number or ''}-{member.id}" for number in range(len(found) + 1))
    return next(name for name in names if name not in found)


def predict_recent(
    candidates: Sequence[RecentCandidate],
    recent: RecentData,
    trusted: Sequence[str],
    progress: ProgressFunction,
    notes: list[str],
) -> dict[str, NDArray[Any]]:
    """Return the predictions (samples, *task.output) of recent inputs by the candidates that can be run, by id.

    Those of a run's members are kept in RUN/recent/FINGERPRINT, and read from there while the member's files are older.
    Raises EngineError where a deployed member, which no run has, cannot be run.
    """
    found: dict[str, NDArray[Any]] = {}
    reasons: dict[str, str] = {}
    for done, candidate in enumerate(candidates):
        progress("predicting recent samples", done, len(candidates))
        try:
            found[candidate.id] = _kept_or_predicted(candidate, recent, trusted)
        except FAILURES as error:
            if candidate.library is None:
                raise EngineError(f"the deployed member {candidate.id} cannot be run: {error}") from error
            reasons[candidate.id] = str(error)
    progress("predicting recent samples", len(candidates), len(candidates))
    if reasons:
        first, why = next(iter(reasons.items()))
        more = f" and {len(reasons) - 1} more members" if len(reasons) > 1 else ""
        notes.append(f"{first}{more} cannot be run and are left out: {why}")
    return found


def _kept_or_predicted(candidate: RecentCandidate, recent: RecentData, trusted: Sequence[str]) -> NDArray[Any]:
    library, task = candidate.library, candidate.member.task
    if library is None:
        return _predict(_open_deployed(candidate, trusted), candidate, recent.inputs)
    path = library.recent_path(recent.fingerprint, candidate.member.id)
    if _is_current(path, candidate.files):
        try:
            kept = files.read_array(path)
            if kept.shape == (len(recent.inputs), *task.output):
                return kept
        except LibraryError:  # it can be predicted again
            pass
    predictions = _predict(open_member(library, candidate.member.id), candidate, recent.inputs)
    if os.access(library.path, os.W_OK):
        files.write_array(path, predictions)
    return predictions


def _is_current(path: Path, models: Path) -> bool:
    """Return whether the file exists and is not older than any model."""
    stamps = [(models / name).stat().st_mtime_ns for name in RUNNERS if (models / name).exists()]
    return path.exists() and path.stat().st_mtime_ns >= max(stamps, default=0)


def _open_deployed(candidate: RecentCandidate, trusted: Sequence[str]) -> Backend:
    """Load a member from its bundle on the CPU."""
    held = [name for name in RUNNERS if (candidate.files / name).exists()]
    if not held:
        raise EngineError(f"{candidate.files} holds no model")
    threads, device = len(usable_cores()), Device("cpu:0", "cpu", 0)
    member = candidate.member
    return backends.load(RUNNERS[held[0]], candidate.files / held[0], member, device, threads, trusted)


def _predict(runner: Backend, candidate: RecentCandidate, inputs: NDArray[Any]) -> NDArray[Any]:
    task = candidate.member.task
    kind = kind_of(task)
    size = max(1, BLOCK // int(np.prod(task.output))) if kind.is_pixelwise else BATCH
    try:
        parts = [runner.infer(part) for part in batches(inputs, np.arange(len(inputs)), min(BATCH, size))]
    finally:
        runner.close()
    return np.concatenate([kind.read_predictions(candidate.id, part, task, LibraryError) for part in parts])


def stage(
    folder: Path,
    candidates: Sequence[RecentCandidate],
    predictions: Mapping[str, NDArray[Any]],
    recent: RecentData,
    trusted: Sequence[str],
    costs: Mapping[str, float] | None = None,
) -> Library:
    """Write a library of the candidates with `predictions` into `folder`, whose models are links.

    Its validation samples are those to select by, its test samples those to judge by. `costs` replace the imported
    ones.
    """
    library = Library(folder, trusted)
    valid, judged = recent.selection, recent.judging
    for candidate in candidates:
        if candidate.id not in predictions:
            continue
        own, task = predictions[candidate.id], candidate.member.task
        losses = kind_of(task).losses(own[valid], recent.targets[valid], task)
        member = dataclasses.replace(candidate.member, id=candidate.id, losses=losses, temperature=None)
        if costs is not None:
            member = dataclasses.replace(member, costs=dict(costs))
        library.add(member, np.asarray(own[valid]), recent.targets[valid])
        library.write_predictions(candidate.id, "test", np.asarray(own[judged]), recent.targets[judged])
        for name in RUNNERS:
            if (source := candidate.files / name).exists():
                (library.member_path(candidate.id) / name).symlink_to(source.resolve())
        for source in (candidate.root / BACKBONES).glob("[!.]*"):
            target = folder / BACKBONES / source.name
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                target.symlink_to(source.resolve())
    return library


def copy_profiles(candidates: Sequence[RecentCandidate], library: Library, backend: str, *, back: bool = False) -> None:
    """Copy the measured costs of the candidates from their runs to the staged `library`; with `back`, new ones back."""
    for run in {c.library.path: c.library for c in candidates if c.library is not None}.values():
        names = {c.member.id: c.id for c in candidates if c.library is not None and c.library.path == run.path}
        names |= {c.member.backbone: c.member.backbone for c in candidates if c.member.backbone}
        source, target = (library, run) if back else (run, library)
        if back:
            names = {staged: own for own, staged in names.items()}
            if not os.access(run.path, os.W_OK):
                continue
        for device in source.profile_devices():
            for one in (None, backend):
                known = source.profiles(device, one)
                there = target.profiles(device, next((p.backend for p in known.values()), backend))
                new = [
                    dataclasses.replace(profile, member=names[name])
                    for name, profile in known.items()
                    if name in names and names[name] not in there
                ]
                if new:
                    target.write_profiles(device, new)
