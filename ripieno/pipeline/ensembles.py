"""Library -> ensembles: the most accurate one for each budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.pipeline.costs import measure
from ripieno.pipeline.runs import Progress, open_run, quiet
from ripieno.types import Ensemble, Split

if TYPE_CHECKING:
    from ripieno.selection.check import Method


def select(
    run: str | Path | Library,
    budgets: Sequence[float] | None = None,
    *,
    method: Method = "smobf",
    prune: float = 0.2,
    device: str = "cpu",
    test: bool = True,
    trusted: Sequence[str] = (),
    progress: Progress = quiet,
) -> list[Ensemble]:
    """The most accurate ensemble for each budget (section 2.1, equation 2), written to the run.

    A budget is a bound on the seconds all members together need for 2,000 images on `device`; by default 1, 2, 4 and 8
    times the cost of the best network. Costs that were not measured yet are measured first. With `test`, the ensembles'
    figures on the test split are added: they are reported, never selected by.
    """
    from ripieno.profiles import local_devices
    from ripieno.selection import select_members

    library = open_run(run)
    kind = local_devices(device)[0].kind
    profiles = library.profiles(kind)
    if not profiles:
        profiles = measure(library, device=device, prune=min(1.0, 2 * prune), trusted=trusted, progress=progress)
    costs = {m.id: m.costs["seconds"] for m in library.members() if "seconds" in m.costs}
    costs |= {m: p.cost for m, p in profiles.items() if m in library}
    ids = sorted(costs)
    if not ids:
        raise SelectionError(f"no member of {library.path} has a cost: `ripieno measure {library.path}` measures them")
    truth = library.truth(ids)
    seconds = np.array([costs[m] for m in ids])
    if budgets is None:
        best = seconds[int(np.argmin(-np.log(np.clip(truth, 1e-15, 1)).mean(axis=1)))]
        budgets = [float(f"{best * k:.2g}") for k in (1, 2, 4, 8)]
    labels = library.labels()
    ensembles = []
    for budget in budgets:
        choice = select_members(truth, labels, seconds, budget, method=method, prune=prune, names=ids)
        ensemble = Ensemble(
            name=f"B{budget:g}",
            members=tuple(ids[i] for i in choice.members),
            weights=choice.weights,
            method=method,
            budget={"seconds": float(budget)},
            cost={"seconds": float(choice.cost)},
            losses={},
        )
        ensembles.append(ensemble)
    if test:
        evaluate(library, sorted({m for e in ensembles for m in e.members}), progress)
    ensembles = [dataclasses.replace(e, losses=ensemble_losses(library, e)) for e in ensembles]
    for ensemble in ensembles:
        library.write_ensemble(ensemble)
    return ensembles


def evaluate(library: Library, members: Sequence[str], progress: Progress = quiet) -> None:
    """Cache the test predictions of members that have none yet, by running their ONNX files."""
    from ripieno import backends
    from ripieno.data import open_dataset
    from ripieno.profiles import local_devices

    missing = [m for m in members if not library.has_probabilities(m, "test") and library.onnx_path(m).exists()]
    if not missing or not (library.dataset_path / "dataset.json").exists():
        return
    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows("test")
    device = local_devices("cpu")[0]
    for done, member in enumerate(missing):
        progress("predicting the test images", done, len(missing))
        runner = backends.load("onnx", library.onnx_path(member), library.member(member), device, len(device.cores))
        parts = [runner.infer(np.asarray(dataset.images[rows[i : i + 256]])) for i in range(0, len(rows), 256)]
        runner.close()
        library.write_probabilities(member, "test", np.concatenate(parts), dataset.labels[rows])
    progress("predicting the test images", len(missing), len(missing))


def ensemble_losses(library: Library, ensemble: Ensemble) -> dict[str, float]:
    """Cross-entropy, accuracy and macro-F1 of an ensemble on every split its members have predictions for."""
    from ripieno.selection.metrics import accuracy, cross_entropy, macro_f1

    losses: dict[str, float] = {}
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if not all(library.has_probabilities(m, split) for m in ensemble.members):
            continue
        weighted = zip(ensemble.members, ensemble.weights, strict=True)
        mean = np.sum([w * np.asarray(library.probabilities(m, split), dtype=np.float64) for m, w in weighted], axis=0)
        labels = library.labels(split)
        losses[f"{split}_cross_entropy"] = cross_entropy(mean, labels)
        losses[f"{split}_accuracy"] = accuracy(mean, labels)
        losses[f"{split}_macro_f1"] = macro_f1(mean, labels)
    return losses
