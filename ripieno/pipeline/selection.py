"""Library -> ensembles: the most accurate ensemble for each budget, and the front over all budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.budgets import Budget, affordable, bounds_of, kinds_of, name_of, same_ensembles
from ripieno.pipeline.costs import MEASURED, check_kinds, cost_table, ensure_profiles, selection_candidates
from ripieno.pipeline.runs import ProgressFunction, default_kind, no_progress, open_run
from ripieno.shell_command import command
from ripieno.tasks.metrics import losses
from ripieno.types import Combiner, Ensemble, Front, Split

if TYPE_CHECKING:
    from ripieno.selection import Choice
    from ripieno.selection.validation import Loss, SelectionMethod


def select(
    run: str | Path | Library,
    budgets: Budget | Sequence[Budget] | None = None,
    *,
    method: SelectionMethod = "smobf",
    prune: float = 0.2,
    size: int | None = None,
    loss: Loss = "cross-entropy",
    combiner: Combiner = "mean",
    device: str = "cpu",
    test: bool = True,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> list[Ensemble]:
    """Select the most accurate ensemble for each budget (section 2.1, equation 2) and write it to the run.

    A plain budget bounds the seconds that all members together need for 2,000 images on `device`. Where members are
    imported predictions with a single kind of cost, it bounds that kind. A mapping bounds several kinds at once:
    `seconds`, `memory` (bytes), `latency` (seconds of one sample), `parameters`, `flops`, or any imported kind. The
    default budgets are 1, 2, 4 and 8 times the cost of the best network, rounded up to two digits.

    Missing costs of the best networks are measured first: twice the share `prune`, at least 20 networks. Budgets of one
    call share their results: a larger budget never gives a worse ensemble. With `test`, the ensembles' figures on the
    test split are added; selection never uses them.

    An ensemble's name is `B` and its budget, then the method, the loss and the combiner where these are not the
    defaults: `B20`, `B20-swap`, `B20-macro-f1`. `notes` collects the number of networks skipped without a cost, the
    budgets that no member fits (they give no ensemble), and identical ensembles of the run.

    Raises SelectionError for arguments that cannot be used, before anything is measured, and when no member fits any
    budget.
    """
    from ripieno.selection import front as sweep
    from ripieno.selection import round_budget

    library = open_run(run, writing=True, trusted=trusted)
    requested = [budgets] if isinstance(budgets, int | float | Mapping) else budgets
    plain = default_kind(library.members())
    kinds = kinds_of(requested, plain)
    _check(library, kinds, method, loss, combiner, prune, size)
    pool = _candidates(library, kinds, loss, combiner, device, prune, progress, notes)
    if requested is None:
        best = _best_cost(library, pool, plain)
        requested = [round_budget(k * best) for k in (1, 2, 4, 8)]
    notes = [] if notes is None else notes
    requested = affordable(requested, plain, pool.costs, notes)
    bounds = [bounds_of(budget, plain) for budget in requested]
    choices = sweep(
        *pool.arrays(), bounds, method, prune=pool.share, size=size, loss=loss, combiner=combiner, names=pool.ids
    )
    ensembles = [
        _ensemble(pool, choice, method, loss, bound, name_of(budget, method, loss, combiner))
        for choice, bound, budget in zip(choices, bounds, requested, strict=True)
    ]
    ensembles = _evaluated(library, ensembles, test, progress, notes)
    for ensemble in ensembles:
        library.write_ensemble(ensemble)
    notes += same_ensembles(library.ensembles(), {e.name for e in ensembles})
    return ensembles


def front(
    run: str | Path | Library,
    *,
    kind: str | None = None,
    points: int = 20,
    method: SelectionMethod = "smobf",
    prune: float = 0.2,
    loss: Loss = "cross-entropy",
    combiner: Combiner = "mean",
    device: str = "cpu",
    test: bool = True,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Front:
    """Select the best ensemble for every budget in one sweep; a larger budget never gives a higher validation loss.

    The best ensemble for a budget is the last one within it. The default `kind` is that of a plain budget of `select`;
    `notes` are those of `select`. The front is written to the run as `front.json`.
    """
    from ripieno.selection import front as sweep
    from ripieno.selection.validation import check_points

    library = open_run(run, writing=True, trusted=trusted)
    kind = default_kind(library.members()) if kind is None else kind
    check_points(points)
    _check(library, (kind,), method, loss, combiner, prune)
    pool = _candidates(library, (kind,), loss, combiner, device, prune, progress, notes)
    choices = sweep(
        *pool.arrays(), method=method, points=points, prune=pool.share, loss=loss, combiner=combiner, names=pool.ids
    )
    ensembles = [
        _ensemble(pool, c, method, loss, {kind: c.costs[kind]}, f"front-{n:02d}") for n, c in enumerate(choices)
    ]
    result = Front(kind, method, tuple(_evaluated(library, ensembles, test, progress, notes)))
    library.write_front(result)
    return result


@dataclass(frozen=True, eq=False)
class _Pool:
    """Input of a selection: ids, predictions, labels, costs by kind, and the share of candidates to consider."""

    ids: list[str]
    predictions: Any
    labels: Any
    costs: dict[str, list[float]]
    share: float

    def arrays(self) -> tuple[Any, Any, dict[str, list[float]]]:
        return self.predictions, self.labels, self.costs


def _candidates(
    library: Library,
    kinds: Sequence[str],
    loss: Loss,
    combiner: Combiner,
    device: str,
    prune: float,
    progress: ProgressFunction,
    notes: list[str] | None,
) -> _Pool:
    from ripieno.profiles import local_devices

    target = local_devices(device)[0]
    ensure_profiles(library, kinds, prune, target, progress=progress)
    table = cost_table(library, kinds, target.kind)
    ids = sorted(table)
    if notes is not None and 0 < prune <= 1:
        candidates = selection_candidates(library, prune)
        lacking = sum(m.id not in table for m in candidates)
        if lacking:
            notes.append(_skipped_note(library, f"{lacking} of the {len(candidates)} best networks", kinds, device))
    # cross-entropy of a mean needs the true class's probability alone: a matrix, `classes` times smaller than the cube
    narrow = loss == "cross-entropy" and combiner in ("mean", "weighted")
    predictions = library.true_class_mapped(ids) if narrow else [library.probabilities(m) for m in ids]
    costs = {k: [table[m][k] for m in ids] for k in kinds}
    # `prune` is a share of the whole library, not of members with a cost; selection rejects an invalid one
    share = min(1.0, prune * len(library) / len(ids)) if 0 < prune <= 1 else prune
    return _Pool(ids, predictions, library.labels(), costs, share)


def _skipped_note(library: Library, networks: str, kinds: Sequence[str], device: str) -> str:
    """Return the note that `networks` were skipped for a missing cost, with the command that measures it."""
    note = f"{networks} have no cost in {' and '.join(kinds)} and were skipped"
    measure = command("measure", library.path, prune=1, device=None if device == "cpu" else device)
    advice = f": `{measure}` measures all that can be run"
    return note + (advice if any(kind in (*MEASURED, "flops") for kind in kinds) else "")


def _check(
    library: Library,
    kinds: Sequence[str],
    method: str,
    loss: str,
    combiner: str,
    prune: float,
    size: int | None = None,
) -> None:
    """Raise SelectionError for arguments that cannot be used, before anything is measured."""
    from ripieno.selection.validation import check_numbers, check_words

    if not len(library):
        tune = command("tune", "DATA", run=library.path)
        raise SelectionError(f"{library.path} has no members to select from: `{tune}` trains some")
    check_words(method, loss, combiner)
    check_numbers(None, prune, size)
    check_kinds(library, kinds)
    if size is not None and size > len(library) and method != "replacement":
        raise SelectionError(f"size {size} is larger than the library: it must be at most {len(library)}")


def _best_cost(library: Library, pool: _Pool, kind: str) -> float:
    best = min(pool.ids, key=lambda m: (library.member(m).losses["valid_cross_entropy"], m))
    return pool.costs[kind][pool.ids.index(best)]


def _ensemble(pool: _Pool, choice: Choice, method: str, loss: str, budget: dict[str, float], name: str) -> Ensemble:
    return Ensemble(
        name=name,
        members=tuple(pool.ids[i] for i in choice.members),
        weights=choice.weights,
        method=method,
        budget=budget,
        cost=dict(choice.costs),
        losses={},
        combiner=choice.combiner,
        loss=loss,
    )


def _evaluated(
    library: Library,
    ensembles: Sequence[Ensemble],
    test: bool,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> list[Ensemble]:
    if test:
        members = sorted({m for e in ensembles for m in e.members})
        evaluate(library, members, progress, notes=notes)
    return [dataclasses.replace(e, losses=ensemble_losses(library, e)) for e in ensembles]


def reevaluate(library: Library, changed: Collection[str], split: Split) -> list[str]:
    """Evaluate the ensembles with `changed` members again, after new predictions on `split`; return their names.

    New validation predictions invalidate these ensembles' cascades and a front with changed members: both are removed.
    """
    touched = [e for e in library.ensembles() if not set(e.members).isdisjoint(changed)]
    for ensemble in _evaluated(library, touched, test=False):
        library.write_ensemble(ensemble)
        if split == "valid":
            library.forget_cascade(ensemble.name)
    front = library.front()
    if front is not None and any(not set(e.members).isdisjoint(changed) for e in front.ensembles):
        if split == "valid":
            library.forget_front()
        else:
            evaluated = _evaluated(library, front.ensembles, test=False)
            library.write_front(dataclasses.replace(front, ensembles=tuple(evaluated)))
    return [e.name for e in touched]


def ensemble_losses(library: Library, ensemble: Ensemble) -> dict[str, float]:
    """Compute cross-entropy, accuracy and macro-F1 of an ensemble on every split that its members have predicted."""
    from ripieno.tasks.combiners import combine

    figures: dict[str, float] = {}
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if all(library.has_probabilities(m, split) for m in ensemble.members):
            predictions = np.stack([library.probabilities(m, split) for m in ensemble.members])
            combined = combine(predictions, ensemble.weights, ensemble.combiner)
            figures |= losses(combined, library.labels(split), split)
    return figures
