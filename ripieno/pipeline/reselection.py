"""Bundle and recent labelled samples -> a bundle that fits them better, served only if it is better beyond chance.

One half of the samples selects, under the bundle's own budget and on its own devices; the other half judges. The steps
that change something come last, each whole: the new folder is written under another name and moved, the link is turned
at once, and the server loads the new engine before it drops the old one.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.backend_id import split as split_backend
from ripieno.data.dataset import moments, write_dataset
from ripieno.data.evaluation_data import EvaluationSplit
from ripieno.data.long_table import SeriesColumns
from ripieno.data.sources import ignored_values, names_of
from ripieno.data_kinds import kind_by_axes
from ripieno.errors import LibraryError, RipienoError, SelectionError, system_error
from ripieno.library import Library, read_backend_report, read_bundle, rewrite_bundle
from ripieno.library.bench_records import register_bundle
from ripieno.library.model_card import write_card
from ripieno.pipeline.allocation import allocate
from ripieno.pipeline.bundle_exchange import ServedModel, exchange_commands, next_folder, turn_link
from ripieno.pipeline.coverages import NO_ROWS, coverage_options, fit_all
from ripieno.pipeline.recent_data import RecentData, paired_losses, read_recent
from ripieno.pipeline.recent_predictions import (
    copy_profiles,
    deployed_candidates,
    find_candidates,
    predict_recent,
    stage,
)
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run, refuse_policies
from ripieno.pipeline.selection import select
from ripieno.selection.losses import losses_of
from ripieno.selection.validation import Calibrate, Loss, SelectionMethod, default_method
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Dataset, Device, Ensemble, Floats

STANDARD_ERRORS = 1.64
"""Standard errors that the gain must exceed: of ensembles that are equally good, one in twenty does."""
RECENT = "-recent"
"""End of the name of an ensemble that was selected by recent samples."""


@dataclass(frozen=True)
class Reselection:
    """Result of a re-selection: the new ensemble, the deployed one, and how both do on samples that chose neither."""

    ensemble: Ensemble
    """the new one; its losses `valid_` are of the samples that it was selected by, `test_` of those that judged"""
    deployed: Ensemble
    deployed_path: Path
    """folder of the deployed bundle, which stays as it is"""
    path: Path | None
    """folder of the new bundle; None: none was written"""
    selection_samples: int
    judging_samples: int
    candidates: int
    """members that predicted the recent samples"""
    loss: str
    """name of the loss that is compared"""
    new_loss: float
    """its mean over the samples that judge"""
    deployed_loss: float
    standard_error: float
    """of the difference of both losses, which is paired by sample"""
    new_error: float
    """share of what is wrong on the samples that judge; of values their mean squared error"""
    deployed_error: float
    scores: Mapping[str, float]
    """of the new ensemble on the samples that judge, by metric"""
    deployed_scores: Mapping[str, float]
    differs: bool
    """whether the new ensemble is another one than the deployed"""
    switched: bool = False
    """whether the link was turned to the new folder"""
    reloaded: bool = False
    """whether the server loaded it"""
    switch: tuple[str, ...] = ()
    """commands that serve the new bundle"""
    back: tuple[str, ...] = ()
    """commands that serve the deployed one again"""

    @property
    def gain(self) -> float:
        """Loss of the deployed ensemble less that of the new one."""
        return self.deployed_loss - self.new_loss

    @property
    def is_better(self) -> bool:
        """True if the gain exceeds `STANDARD_ERRORS` standard errors, and no more answers are wrong."""
        # a more cautious ensemble may have a lower loss and yet be wrong more often
        beyond_chance = self.gain > STANDARD_ERRORS * self.standard_error
        return self.differs and beyond_chance and self.new_error <= self.deployed_error


def reselect(
    runs: str | Path | Library | Sequence[str | Path | Library],
    bundle: str | Path,
    recent: Any,
    *,
    server: str | None = None,
    model: str = "ensemble",
    token: str | None = None,
    dry_run: bool = False,
    seed: int = 0,
    split: EvaluationSplit = "all",
    columns: SeriesColumns | None = None,
    target: str | Sequence[str] = (),
    ignore: str | int | Sequence[str | int] = (),
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Reselection:
    """Select the bundle's ensemble again, from the libraries of `runs` and by the `recent` labelled samples.

    `recent` is what `ripieno.evaluate` takes, with `split`, `columns`, `target` and `ignore` as there; samples that a
    run was trained on are left out. All members within the bundle's budget predict them. One half of the samples
    selects, under the budget, on the devices and by the backends of the bundle; the other judges. The new bundle
    is another folder. If `bundle` is a link, it is turned to the new folder, and the `model` of the `server`
    (its URL, with its `token`) is asked to reload, but only if the paired difference of the loss exceeds 1.64 standard
    errors. Otherwise `Reselection.switch` has the commands. With `dry_run` nothing is written but predictions, which
    runs keep.

    Raises DataError for samples of another shape or other classes, or fewer than 50; LibraryError for a folder that is
    no bundle, a bundle without a budget, and a run without members that fit; RipienoError when the server does not
    answer, or does not reload: the deployed bundle is then served on.
    """
    notes = [] if notes is None else notes
    given = [runs] if isinstance(runs, str | Path | Library) else list(runs)
    if not given:
        raise LibraryError("no run is given: pass at least one whose members may be selected")
    libraries = [open_run(run, trusted=trusted) for run in given]
    if len({library.path.resolve() for library in libraries}) < len(libraries):
        raise LibraryError("a run is given twice: pass each once")
    served, deployed = _open(bundle, trusted)
    model_served = _served(server, model, token)
    bounds = dict(deployed.ensemble.budget)
    if not bounds:
        raise LibraryError(
            f"{served} records no budget of its ensemble: allocate one that `ripieno select` wrote, or use reweight"
        )
    device = _cost_device(deployed)
    options = _data_options(split, columns, target, ignore)
    samples = read_recent(recent, deployed, libraries, seed, notes, options)
    candidates = find_candidates(libraries, deployed, bounds, device, progress, notes)
    families = deployed.trusted
    predictions = predict_recent(candidates, samples, families, progress, notes)
    candidates = [candidate for candidate in candidates if candidate.id in predictions]
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        library = stage(Path(folder), candidates, predictions, samples, families)
        _write_recent(library, samples, deployed)
        copy_profiles(candidates, library, deployed.backend)
        ensemble = _select(library, deployed, bounds, _device_name(device), progress, notes)
        result = _judge(ensemble, deployed, predictions, samples, len(candidates))
        if dry_run or not result.differs:
            return _with_commands(result, served, deployed.path, next_folder(deployed.path), model_served)

        backend, precision = _backend(deployed)

        def write(path: Path) -> None:
            written = allocate(
                library,
                ensemble,
                devices=deployed.allocation.devices,
                backend=backend,
                precision=precision,
                bundle=path,
                max_benches=0,
                rate=deployed.allocation.rate,
                trusted=families,
                progress=progress,
            )
            proof = read_backend_report(path)
            # the shares of training, which a correction of shares divides by, are those of the deployed one
            known = dataclasses.replace(written, prior=deployed.prior or written.prior, path=Path())
            write_card(known, libraries[0], path)
            files.write_bytes(path / "bundle.json", files.to_json(known, **({"proof": proof} if proof else {})))

        path = _write_beside(deployed.path, write)
        copy_profiles(candidates, library, deployed.backend, back=True)
    if os.access(libraries[0].path, os.W_OK):
        register_bundle(libraries[0], path)
    if deployed.cascade is not None:
        notes.append(f"{path} has no cascade, the deployed bundle has one: `ripieno cascade` plans it again")
    return _serve(result, served, deployed.path, path, model_served)


def reweight(
    bundle: str | Path,
    recent: Any,
    *,
    server: str | None = None,
    model: str = "ensemble",
    token: str | None = None,
    dry_run: bool = False,
    seed: int = 0,
    split: EvaluationSplit = "all",
    columns: SeriesColumns | None = None,
    target: str | Sequence[str] = (),
    ignore: str | int | Sequence[str | int] = (),
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Reselection:
    """Choose weights of the deployed members alone by the `recent` labelled samples; no run is needed.

    It is `reselect` with the members of the bundle as the library: their placements stay, and a member of weight 0 is
    left out. Weights are repetitions of a greedy selection. A median has none: some members are then chosen. The
    recorded cost stays that of all members, which the new ensemble does not exceed. Arguments and errors are those of
    `reselect`.
    """
    notes = [] if notes is None else notes
    served, deployed = _open(bundle, trusted)
    model_served = _served(server, model, token)
    samples = read_recent(recent, deployed, (), seed, notes, _data_options(split, columns, target, ignore))
    candidates = deployed_candidates(deployed)
    predictions = predict_recent(candidates, samples, deployed.trusted, progress, notes)
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        library = stage(Path(folder), candidates, predictions, samples, deployed.trusted, costs={"members": 1.0})
        _write_recent(library, samples, deployed)
        ensemble = _select(library, deployed, {"members": float(len(candidates))}, "cpu", progress, notes)
        ensemble = dataclasses.replace(ensemble, budget=deployed.ensemble.budget, cost=deployed.ensemble.cost)
        result = _judge(ensemble, deployed, predictions, samples, len(candidates))
        if dry_run or not result.differs:
            return _with_commands(result, served, deployed.path, next_folder(deployed.path), model_served)
        held = set(ensemble.members)
        placements = tuple(p for p in deployed.allocation.placements if p.member in held)
        kept = [i for i, p in enumerate(deployed.allocation.placements) if p.member in held]
        backends = tuple(deployed.allocation.backends[i] for i in kept if deployed.allocation.backends)
        allocation = dataclasses.replace(
            deployed.allocation, name=ensemble.name, ensemble=ensemble.name, placements=placements, backends=backends,
            throughput=None, start_throughput=None, predicted=None, latency=None, shares=(), errors=(), filled=None,
        )  # fmt: skip
        known = {member.id: member for member in deployed.members}
        changed = dataclasses.replace(
            deployed,
            ensemble=ensemble,
            allocation=allocation,
            members=tuple(known[name] for name in ensemble.members),
            cascade=None,
        )
        path = _write_beside(deployed.path, lambda path: rewrite_bundle(changed, library, path))
    if deployed.cascade is not None:
        notes.append(f"{path} has no cascade, the deployed bundle has one: `ripieno cascade` plans it again")
    return _serve(result, served, deployed.path, path, model_served)


def _open(bundle: str | Path, trusted: Sequence[str]) -> tuple[Path, Bundle]:
    """Return the path that is served, and the bundle in the folder that it stands for."""
    served = Path(bundle)
    deployed = read_bundle(served, trusted)
    refuse_policies(deployed.task, "a selection by recent data")
    folder = served.parent / os.readlink(served) if served.is_symlink() else served
    folder = Path(os.path.realpath(folder)) if folder.is_symlink() or ".." in folder.parts else folder
    files.check_writable(folder.parent)
    return served, dataclasses.replace(deployed, path=folder)


def _served(server: str | None, model: str, token: str | None) -> ServedModel | None:
    """Return the served model, which answers. Raises RipienoError when it does not: before the work, not after it."""
    if server is None:
        return None
    found = ServedModel(server, model, token)
    found.check()
    return found


def _data_options(split: EvaluationSplit, columns: SeriesColumns | None, target: Any, ignore: Any) -> dict[str, Any]:
    return {"split": split, "columns": columns, "target": names_of(target), "ignore": ignored_values(ignore)}


def _cost_device(bundle: Bundle) -> Device:
    """Return the device that costs are measured on. Raises LibraryError unless this machine has those of the bundle."""
    from ripieno.profiles import local_devices

    placed = {device.kind: _device_name(device) for device in bundle.allocation.devices}
    for kind, name in placed.items():
        if local_devices(name)[0].kind != kind:
            raise LibraryError(
                f"{bundle.path} is placed on {kind}, which this machine is not: re-select on the machine that serves it"
            )
    return local_devices(next(iter(placed.values())))[0]


def _device_name(device: Device) -> str:
    """Return the device as `select` names it: all parts of a CPU are one."""
    return "cpu" if device.type == "cpu" else device.name


def _backend(bundle: Bundle) -> tuple[str, str]:
    """Return backend and precision with which the bundle was allocated."""
    chosen = {backend for by in bundle.chosen.values() for backend in by.values()}
    if not chosen:
        return split_backend(bundle.backend)
    lowered = any(split_backend(backend)[1] != "fp32" for backend in chosen)
    return "auto", "auto" if lowered else "fp32"


def _write_recent(library: Library, recent: RecentData, bundle: Bundle) -> None:
    """Write the recent samples as the data set of the staged library, by which backends are compared.

    A data set has a sample in each split. No member trains on the one of the train split, which is the first again.
    """
    order = np.concatenate([recent.selection[:1], recent.selection, recent.judging])
    split = np.repeat(np.arange(3, dtype=np.uint8), (1, len(recent.selection), len(recent.judging)))
    inputs = recent.inputs[order]
    mean, std = moments(inputs, np.arange(len(inputs)))
    task, given = bundle.task, bundle.input
    kind = kind_by_axes(given.shape)
    data = Dataset(
        "recent samples", inputs, recent.targets[order], split, task, mean, std, kind,
        range=given.range, columns=given.columns,
    )  # fmt: skip
    write_dataset(data, library.dataset_path)


def _select(
    library: Library,
    bundle: Bundle,
    bounds: Mapping[str, float],
    device: str,
    progress: ProgressFunction,
    notes: list[str],
) -> Ensemble:
    """Select from the staged library as the deployed ensemble was, and fit what it had fitted."""
    old, kind = bundle.ensemble, kind_of(bundle.task)
    method = old.method if old.method in get_args(SelectionMethod) else None
    calibrated = kind.calibrates and old.calibration in get_args(Calibrate)
    (found,) = select(
        library,
        dict(bounds),
        method=None if method == default_method(old.combiner) else cast(SelectionMethod | None, method),
        prune=1.0,
        loss=cast(Loss, old.loss) if old.loss in losses_of(kind) else None,
        combiner=old.combiner,
        calibrate=cast(Calibrate, old.calibration) if calibrated else None,
        cv=0,
        device=device,
        trusted=library.trusted,
        progress=progress,
        notes=notes,
    )
    found = dataclasses.replace(found, name=old.name if old.name.endswith(RECENT) else old.name + RECENT)
    if old.coverage or old.abstain:
        found = _with_coverage(library, found, old, notes)
    library.write_ensemble(found)
    return found


def _with_coverage(library: Library, found: Ensemble, old: Ensemble, notes: list[str]) -> Ensemble:
    """Fit the levels and the rule of abstention of the deployed ensemble again; a note where that is not possible."""
    levels = [coverage.level for coverage in old.coverage]
    score = old.coverage[0].score if old.coverage else None
    per_class = bool(old.coverage) and old.coverage[0].per_class
    try:
        asked = coverage_options(levels, score, per_class, old.abstain.error if old.abstain else None)
        return fit_all(library, [found], asked, NO_ROWS, notes)[0]
    except SelectionError as error:
        notes.append(f"the new ensemble has no coverage and no rule of abstention: {error}")
        return found


def _judge(
    ensemble: Ensemble,
    deployed: Bundle,
    predictions: Mapping[str, NDArray[Any]],
    recent: RecentData,
    candidates: int,
) -> Reselection:
    """Compare both ensembles on the samples that judge."""
    task, old = deployed.task, deployed.ensemble
    kind, targets = kind_of(task), recent.targets[recent.judging]

    def figures(one: Ensemble) -> tuple[str, Floats, float, dict[str, float]]:
        combined = combine_calibrated([predictions[m][recent.judging] for m in one.members], one, kind)
        name, losses = paired_losses(one.loss, combined, targets, task)
        # of values, the loss itself is their error
        error = losses if kind.activation == "identity" else kind.errors(combined, targets, one.thresholds)
        return name, losses, float(error.mean()), dict(kind.scores(combined, targets, task, one.thresholds))

    loss, new, error, scores = figures(dataclasses.replace(ensemble, loss=old.loss))
    _, before, old_error, old_scores = figures(old)
    difference = before - new
    return Reselection(
        ensemble=ensemble,
        deployed=old,
        deployed_path=deployed.path,
        path=None,
        selection_samples=len(recent.selection),
        judging_samples=len(recent.judging),
        candidates=candidates,
        loss=loss,
        new_loss=float(new.mean()),
        deployed_loss=float(before.mean()),
        standard_error=float(difference.std(ddof=1)) / math.sqrt(len(difference)),
        new_error=error,
        deployed_error=old_error,
        scores=scores,
        deployed_scores=old_scores,
        differs=_identity(ensemble) != _identity(old),
    )


def _identity(ensemble: Ensemble) -> object:
    """Return what predictions depend on."""
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    members = sorted(zip(ensemble.members, ensemble.weights, temperatures, strict=True))
    combiner = "mean" if ensemble.combiner == "weighted" else ensemble.combiner
    return members, ensemble.temperature, combiner, ensemble.thresholds


def _write_beside(current: Path, write: Any) -> Path:
    """Write a bundle by `write(path)` next to the folder `current`, and move it to its name when it is complete."""
    path = next_folder(current)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.rename(temporary, path)
    except OSError as error:
        raise RipienoError(system_error(error, "write", path)) from error
    finally:
        files.remove_tree(temporary)
    return path


def _with_commands(
    result: Reselection, served: Path, current: Path, path: Path, server: ServedModel | None
) -> Reselection:
    """Add the commands that serve the new bundle, and those that go back."""
    switch = exchange_commands(served, path, server)
    former = current if served.is_symlink() else next_folder(path)
    back = exchange_commands(served, former, server, linked=True)
    return dataclasses.replace(result, switch=switch, back=back)


def _serve(result: Reselection, served: Path, current: Path, path: Path, server: ServedModel | None) -> Reselection:
    """Turn the link and ask the server to reload, if the new ensemble is better; undo it if the server cannot."""
    result = dataclasses.replace(_with_commands(result, served, current, path, server), path=path)
    if not result.is_better or not served.is_symlink():
        return result
    turn_link(served, path)
    if server is not None:
        try:
            server.reload()
        except RipienoError as error:
            turn_link(served, current)
            raise RipienoError(f"{error} {served} is {current.name} as before; the new bundle is {path}.") from error
    return dataclasses.replace(result, switched=True, reloaded=server is not None)
