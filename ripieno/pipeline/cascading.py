"""Bundle -> the same bundle with a cascade (early exit): order of members and threshold, set on validation data."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.backend_id import split as split_id
from ripieno.data.dataset import batches, find_dataset
from ripieno.errors import EngineError, LibraryError
from ripieno.library import Library, read_bundle, rewrite_bundle
from ripieno.library.bundle import backend_of, check_target
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run, refuse_policies
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.pixels import BLOCK, prediction_blocks
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import DISABLED, TOLERANCE, Bundle, Cascade, Split, Task

BATCH = 256
LARGE = 0.1
"""Share of an ensemble's own loss; a larger tolerance gives a warning."""


def cascade(
    run: str | Path | Library,
    bundle: str | Path,
    *,
    tolerance: float | None = TOLERANCE,
    output: str | Path | None = None,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> tuple[Bundle, Cascade]:
    """Add early exit to a bundle of `run`: members run one after another, each on the samples still undecided.

    Members are ordered by their benefit per measured cost. A sample stops when its running mean is more certain than a
    threshold: of a class, or of every label. The threshold is the one that saves most compute while the validation loss
    grows by at most `tolerance` nats. Returns the new bundle and the cascade, with its savings and its loss on
    validation samples and, where the run has any, on test samples; `notes` collects warnings about them.

    The new bundle is written to the folder `output`, by default `BUNDLE-cascade`. `bundle` itself is not changed,
    unless it has a cascade, which is then replaced. Where nothing can be saved, or with `tolerance` None, all members
    run on all samples: `bundle` is returned, and a cascade that it has is removed.

    Raises LibraryError for a bundle of another run and for members of unknown cost; EngineError when the ensemble does
    not combine by a mean, the tolerance is no number, or predictions of the task have no confidence.
    """
    from ripieno.engine.cascade import check_confidence, judge_cascade, plan_cascade

    library, made = open_run(run, writing=True, trusted=trusted), read_bundle(bundle, trusted)
    refuse_policies(made.task, "a cascade")
    names = made.ensemble.members
    if tolerance is None:
        return _write(library, made, Cascade(names, DISABLED), made.path)
    if not 0 <= tolerance < math.inf:
        raise EngineError(f"tolerance {tolerance:g} must be nats of the loss, at least 0")
    check_confidence(made.task)
    default = made.path if made.cascade is not None else made.path.with_name(f"{made.path.resolve().name}-cascade")
    target = default if output is None else Path(output)
    check_target(target)
    if made.ensemble.combiner not in ("mean", "weighted"):
        raise EngineError(f"{bundle} combines by {made.ensemble.combiner}: a cascade needs a mean")
    if absent := [m for m in names if m not in library]:
        raise LibraryError(
            f"{bundle} was not made from {library.path}, which has no {absent[0]}: give the run it was made from"
        )
    costs = costs_of(library, made)
    weights = made.ensemble.weights if made.ensemble.combiner == "weighted" else None
    answers, targets = _answers(library, made, "valid", progress)
    if not len(targets):
        raise LibraryError(f"{library.path} has no validation predictions: a threshold cannot be set")
    ensemble = made.ensemble
    options: dict[str, Any] = {
        "temperature": ensemble.temperature,
        "task": made.task,
        "thresholds": ensemble.thresholds,
        "units": [member.inference_unit for member in map(library.member, names)],
    }
    planned = plan_cascade(names, answers, targets, costs, weights, tolerance=tolerance, **options)
    answers, targets = _answers(library, made, "test", progress)
    if len(targets):
        effect = judge_cascade(planned, names, answers, targets, costs, weights, **options)
        planned = dataclasses.replace(planned, effects={**planned.effects, "test": effect})
    if notes is not None:
        notes += warnings_of(planned, made.task)
    return _write(library, made, planned, target)


def _write(library: Library, bundle: Bundle, cascade: Cascade, target: Path) -> tuple[Bundle, Cascade]:
    """Write the bundle with `cascade`, or without it when it stops no sample. The run keeps it for its report."""
    library.write_cascade(bundle.ensemble.name, cascade)
    if cascade.threshold < DISABLED:
        return rewrite_bundle(dataclasses.replace(bundle, cascade=cascade), library, target), cascade
    if bundle.cascade is not None:
        bundle = rewrite_bundle(dataclasses.replace(bundle, cascade=None), library)
    return bundle, cascade


def warnings_of(cascade: Cascade, task: Task) -> list[str]:
    """Return warnings about a cascade: a large tolerance, a loss beyond the tolerance, and a lower score."""
    if cascade.threshold >= DISABLED:
        return []
    kind = kind_of(task)
    loss, score = METRICS[kind.metrics[0]].title, METRICS[kind.default_metric].title
    whole = cascade.effects["valid"].whole_loss
    warnings = []
    if cascade.tolerance > LARGE * whole:
        warnings.append(
            f"a tolerance of {cascade.tolerance:g} lets the validation {loss} grow from {whole:.4f} to "
            f"{whole + cascade.tolerance:.4f}: give a smaller one if the loss below is too high"
        )
    for split, effect in cascade.effects.items():
        name = {"valid": "validation"}.get(split, split)
        grown, lost = effect.loss - effect.whole_loss, effect.whole_score - effect.score
        if grown > cascade.tolerance:
            warnings.append(f"on {name} samples the {loss} grows by {grown:.4f}, more than the tolerance")
        if lost > 0:
            warnings.append(f"on {name} samples the cascade costs {100 * lost:.2f} points of {score}")
    return warnings


def costs_of(library: Library, bundle: Bundle) -> list[float]:
    """Return seconds for 2,000 samples of each member as the bundle runs it, on the first device it is placed on.

    The cost of a shared backbone is divided equally among its members. Raises LibraryError when a member was not
    measured there.
    """
    members = {member.id: member for member in bundle.members}
    sizes = Counter(members[name].inference_unit for name in bundle.ensemble.members)
    kinds = {d.name: d.kind for d in bundle.allocation.devices}
    costs = []
    for member in bundle.ensemble.members:
        device = next(p.device for p in bundle.allocation.placements if p.member == member)
        backend = backend_of(bundle, member, device)
        profiles, backbone = library.profiles(kinds[device], backend), members[member].backbone
        for part in (member, backbone) if backbone else (member,):
            if part not in profiles:
                where = f"with {backend} on {kinds[device]}"
                raise LibraryError(f"{part} was not measured {where}: `ripieno allocate` measures its members")
        costs.append(profiles[member].cost + (profiles[backbone].cost / sizes[backbone] if backbone else 0.0))
    return costs


def _answers(
    library: Library, bundle: Bundle, split: Split, progress: ProgressFunction
) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Return each member's predictions on a split at its temperature, and its targets.

    Both are empty where the run has no such samples.
    """
    names = bundle.ensemble.members
    exact = all(split_id(backend_of(bundle, p.member, p.device))[1] == "fp32" for p in bundle.allocation.placements)
    if exact and split == "test":
        evaluate(library, names, progress)
    dataset = find_dataset(library.dataset_path)
    # with folds, the members were trained on the samples that validate them, which they would predict too well
    out_of_fold = split == "valid" and dataset is not None and dataset.folds is not None
    if (exact or out_of_fold) and all(library.has_predictions(m, split) for m in names):
        temperatures = bundle.ensemble.temperatures or (1.0,) * len(names)
        pairs = zip(names, temperatures, strict=True)
        kind = kind_of(bundle.task)
        with TemporaryDirectory() as scratch:  # a file that is mapped outlives its folder
            own = [_at(library.predictions(m, split), t, kind, Path(scratch) / f"{m}.npy") for m, t in pairs]
        return own, library.targets(split)
    if dataset is None:
        return [], np.empty(0, np.int64)
    # a lower precision differs from the stored predictions, so the bundle itself predicts
    from ripieno.engine import Engine

    rows, output = dataset.rows(split), bundle.task.output
    pixelwise = kind_of(bundle.task).is_pixelwise
    size = max(1, BLOCK // (len(names) * math.prod(output))) if pixelwise else BATCH
    # a file that is mapped outlives its folder; by samples, then members, as they are predicted
    with TemporaryDirectory() as folder, Engine(bundle, cascade=False) as engine:
        path = Path(folder) / "answers.npy"
        with files.array_writer(path, (len(names), *output), np.float16 if pixelwise else np.float32) as append:
            for number, batch in enumerate(batches(dataset.inputs, rows, min(BATCH, size))):
                progress(f"running all members on the {split} samples", number * min(BATCH, size), len(rows))
                each = engine.submit(batch, each=True).result().member_predictions
                assert each is not None
                append(np.moveaxis(each, 0, 1))
        progress(f"running all members on the {split} samples", len(rows), len(rows))
        answers = files.read_array(path, mapped=pixelwise)
    return [answers[:, member] for member in range(len(names))] if len(rows) else [], np.asarray(dataset.targets[rows])


def _at(predictions: NDArray[Any], temperature: float, kind: TaskKind, path: Path) -> NDArray[Any]:
    """Return the predictions of a member at its temperature; those of masks are written to `path`, in blocks."""
    if temperature == 1.0 or not kind.is_pixelwise:
        return apply_temperature(predictions, temperature, kind)
    with files.array_writer(path, predictions.shape[1:], predictions.dtype) as append:
        for block in prediction_blocks(predictions):
            append(apply_temperature(predictions[block], temperature, kind))
    return files.read_array(path)
