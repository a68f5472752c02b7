"""Prediction sets and intervals with a coverage that holds (split conformal prediction).

An answer is in a set if its score, which is low for a likely answer, is at most a threshold. The threshold is a
quantile of the scores of the truth on samples that the members were not trained on. Then the set of a new sample of the
same distribution holds the truth with the probability asked for, whatever the members are.

Scores of classes (samples, classes):
    `lac`   1 - probability (Sadinle et al., "Least ambiguous set-valued classifiers", 2019): the smallest sets
    `aps`   sum of the probabilities of likelier classes, and a random share of its own (Romano et al., 2020)
    `raps`  `aps` with a penalty for classes of low rank (Angelopoulos et al., "Uncertainty sets", 2021)
Score of labels and of pixels:
    `fnr`   1 - probability; the threshold bounds the mean share of a sample's true labels, or pixels, that are missed
            (Angelopoulos et al., "Conformal risk control", 2024)
Scores of values, which are residuals divided by a scale:
    `residual`  1
    `spread`    root of the variance of the members and that of the residuals, so that a small spread is no small scale
    `root`      the root of the prediction's size, as for counts
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError, SelectionError
from ripieno.tasks.pixels import prediction_blocks
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, Coverage, CoverageScore, Float32s, Floats, Task

FLOOR_SHARE = 0.25
"""Quantile of the sizes of predictions that is the least size of score `root`: see `interval_scores.py`."""
PENALTIES = (0.001, 0.01, 0.1, 0.5)
"""Penalties that `raps` tries."""
TOLERANCE = 1e-9
"""Rounding of a sum of weights."""
KEPT_BITS = 16
"""Bits of a float32 by which the probabilities of pixels are counted: its sign, its exponent, 7 of its fraction."""
HALF = int(np.float32(0.5).view(np.uint32)) >> (32 - KEPT_BITS)
"""Number of different probabilities below a half."""


def least_samples(level: float) -> int:
    """Return the least number of validation samples from which a coverage of `level` can be fitted."""
    return math.ceil(1 / (1 - _exact(level))) - 1


def check_level(level: float) -> None:
    """Raise SelectionError unless `level` is between 0 and 1."""
    if not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise SelectionError(f"coverage {level} is invalid: expected a number between 0 and 1, such as 0.9")


def check_score(score: str, kind: TaskKind) -> None:
    """Raise SelectionError unless `score` fits a kind of task."""
    if score not in kind.coverage_scores:
        known = ", ".join(kind.coverage_scores)
        raise SelectionError(f"score {score!r} does not fit task {kind.name}: expected {known}")


def check_per_class(kind: TaskKind) -> None:
    """Raise SelectionError unless coverage by class fits a kind of task."""
    if gives_intervals(kind):
        raise SelectionError(f"coverage by class does not fit task {kind.name}: it has no classes")


def check_targets(targets: NDArray[Any], task: Task, level: float, per_class: bool = False) -> None:
    """Raise SelectionError if a coverage of `level` needs more samples than `targets` are of, in all or of a class."""
    kind, classes = kind_of(task), range(len(task.names))
    if kind.is_pixelwise:
        masks = (np.unique(mask) for mask in targets)
        held = np.array([np.isin(classes, found) for found in masks]).reshape(-1, len(classes))
    elif kind.name == "multilabel":
        held = targets > 0
    elif per_class:
        held = targets[:, None] == np.arange(len(classes))
    else:
        held = np.ones((len(targets), 1), bool)
    counts = np.count_nonzero(held, axis=0) if per_class else np.atleast_1d(np.count_nonzero(held.any(axis=1)))
    _check_counts(level, counts, task)


def check_coverage(coverage: Coverage, task: Task, where: str, error: type[RipienoError]) -> None:
    """Raise `error`, naming `where`, unless a coverage that was read fits `task`."""
    kind, names = kind_of(task), len(task.names)
    each = coverage.per_class or gives_intervals(kind)
    scaled = coverage.score in ("spread", "root")
    scores = kind.coverage_scores
    rules = (
        (0 < coverage.level < 1, f"level {coverage.level:g}, must be between 0 and 1"),
        (coverage.score in scores, f"score {coverage.score}, must be {' or '.join(scores)}"),
        (
            len(coverage.thresholds) == (names if each else 1),
            f"{len(coverage.thresholds)} thresholds, must be {names if each else 1}",
        ),
        (
            len(coverage.floors) == (names if scaled else 0),
            f"{len(coverage.floors)} floors, must be {names if scaled else 0}",
        ),
        (min(coverage.floors, default=1.0) > 0, f"floors {list(coverage.floors)}, must be above 0"),
    )
    for holds, message in rules:
        if not holds:
            raise error(f"{where}: its ensemble has a coverage of {message}")


def gives_intervals(kind: TaskKind) -> bool:
    """Return whether a kind of task gives intervals, not sets."""
    return kind.activation == "identity"


def fit_pixel_coverage(
    blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    task: Task,
    levels: Sequence[float],
    *,
    per_class: bool = False,
    held_out: bool = False,
) -> tuple[Coverage, ...]:
    """Fit coverages of pixels as `fit_coverage`, one of each level, from blocks of samples: predictions and masks.

    The blocks are read once.
    """
    for level in levels:
        check_level(level)
    counts = _count_pixels(blocks, len(task.names), per_class)
    empty = [Coverage(float(level), "fnr", (), 0, per_class=per_class, held_out=held_out) for level in levels]
    return tuple(_fit_pixels(own, counts, task) for own in empty)


def fit_coverage(
    predictions: NDArray[Any],
    targets: NDArray[Any],
    task: Task,
    level: float,
    *,
    score: CoverageScore | None = None,
    per_class: bool = False,
    spread: NDArray[Any] | None = None,
    held_out: bool = False,
    seed: int = 0,
) -> Coverage:
    """Fit a coverage of `level` to predictions and targets of samples that the members were not trained on.

    `predictions` are the ensemble's, as served; `spread` (samples, targets) is the deviation of its members, which
    score `spread` needs. `score` is by default the first of the kind of task. With `per_class` the level holds for each
    class or label by itself. Raises SelectionError for arguments that do not fit the task, and for too few samples.
    """
    kind = kind_of(task)
    check_level(level)
    chosen: CoverageScore = kind.coverage_scores[0] if score is None else score
    check_score(chosen, kind)
    if per_class:
        check_per_class(kind)
    empty = Coverage(float(level), chosen, (), len(targets), per_class=per_class, held_out=held_out, seed=int(seed))
    check_targets(targets, task, level, per_class)
    if gives_intervals(kind):
        return _fit_intervals(empty, predictions, targets, spread)
    if kind.is_pixelwise:
        blocks = ((predictions[block], targets[block]) for block in prediction_blocks(predictions))
        return _fit_pixels(empty, _count_pixels(blocks, len(task.names), per_class), task)
    if chosen == "fnr":
        return _fit_labels(empty, predictions, targets)
    return _fit_classes(empty, predictions, targets)


def prediction_set(predictions: NDArray[Any], coverage: Coverage) -> NDArray[np.bool_]:
    """Return which classes or labels are in the set of each sample, in the shape of `predictions`.

    A set may be empty: then no class is as likely as the true ones of the validation samples mostly are.
    """
    return np.asarray(_scores(predictions, coverage) <= np.asarray(coverage.thresholds))


def interval(
    predictions: NDArray[Any], coverage: Coverage, spread: NDArray[Any] | None = None
) -> tuple[Float32s, Float32s]:
    """Return the lower and upper bounds (samples, targets) of the values; `spread` is as in `fit_coverage`."""
    values = np.asarray(predictions, np.float64)
    half = _scale(values, coverage, spread) * np.asarray(coverage.thresholds)
    return (values - half).astype(np.float32), (values + half).astype(np.float32)


def share_held(sets: NDArray[np.bool_], targets: NDArray[Any]) -> Floats:
    """Return for each sample the share of its truth that its set holds: 0 or 1 of a class, any of labels or pixels.

    A sample without labels, or without counted pixels, has NaN.
    """
    if targets.ndim == 3:
        counted = targets != IGNORED
        true = np.take_along_axis(sets, np.where(counted, targets, 0)[..., None].astype(np.intp), axis=-1)[..., 0]
        with np.errstate(invalid="ignore"):
            return np.asarray((true & counted).sum(axis=(1, 2)) / counted.sum(axis=(1, 2)))
    if targets.ndim == 1:
        return np.asarray(sets[np.arange(len(targets)), targets], np.float64)
    true = np.count_nonzero(targets, axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.count_nonzero(sets & (targets > 0), axis=1) / true, np.float64)


def _fit_classes(empty: Coverage, predictions: NDArray[Any], targets: NDArray[Any]) -> Coverage:
    if empty.score != "raps":
        return _with_thresholds(empty, predictions, targets)
    # the rank within which the truth mostly is: classes beyond it are penalised
    order = np.argsort(-predictions, axis=1, kind="stable")
    free = int(_threshold((order == targets[:, None]).argmax(axis=1) + 1.0, empty.level))
    tried = [
        _with_thresholds(dataclasses.replace(empty, penalty=penalty, free_classes=free), predictions, targets)
        for penalty in PENALTIES
    ]
    return min(tried, key=lambda coverage: coverage.sizes)


def _with_thresholds(coverage: Coverage, predictions: NDArray[Any], targets: NDArray[Any]) -> Coverage:
    """Return `coverage` with the thresholds of classes, and the mean size of its sets."""
    scores = _scores(predictions, coverage)
    true = scores[np.arange(len(targets)), targets]
    groups = [true[targets == c] for c in range(predictions.shape[1])] if coverage.per_class else [true]
    thresholds = tuple(_threshold(group, coverage.level) for group in groups)
    sizes = (float((scores <= np.asarray(thresholds)).sum(axis=1).mean()),)
    return dataclasses.replace(coverage, thresholds=thresholds, sizes=sizes)


def _fit_labels(empty: Coverage, predictions: NDArray[Any], targets: NDArray[Any]) -> Coverage:
    scores, true = _scores(predictions, empty), targets > 0
    if empty.per_class:
        thresholds = tuple(_threshold(s[t], empty.level) for s, t in zip(scores.T, true.T, strict=True))
        samples = len(targets)
    else:
        counts = np.count_nonzero(true, axis=1)
        samples = int(np.count_nonzero(counts))  # of a sample without labels none can be missed
        weights = np.broadcast_to(1 / np.maximum(counts, 1)[:, None], true.shape)
        thresholds = (_threshold(scores[true], empty.level, weights[true], samples),)
    sizes = (float((scores <= np.asarray(thresholds)).sum(axis=1).mean()),)
    return dataclasses.replace(empty, thresholds=thresholds, samples=samples, sizes=sizes)


@dataclass(frozen=True, eq=False)
class _PixelCounts:
    """Probabilities of pixels by their bins, of each class or of all together."""

    true: Floats
    """(groups, bins) of the true classes; each image, of a group with pixels, counts as one"""
    every: NDArray[np.int64]
    """(groups, bins) of all classes"""
    images: NDArray[np.int64]
    """(groups,) images with pixels of the group"""
    samples: int
    """images with counted pixels"""
    pixels: int


def _count_pixels(blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]], classes: int, per_class: bool) -> _PixelCounts:
    groups = classes if per_class else 1
    true = np.zeros((groups, 2 * HALF + 2))
    every = np.zeros(true.shape, np.int64)
    images, samples, pixels = np.zeros(groups, np.int64), 0, 0
    for predictions, masks in blocks:
        for own, mask in zip(predictions, masks, strict=True):
            counted = mask != IGNORED
            found, truth = _probability_bins(own[counted]), mask[counted]
            samples, pixels = samples + bool(len(truth)), pixels + len(truth)
            for group in range(groups):
                held = truth == group if per_class else np.ones(len(truth), bool)
                some = found[:, group] if per_class else found.reshape(-1)
                every[group] += np.bincount(some, minlength=every.shape[1])
                if count := np.count_nonzero(held):
                    images[group] += 1
                    true[group] += np.bincount(found[held, truth[held]], minlength=true.shape[1]) / count
    return _PixelCounts(true, every, images, samples, pixels)


def _fit_pixels(empty: Coverage, counts: _PixelCounts, task: Task) -> Coverage:
    """Fit the least probability of a class in the set of a pixel, from the counts of probabilities.

    It is exact to one part in 128, on the safe side.
    """
    _check_counts(empty.level, counts.images, task)
    allowed = np.array([_allowed(empty.level, int(count)) for count in counts.images])[:, None]
    # the last bin below which the true ones are few enough
    lowest = (np.cumsum(counts.true, axis=1) - counts.true <= allowed + TOLERANCE).sum(axis=1) - 1
    thresholds = tuple(1 - _lower_edge(int(number)) for number in lowest)
    size = sum(int(own[low:].sum()) for own, low in zip(counts.every, lowest, strict=True)) / max(1, counts.pixels)
    return dataclasses.replace(empty, thresholds=thresholds, samples=counts.samples, sizes=(size,))


def _probability_bins(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Return a whole number for each probability, that grows with it; both ends, near 0 and 1, are fine."""
    single = np.clip(np.asarray(probabilities, np.float32), 0, 1)
    low, high = (np.ascontiguousarray(p).view(np.uint32) >> (32 - KEPT_BITS) for p in (single, 1 - single))
    return np.where(single < 0.5, low, 2 * HALF + 1 - high.astype(np.int64)).astype(np.int64)


def _lower_edge(number: int) -> float:
    """Return the least probability of a bin of `_probability_bins`."""
    if number < HALF:
        return float(np.uint32(number << (32 - KEPT_BITS)).view(np.float32))
    above = np.uint32((2 * HALF + 2 - number) << (32 - KEPT_BITS)).view(np.float32)
    return max(0.5, 1 - float(np.nextafter(above, np.float32(0))))


def _fit_intervals(
    empty: Coverage, predictions: NDArray[Any], targets: NDArray[Any], spread: NDArray[Any] | None
) -> Coverage:
    values, truth = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    coverage = dataclasses.replace(empty, floors=_floors(values, truth, empty))
    scale = _scale(values, coverage, spread)
    scores = np.abs(truth - values) / scale
    thresholds = tuple(_threshold(column, empty.level) for column in scores.T)
    sizes = tuple(map(float, (2 * scale * np.asarray(thresholds)).mean(axis=0)))
    return dataclasses.replace(coverage, thresholds=thresholds, sizes=sizes)


def _scores(predictions: NDArray[Any], coverage: Coverage) -> Floats:
    """Return the score of each class or label, in the shape of `predictions`."""
    probabilities = np.asarray(predictions, np.float64)
    if coverage.score in ("lac", "fnr"):
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    sums = np.cumsum(ranked, axis=1) - ranked * (1 - _random_shares(predictions, coverage.seed)[:, None])
    if coverage.score == "raps":
        sums += coverage.penalty * np.maximum(np.arange(1, sums.shape[1] + 1) - coverage.free_classes, 0)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def _random_shares(predictions: NDArray[Any], seed: int) -> Floats:
    """Return a random number in 0..1 for each sample (samples,), the same wherever its predictions are the same.

    It is a hash of them. So a request gives the same set alone and among others, and the score is a fixed function.
    """
    bits = np.ascontiguousarray(predictions, np.float32).view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(seed).integers(1 << 63, size=bits.shape[1], dtype=np.uint64)
    mixed = bits @ (factors * np.uint64(2) + np.uint64(1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53)


def _floors(values: Floats, truth: Floats, coverage: Coverage) -> tuple[float, ...]:
    """Return the noise of each target, of score `root` the least size of its predictions; 1 where it would be 0."""
    if coverage.score == "residual":
        return ()
    if coverage.score == "spread":
        floors = np.sqrt(((truth - values) ** 2).mean(axis=0))
    else:
        floors = np.quantile(np.abs(values), FLOOR_SHARE, axis=0)
    return tuple(float(floor) if floor > 0 else 1.0 for floor in floors)


def _scale(values: Floats, coverage: Coverage, spread: NDArray[Any] | None) -> Floats:
    """Return what the residuals (samples, targets) are divided by."""
    if coverage.score == "residual":
        return np.ones(values.shape)
    floors = np.asarray(coverage.floors)
    if coverage.score == "root":
        return np.asarray(np.sqrt(np.maximum(np.abs(values), floors)))
    if spread is None:
        raise SelectionError("score spread needs the deviation of the members: pass spread")
    return np.asarray(np.hypot(np.asarray(spread, np.float64), floors))


def _threshold(scores: Floats, level: float, weights: Floats | None = None, samples: int | None = None) -> float:
    """Return the least of `scores` above which few enough of them are, so that the next sample's is below it.

    `weights` of the scores sum to the number of `samples`; by default each score is a sample.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    count = len(scores) if samples is None else samples
    order = np.argsort(scores, kind="stable")
    above = weights.sum() - np.cumsum(weights[order])
    return float(scores[order[int((above <= _allowed(level, count) + TOLERANCE).argmax())]])


def _allowed(level: float, samples: int) -> float:
    """Return of how many of `samples` the truth may be missed."""
    return float((samples + 1) * (1 - _exact(level)) - 1)


def _exact(level: float) -> Fraction:
    """Return `level` as written: 0.9 is nine tenths, so that 9 samples are enough for it."""
    return Fraction(repr(float(level)))


def _check_counts(level: float, counts: NDArray[Any], task: Task) -> None:
    """Raise SelectionError if one of `counts` is too small: that of all samples, or those of each class or label."""
    least = least_samples(level)
    short = np.flatnonzero(counts < least)
    if not len(short):
        return
    count = int(counts[short[0]])
    if len(counts) == 1:
        which = " with a label" if task.kind == "multilabel" else ""
        raise SelectionError(
            f"coverage {level:g} needs at least {least:,} validation samples{which}, and there are {count:,}: "
            "ask for a lower coverage, or validate on more samples"
        )
    more = f" (so have {len(short) - 1} more)" if len(short) > 1 else ""
    noun = "label" if task.kind == "multilabel" else "class"
    raise SelectionError(
        f"coverage {level:g} by class needs at least {least:,} validation samples of each {noun}, and "
        f"{task.names[short[0]]!r} has {count or 'none'}{more}: ask for a lower coverage, or for one of all together"
    )
