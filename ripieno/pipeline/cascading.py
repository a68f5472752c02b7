"""Bundle -> the same bundle with a cascade: the order of its members and the threshold, set on validation data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import split as parted
from ripieno.data import open_dataset
from ripieno.errors import EngineError, LibraryError
from ripieno.library import Library, read_bundle, rewrite_bundle
from ripieno.library.bundle import backend_of, check_target
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.types import DISABLED, TOLERANCE, Bundle, Cascade, Split

BATCH = 256
LARGE = 0.1
"""Share of an ensemble's own cross-entropy above which a tolerance is remarked on."""


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
    """Make of a bundle of `run` one that asks its members in turn, each only about samples that are not yet sure.

    Members are ordered by what they bring for their measured cost; a sample stops when its running mean gives a class
    more than a threshold, that one with which most compute is saved while the validation cross-entropy grows by at most
    `tolerance` nats. Returns the new bundle and the cascade with what it saves and costs on validation samples and,
    where the run has any, on test samples; `notes` gathers what of that to heed.

    The new bundle lies in the folder `output`, by default `BUNDLE-cascade`; `bundle` stays as it is, unless it has a
    cascade already, which is then replaced. Where nothing can be saved, or with `tolerance` None, the bundle asks all
    members about all samples: it is given back, and a cascade that it has is taken out.

    Raises LibraryError when the bundle is not of the run or has members of unknown cost, EngineError when the ensemble
    does not answer with a mean or the tolerance is no number.
    """
    from ripieno.engine.cascade import judge_cascade, plan_cascade

    library, made = open_run(run, writing=True), read_bundle(bundle)
    names = made.ensemble.members
    if tolerance is None:
        return _kept(library, made, Cascade(names, DISABLED), made.path)
    if not 0 <= tolerance < math.inf:
        raise EngineError(f"tolerance {tolerance:g} must be nats of cross-entropy, at least 0")
    default = made.path if made.cascade is not None else made.path.with_name(f"{made.path.resolve().name}-cascade")
    target = default if output is None else Path(output)
    check_target(target)
    if made.ensemble.combiner not in ("mean", "weighted"):
        raise EngineError(f"{bundle} answers with a {made.ensemble.combiner}: a cascade needs a mean")
    if absent := [m for m in names if m not in library]:
        raise LibraryError(
            f"{bundle} is not of {library.path}, which has no {absent[0]}: give the run it was made from"
        )
    costs = costs_of(library, made)
    weights = made.ensemble.weights if made.ensemble.combiner == "weighted" else None
    answers, labels = _answers(library, made, "valid", trusted, progress)
    if not len(labels):
        raise LibraryError(f"{library.path} has no validation predictions: there is nothing to set a threshold on")
    planned = plan_cascade(names, answers, labels, costs, weights, tolerance=tolerance)
    answers, labels = _answers(library, made, "test", trusted, progress)
    if len(labels):
        effect = judge_cascade(planned, names, answers, labels, costs, weights)
        planned = dataclasses.replace(planned, effects={**planned.effects, "test": effect})
    if notes is not None:
        notes += warnings_of(planned)
    return _kept(library, made, planned, target)


def _kept(library: Library, bundle: Bundle, cascade: Cascade, target: Path) -> tuple[Bundle, Cascade]:
    """Write the bundle with `cascade`; one that stops no sample is left out. The run keeps it for its report."""
    library.write_cascade(bundle.ensemble.name, cascade)
    if cascade.threshold < DISABLED:
        return rewrite_bundle(dataclasses.replace(bundle, cascade=cascade), library, target), cascade
    if bundle.cascade is not None:
        bundle = rewrite_bundle(dataclasses.replace(bundle, cascade=None), library)
    return bundle, cascade


def warnings_of(cascade: Cascade) -> list[str]:
    """Return what to heed of a cascade: a tolerance that is large, and what it costs beyond it or in accuracy."""
    if cascade.threshold >= DISABLED:
        return []
    whole = cascade.effects["valid"].whole_cross_entropy
    found = []
    if cascade.tolerance > LARGE * whole:
        found.append(
            f"a tolerance of {cascade.tolerance:g} lets the validation cross-entropy grow from {whole:.4f} to "
            f"{whole + cascade.tolerance:.4f}: see below what it costs, and give a smaller one if that is too much"
        )
    for split, effect in cascade.effects.items():
        name = {"valid": "validation"}.get(split, split)
        grown, lost = effect.cross_entropy - effect.whole_cross_entropy, effect.whole_accuracy - effect.accuracy
        if grown > cascade.tolerance:
            found.append(f"on {name} samples the cross-entropy grows by {grown:.4f}, more than the tolerance")
        if lost > 0:
            found.append(f"on {name} samples the cascade costs {100 * lost:.2f} points of accuracy")
    return found


def costs_of(library: Library, bundle: Bundle) -> list[float]:
    """Seconds for 2,000 samples of each member as the bundle runs it, on the first device it is placed on.

    Raises LibraryError when a member was not measured there.
    """
    kinds = {d.name: d.kind for d in bundle.allocation.devices}
    found = []
    for member in bundle.ensemble.members:
        device = next(p.device for p in bundle.allocation.placements if p.member == member)
        backend = backend_of(bundle, member, device)
        profile = library.profiles(kinds[device], backend).get(member)
        if profile is None:
            raise LibraryError(
                f"{member} was not measured by {backend} on {kinds[device]}: `ripieno allocate` measures what it places"
            )
        found.append(profile.cost)
    return found


def _answers(
    library: Library, bundle: Bundle, split: Split, trusted: Sequence[str], progress: ProgressFunction
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """What each member says of a split, and its labels; nothing where the run has no such samples."""
    names = bundle.ensemble.members
    exact = all(parted(backend_of(bundle, p.member, p.device))[1] == "fp32" for p in bundle.allocation.placements)
    if exact and split == "test":
        evaluate(library, names, progress)
    if exact and all(library.has_probabilities(m, split) for m in names):
        return [library.probabilities(m, split) for m in names], library.labels(split)
    if not (library.dataset_path / "dataset.json").exists():
        return [], np.empty(0, np.int64)
    # a lower precision answers otherwise than the predictions that were kept: the bundle itself is asked
    from ripieno.engine import Engine

    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows(split)
    parts = []
    with Engine(bundle, cascade=False, trusted=trusted) as engine:
        for at in range(0, len(rows), BATCH):
            progress(f"asking all members about the {split} images", at, len(rows))
            each = engine.submit(np.asarray(dataset.images[rows[at : at + BATCH]]), each=True).result().each
            assert each is not None
            parts.append(each)
        progress(f"asking all members about the {split} images", len(rows), len(rows))
    return list(np.concatenate(parts, axis=1)) if parts else [], np.asarray(dataset.labels[rows])
