"""Library -> ensembles: the most accurate one for each budget, and the front of all budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.commands import command
from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.budgets import Budget, affordable, bounds_of, kinds_of, name_of, same_ensembles
from ripieno.pipeline.costs import MEASURED, check_kinds, cost_table, ensure_profiles, selection_candidates
from ripieno.pipeline.runs import ProgressFunction, default_kind, no_progress, open_run
from ripieno.tasks.metrics import losses
from ripieno.types import Combiner, Ensemble, Front, Split

if TYPE_CHECKING:
    from ripieno.selection import Choice
    from ripieno.selection.validation import Loss, Method


def select(
    run: str | Path | Library,
    budgets: Budget | Sequence[Budget] | None = None,
    *,
    method: Method = "smobf",
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
    """The most accurate ensemble for each budget (section 2.1, equation 2), written to the run.

    A budget bounds the seconds that all members together need for 2,000 images on `device`; or the one cost that was
    brought with members which cannot be run; or, as a mapping, several kinds of cost at once: `seconds`, `memory`
    (bytes), `latency` (seconds of one sample), `parameters`, `flops`, or any the members brought. By default budgets
    are 1, 2, 4 and 8 times the cost of the best network, rounded up to two digits. Costs that were never measured are
    measured first, of the best networks: twice the share `prune`, at least 20. Budgets asked for together share what is
    found for any of them: more never gives a worse ensemble. With `test`, the ensembles' figures on the test split are
    added: reported, never selected by.

    An ensemble is called `B` and its budget, followed by the method, the loss and the combiner where these are not the
    defaults: `B20`, `B20-swap`, `B20-macro-f1`. `notes` gathers how many networks are left out for want of a cost,
    which budgets no member fits (they give no ensemble), and which ensembles of the run are one and the same.

    Raises SelectionError for arguments that cannot be used, before anything is measured, and when no budget buys a
    member.
    """
    from ripieno.selection import front as sweep
    from ripieno.selection import round_budget

    library = open_run(run, writing=True)
    wanted = [budgets] if isinstance(budgets, int | float | Mapping) else budgets
    plain = default_kind(library.members())
    kinds = kinds_of(wanted, plain)
    _check(library, kinds, method, loss, combiner, prune, size)
    pool = _candidates(library, kinds, loss, combiner, device, prune, trusted, progress, notes)
    if wanted is None:
        best = _best_cost(library, pool, plain)
        wanted = [round_budget(k * best) for k in (1, 2, 4, 8)]
    notes = [] if notes is None else notes
    wanted = affordable(wanted, plain, pool.costs, notes)
    bounds = [bounds_of(asked, plain) for asked in wanted]
    choices = sweep(
        *pool.arrays(), bounds, method, prune=pool.share, size=size, loss=loss, combiner=combiner, names=pool.ids
    )
    ensembles = [
        _ensemble(pool, choice, method, loss, bound, name_of(asked, method, loss, combiner))
        for choice, bound, asked in zip(choices, bounds, wanted, strict=True)
    ]
    ensembles = _evaluated(library, ensembles, test, progress, trusted, notes)
    for ensemble in ensembles:
        library.write_ensemble(ensemble)
    notes += same_ensembles(library.ensembles(), {e.name for e in ensembles})
    return ensembles


def front(
    run: str | Path | Library,
    *,
    kind: str | None = None,
    points: int = 20,
    method: Method = "smobf",
    prune: float = 0.2,
    loss: Loss = "cross-entropy",
    combiner: Combiner = "mean",
    device: str = "cpu",
    test: bool = True,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Front:
    """The best ensemble for every budget, in one sweep; more budget never gives a higher validation loss.

    The best for a budget is the last ensemble that it pays for. Without `kind` the cost is that of a plain number given
    to `select`; `notes` are those of `select`. Written to the run as `front.json`.
    """
    from ripieno.selection import front as sweep
    from ripieno.selection.validation import check_points

    library = open_run(run, writing=True)
    kind = default_kind(library.members()) if kind is None else kind
    check_points(points)
    _check(library, (kind,), method, loss, combiner, prune)
    pool = _candidates(library, (kind,), loss, combiner, device, prune, trusted, progress, notes)
    choices = sweep(
        *pool.arrays(), method=method, points=points, prune=pool.share, loss=loss, combiner=combiner, names=pool.ids
    )
    ensembles = [
        _ensemble(pool, c, method, loss, {kind: c.costs[kind]}, f"front-{n:02d}") for n, c in enumerate(choices)
    ]
    found = Front(kind, method, tuple(_evaluated(library, ensembles, test, progress, trusted, notes)))
    library.write_front(found)
    return found


@dataclass(frozen=True, eq=False)
class _Pool:
    """What selection chooses from: ids, predictions, labels, costs by kind; and the share of these to look at."""

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
    trusted: Sequence[str],
    progress: ProgressFunction,
    notes: list[str] | None,
) -> _Pool:
    from ripieno.profiles import local_devices

    here = local_devices(device)[0]
    ensure_profiles(library, kinds, prune, here, trusted=trusted, progress=progress)
    table = cost_table(library, kinds, here.kind)
    ids = sorted(table)
    if notes is not None and 0 < prune <= 1:
        looked = selection_candidates(library, prune)
        lacking = sum(m.id not in table for m in looked)
        if lacking:
            notes.append(_skipped_note(library, f"{lacking} of the {len(looked)} best networks", kinds, device))
    # cross-entropy of a mean needs the true class's probability alone: a matrix, `classes` times smaller than the cube
    narrow = loss == "cross-entropy" and combiner in ("mean", "weighted")
    predictions = library.true_class_mapped(ids) if narrow else [library.probabilities(m) for m in ids]
    costs = {k: [table[m][k] for m in ids] for k in kinds}
    # the share of the library that is asked for, not of those that have a cost; one that is none is told by selection
    share = min(1.0, prune * len(library) / len(ids)) if 0 < prune <= 1 else prune
    return _Pool(ids, predictions, library.labels(), costs, share)


def _skipped_note(library: Library, who: str, kinds: Sequence[str], device: str) -> str:
    """That networks without a cost were not looked at, and how they can be."""
    said = f"{who} have no cost in {' and '.join(kinds)} and were left out"
    again = command("measure", library.path, prune=1, device=None if device == "cpu" else device)
    mend = f": `{again}` measures all that can be run"
    return said + (mend if any(kind in (*MEASURED, "flops") for kind in kinds) else "")


def _check(
    library: Library,
    kinds: Sequence[str],
    method: str,
    loss: str,
    combiner: str,
    prune: float,
    size: int | None = None,
) -> None:
    """Raise SelectionError for what cannot be used, before anything is measured."""
    from ripieno.selection.select import WEIGHTS
    from ripieno.selection.validation import check_numbers, check_words

    if not len(library):
        made = command("tune", "DATA", run=library.path)
        raise SelectionError(f"{library.path} has no members to select from: `{made}` makes some")
    check_words(method, loss, combiner)
    check_numbers(WEIGHTS, prune, size)
    check_kinds(library, kinds)
    if size is not None and size > len(library) and method != "replacement":
        raise SelectionError(f"size {size} of a library of {len(library)}: it must be at most {len(library)}")


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
    trusted: Sequence[str] = (),
    notes: list[str] | None = None,
) -> list[Ensemble]:
    if test:
        members = sorted({m for e in ensembles for m in e.members})
        evaluate(library, members, progress, trusted=trusted, notes=notes)
    return [dataclasses.replace(e, losses=ensemble_losses(library, e)) for e in ensembles]


def reevaluate(library: Library, changed: Collection[str], split: Split) -> list[str]:
    """Judge anew the ensembles that hold `changed` members, whose predictions on `split` are new; gives their names.

    New validation predictions void what rests on the old ones: their cascades and a front that holds any are dropped.
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
            judged = _evaluated(library, front.ensembles, test=False)
            library.write_front(dataclasses.replace(front, ensembles=tuple(judged)))
    return [e.name for e in touched]


def ensemble_losses(library: Library, ensemble: Ensemble) -> dict[str, float]:
    """Cross-entropy, accuracy and macro-F1 of an ensemble on every split its members have predictions for."""
    from ripieno.selection.combine import combine

    found: dict[str, float] = {}
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if all(library.has_probabilities(m, split) for m in ensemble.members):
            predictions = np.stack([library.probabilities(m, split) for m in ensemble.members])
            together = combine(predictions, ensemble.weights, ensemble.combiner)
            found |= losses(together, library.labels(split), split)
    return found
