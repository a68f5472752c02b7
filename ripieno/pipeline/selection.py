"""Library -> ensembles: the most accurate ensemble for each budget, and the front over all budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno import clock
from ripieno.deprecation import warn_renamed
from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.calibrate import calibrate as calibrate_members
from ripieno.library.cost_table import EXPORTED, MEASURED, CostTable
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.budgets import (
    Budget,
    affordable,
    bounds_of,
    kept_budget,
    kinds_of,
    name_of,
    plain_budget,
    same_ensembles,
)
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.pipeline.costs import (
    UNCOUNTABLE,
    cannot_count,
    check_kinds,
    cost_table,
    ensure_profiles,
    selection_candidates,
)
from ripieno.pipeline.coverages import (
    NO_ROWS,
    check_options,
    coverage_options,
    describe_spread,
    fit_all,
    held_out_rows,
)
from ripieno.pipeline.doubted_figures import doubted_notes
from ripieno.pipeline.policy_selection import (
    PolicySelectionOptions,
    check_policy_options,
    policy_front,
    select_policies,
)
from ripieno.pipeline.runs import ProgressFunction, default_kind, no_progress, open_run
from ripieno.selection import validation
from ripieno.selection.losses import losses_of
from ripieno.selection.validation import Calibrate, Loss, SelectionMethod, default_calibration
from ripieno.shell_command import command
from ripieno.tasks.calibration import MemberCalibration, calibrate_member, combine_calibrated
from ripieno.tasks.metrics import METRICS, metric_key
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, CoverageScore, Ensemble, Front, Ints, Member, Split, Task

if TYPE_CHECKING:
    from ripieno.selection import Choice

ABSENT = 3
"""Maximum number of classes named in a note."""


def select(
    run: str | Path | Library,
    budgets: Budget | Sequence[Budget] | None = None,
    *,
    method: SelectionMethod | None = None,
    prune: float = 0.2,
    size: int | None = None,
    loss: Loss | None = None,
    combiner: Combiner | None = None,
    starts: int = 8,
    calibrate: Calibrate | None = None,
    cv: int | None = None,
    pixels: int | None = None,
    device: str = "cpu",
    test: bool = True,
    coverage: float | Sequence[float] = (),
    per_class: bool = False,
    score: CoverageScore | None = None,
    abstain: float | None = None,
    measuring: float | None = None,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> list[Ensemble]:
    """Select the most accurate ensemble for each budget (section 2.1, equation 2) and write it to the run.

    Without a `method`, it is "smobf-r" with calibrated members and an expected loss; with one, neither is the default.
    `method`, `starts`, `calibrate` and `cv` are those of `select_members`. The temperatures of members are fitted once
    and kept in the run. `loss` is one of the run's task; None: that by which its members are ranked. Of several labels,
    the threshold of each is fitted to the ensemble's validation predictions: see `Ensemble.thresholds`. Of a
    segmentation, `pixels` bounds the pixels of each image that are selected by; its losses are those of all pixels, and
    a note tells how far they are from those of the sample.

    Of policies the highest mean return of episodes from the validation seeds is selected by rollouts: see
    `ripieno.selection.returns`. Methods are then "replacement" (the default), "top-k" and "best". Without a `combiner`,
    the rules that fit the actions compete.

    A plain budget bounds the seconds that all members together need for 2,000 images on `device`. Where members are
    imported predictions with a single kind of cost, it bounds that kind. A mapping bounds several kinds at once:
    `seconds`, `memory` (bytes), `latency` (seconds of one sample), `parameters`, `flops`, `bytes` (of the ONNX
    file), or any imported kind. Members with the same frozen backbone pay it once. The default budget is that of the
    search. Without one there are four: 1, 2, 4 and 8 times the cost of the best network, rounded up to two digits.

    Missing costs of the best networks are measured first: twice the share `prune`, at least 20 networks. After
    `measuring` seconds no further one is, and networks without a cost are skipped. Budgets of one
    call share their results: a larger budget never gives a worse ensemble. With `test`, the ensembles' figures on the
    test split are added; selection never uses them.

    `coverage`, `per_class`, `score` and `abstain` are those of `ripieno.coverage`. Where the library has many members
    for its validation samples, a third of these is kept from the selection, and the coverage is fitted to them; a note
    says which. An error that `abstain` cannot reach is a note, too.

    An ensemble's name is `B` and its budget, then the method if one is named, and the loss, the combiner and the
    calibration where these are not the defaults: `B20`, `B20-swap`, `B20-macro-f1`, `B20-uncalibrated`. A sample of
    pixels is named too: `B20-pixels500`. `notes` collects the number of networks skipped without a cost, the budgets
    that no member fits (they give no ensemble), classes without samples, the reason for a missing expected loss, and
    identical ensembles of the run.

    Raises SelectionError for arguments that cannot be used, before anything is measured, and when no member fits any
    budget.
    """
    from ripieno.selection import front as sweep
    from ripieno.selection import round_budget

    library = open_run(run, writing=True, trusted=trusted)
    if budgets is None and (searched := kept_budget(library.path)):
        budgets = plain_budget(searched)
    requested = [budgets] if isinstance(budgets, int | float | Mapping) else budgets
    task = _task_of(library)
    if kind_of(task).has_returns:
        absent = {"loss": loss, "calibrate": calibrate, "cv": cv, "pixels": pixels, "coverage": coverage or None}
        check_policy_options({**absent, "per_class": per_class, "score": score, "abstain": abstain})
        asked_of = PolicySelectionOptions(method, combiner, size, prune, device, test, tuple(trusted), progress)
        return _kept(library, select_policies(library, requested, asked_of, [] if notes is None else notes), notes)
    plain = default_kind(library.members())
    kinds = kinds_of(requested, plain)
    options = _Options(task, method, loss, combiner or "mean", prune, starts, calibrate, cv, size, pixels)
    _check(library, kinds, options)
    asked = coverage_options(coverage, score, per_class, abstain)
    targets = library.targets()
    check_options(asked, options.task, targets)
    held = held_out_rows(targets, options.task, len(library), asked)
    notes = [] if notes is None else notes
    until = None if measuring is None else clock.now() + measuring
    pool = _candidates(library, kinds, options, device, progress, notes, held, until)
    if requested is None:
        best = _best_cost(library, pool, plain)
        requested = [round_budget(k * best) for k in (1, 2, 4, 8)]
    requested = affordable(requested, plain, {kind: list(pool.costs.alone(kind).values()) for kind in kinds}, notes)
    bounds = [bounds_of(budget, plain) for budget in requested]
    choices = sweep(pool.predictions, pool.targets, budgets=bounds, method=method, size=size, **pool.keywords(options))
    ensembles = [
        _ensemble(pool, choice, options, bound, _name(budget, options))
        for choice, bound, budget in zip(choices, bounds, requested, strict=True)
    ]
    ensembles = _evaluated(library, ensembles, test, progress, notes)
    notes += _note_sample(choices, ensembles, options)
    if asked.asked:
        ensembles = fit_all(library, ensembles, asked, held, notes)
    ensembles = [describe_spread(library, ensemble) for ensemble in ensembles]
    notes += doubted_notes(library, ensembles)
    return _kept(library, ensembles, notes)


def _kept(library: Library, ensembles: list[Ensemble], notes: list[str] | None) -> list[Ensemble]:
    """Write the ensembles of a selection, and note those that are the same as others of the run."""
    for ensemble in ensembles:
        library.write_ensemble(ensemble)
    if notes is not None:
        notes += same_ensembles(library.ensembles(), {e.name for e in ensembles})
    return ensembles


def front(
    run: str | Path | Library,
    *,
    cost: str | None = None,
    points: int = 20,
    method: SelectionMethod | None = None,
    prune: float = 0.2,
    loss: Loss | None = None,
    combiner: Combiner | None = None,
    starts: int = 8,
    calibrate: Calibrate | None = None,
    cv: int | None = None,
    pixels: int | None = None,
    device: str = "cpu",
    test: bool = True,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    kind: str | None = None,
) -> Front:
    """Select the best ensemble for every budget in one sweep; a larger budget never gives a higher validation loss.

    The best ensemble for a budget is the last one within it. The default kind of `cost` is that of a plain budget of
    `select`; the other arguments and `notes` are those of `select`. The front is written to the run as `front.json`.
    `kind` is the former name of `cost`, for one version.
    """
    from ripieno.selection import front as sweep

    if kind is not None:
        warn_renamed("front(kind=)", "cost")
        cost = kind
    library = open_run(run, writing=True, trusted=trusted)
    cost = default_kind(library.members()) if cost is None else cost
    validation.check_points(points)
    task = _task_of(library)
    if kind_of(task).has_returns:
        check_policy_options({"loss": loss, "calibrate": calibrate, "cv": cv, "pixels": pixels})
        asked = PolicySelectionOptions(method, combiner, None, prune, device, test, tuple(trusted), progress)
        result = policy_front(library, cost, points, asked)
        library.write_front(result)
        return result
    options = _Options(task, method, loss, combiner or "mean", prune, starts, calibrate, cv, None, pixels)
    _check(library, (cost,), options)
    notes = [] if notes is None else notes
    pool = _candidates(library, (cost,), options, device, progress, notes)
    choices = sweep(pool.predictions, pool.targets, method=method, points=points, **pool.keywords(options))
    ensembles = [
        _ensemble(pool, choice, options, {cost: choice.costs[cost]}, f"front-{number:02d}")
        for number, choice in enumerate(choices)
    ]
    ensembles = _evaluated(library, ensembles, test, progress, notes)
    notes += _note_sample(choices, ensembles, options)
    result = Front(cost, options.used_method, tuple(ensembles))
    library.write_front(result)
    return result


@dataclass(frozen=True)
class _Options:
    """Arguments of `select` and `front`, for a run of `task`."""

    task: Task
    method: SelectionMethod | None
    loss: Loss | None
    combiner: Combiner
    prune: float
    starts: int
    calibrate: Calibrate | None
    cv: int | None
    size: int | None = None
    pixels: int | None = None

    @property
    def kind(self) -> TaskKind:
        return kind_of(self.task)

    @property
    def used_loss(self) -> str:
        return self.loss or losses_of(self.kind)[0]

    @property
    def used_method(self) -> SelectionMethod:
        return validation.default_method(self.combiner) if self.method is None else self.method

    @property
    def used_calibration(self) -> Calibrate:
        if self.calibrate is not None:
            return self.calibrate
        return default_calibration(self.method, self.combiner, self.kind)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Input of a selection: ids, predictions, targets, costs, temperatures, and the share to consider."""

    ids: list[str]
    predictions: Any
    targets: Any
    costs: CostTable
    calibrations: list[MemberCalibration] | None
    share: float

    def keywords(self, options: _Options) -> dict[str, Any]:
        return {
            "prune": self.share,
            "task": options.task,
            "loss": options.used_loss,
            "combiner": options.combiner,
            "names": self.ids,
            "starts": options.starts,
            "calibrate": options.used_calibration,
            "cv": options.cv,
            "pixels": options.pixels,
            "calibrations": self.calibrations,
            **self.costs.arguments(self.ids),
        }


def _candidates(
    library: Library,
    kinds: Sequence[str],
    options: _Options,
    device: str,
    progress: ProgressFunction,
    notes: list[str],
    held: Ints = NO_ROWS,
    until: float | None = None,
) -> _Pool:
    """Return the input of a selection, without the validation samples `held`."""
    from ripieno.profiles import local_devices

    target, prune = local_devices(device)[0], options.prune
    ensure_profiles(library, kinds, prune, target, until=until, progress=progress)
    table = cost_table(library, kinds, target.kind)
    ids = sorted(table.own)
    if 0 < prune <= 1:
        candidates = selection_candidates(library, prune)
        lacking = [m for m in candidates if m.id not in table.own]
        if lacking:
            notes.append(_skipped_note(library, lacking, len(candidates), kinds, device))
    targets = library.targets()
    _note_samples(targets, options, notes)
    calibrated = options.used_calibration != "none"
    # cross-entropy of a mean needs the true class's probability alone: a matrix, `classes` times smaller than the cube
    narrow = options.kind.keeps_likelihood and options.used_loss == losses_of(options.kind)[0]
    narrow = narrow and options.combiner in ("mean", "weighted") and (options.kind.is_pixelwise or not calibrated)
    predictions = library.true_class_mapped(ids) if narrow else [library.predictions(m) for m in ids]
    # `prune` is a share of the whole library, not of members with a cost; selection rejects an invalid one
    share = min(1.0, prune * len(library) / len(ids)) if 0 < prune <= 1 else prune
    if len(held):
        targets = np.delete(targets, held, axis=0)
        predictions = [np.delete(rows, held, axis=0) for rows in predictions]
        calibrations = [calibrate_member(rows, targets, options.kind) for rows in predictions] if calibrated else None
    else:
        calibrations = calibrate_members(library, ids, progress) if calibrated else None
    return _Pool(ids, predictions, targets, table, calibrations, share)


def _note_samples(targets: NDArray[Any], options: _Options, notes: list[str]) -> None:
    """Note classes and labels without selection samples, and too few samples for an expected loss."""
    absent = options.kind.absent(targets, options.task)
    if absent:
        more = f" and {len(absent) - ABSENT} more" if len(absent) > ABSENT else ""
        name = "label" if options.kind.has_thresholds else "class"
        notes.append(
            f"no validation sample is of {name} {', '.join(absent[:ABSENT])}{more}: the figures do not cover it"
        )
    folds = validation.default_folds(options.method) if options.cv is None else options.cv
    if len(targets) < folds:
        notes.append(f"no expected loss: {len(targets)} validation samples are fewer than the {folds} folds of --cv")


def _skipped_note(
    library: Library, lacking: Sequence[Member], candidates: int, kinds: Sequence[str], device: str
) -> str:
    """Return the note that members of the best were skipped for a missing cost, with the command that measures it."""
    note = f"{len(lacking)} of the {candidates} best members have no cost in {' and '.join(kinds)} and were skipped"
    if cannot_count(library, lacking, kinds):
        return f"{note}: {UNCOUNTABLE}"
    measure = command("measure", library.path, prune=1, device=None if device == "cpu" else device)
    advice = f": `{measure}` measures all that can be run"
    return note + (advice if any(kind in (*MEASURED, *EXPORTED) for kind in kinds) else "")


def _task_of(library: Library) -> Task:
    """Return the task of the members of a library. Raises SelectionError when it has none."""
    members = library.members()
    if not members:
        tune = command("tune", "DATA", run=library.path)
        raise SelectionError(f"{library.path} has no members to select from: `{tune}` trains some")
    return members[0].task


def _check(
    library: Library,
    kinds: Sequence[str],
    options: _Options,
) -> None:
    """Raise SelectionError for arguments that cannot be used, before anything is measured."""
    validation.check_words(options.used_method, options.used_loss, options.combiner, options.kind)
    validation.check_calibration(options.used_calibration, options.used_loss, options.combiner, options.kind)
    validation.check_numbers(None, options.prune, options.size, options.starts, options.cv)
    validation.check_pixels(options.pixels, options.kind)
    check_kinds(library, kinds)
    if options.size is not None and options.size > len(library) and options.method != "replacement":
        raise SelectionError(f"size {options.size} is larger than the library: it must be at most {len(library)}")


def _best_cost(library: Library, pool: _Pool, kind: str) -> float:
    best = min(pool.ids, key=lambda m: (library.member(m).loss, m))
    return pool.costs.alone(kind)[best]


def _ensemble(pool: _Pool, choice: Choice, options: _Options, budget: dict[str, float], name: str) -> Ensemble:
    return choice.ensemble(name, pool.ids, budget, options.used_method, options.used_loss, options.used_calibration)


def _name(budget: Budget, options: _Options) -> str:
    words = options.method, options.used_loss, options.combiner, options.calibrate, options.kind
    return name_of(budget, *words) + ("" if options.pixels is None else f"-pixels{options.pixels}")


def _note_sample(choices: Sequence[Choice], ensembles: Sequence[Ensemble], options: _Options) -> list[str]:
    """Return the note how far the loss on all pixels is from that of the sample; none without a sample."""
    if options.pixels is None or not ensembles:
        return []
    key = metric_key(options.used_loss)
    metric = METRICS[key]

    def difference(choice: Choice, ensemble: Ensemble) -> float:
        return abs(metric.as_loss(ensemble.losses[f"valid_{key}"]) - choice.loss)

    choice, ensemble = max(zip(choices, ensembles, strict=True), key=lambda pair: difference(*pair))
    sampled = 1 - choice.loss if metric.higher_is_better else choice.loss
    figures = f"{metric.format(ensemble.losses[f'valid_{key}'])} on all pixels and {metric.format(sampled)} on these"
    most = f", the largest difference of {len(ensembles)} ensembles" if len(ensembles) > 1 else ""
    return [f"selected by {options.pixels} pixels of each image: {metric.title} of {ensemble.name} is {figures}{most}"]


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
    fitted = [dataclasses.replace(e, thresholds=_thresholds(library, e)) for e in ensembles]
    return [dataclasses.replace(e, losses=ensemble_losses(library, e)) for e in fitted]


def reevaluate(library: Library, changed: Collection[str], split: Split) -> list[str]:
    """Evaluate the ensembles with `changed` members again, after new predictions on `split`; return their names.

    New validation predictions invalidate these ensembles' cascades, coverages, rules of abstention and expected losses,
    and a front with changed members: all are removed.
    """
    touched = [e for e in library.ensembles() if not set(e.members).isdisjoint(changed)]
    for ensemble in _evaluated(library, touched, test=False):
        if split == "valid":
            library.forget_cascade(ensemble.name)
            ensemble = dataclasses.replace(
                ensemble,
                expected_loss=None,
                expected_loss_error=None,
                coverage=(),
                abstain=None,
            )
            ensemble = describe_spread(library, ensemble)
        library.write_ensemble(ensemble)
    front = library.front()
    if front is not None and any(not set(e.members).isdisjoint(changed) for e in front.ensembles):
        if split == "valid":
            library.forget_front()
        else:
            evaluated = _evaluated(library, front.ensembles, test=False)
            library.write_front(dataclasses.replace(front, ensembles=tuple(evaluated)))
    return [e.name for e in touched]


def _thresholds(library: Library, ensemble: Ensemble) -> tuple[float, ...]:
    """Return the thresholds of labels, fitted to the ensemble's validation predictions; empty without labels."""
    kind = kind_of(library.member(ensemble.members[0]).task)
    if not kind.has_thresholds or not all(library.has_predictions(m, "valid") for m in ensemble.members):
        return ()
    predictions = [library.predictions(m) for m in ensemble.members]
    return kind.fit_thresholds(combine_calibrated(predictions, ensemble, kind), library.targets())


def ensemble_losses(library: Library, ensemble: Ensemble) -> dict[str, float]:
    """Compute the metrics of an ensemble on every split that its members have predicted, at its thresholds."""
    figures: dict[str, float] = {}
    task = library.member(ensemble.members[0]).task
    kind = kind_of(task)
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if all(library.has_predictions(m, split) for m in ensemble.members):
            blocks = ((block.combined, block.targets) for block in combined_blocks(library, ensemble, split))
            scores = kind.score_blocks(blocks, task, ensemble.thresholds)
            figures |= {f"{split}_{name}": value for name, value in scores.items()}
    return figures
