"""Predictions of a search's sampler against the results: read from the journal, and drawn by step."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripieno.reports import figure_style
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.reports.search import journal_events
from ripieno.search.predictions import ComparedPrediction, PredictionChecks, StepCorrelation, TrialPrediction
from ripieno.types import Member

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", INK), ("v", BLUE))
"""Marker and colour of each step, in turn."""
DOTS = 400
"""Maximum number of dots of a step, the last ones."""


def read_predictions(journal: Path) -> PredictionChecks:
    """Return the predictions of a journal with the results; an incomplete last line is left out."""
    predictions = {int(fields.pop("trial")): TrialPrediction(**fields) for fields in _predictions(journal)}
    checks = PredictionChecks(predictions)
    for event in journal_events(journal, b'"arrived"') if predictions else ():
        checks.add(int(event["trial"]), int(event["stop"]), event["loss"], float(event["seconds"]))
    return checks


def _predictions(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the predictions in the lines of a journal that start a trial."""
    for line in journal.read_bytes().split(b"\n") if journal.exists() else ():
        if b'"prediction":{' in line:
            with contextlib.suppress(ValueError):  # it is still being written
                yield dict(json.loads(line)["user_attrs"]["prediction"])


def time_front(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return the trained members of which no other has both a lower loss and fewer seconds, the fastest first."""
    front: list[Member] = []
    for member in sorted((m for m in members if m.curve and m.seconds > 0), key=lambda m: (m.seconds, m.loss, m.id)):
        if not front or member.loss < front[-1].loss:
            front.append(member)
    return tuple(front)


def prediction_dict(one: ComparedPrediction) -> dict[str, float | None]:
    """Return a prediction and its result as plain values, for JSON and CSV."""
    expected = one.prediction
    return {
        "trial": one.trial,
        "step": expected.step,
        "epoch": expected.epoch,
        "predicted_loss": expected.loss,
        "loss": one.loss,
        "predicted_seconds": expected.seconds,
        "seconds": one.seconds,
    }


def describe_correlation(step: StepCorrelation) -> str:
    """Return `rank correlation of loss 0.68, of seconds 0.95, of 24 trials in step 2`."""
    loss, seconds = ("-" if value is None else f"{value:.2f}" for value in (step.loss, step.seconds))
    trials = "1 trial" if step.trials == 1 else f"{step.trials} trials"
    return f"rank correlation of loss {loss}, of seconds {seconds}, of {trials} in step {step.step}"


def draw_predictions(
    folder: PlotWriter, checks: PredictionChecks, members: Sequence[Member], loss: str
) -> list[PlotFile]:
    """Draw predicted against measured values and the front of loss and time; nothing where nothing was predicted."""
    compared = checks.compared
    if not compared:
        return []
    rows = [prediction_dict(one) for one in compared]
    folder.table("predictions", tuple(rows[0]), [tuple(row.values()) for row in rows])
    words = "; ".join(map(describe_correlation, checks.correlations()))
    both = [(one.prediction, one) for one in compared]
    losses = [(p.step, p.loss, one.loss) for p, one in both if p.loss is not None]
    seconds = [(p.step, p.seconds, one.seconds) for p, one in both if p.seconds is not None]
    made = []
    for name, unit, points in (("loss", loss, losses), ("seconds", "seconds", seconds)):
        if points:
            drawn = draw_scatter(points, f"predicted {unit}", f"measured {unit}", diagonal=True)
            label = f"Predicted and measured {unit}: {words}."
            made.append(folder.plot(f"predicted-{name}", f"Predicted {unit}", drawn, label, "predictions"))
    steps = {one.trial: one.prediction.step for one in compared}
    trained = [(steps[m.trial], m.seconds, m.loss) for m in members if m.trial in steps and m.curve]
    if trained:
        front = time_front([m for m in members if m.trial in steps])
        label = f"{len(front)} of {len(trained)} members are on the front of {loss} and seconds of training."
        drawn = draw_scatter(trained, "seconds of training", f"validation {loss}", [(m.seconds, m.loss) for m in front])
        made.append(folder.plot("time-front", "Loss against time of training", drawn, label, "members", label))
    return made


def draw_scatter(
    points: Sequence[tuple[int, float, float]],
    x: str,
    y: str,
    line: Sequence[tuple[float, float]] = (),
    diagonal: bool = False,
) -> Figure:
    """Plot points of step, x and y with a colour a step, and a line; call it within `figure_style.style()`."""
    axes = figure_style.axes(x, y)
    for step in sorted({step for step, _, _ in points}):
        own = [(a, b) for one, a, b in points if one == step][-DOTS:]
        marker, colour = MARKS[(step - 1) % len(MARKS)]
        axes.plot(*zip(*own, strict=True), marker, color=colour, markersize=3.5, alpha=0.6, label=f"step {step}")
    if line:
        axes.plot(*zip(*line, strict=True), color=INK, linewidth=1.2, label="front")
    values = [value for _, *pair in points for value in pair]
    if diagonal:
        ends = (min(values), max(values))
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=(0, (1, 2)))
    figure_style.logarithmic(axes.xaxis, [a for _, a, _ in points], 5)
    figure_style.logarithmic(axes.yaxis, [b for _, _, b in points])
    return figure_style.finish(axes)
