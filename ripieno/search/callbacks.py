"""A search told to TensorBoard or MLflow while it runs: watchers for `tune(..., watch=...)`.

Both get a run a trial, with its configuration, its learning curve (the step is the epoch) and how it ended, and one for
the search: members, best loss, mean of the best ten, slots busy (the step is the number of jobs ended). A search that
goes on goes on in the same runs. Whoever looks sees a job when it ends, not before: curves travel with members.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ripieno.commands import shell
from ripieno.errors import SearchError, require
from ripieno.search.progress import Snapshot
from ripieno.types import Epoch, JobResult

Watcher = Callable[[Snapshot], None]
LoggerName = Literal["tensorboard", "mlflow"]


class TensorBoardCallback:
    """Writes event files to `folder`: `tensorboard --logdir FOLDER` shows them.

    Raises MissingExtraError when tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer = require("tensorboardX").SummaryWriter
        self._hparams = require("tensorboardX.summary").hparams
        self._search: Any = None

    def __call__(self, snapshot: Snapshot) -> None:
        """Write what ended since the last snapshot."""
        for outcome in snapshot.finished:
            self._trial(outcome)
        if snapshot.finished:
            if self._search is None:  # a file of its own for each start: names are of the second
                self._search = self._writer(str(self.folder / "search"), filename_suffix=f".{os.getpid()}")
            for name, value in _figures(snapshot).items():
                self._search.add_scalar(f"search/{name}", value, snapshot.jobs)
            self._search.flush()
        if snapshot.ended and self._search is not None:
            self._search.close()
            self._search = None

    def _trial(self, outcome: JobResult) -> None:
        job = outcome.job
        folder = self.folder / f"trial-{job.trial:05d}"
        with self._writer(str(folder), filename_suffix=f".e{job.stop:03d}") as writer:
            for epoch, when in _epochs(outcome):
                for name, value in _curve(epoch).items():
                    writer.add_scalar(name, value, epoch.epoch, when)
            if outcome.failure is not None:
                writer.add_text("failure", f"{outcome.failure.reason}: {outcome.failure.message}", job.stop)
            for summary in self._hparams(dict(job.configuration), {"cross-entropy/valid": None}):
                writer.file_writer.add_summary(summary)


class MLflowCallback:
    """Tells a tracking server, or the database at `uri` (MLflow's own default when None).

    A parent run called `name` in `experiment`, and a nested run a trial. Raises MissingExtraError when MLflow is not
    installed, and what MLflow raises when it cannot be reached.
    """

    def __init__(self, name: str = "search", uri: str | None = None, experiment: str = "ripieno") -> None:
        require("mlflow")
        from mlflow import MlflowClient, entities

        self._entities = entities
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self._search = self._run({"ripieno.search": name}, name)
        self._trials: dict[int, str] = {}

    def __call__(self, snapshot: Snapshot) -> None:
        """Tell what ended since the last snapshot."""
        for outcome in snapshot.finished:
            self._trial(outcome)
        if snapshot.finished:
            now = int(1000 * snapshot.now)
            metrics = [self._entities.Metric(k, v, now, snapshot.jobs) for k, v in _figures(snapshot).items()]
            self._client.log_batch(self._search, metrics=metrics)
        if snapshot.ended:
            self._client.set_terminated(self._search)

    def _trial(self, outcome: JobResult) -> None:
        job, failure = outcome.job, outcome.failure
        if job.trial not in self._trials:
            tags = {"mlflow.parentRunId": self._search, "ripieno.trial": str(job.trial)}
            self._trials[job.trial] = self._run(tags, f"trial {job.trial}")
        run = self._trials[job.trial]
        metrics = [
            self._entities.Metric(name, value, int(1000 * when), epoch.epoch)
            for epoch, when in _epochs(outcome)
            for name, value in _curve(epoch).items()
        ]
        params = [self._entities.Param(name, str(value)) for name, value in job.configuration.items()]
        self._client.log_batch(run, metrics=metrics, params=params)
        if failure is not None:
            self._client.set_tag(run, "failure", f"{failure.reason}: {failure.message}"[:500])
        self._client.set_terminated(run, "FINISHED" if failure is None else "FAILED")

    def _run(self, tags: Mapping[str, str], name: str) -> str:
        """The run with `tags`, made when an earlier start has not."""
        told = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for found in self._client.search_runs([self._experiment], told, max_results=1):
            self._client.update_run(found.info.run_id, "RUNNING")
            return str(found.info.run_id)
        return str(self._client.create_run(self._experiment, tags=dict(tags), run_name=name).info.run_id)


def logger(name: str, run: str | Path) -> tuple[Watcher, str]:
    """The watcher called `tensorboard` or `mlflow` for the search in the folder `run`, and the command that shows it.

    MLflow goes where the variable MLFLOW_TRACKING_URI says, by default to a database in the run's folder.
    """
    if name == "tensorboard":
        board = TensorBoardCallback(Path(run) / "tensorboard")
        return board, shell("tensorboard", "--logdir", board.folder)
    if name == "mlflow":
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(run).resolve() / 'mlflow.db'}"
        Path(run).mkdir(parents=True, exist_ok=True)
        return MLflowCallback(str(Path(run).resolve()), uri), shell("mlflow", "ui", "--backend-store-uri", uri)
    raise SearchError(f"no log {name!r}: it must be one of {', '.join(get_args(LoggerName))}")


def combine_callbacks(*watchers: Watcher, lost: Callable[[str], None]) -> Watcher:
    """One watcher of several. One that raises is told no more, and `lost` says so: the search goes on without it."""
    alive = list(watchers)

    def watch(snapshot: Snapshot) -> None:
        for watcher in tuple(alive):
            try:
                watcher(snapshot)
            except Exception as error:
                alive.remove(watcher)
                lost(f"{type(watcher).__name__} is told no more, the search goes on: {error}")

    return watch


def _figures(snapshot: Snapshot) -> dict[str, float]:
    """What a search has come to."""
    figures = {
        "trials": snapshot.trials,
        "members": snapshot.members,
        "failures": snapshot.failures,
        "best cross-entropy": snapshot.best_loss,
        "best ten cross-entropy": snapshot.top_loss,
        "occupancy": snapshot.occupancy,
    }
    return {name.replace(" ", "-"): float(value) for name, value in figures.items() if value is not None}


def _curve(epoch: Epoch) -> dict[str, float]:
    return {
        "cross-entropy/train": epoch.train_cross_entropy,
        "cross-entropy/valid": epoch.valid_cross_entropy,
        "score/valid": epoch.valid_score,
    }


def _epochs(outcome: JobResult) -> list[tuple[Epoch, float]]:
    """The epochs that a job trained, each with the Unix seconds at which it ended."""
    if outcome.member is None:
        return []
    epochs = [epoch for epoch in outcome.member.curve if epoch.epoch > outcome.job.start]
    after = [sum(later.seconds for later in epochs[n + 1 :]) for n in range(len(epochs))]
    return [(epoch, outcome.finished - rest) for epoch, rest in zip(epochs, after, strict=True)]
