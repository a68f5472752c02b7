"""Section of a report on uncertainty: calibration, and the error of what is answered when the most certain samples are.

The figures are those of the most expensive ensemble of the front, on the samples of the explorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.reports import plots
from ripieno.reports.explorer import Explorer
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.reports.run_data import RunData, evenly_spaced
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.calibration_error import CalibrationError, confident_answers, measure_calibration
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.tasks.uncertainty import RiskCoverage, risk_coverage, risk_coverage_area
from ripieno.types import Ensemble, Floats

POINTS = 400
"""Maximum number of points of a curve."""
ERRORS = {"softmax": "error", "sigmoid": "share of wrong labels", "identity": "squared error"}
"""Name of the error of a sample, by the activation of the kind of task."""


@dataclass(frozen=True)
class RiskCurve:
    """Risk-coverage curve of an ensemble or member, and the area under it."""

    name: str
    curve: RiskCoverage
    area: float


def draw_uncertainty(folder: PlotWriter, reading: RunData, explored: Explorer) -> list[PlotFile]:
    """Draw the calibration of probabilities, and the risk-coverage curves of the ensemble and its best member."""
    kind = kind_of(reading.task)
    if kind.is_pixelwise or explored.predictions is None:
        return []
    made = []
    if kind.activation != "identity":
        judged = explored.spots[-1].judged
        if judged is None:
            calibration = measure_calibration(*confident_answers(explored.predictions, explored.targets))
            _write_bins(folder, calibration)
        else:
            calibration = judged.calibration
        made.append(
            folder.plot(
                "reliability", "Calibration of the most expensive", plots.reliability(calibration.bins),
                f"Share of correct answers by confidence; the calibration error is {calibration.value:.3f}.",
                "reliability",
                f"Bins of equal mass. Calibration error {calibration.value:.2%}, "
                f"{calibration.low:.2%} to {calibration.high:.2%}.",
            )
        )  # fmt: skip
    curves = risk_curves(reading, explored)
    name = ERRORS[kind.activation]
    columns = ("answered_by", "share_answered", "mean_error")
    folder.table("risk-coverage", columns, [(c.name, *point) for c in curves for point in _points(c.curve)])
    areas = "; ".join(f"{c.name} {c.area:.4g}" for c in curves)
    made.append(
        folder.plot(
            "risk-coverage", f"{name.capitalize()} of what is answered",
            plots.risk_coverage([(c.name, _points(c.curve)) for c in curves], name),
            f"Mean {name} by the share of samples answered, the most certain first; area under it: {areas}.",
            "risk-coverage", f"The most certain samples are answered first. Area under the curve: {areas}.",
        )
    )  # fmt: skip
    return made


def risk_curves(reading: RunData, explored: Explorer) -> list[RiskCurve]:
    """Return the curve of the most expensive ensemble, and that of its member with the least loss where it has several.

    A single member has no disagreement, so that of values there is only the first.
    """
    kind, ensemble, predictions = kind_of(reading.task), explored.spots[-1].ensemble, explored.predictions
    assert predictions is not None, "masks have no curve"
    tables = [np.asarray(reading.library.predictions(m, explored.split)[explored.rows]) for m in ensemble.members]
    certainty = kind.certainty(predictions, _disagreement(kind, tables, ensemble))
    errors = kind.errors(predictions, explored.targets, ensemble.thresholds)
    curves = [RiskCurve("ensemble", risk_coverage(certainty, errors), risk_coverage_area(certainty, errors))]
    if len(ensemble.members) > 1 and kind.activation != "identity":
        losses = {member.id: member.loss for member in reading.members}
        place = min(range(len(tables)), key=lambda i: losses[ensemble.members[i]])
        own = tables[place].astype(np.float32)
        if ensemble.temperatures:
            own = apply_temperature(own, ensemble.temperatures[place], kind)
        certainty = kind.certainty(own, np.zeros(len(own)))
        errors = kind.errors(own, explored.targets, ensemble.thresholds)
        best = RiskCurve("best member", risk_coverage(certainty, errors), risk_coverage_area(certainty, errors))
        curves.append(best)
    return curves


def _disagreement(kind: TaskKind, tables: Sequence[NDArray[Any]], ensemble: Ensemble) -> NDArray[Any]:
    """Return how far the members disagree; zero where the kind of task goes by its confidence."""
    if kind.activation != "identity":
        return np.zeros(len(tables[0]))
    return kind.member_disagreement(np.stack(tables), np.asarray(ensemble.weights))


def _write_bins(folder: PlotWriter, calibration: CalibrationError) -> None:
    columns = ("bin", "answers", "from", "to", "confidence", "share_correct")
    bins = [(i, b.count, b.low, b.high, b.confidence, b.accuracy) for i, b in enumerate(calibration.bins)]
    folder.table("reliability", columns, bins)


def _points(curve: RiskCoverage) -> list[tuple[float, float]]:
    kept = evenly_spaced(len(curve.coverage), POINTS)
    pairs: list[Floats] = [curve.coverage[kept], curve.risk[kept]]
    return [(float(share), float(risk)) for share, risk in zip(*pairs, strict=True)]
