"""A deployment (bundle): a self-contained folder that can be copied.

BUNDLE/bundle.json           the ensemble, its allocation, input, task, members, backends and their report
BUNDLE/validation.json       distributions over the validation samples, for `serve --watch`
BUNDLE/bench.json            its benchmark results
BUNDLE/README.md             the model card: scores, members, costs, data, how it was made, licence
BUNDLE/members/ID/           files of its backends: weights.safetensors, model.onnx, model-fp16.onnx, model-int8.onnx
BUNDLE/backbones/            backbones that members share, each once (`ripieno.backends.network_part`), and their origin
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from ripieno import files
from ripieno.backends.backend_id import file_of
from ripieno.backends.network_part import backbone_file
from ripieno.deprecation import warn_renamed
from ripieno.errors import EngineError, LibraryError
from ripieno.library.bench_records import register_bundle
from ripieno.library.command_record import refuse_command_run
from ripieno.library.library import Library, plain_name
from ripieno.library.model_card import write_card
from ripieno.library.validation_statistics import write_statistics
from ripieno.models.backbone_id import BACKBONES, parse_backbone_id
from ripieno.shell_command import command
from ripieno.tasks.conformal import check_coverage
from ripieno.tasks.registry import check_task, kind_of
from ripieno.tasks.uncertainty_outputs import check_uncertainty
from ripieno.types import Allocation, Bundle, Ensemble, Task


@dataclass(frozen=True)
class BackendChoice:
    """Backend of a member on a device, and its predictions on validation images compared with the fp32 reference."""

    member: str
    device: str
    """name of the device: `cpu:0`"""
    backend: str
    """such as `onnx` or `openvino:bf16`: see `ripieno.backends.backend_id`"""
    reference: str
    """`onnx`, or `torch` for a member without an ONNX file"""
    batch_size: int
    threads: int
    seconds: float
    """for a batch of that size with that many threads"""
    reference_seconds: float
    difference: float
    """largest difference of a prediction: see `ripieno.backends.difference`"""
    loss: float
    """the ranking loss on validation samples"""
    reference_loss: float
    refused: Mapping[str, str] = field(default_factory=dict)
    """backends that were faster or requested, and the reasons for their rejection"""


class BackendReport(msgspec.Struct, frozen=True):
    """Effect of the chosen backends: on each member, and on the ensemble's validation scores."""

    choices: tuple[BackendChoice, ...] = msgspec.field(name="fits")  # the key in JSON
    samples: int
    """number of validation images used; none of them calibrated a network"""
    loss: float
    """the ensemble's ranking loss with the chosen backends"""
    reference_loss: float
    """its loss with the reference backends"""
    score: float
    """the default metric of the kind of task"""
    reference_score: float

    @property
    def accuracy(self) -> float:
        """Former name of `score`."""
        warn_renamed("BackendReport.accuracy", "score")
        return self.score

    @property
    def reference_accuracy(self) -> float:
        """Former name of `reference_score`."""
        warn_renamed("BackendReport.reference_accuracy", "reference_score")
        return self.reference_score

    @property
    def fits(self) -> tuple[BackendChoice, ...]:
        """Former name of `choices`."""
        warn_renamed("BackendReport.fits", "choices")
        return self.choices


def backend_of(bundle: Bundle, member: str, device: str) -> str:
    """Return the backend of `member` on `device`, both by name."""
    return bundle.chosen.get(member, {}).get(device, bundle.backend)


def model_path(bundle: Bundle, member: str, device: str | None = None) -> Path:
    """Return the path of a member's file for `device`, by default the first device it is placed on."""
    if device is None:
        device = next((p.device for p in bundle.allocation.placements if p.member == member), "")
    return bundle.path / "members" / member / file_of(backend_of(bundle, member, device))


def files_of(bundle: Bundle, member: str) -> tuple[str, ...]:
    """Return the names of a member's files for the devices it is placed on. Raises EngineError as `file_of`."""
    backends = {backend_of(bundle, member, p.device) for p in bundle.allocation.placements if p.member == member}
    return tuple(sorted({file_of(backend) for backend in backends or {bundle.backend}}))


def model_files(bundle: Bundle) -> tuple[str, ...]:
    """Return the paths of all model files, of members and of their shared backbones, relative to the bundle's folder.

    Raises EngineError as `file_of`, LibraryError for the name of a member or a backbone that is none.
    """
    known = {member.id: member for member in bundle.members}
    paths: dict[str, None] = {}
    for name in bundle.ensemble.members:
        for file in files_of(bundle, name):
            path = Path("members", plain_name(name), file)
            paths[str(path)] = None
            if known[name].backbone:
                # relative to an absolute folder, because the backbone is two folders up
                paths[str(backbone_file(Path("/") / path, known[name]).relative_to("/"))] = None
    return tuple(paths)


def _copy_models(bundle: Bundle, source: Path, target: Path, members: str = "members") -> None:
    """Copy model files, and the records of the backbones' origin; `members` is the folder of members in `source`."""
    stems = sorted({parse_backbone_id(member.backbone).stem for member in bundle.members if member.backbone})
    records = [f"{BACKBONES}/{stem}.json" for stem in stems if (source / BACKBONES / f"{stem}.json").exists()]
    for name in (*model_files(bundle), *records):
        files.copy_file(source / _source_name(name, members), target / name)


def _source_name(name: str, members: str) -> str:
    return f"{members}/{name.removeprefix('members/')}" if name.startswith("members/") else name


def check_target(path: Path) -> None:
    """Raise LibraryError when no bundle can be written into `path`: it has other content, or is no folder."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise LibraryError(f"{existing} is a file; choose another folder for the bundle")
    files.check_writable(existing)
    if existing == path and any(path.iterdir()) and not (path / "bundle.json").exists():
        raise LibraryError(f"{path} is not empty and holds no bundle; choose another folder")


def write_bundle(
    library: Library,
    ensemble: Ensemble,
    allocation: Allocation,
    backend: str,
    path: Path,
    proof: BackendReport | None = None,
) -> Bundle:
    """Copy an ensemble's members and its allocation into the folder `path`; `bundle.json` is written last.

    Members are run by `backend`, or as in `proof`. An existing bundle is replaced, and its benchmark results are
    removed. Raises LibraryError as `check_target`, when a member has no file for its backend, or the members differ in
    input or task.
    """
    check_target(path)
    members = tuple(library.member(m) for m in ensemble.members)
    for member in members:
        if (member.input, member.task) != (members[0].input, members[0].task):
            pair = f"{member.id} and {members[0].id}"
            raise LibraryError(f"{pair} differ in input or task; they cannot be combined")
    prior = _class_shares(library, members[0].task)
    chosen: dict[str, dict[str, str]] = {}
    for fit in proof.choices if proof else ():
        chosen.setdefault(fit.member, {})[fit.device] = fit.backend
    bundle = Bundle(
        ensemble, allocation, members, members[0].input, members[0].task, backend, chosen=chosen, prior=prior
    )
    for name in model_files(bundle):
        if not (library.path / _source_name(name, "library")).exists():
            owner, _, file = name.removeprefix("members/").partition("/")
            raise LibraryError(f"{owner} has no {file}, which the {backend} backend needs")
    _copy_models(bundle, library.path, path, "library")
    files.remove_file(path / "bench.json")  # of the previous deployment
    write_statistics(library, bundle, path)
    write_card(bundle, library, path)
    files.write_bytes(path / "bundle.json", files.to_json(bundle, **({"proof": proof} if proof else {})))
    register_bundle(library, path)
    return replace(bundle, path=path, trusted=library.trusted)


def _class_shares(library: Library, task: Task) -> tuple[float, ...]:
    """Return the share of each class among the validation samples; empty where they are not known, or of other tasks.

    Splits are stratified: they are also the shares of the training samples.
    """
    kind = kind_of(task)
    if kind.activation != "softmax" or kind.is_pixelwise or not library.targets_path("valid").exists():
        return ()
    counts = np.bincount(library.targets(), minlength=len(task.names))
    return tuple((counts / counts.sum()).tolist())


def rewrite_bundle(bundle: Bundle, library: Library, path: Path | None = None) -> Bundle:
    """Write a changed bundle, with its card and its report, into the folder `path`, by default its own.

    In another folder its members are copied, and an existing bundle is replaced. Raises LibraryError as `check_target`.
    """
    proof = read_backend_report(bundle.path)
    path = bundle.path if path is None else path
    if path.resolve() != bundle.path.resolve():
        check_target(path)
        _copy_models(bundle, bundle.path, path)
        files.remove_file(path / "bench.json")
    write_statistics(library, bundle, path)
    write_card(bundle, library, path)
    stored = files.to_json(replace(bundle, path=Path()), **({"proof": proof} if proof else {}))
    files.write_bytes(path / "bundle.json", stored)
    register_bundle(library, path)
    return replace(bundle, path=path)


def read_bundle(path: str | Path | Bundle, trusted: Iterable[str] = ()) -> Bundle:
    """Read a deployment, which then holds the `trusted` families too; a Bundle is not read again.

    Raises LibraryError when the folder is no bundle or a member's file is missing.
    """
    if isinstance(path, Bundle):
        return replace(path, trusted=(*path.trusted, *trusted))
    path = Path(path)
    if not (path / "bundle.json").exists():
        refuse_command_run(path)
        if (path / "library").is_dir():
            remedy = f"make a bundle of it with `{command('allocate', path, 'ENSEMBLE', bundle='bundle')}`"
            raise LibraryError(f"{path} is no bundle but a run; {remedy}")
        remedy = f"make one with `{command('allocate', 'RUN', 'ENSEMBLE', bundle=path)}`"
        raise LibraryError(f"{path} is no bundle (it has no bundle.json); {remedy}")
    try:
        bundle = replace(
            files.read_json(path / "bundle.json", Bundle), path=path, trusted=tuple(trusted)
        )  # what the file trusts does not count
        _check_parts(bundle)
    except LibraryError as error:
        raise LibraryError(f"{error}; copy the whole bundle again, or allocate it again") from error
    try:
        names = model_files(bundle)
    except LibraryError as error:
        raise LibraryError(f"{path / 'bundle.json'} names a file outside the bundle: {error}") from error
    except EngineError as error:
        raise LibraryError(f"{path} cannot be run: {error}") from error
    for name in names:
        if not (path / name).is_file():
            raise LibraryError(f"{path / name} is missing, or no file; copy the whole bundle again")
    return bundle


def _check_parts(bundle: Bundle) -> None:
    """Raise LibraryError unless the parts of a `bundle.json` are consistent."""
    names, weights = bundle.ensemble.members, bundle.ensemble.weights
    placed = {p.member for p in bundle.allocation.placements}
    devices, used = {d.name for d in bundle.allocation.devices}, {p.device for p in bundle.allocation.placements}
    alike = all((m.input, m.task) == (bundle.input, bundle.task) for m in bundle.members)
    shape, dtype = bundle.input.shape, bundle.input.dtype
    rules = (
        (len(names) > 0, "its ensemble has no members"),
        (len(weights) == len(names), "its ensemble has a different number of weights than of members"),
        (
            len(bundle.ensemble.temperatures) in (0, len(names)),
            "its ensemble has a different number of temperatures than of members",
        ),
        ({m.id for m in bundle.members} >= set(names), "it does not describe all members of its ensemble"),
        (placed >= set(names), "its allocation does not place all members of its ensemble"),
        (devices >= used, "its allocation places members on devices that it does not describe"),
        (alike, "its members have another input or another task than the bundle"),
        (dtype in ("uint8", "float32"), f"its input is of {dtype!r}, not uint8 or float32"),
        (len(shape) > 0 and min(shape) > 0, f"its input has shape {list(shape)}, which holds no sample"),
        (min(weights, default=0) >= 0 < sum(weights), "the weights of its ensemble must be 0 or more, and not all 0"),
    )
    for holds, message in rules:
        if not holds:
            raise LibraryError(f"{bundle.path / 'bundle.json'} is inconsistent: {message}")
    where = f"{bundle.path / 'bundle.json'} is inconsistent"
    check_task(bundle.task, where, LibraryError)
    if kind_of(bundle.task).is_pixelwise and bundle.task.output[:2] != shape[:2]:
        raise LibraryError(f"{where}: its masks have {bundle.task.output[:2]} pixels, its input has {shape[:2]}")
    if len(bundle.prior) not in (0, len(bundle.task.names)):
        raise LibraryError(f"{where}: it has shares of other classes than those of its task")
    _check_ensemble(bundle.ensemble, bundle.task, where)


def _check_ensemble(ensemble: Ensemble, task: Task, where: str) -> None:
    """Raise LibraryError, naming `where`, unless combiner, temperatures and thresholds fit the task."""
    kind = kind_of(task)
    if ensemble.combiner not in kind.combiners:
        raise LibraryError(f"{where}: its combiner is {ensemble.combiner!r}, must be {' or '.join(kind.combiners)}")
    if not kind.calibrates and {*ensemble.temperatures, ensemble.temperature} != {1.0}:
        raise LibraryError(f"{where}: its ensemble has temperatures, which a {task.kind} task does not have")
    if len(ensemble.thresholds) not in (0, len(task.names)):
        raise LibraryError(
            f"{where}: its ensemble has {len(ensemble.thresholds)} thresholds, must be none or {len(task.names)}"
        )
    if not all(0 <= threshold <= 1 for threshold in ensemble.thresholds):
        raise LibraryError(f"{where}: its thresholds are {list(ensemble.thresholds)}, must be 0 to 1")
    for coverage in ensemble.coverage:
        check_coverage(coverage, task, where, LibraryError)
    check_uncertainty(ensemble, task, where, LibraryError)


@dataclass(frozen=True)
class _Proven:
    proof: BackendReport | None = None


def read_backend_report(bundle: str | Path) -> BackendReport | None:
    """Read a bundle's backend report; None when its backends were not chosen by measurement. Raises LibraryError."""
    return files.read_json(Path(bundle) / "bundle.json", _Proven).proof
