"""Outputs that say how sure an ensemble is of its answers, on request. Server, `predict` and Python share them.

`prediction_set`      classes or labels (samples, *task.output) that the truth is among with the probability of a level
`lower`, `upper`      bounds of values (samples, targets) that hold the truth with the probability of a level
`standard_deviation`  of the error of each value (samples, targets)
`entropy`             of the answer (samples,), nats
`mutual_information`  what the members disagree about (samples,), nats
`unusual`             share of the validation samples about which the members disagree at most as much (samples,)
`abstain`             where the ensemble would rather not answer (samples,)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError, SelectionError
from ripieno.shell_command import command
from ripieno.tasks.conformal import gives_intervals, interval, prediction_set
from ripieno.tasks.registry import kind_of
from ripieno.tasks.spread_calibration import standard_deviation
from ripieno.tasks.uncertainty import quantile_among
from ripieno.types import Coverage, Ensemble, Float32s, Task

COVERAGE_OUTPUTS = ("prediction_set", "lower", "upper")
"""Outputs that hold the truth with the probability of a level."""
OUTPUTS_BY_TARGET = ("standard_deviation", "lower", "upper")
"""Outputs of a regression with a number for each target."""
BOOLEAN_OUTPUTS = ("prediction_set", "abstain")
"""Outputs of truth values; the others are float32."""
SAME = 1e-6
"""Difference of equal levels, which a request may send in single precision."""
UNCERTAINTY_OUTPUTS = (*COVERAGE_OUTPUTS, "standard_deviation", "entropy", "mutual_information", "unusual", "abstain")
"""All outputs; an ensemble has those of its task that were fitted."""


class AnswerNeeds(NamedTuple):
    """Parts of an engine's answer that outputs are derived from, besides the predictions of all members together."""

    spread: bool = False
    disagreement: bool = False


class UncertaintyOutputs:
    """Outputs that `ensemble`, of `task`, has besides its predictions."""

    def __init__(self, ensemble: Ensemble, task: Task) -> None:
        self.ensemble, self.task, self.kind = ensemble, task, kind_of(task)
        intervals, sets = ("lower", "upper"), ("prediction_set",)
        covered = (intervals if gives_intervals(self.kind) else sets) if ensemble.coverage else ()
        has_entropy = self.kind.activation != "identity"
        self.names: tuple[str, ...] = (
            *covered,
            *(("standard_deviation",) if ensemble.spread_calibration else ()),
            *(("entropy", "mutual_information") if has_entropy else ()),
            *(("unusual",) if ensemble.unusual else ()),
            *(("abstain",) if ensemble.abstain else ()),
        )
        """names of the outputs that it has"""

    @property
    def in_tables(self) -> tuple[str, ...]:
        """Names of the outputs in tables of predictions: all, where the user has fitted a coverage or an abstention.

        Elsewhere it is the standard deviation of values alone.
        """
        asked = bool(self.ensemble.coverage or self.ensemble.abstain)
        return tuple(name for name in self.names if asked or name == "standard_deviation")

    @property
    def by_target(self) -> tuple[str, ...]:
        """Names of the outputs with a number for each target."""
        return tuple(name for name in self.names if name in OUTPUTS_BY_TARGET)

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of coverage, the default first."""
        return tuple(coverage.level for coverage in self.ensemble.coverage)

    @property
    def covered(self) -> tuple[str, ...]:
        """Names of the outputs that depend on a level of coverage."""
        return tuple(name for name in self.names if name in COVERAGE_OUTPUTS)

    def missing(self, name: str) -> str:
        """Return why the ensemble has no output `name`, and what to do."""
        ensemble, task = self.ensemble.name, self.task.kind
        values = gives_intervals(self.kind)
        if (
            name in ("entropy", "mutual_information")
            or (name == "abstain" and values)
            or (name == "standard_deviation" and not values)
        ):
            return f"A {task} has no {name.replace('_', ' ')}. Request spread."
        if name in COVERAGE_OUTPUTS and self.ensemble.coverage:
            return f"A {task} has no {name}. Request {' or '.join(self.covered)}."
        if name == "unusual" and len(self.ensemble.members) == 1:
            return f"{ensemble} has a single member, which disagrees with none. Request another output."
        lacks, fitted = {
            "abstain": ("no rule to abstain", {"abstain": 0.02}),
            "unusual": ("no figures of what is usual", {"coverage": 0.9}),
            "standard_deviation": ("no standard deviation", {"coverage": 0.9}),
        }.get(name, ("no coverage", {"coverage": 0.9}))
        fit = command("coverage", "RUN", ensemble, **fitted)
        return f"{ensemble} has {lacks}. Fit it with `{fit}`, then allocate again."

    def coverage(self, level: float | None = None) -> Coverage:
        """Return the coverage of `level`, by default the first. Raises SelectionError where there is none such."""
        if not self.ensemble.coverage:
            raise SelectionError(self.missing("coverage"))
        found = [c for c in self.ensemble.coverage if level is None or abs(c.level - level) < SAME]
        if not found:
            known = " or ".join(f"{known:g}" for known in self.levels)
            raise SelectionError(f"coverage is {level:g}, must be {known}: the levels that {self.ensemble.name} has")
        return found[0]

    def needs(self, names: Iterable[str], level: float | None = None) -> AnswerNeeds | None:
        """Return what an answer needs for the outputs `names` at `level`; None where none of them is one of these.

        With one, all members have to predict every sample, as they did the samples that it was fitted to.
        """
        asked = set(names).intersection(self.names)
        if not asked:
            return None
        bounds = asked.intersection(("lower", "upper"))
        return AnswerNeeds(
            spread="standard_deviation" in asked or (bool(bounds) and self.coverage(level).score == "spread"),
            disagreement=not asked.isdisjoint(("mutual_information", "unusual")),
        )

    def compute(
        self,
        name: str,
        predictions: NDArray[Any],
        *,
        spread: NDArray[Any] | None = None,
        disagreement: Float32s | None = None,
        level: float | None = None,
    ) -> NDArray[np.float32] | NDArray[np.bool_]:
        """Return an output of `names` from combined predictions, and what `needs` says of the engine's answer.

        `spread` is the answer's `std`. Raises SelectionError as `coverage`.
        """
        assert name in self.names
        if name == "prediction_set":
            return prediction_set(predictions, self.coverage(level))
        if name in COVERAGE_OUTPUTS:
            return interval(predictions, self.coverage(level), spread)[name == "upper"]
        if name == "standard_deviation":
            assert spread is not None
            assert self.ensemble.spread_calibration is not None
            return standard_deviation(spread, self.ensemble.spread_calibration)
        if name == "abstain":
            return self.abstains(predictions)
        return self.derive(name, self.kind.entropy(predictions) if name == "entropy" else disagreement)

    def abstains(self, predictions: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the ensemble would rather not answer (samples,)."""
        return np.asarray(self.derive("abstain", self.kind.confidence(predictions)), np.bool_)

    def derive(self, name: str, measure: NDArray[Any] | None) -> NDArray[Any]:
        """Return an output of `names` without a level from what it measures (samples,).

        That is the entropy, the confidence for `abstain`, and else the disagreement.
        """
        assert measure is not None
        if name == "abstain":
            assert self.ensemble.abstain is not None
            return np.asarray(measure, np.float64) < self.ensemble.abstain.threshold
        return quantile_among(measure, self.ensemble.unusual) if name == "unusual" else measure


def check_uncertainty(ensemble: Ensemble, task: Task, where: str, error: type[RipienoError]) -> None:
    """Raise `error`, naming `where`, unless rule and figures of an ensemble that was read fit `task`."""
    kind, rule, quantiles = kind_of(task), ensemble.abstain, np.asarray(ensemble.unusual)
    known = ensemble.spread_calibration
    numbers = () if known is None else (*known.scales, *known.floors)
    rules = (
        (rule is None or kind.activation != "identity", f"a rule to abstain, which a {task.kind} does not have"),
        (
            rule is None or rule.measure == "confidence",
            f"a rule to abstain by {rule.measure if rule else ''!r}, must be by 'confidence'",
        ),
        (rule is None or np.isfinite(rule.threshold), "a rule to abstain without a threshold"),
        (len(quantiles) != 1, "a single quantile of what is usual, must be none or several"),
        (bool((np.diff(quantiles) >= 0).all()), "quantiles of what is usual that do not rise"),
        (known is None or gives_intervals(kind), f"a standard deviation, which a {task.kind} does not have"),
        (
            known is None or len(known.scales) == len(known.floors) == len(task.names),
            f"another number of scales or floors of its standard deviation than {len(task.names)} targets",
        ),
        (
            known is None or (bool(np.isfinite(numbers).all()) and min(known.scales) >= 0 < min(known.floors)),
            "a standard deviation with a scale below 0, or a floor that is not above 0",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise error(f"{where}: its ensemble has {message}")


class TiledUncertainty:
    """Those of `outputs` about a picture that is predicted in tiles, without sets of pixels: means over its tiles."""

    def __init__(self, outputs: UncertaintyOutputs) -> None:
        self._outputs = outputs
        self._tiles = 0
        self._entropy = self._disagreement = 0.0
        """sums over the tiles"""

    def add(self, predictions: NDArray[Any], disagreement: Float32s) -> None:
        """Add the next tiles, with what `compute` takes."""
        entropy = self._outputs.kind.entropy(predictions)
        assert entropy is not None
        self._tiles += len(predictions)
        self._entropy += float(entropy.sum(dtype=np.float64))
        self._disagreement += float(disagreement.sum(dtype=np.float64))

    def compute(self, confidence: float) -> dict[str, float | bool]:
        """Return the outputs by name; `confidence` is that of the whole picture."""
        entropy, disagreement = self._entropy / self._tiles, self._disagreement / self._tiles
        measures = {"entropy": entropy, "abstain": confidence}
        return {
            name: self._outputs.derive(name, np.array([measures.get(name, disagreement)])).item()
            for name in self._outputs.names
            if name not in COVERAGE_OUTPUTS
        }
