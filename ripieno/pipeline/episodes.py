"""Rollouts of a bundle of policies in an environment, through the engine that serves it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno import files
from ripieno.environments import make_environment, task_of
from ripieno.environments.rollout import PolicyEnsemble, RolloutRunner
from ripieno.errors import EngineError, require
from ripieno.library import read_bundle
from ripieno.library.rollouts import check_actions
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.reports import figure_style
from ripieno.reports.policy_returns import EpisodeLog, episode_figure
from ripieno.tasks.action_rules import single_rule
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.environments.wrappers import CheckedEnvironment

VIDEO, PLOTS = ".gif", (".png", ".svg")
EPISODES = 12
FRAMES_A_SECOND = 30


@dataclass(frozen=True)
class Episode:
    """One episode of an ensemble."""

    seed: int
    episode_return: float
    """sum of its rewards"""
    steps: int


def run_episodes(
    bundle: str | Path | Bundle,
    environment: str,
    *,
    episodes: int = EPISODES,
    seed: int = 0,
    output: str | Path | None = None,
    trusted: Collection[str] = (),
    progress: ProgressFunction = no_progress,
) -> list[Episode]:
    """Run a bundle of policies in `environment`, from the seeds `seed` to `seed + episodes - 1`; return the episodes.

    Decisions come from an `Engine`, as served. `output` is a file for the first episode: its video (.gif), of an
    environment that draws itself, or a plot of its observations, actions and rewards (.png, .svg). `trusted` names the
    environment where it is your own (`module:function`). Raises EngineError where the bundle is of another task or
    `output` has another ending, DataError for an environment that cannot be made or does not step, SelectionError where
    it has other actions.
    """
    from ripieno.engine import Engine

    deployed = read_bundle(bundle, tuple(trusted))
    if not kind_of(deployed.task).has_returns:
        raise EngineError(f"The bundle is of a {deployed.task.kind}: only policies are run in an environment.")
    if episodes < 1 or seed < 0:
        raise EngineError(f"episodes {episodes} and seed {seed} must be at least 1 and 0.")
    path = None if output is None else check_output(Path(output))
    makes_video = path is not None and path.suffix.lower() == VIDEO
    # a frame is drawn in the first episode only
    first = make_environment(environment, trusted, render=makes_video)
    task = task_of(first)
    check_actions(deployed.ensemble.name, deployed.task, task)
    if first.observation_space.shape != deployed.input.shape:
        first.close()
        due = deployed.input.shape
        raise EngineError(f"Observations of {environment} are {first.observation_space.shape}, the bundle's {due}.")
    made = iter([first])
    runner = RolloutRunner(lambda: next(made, None) or make_environment(environment, trusted), task)
    log, frames = EpisodeLog(), list[Any]()

    def watch(row: int, played: CheckedEnvironment, *step: Any) -> None:
        if row == 0:
            log.add(row, played, *step)
            if makes_video:
                frames.append(read_frame(environment, played))

    seeds = range(seed, seed + episodes)
    alone = [PolicyEnsemble((deployed.ensemble.name,), single_rule(task))]
    try:
        with Engine(deployed) as engine:
            policies = {deployed.ensemble.name: engine.predict}
            found = runner.run(alone, policies, list(seeds), progress, watch if path is not None else None)
    finally:
        runner.close()
    if path is not None:
        write_video(path, frames) if makes_video else write_plot(path, log)
    rows = zip(seeds, found.returns[0].tolist(), found.steps[0].tolist(), strict=True)
    return [Episode(*row) for row in rows]


def check_output(path: Path) -> Path:
    """Return `path`. Raises EngineError unless a video or plot can be written there: before the work, not after it."""
    if path.suffix.lower() not in (VIDEO, *PLOTS):
        raise EngineError(f"{path} is neither a video ({VIDEO}) nor a plot ({', '.join(PLOTS)}).")
    if not path.resolve().parent.is_dir():
        raise EngineError(f"{path.parent} is no folder: {path} cannot be written.")
    files.check_writable(path.resolve().parent)
    if path.suffix.lower() != VIDEO:
        require("matplotlib")
    return path


def read_frame(name: str, environment: CheckedEnvironment) -> Any:
    """Return a picture of the environment. Raises EngineError where it does not draw itself."""
    try:
        frame = np.asarray(environment.render())
    except Exception as error:  # an environment may raise anything
        raise EngineError(f"{name} cannot be drawn ({error}): write a plot, .png or .svg, instead.") from error
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise EngineError(f"{name} does not draw itself: write a plot, .png or .svg, instead of a video.")
    return frame.astype(np.uint8)


def write_video(path: Path, frames: Sequence[Any]) -> None:
    """Write frames (height, width, 3) as an animated GIF."""
    import io

    from PIL import Image

    first, *others = [Image.fromarray(frame).quantize(64) for frame in frames]
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=others, duration=1000 // FRAMES_A_SECOND, loop=0)
    files.write_bytes(path, content.getvalue())


def write_plot(path: Path, log: EpisodeLog) -> None:
    """Write a plot of an episode."""
    with figure_style.style():
        figure = episode_figure(log)
        is_svg = path.suffix.lower() == ".svg"
        content = figure_style.svg(figure).encode() if is_svg else figure_style.png(figure)
    files.write_bytes(path, content)
