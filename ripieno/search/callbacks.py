"""Callbacks for `tune(..., watch=...)` that log a running search to TensorBoard or MLflow.

Both write one run per trial, with its configuration, learning curve (the step is the epoch) and outcome, and one for
the search: members, best loss, mean of the ten best trials (each at its best rung), slots busy; the step is the number
of jobs ended. A resumed search continues in the same runs. A job appears when it ends, not before: its curve arrives
with its member.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ripieno.deprecation import find_renamed
from ripieno.errors import SearchError, require
from ripieno.search.progress import Snapshot
from ripieno.shell_command import shell
from ripieno.tasks.metrics import dashed_name
from ripieno.types import RANKING_METRICS, Epoch, JobResult

Watcher = Callable[[Snapshot], None]
LoggerName = Literal["tensorboard", "mlflow"]
DEFAULT_LOSS = "cross-entropy"
"""Name of the loss in logs before a member has shown its task."""


class TensorBoardCallback:
    """Callback that writes event files to `folder`; `tensorboard --logdir FOLDER` shows them.

    Raises MissingExtraError when tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer = require("tensorboardX").SummaryWriter
        self._hparams = require("tensorboardX.summary").hparams
        self._search: Any = None
        self._loss = DEFAULT_LOSS

    def __call__(self, snapshot: Snapshot) -> None:
        """Write the jobs that ended since the last snapshot."""
        self._loss = _loss_name(snapshot, self._loss)
        for outcome in snapshot.finished:
            self._trial(outcome)
        if snapshot.finished:
            if self._search is None:  # the process id keeps starts apart: file names have a resolution of one second
                self._search = self._writer(str(self.folder / "search"), filename_suffix=f".{os.getpid()}")
            for name, value in _figures(snapshot, self._loss).items():
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
                for name, value in _curve(epoch, self._loss).items():
                    writer.add_scalar(name, value, epoch.epoch, when)
            if outcome.failure is not None:
                writer.add_text("failure", f"{outcome.failure.reason}: {outcome.failure.message}", job.stop)
            for summary in self._hparams(dict(job.configuration), {f"{self._loss}/valid": None}):
                writer.file_writer.add_summary(summary)


class MLflowCallback:
    """Callback that logs to the tracking server or database at `uri` (None: MLflow's default).

    Makes a parent run called `name` in `experiment`, and one nested run per trial. Raises MissingExtraError when MLflow
    is not installed, and MLflow's own error when the server cannot be reached.
    """

    def __init__(self, name: str = "search", uri: str | None = None, experiment: str = "ripieno") -> None:
        require("mlflow")
        from mlflow import MlflowClient, entities

        self._entities = entities
        self._client = MlflowClient(tracking_uri=uri)
        existing = self._client.get_experiment_by_name(experiment)
        self._experiment = existing.experiment_id if existing else self._client.create_experiment(experiment)
        self._search = self._run({"ripieno.search": name}, name)
        self._trials: dict[int, str] = {}
        self._loss = DEFAULT_LOSS

    def __call__(self, snapshot: Snapshot) -> None:
        """Log the jobs that ended since the last snapshot."""
        self._loss = _loss_name(snapshot, self._loss)
        for outcome in snapshot.finished:
            self._trial(outcome)
        if snapshot.finished:
            now = int(1000 * snapshot.now)
            metrics = [
                self._entities.Metric(k, v, now, snapshot.jobs) for k, v in _figures(snapshot, self._loss).items()
            ]
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
            for name, value in _curve(epoch, self._loss).items()
        ]
        params = [self._entities.Param(name, str(value)) for name, value in job.configuration.items()]
        self._client.log_batch(run, metrics=metrics, params=params)
        if failure is not None:
            self._client.set_tag(run, "failure", f"{failure.reason}: {failure.message}"[:500])
        self._client.set_terminated(run, "FINISHED" if failure is None else "FAILED")

    def _run(self, tags: Mapping[str, str], name: str) -> str:
        """Return the id of the run with `tags`; create it unless an earlier start did."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for run in self._client.search_runs([self._experiment], query, max_results=1):
            self._client.update_run(run.info.run_id, "RUNNING")
            return str(run.info.run_id)
        return str(self._client.create_run(self._experiment, tags=dict(tags), run_name=name).info.run_id)


def logger(name: str, run: str | Path) -> tuple[Watcher, str]:
    """Return the callback `tensorboard` or `mlflow` for the search in the folder `run`, and the command to view it.

    MLflow logs to MLFLOW_TRACKING_URI, by default to a database in the run's folder.
    """
    if name == "tensorboard":
        board = TensorBoardCallback(Path(run) / "tensorboard")
        return board, shell("tensorboard", "--logdir", board.folder)
    if name == "mlflow":
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(run).resolve() / 'mlflow.db'}"
        Path(run).mkdir(parents=True, exist_ok=True)
        return MLflowCallback(str(Path(run).resolve()), uri), shell("mlflow", "ui", "--backend-store-uri", uri)
    raise SearchError(f"unknown log {name!r}: it must be one of {', '.join(get_args(LoggerName))}")


def combine_callbacks(*watchers: Watcher, lost: Callable[[str], None]) -> Watcher:
    """Combine several callbacks into one. One that raises is removed and reported to `lost`; the search continues."""
    active = list(watchers)

    def watch(snapshot: Snapshot) -> None:
        for watcher in tuple(active):
            try:
                watcher(snapshot)
            except Exception as error:
                active.remove(watcher)
                lost(f"{type(watcher).__name__} failed and is no longer called; the search continues: {error}")

    return watch


def _loss_name(snapshot: Snapshot, known: str) -> str:
    """Return the name of the loss of the members that ended, for logs: `squared-error`; `known` without any."""
    tasks = [outcome.member.task for outcome in snapshot.finished if outcome.member is not None]
    return dashed_name(RANKING_METRICS[tasks[0].kind]) if tasks else known


def _figures(snapshot: Snapshot, loss: str) -> dict[str, float]:
    """Return the search's metrics that have a value."""
    figures = {
        "trials": snapshot.trials,
        "members": snapshot.members,
        "failures": snapshot.failures,
        f"best {loss}": snapshot.best_loss,
        f"best ten {loss}": snapshot.top_loss,
        "occupancy": snapshot.occupancy,
    }
    return {name.replace(" ", "-"): float(value) for name, value in figures.items() if value is not None}


def _curve(epoch: Epoch, loss: str) -> dict[str, float]:
    curve = {f"{loss}/valid": epoch.valid_loss, "score/valid": epoch.valid_score}
    return curve if epoch.train_loss is None else {f"{loss}/train": epoch.train_loss, **curve}


def _epochs(outcome: JobResult) -> list[tuple[Epoch, float]]:
    """Return the epochs that a job trained, each with its end in Unix seconds."""
    if outcome.member is None:
        return []
    epochs = [epoch for epoch in outcome.member.curve if epoch.epoch > outcome.job.start]
    after = [sum(later.seconds for later in epochs[n + 1 :]) for n in range(len(epochs))]
    return [(epoch, outcome.finished - rest) for epoch, rest in zip(epochs, after, strict=True)]


if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(
            globals(),
            {"TensorBoard": "TensorBoardCallback", "MLflow": "MLflowCallback", "together": "combine_callbacks"},
            name,
        )
