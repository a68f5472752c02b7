"""Plots of a run of policies: returns of ensembles with their spread over seeds, and one episode of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ripieno.errors import RipienoError
from ripieno.library.rollouts import LibraryRollouts, policies_of
from ripieno.reports import figure_style, plots
from ripieno.reports.figure_style import BLUE, ORANGE
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.reports.run_data import RunData, evenly_spaced, kept_front
from ripieno.types import Ensemble, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Largest number of ensembles in the plot of returns."""
LINES = 8
"""Largest number of values of an observation in the plot of an episode."""


@dataclass(frozen=True)
class ReturnRow:
    """Returns of an ensemble on the seeds of a split."""

    name: str
    split: Split
    episodes: int
    mean: float
    deviation: float
    least: float
    largest: float


@dataclass(frozen=True)
class PolicyPlots:
    """Plots and figures of policies in a report."""

    plots: list[PlotFile] = field(default_factory=list)
    rows: list[ReturnRow] = field(default_factory=list)
    note: str = ""
    """why there is no episode; empty: there is one"""


@dataclass
class EpisodeLog:
    """Observations, actions and rewards of an episode, a row a step."""

    observations: list[list[float]] = field(default_factory=list)
    actions: list[list[float]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def add(self, _row: int, _environment: object, before: object, action: object, reward: float) -> None:
        """Keep a step, as `ripieno.environments.rollout.StepFunction`."""
        self.observations.append(np.asarray(before, np.float64).reshape(-1).tolist())
        self.actions.append(np.atleast_1d(np.asarray(action, np.float64)).tolist())
        self.rewards.append(float(reward))


def draw_policies(folder: PlotWriter, reading: RunData) -> PolicyPlots:
    """Draw the returns of the front's ensembles and of those of the run, and an episode of the best by validation."""
    front = kept_front(reading)
    ensembles = [*(front.ensembles if front else ()), *reading.library.ensembles()]
    ensembles = [ensemble for ensemble in ensembles if ensemble.returns]
    if not ensembles:
        return PolicyPlots()
    rows = [row for ensemble in ensembles for row in return_rows(ensemble)]
    columns = ("ensemble", "split", "episode", "return")
    folder.table(
        "returns",
        columns,
        [
            (ensemble.name, split, number, value)
            for ensemble in ensembles
            for split, values in ensemble.returns.items()
            for number, value in enumerate(values)
        ],
    )
    drawn = [ensembles[i] for i in evenly_spaced(len(ensembles), SHOWN)]
    made = [
        folder.plot(
            "returns", "Returns by ensemble", returns_figure(drawn), "Returns of ensembles from each seed.", "returns"
        )
    ]
    if front:
        figure = plots.front(front.ensembles, reading.kind, reading.unit, reading.score, reading.metric)
        made.append(folder.plot("front", "Return by budget", figure, "Ensembles by cost and return."))
    best = max(ensembles, key=lambda ensemble: ensemble.losses["valid_return"])
    try:
        log = one_episode(reading, best)
    except RipienoError as error:
        return PolicyPlots(made, rows, f"no episode is drawn: {error}")
    folder.table("episode", ("step", "reward"), list(enumerate(log.rewards)))
    caption = f"An episode of {best.name} from the first validation seed"
    label = f"Rewards, actions and observations of an episode: its return is {sum(log.rewards):.4g}."
    made.append(folder.plot("episode", caption, episode_figure(log), label, "episode"))
    return PolicyPlots(made, rows)


def return_rows(ensemble: Ensemble) -> list[ReturnRow]:
    """Return the figures of an ensemble's returns by split."""
    rows = []
    for split, values in ensemble.returns.items():
        found = np.asarray(values)
        deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        figures = float(found.mean()), deviation, float(found.min()), float(found.max())
        rows.append(ReturnRow(ensemble.name, split, len(found), *figures))  # type: ignore[arg-type]
    return rows


def one_episode(reading: RunData, ensemble: Ensemble) -> EpisodeLog:
    """Run an ensemble from the first validation seed. Errors as `LibraryRollouts`."""
    log = EpisodeLog()
    with LibraryRollouts(reading.library) as rollouts:
        rollouts.run([policies_of(reading.library, ensemble)], "valid", on_step=log.add, episodes=1)
    return log


def returns_figure(ensembles: Sequence[Ensemble]) -> Figure:
    """Plot the return from each seed, and the mean, by ensemble: validation and test."""
    axes = figure_style.axes("ensemble", "return")
    for split, colour, shift in (("valid", BLUE, -0.15), ("test", ORANGE, 0.15)):
        places = [i + shift for i, ensemble in enumerate(ensembles) for _ in ensemble.returns.get(split, ())]
        values = [value for ensemble in ensembles for value in ensemble.returns.get(split, ())]
        axes.plot(places, values, "o", color=colour, markersize=3, alpha=0.4)
        means = [(i + shift, np.mean(e.returns[split])) for i, e in enumerate(ensembles) if e.returns.get(split)]
        if means:
            axes.plot(*zip(*means, strict=True), "_", color=colour, markersize=16, markeredgewidth=2.5, label=split)
    axes.set_xticks(range(len(ensembles)), [e.name for e in ensembles], rotation=30, ha="right")
    return figure_style.finish(axes)


def episode_figure(log: EpisodeLog) -> Figure:
    """Plot the values of observations and actions, and the rewards, by step."""
    axes = figure_style.axes("step", "value")
    observations, actions = np.array(log.observations), np.array(log.actions)
    for column in range(min(LINES, observations.shape[1])):
        label = "observations" if column == 0 else None
        axes.plot(observations[:, column], color=BLUE, alpha=0.25 + 0.5 * (column == 0), linewidth=0.8, label=label)
    for column in range(actions.shape[1]):
        axes.plot(actions[:, column], color="0.4", linewidth=0.7, label="action" if column == 0 else None)
    axes.plot(log.rewards, color=ORANGE, linewidth=1.4, label="reward")
    return figure_style.finish(axes)
