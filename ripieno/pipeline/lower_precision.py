"""Library -> variants: members in lower precision and distilled ones, with predictions and costs of their own.

A variant is an ONNX file of another member's network, in fp16 or int8. It is a member like any other: selection trades
its smaller file and its time against what it predicts worse. Files in int8 are calibrated on training samples, so that
validation judges a variant as it judges its source. A distilled member is a network trained on an ensemble's
predictions: see `ripieno.pipeline.distillation`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno import clock, files
from ripieno.backends.quantise import write_fp16, write_int8, write_int8_openvino
from ripieno.data.dataset import find_dataset, spread_rows
from ripieno.errors import LibraryError, RipienoError, require
from ripieno.library import Library
from ripieno.library.import_models import predict_validation
from ripieno.library.import_predictions import NO_TRIAL, as_stored
from ripieno.pipeline import distillation
from ripieno.pipeline.costs import export_members, selection_candidates
from ripieno.pipeline.distillation import DistillationConfig
from ripieno.pipeline.runs import ProgressFunction, folds_of, no_progress, open_run, refuse_policies, task_of
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Member

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRECISIONS = ("fp16", "int8")
"""Precisions of variants, where the user names none."""
OPENVINO = "int8-openvino"
"""int8 by OpenVINO's quantiser, of the extra `nncf`."""
DISTILLED = "distilled"
"""Form of a variant that is a network trained on a teacher's predictions."""
CALIBRATION = 256
"""Training samples that int8 is calibrated on, at most."""


@dataclass(frozen=True)
class Variant:
    """A member in lower precision, or a distilled one."""

    source: Member
    precision: str
    """`fp16`, `int8`, `int8-openvino` or `distilled`"""
    member: Member | None
    """None where the network has no such form, or where the distilled one did not win"""
    added: bool
    """whether the library did not have it before"""
    reason: str = ""
    """why there is no member; of a distilled one also by how much it won"""


def variants(
    run: str | Path | Library,
    precisions: Sequence[str] = PRECISIONS,
    *,
    prune: float = 0.2,
    distil: bool | DistillationConfig = False,
    progress: ProgressFunction = no_progress,
) -> tuple[Variant, ...]:
    """Add the best members of `run` in lower `precisions` to its library; return them, in the order of their sources.

    `precisions` are `fp16`, `int8`, and `int8-openvino` by OpenVINO's quantiser. The sources are the networks that
    `select` considers with the same `prune`. A variant is called after its source, `00042-e027-int8`. Existing ones
    stay, unless their source was made again since.

    With `distil`, a small network is trained on an ensemble's predictions of the training samples first. It becomes a
    member, `00042-e027-distilled`, where its validation loss is below that of the same network trained on the targets
    for as much time. It is the first variant returned. Interrupted trainings resume.

    Raises LibraryError where no member can have variants, RipienoError while the run is searched.
    """
    library = open_run(run, writing=True)
    refuse_policies(task_of(library), "a variant")
    for precision in precisions:
        if precision not in (*PRECISIONS, OPENVINO):
            known = ", ".join((*PRECISIONS, OPENVINO))
            raise LibraryError(f"unknown precision {precision!r}: expected one of {known}")
        if precision == OPENVINO:
            require("nncf")
    if not 0 < prune <= 1:
        raise LibraryError(f"prune {prune:g} is not valid: it must be a share of the library, above 0 and at most 1")
    with files.locked(library.path / "lock", "a search or variants"):
        sources = find_sources(library, prune)
        dataset = find_dataset(library.dataset_path)
        if dataset is None or not len(dataset.rows("train")):
            raise LibraryError(f"{library.path} has no training samples to make variants with")
        made: list[Variant] = []
        if distil:
            config = DistillationConfig() if distil is True else distil
            result = distillation.distil(library, config, prune, progress)
            reason = result.record.describe(result.student.id)
            made.append(Variant(result.student, DISTILLED, result.member, result.added, reason))
            sources = find_sources(library, prune)
        calibration = np.asarray(dataset.inputs[spread_rows(dataset.rows("train"), CALIBRATION)])
        reasons: dict[str, RipienoError] = {}
        sources = sources if precisions else []
        export_members(library, sources, progress, failed=reasons.__setitem__)
        wanted = [(source, precision) for source in sources for precision in precisions]
        for number, (source, precision) in enumerate(wanted):
            progress("making variants", number, len(wanted))
            if source.id in reasons:
                made.append(Variant(source, precision, None, False, str(reasons[source.id])))
            else:
                made.append(_make(library, source, precision, dataset, calibration))
        if wanted:
            progress("making variants", len(wanted), len(wanted))
    return tuple(made)


def find_sources(library: Library, prune: float) -> list[Member]:
    """Return the members that variants are made of. Raises LibraryError, with the reason, where there are none."""
    if folds_of(library):
        raise LibraryError(
            f"{library.path} validates by folds, whose models are not kept: no variant can be judged. "
            "Search in another run without --folds"
        )
    members = selection_candidates(library, prune)
    found = [m for m in members if m.format != "predictions" and not m.backbone and not _is_lower(m)]
    if not found:
        reason = "no members" if not members else "only predictions, heads of shared backbones, or variants"
        raise LibraryError(f"{library.path} has {reason}: variants are made of networks of their own")
    return found


def _is_lower(member: Member) -> bool:
    """Return whether `member` is in lower precision already; distilled networks are not."""
    return bool(member.variant_of) and member.format == "onnx"


def _make(library: Library, source: Member, precision: str, dataset: Dataset, calibration: NDArray[Any]) -> Variant:
    name = f"{source.id}-{precision}"
    known = {member.id: member for member in library.members()}.get(name)
    if known is not None and known.variant_of != source.id:
        return Variant(source, precision, None, False, f"the library has another member {name}")
    if known is not None and known.created >= source.created:
        return Variant(source, precision, known, False)
    write: dict[str, Callable[[Path, Path], None]] = {
        "fp16": write_fp16,
        "int8": lambda original, target: write_int8(original, target, calibration),
        OPENVINO: lambda original, target: write_int8_openvino(original, target, calibration),
    }
    rows = dataset.rows("valid")
    member = dataclasses.replace(
        source,
        id=name,
        trial=NO_TRIAL,
        epoch=0,
        family="onnx",
        configuration={},
        losses={},
        seconds=0.0,
        curve=(),
        created=clock.now(),
        format="onnx",
        costs={},
        temperature=None,
        averaged=(),
        variant_of=source.id,
    )
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            write[precision](library.onnx_path(source.id), path)
            predictions = predict_validation("onnx", path, member, dataset, notes=[])
        except RipienoError as error:
            return Variant(source, precision, None, False, str(error))
        targets, kind = np.asarray(dataset.targets[rows]), kind_of(dataset.task)
        member = dataclasses.replace(member, losses=kind.losses(predictions, targets, dataset.task))
        library.add(member, as_stored(predictions, kind.is_pixelwise), targets, path.read_bytes())
    return Variant(source, precision, member, True)
