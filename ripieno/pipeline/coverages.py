"""Ensemble -> the same ensemble with a coverage of its answers, and when it would rather not answer.

Thresholds are fitted to validation predictions of the ensemble, combined as served. With folds these are out-of-fold
predictions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import LibraryError, SelectionError
from ripieno.library import Library
from ripieno.pipeline.combined_blocks import CombinedBlock, combined_blocks
from ripieno.pipeline.runs import open_run, refuse_policies, task_of
from ripieno.tasks import conformal
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.tasks.uncertainty import abstention_threshold, least_samples, quantiles_of
from ripieno.types import AbstainRule, CoverageScore, Ensemble, Floats, Ints, Task

SAMPLES_PER_DOUBLING = 100
"""Validation samples for which a library may have twice as many members, so that selection does not spoil a coverage.

Measured by `benchmarks/uncertainty/held_out.py`: a coverage fitted to the samples that selected is at most about one
point too low at this number of members, and up to five where there are many more.
"""
HELD_SHARE = 3
"""Of this number of validation samples, one is kept from selection."""
DESCRIBED = 1 << 31
"""Most predictions of members from which the quantiles of their disagreement are computed."""


NO_ROWS: Ints = np.empty(0, np.int64)
"""No samples."""


@dataclass(frozen=True)
class CoverageOptions:
    """Options of a coverage, and of the rule by which an ensemble abstains."""

    levels: tuple[float, ...] = ()
    """coverages of prediction sets or intervals, the default of requests first"""
    score: CoverageScore | None = None
    """None: the first that fits the task"""
    per_class: bool = False
    """whether each class or label has its coverage by itself"""
    abstain: float | None = None
    """largest expected error of what is answered; None: all is answered"""
    seed: int = 0
    """of the random scores"""

    @property
    def asked(self) -> bool:
        """True where a coverage or a rule is to be fitted."""
        return bool(self.levels) or self.abstain is not None


def coverage_options(
    coverage: float | Sequence[float],
    score: CoverageScore | None,
    per_class: bool,
    abstain: float | None,
    seed: int = 0,
) -> CoverageOptions:
    """Return the options given as arguments of Python; a single level may be a number."""
    given: Any = coverage
    levels = tuple(given) if np.ndim(given) else (given,)
    return CoverageOptions(levels, score, per_class, abstain, seed)


def check_options(options: CoverageOptions, task: Task, targets: NDArray[Any]) -> None:
    """Raise SelectionError unless the options fit the task and the validation `targets`, before any work."""
    kind = kind_of(task)
    if not options.levels and (options.score is not None or options.per_class):
        given = "a score" if options.score is not None else "coverage by class"
        raise SelectionError(f"{given} needs a coverage: give one too, such as 0.9")
    for level in options.levels:
        conformal.check_level(level)
        if options.levels.count(level) > 1:
            raise SelectionError(f"coverage {level:g} is given twice")
    if options.score is not None:
        conformal.check_score(options.score, kind)
    if options.per_class:
        conformal.check_per_class(kind)
    for level in options.levels:
        conformal.check_targets(targets, task, level, options.per_class)
    if options.abstain is not None:
        if conformal.gives_intervals(kind):
            raise SelectionError(f"abstain does not fit task {kind.name}: its answers are not right or wrong")
        if not isinstance(options.abstain, int | float | np.number) or not 0 < options.abstain < 1:
            raise SelectionError(f"abstain {options.abstain} is invalid: expected an error between 0 and 1")
    if not isinstance(options.seed, int | np.integer) or options.seed < 0:
        raise SelectionError(f"seed {options.seed!r} is invalid: expected a whole number, at least 0")


def coverage(
    run: str | Path | Library,
    ensemble: str | Ensemble,
    *,
    coverage: float | Sequence[float] = (),
    score: CoverageScore | None = None,
    per_class: bool = False,
    abstain: float | None = None,
    seed: int = 0,
    trusted: Sequence[str] = (),
    notes: list[str] | None = None,
) -> Ensemble:
    """Fit the coverage of an ensemble of `run` to all its validation samples, and write it to the run.

    `coverage` is a share, such as 0.9, or several: requests choose one of them, by default the first. Prediction sets,
    or intervals of a regression, then hold the truth with that probability. `score` orders the answers: "lac", "aps"
    or "raps" of classes (the last two are random, by `seed`), "fnr" of labels and pixels, "spread", "residual" or
    "root" of values; see `ripieno.tasks.conformal`. With `per_class`, each class or label has the coverage by itself.

    `abstain` is the largest expected error of the answers that are given: the ensemble would rather not answer samples
    of low confidence, so that the others stay below it. What an earlier call fitted and this one does not name, is
    kept. `notes` collects what was fitted to how many samples.

    Raises LibraryError without such an ensemble, and SelectionError for arguments that do not fit the task, for fewer
    samples than a coverage needs, and for an error that cannot be reached.
    """
    library = open_run(run, writing=True, trusted=trusted)
    refuse_policies(task_of(library), "a coverage")
    known = library.ensemble(ensemble) if isinstance(ensemble, str) else ensemble
    options = coverage_options(coverage, score, per_class, abstain, seed)
    task = library.member(known.members[0]).task
    if absent := [m for m in known.members if not library.has_predictions(m, "valid")]:
        raise LibraryError(f"{absent[0]} has no validation predictions in {library.path}")
    targets = library.targets()
    check_options(options, task, targets)
    if not options.asked:
        raise SelectionError("neither coverage nor abstain is given: give one, such as coverage 0.9")
    fitted = fit_options(library, known, options, np.arange(len(targets)))
    fitted = describe_spread(library, fitted)
    if notes is not None:
        notes += describe_fits([fitted], options, len(targets), held_out=False)
    library.write_ensemble(fitted)
    return fitted


def fit_options(
    library: Library,
    ensemble: Ensemble,
    options: CoverageOptions,
    rows: Ints,
    *,
    held_out: bool = False,
) -> Ensemble:
    """Return `ensemble` with what `options` ask for, fitted to the validation samples `rows`.

    Raises SelectionError as `coverage`.
    """
    task = library.member(ensemble.members[0]).task
    fit = _fit_pixels if kind_of(task).is_pixelwise else _fit_samples
    found = fit(library, ensemble, options, rows, held_out, task)
    return dataclasses.replace(ensemble, **found)


def fit_all(
    library: Library, ensembles: Sequence[Ensemble], options: CoverageOptions, held: Ints, notes: list[str]
) -> list[Ensemble]:
    """Return selected `ensembles` with what `options` ask for, fitted to the samples `held` out, by default to all.

    An error that no rule of abstention reaches is a note. Other notes are those of `describe_fits`.
    """
    rows = held if len(held) else np.arange(len(library.targets()))
    fitted = []
    for ensemble in ensembles:
        try:
            fitted.append(fit_options(library, ensemble, options, rows, held_out=bool(len(held))))
        except SelectionError as error:
            notes.append(f"{ensemble.name}: {error}")
            plain = dataclasses.replace(options, abstain=None)
            fitted.append(fit_options(library, ensemble, plain, rows, held_out=bool(len(held))))
    notes += describe_fits(fitted, options, len(rows), held_out=bool(len(held)))
    return fitted


def held_out_rows(targets: NDArray[Any], task: Task, members: int, options: CoverageOptions) -> Ints:
    """Return the validation samples that are kept from a selection among `members`, ascending; empty where all may be.

    They are one in `HELD_SHARE` of each stratum. None are kept where so few are not enough for what is asked, and
    of pixels, of which an image has many.
    """
    kind = kind_of(task)
    if not options.asked or kind.is_pixelwise or math.log2(members) <= len(targets) / SAMPLES_PER_DOUBLING:
        return NO_ROWS
    strata = kind.strata(targets)
    random = np.random.default_rng(0).permutation(len(targets))
    order = random if strata is None else np.lexsort((random, strata))
    rows = np.sort(order[HELD_SHARE // 2 :: HELD_SHARE])
    if options.abstain is not None and len(rows) < least_samples(options.abstain):
        return NO_ROWS
    try:
        check_options(options, task, targets[rows])
    except SelectionError:
        return NO_ROWS
    return rows


def describe_spread(library: Library, ensemble: Ensemble) -> Ensemble:
    """Return `ensemble` with what is usual of its members' disagreement, and of values with their deviation."""
    if not all(library.has_predictions(m, "valid") for m in ensemble.members):
        return dataclasses.replace(ensemble, unusual=(), spread_calibration=None)
    kind, calibration = kind_of(library.member(ensemble.members[0]).task), None
    if conformal.gives_intervals(kind):
        blocks = list(_reduced(kind, member_shares(ensemble), combined_blocks(library, ensemble)))
        predictions, targets, spread = (np.concatenate(part) for part in zip(*blocks, strict=True))
        calibration = kind.fit_spread(predictions, targets, spread)
    return dataclasses.replace(ensemble, unusual=_unusual_quantiles(library, ensemble), spread_calibration=calibration)


def _unusual_quantiles(library: Library, ensemble: Ensemble) -> tuple[float, ...]:
    """Return the quantiles of the members' disagreement on validation samples.

    They are empty for a single member. Of very large predictions, evenly spaced samples are taken.
    """
    if len(ensemble.members) == 1:
        return ()
    samples = len(library.predictions(ensemble.members[0]))
    numbers = len(ensemble.members) * library.predictions(ensemble.members[0])[0].size
    count = min(samples, max(1000, DESCRIBED // numbers))
    rows = np.unique(np.linspace(0, samples - 1, count).astype(np.int64))
    kind, shares = kind_of(library.member(ensemble.members[0]).task), member_shares(ensemble)
    parts = [kind.member_disagreement(block.members, shares) for block in combined_blocks(library, ensemble, rows=rows)]
    return quantiles_of(np.concatenate(parts))


def describe_fits(ensembles: Sequence[Ensemble], options: CoverageOptions, samples: int, held_out: bool) -> list[str]:
    """Return notes: which samples the thresholds of `ensembles` are fitted to, and where sets may be empty."""
    which = "that were kept from selection" if held_out else "of the run, by which members were also selected"
    abstains = options.abstain is not None and any(ensemble.abstain for ensemble in ensembles)
    what = " and ".join([*["coverage"] * bool(options.levels), *["abstention"] * abstains])
    if not what or not ensembles:
        return []
    notes = [f"{what} fitted to {samples:,} validation samples {which}"]
    for ensemble in ensembles:
        accuracy = ensemble.losses.get("valid_accuracy", 0.0)
        above = [level for level in options.levels if level < accuracy]
        if above:
            notes.append(
                f"{ensemble.name}: {accuracy:.1%} of its most likely classes are true, so that some sets of coverage "
                f"{min(above):g} are empty"
            )
    return notes


def _fit_samples(
    library: Library, ensemble: Ensemble, options: CoverageOptions, rows: Ints, held_out: bool, task: Task
) -> dict[str, Any]:
    kind, shares = kind_of(task), member_shares(ensemble)
    blocks = list(_reduced(kind, shares, combined_blocks(library, ensemble, rows=rows)))
    predictions, targets = (np.concatenate([block[part] for block in blocks]) for part in (0, 1))
    spread = np.concatenate([block[2] for block in blocks]) if conformal.gives_intervals(kind) else None
    found: dict[str, Any] = {}
    if options.levels:
        found["coverage"] = tuple(
            conformal.fit_coverage(
                predictions,
                targets,
                task,
                level,
                score=options.score,
                per_class=options.per_class,
                spread=spread,
                held_out=held_out,
                seed=options.seed,
            )
            for level in options.levels
        )
    if options.abstain is not None:
        certainty = kind.certainty(predictions, np.zeros(len(targets)))
        errors = kind.errors(predictions, targets, ensemble.thresholds)
        found["abstain"] = _rule(options.abstain, certainty, errors, held_out)
    return found


def _reduced(
    kind: TaskKind, shares: Floats, blocks: Iterator[CombinedBlock]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]:
    """Yield combined predictions, targets, and of values the spread of the members."""
    for block in blocks:
        spread = kind.spread(block.members, block.combined, shares) if conformal.gives_intervals(kind) else None
        yield block.combined, block.targets, spread


def _fit_pixels(
    library: Library, ensemble: Ensemble, options: CoverageOptions, rows: Ints, held_out: bool, task: Task
) -> dict[str, Any]:
    kind = kind_of(task)
    certainty, errors = [], []

    def observed() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield predictions and masks, of which each is read once; note what abstention needs of them."""
        for block in combined_blocks(library, ensemble, rows=rows):
            if options.abstain is not None:
                certainty.append(kind.certainty(block.combined, np.zeros(len(block.targets))))
                errors.append(kind.errors(block.combined, block.targets))
            yield block.combined, block.targets

    found: dict[str, Any] = {}
    if options.levels:
        found["coverage"] = conformal.fit_pixel_coverage(
            observed(), task, options.levels, per_class=options.per_class, held_out=held_out
        )
    else:
        for _ in observed():
            pass
    if options.abstain is not None:
        found["abstain"] = _rule(options.abstain, np.concatenate(certainty), np.concatenate(errors), held_out)
    return found


def _rule(error: float, certainty: Floats, errors: Floats, held_out: bool) -> AbstainRule:
    threshold = abstention_threshold(certainty, errors, error)
    answered = float((certainty >= threshold).mean())
    return AbstainRule(float(error), threshold, len(errors), answered=answered, held_out=held_out)
