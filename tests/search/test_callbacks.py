"""Logging of a search to TensorBoard and MLflow, checked in their own formats."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from synthetic import LABELS, member_of

from ripieno.cluster import InlinePool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.search import Settings, run_search
from ripieno.search.callbacks import MLflowCallback, TensorBoardCallback, combine_callbacks, logger
from ripieno.search.progress import Snapshot
from ripieno.types import Epoch, Failure, Job, JobResult

SETTINGS = Settings(synthetic.SPACE, trials=6, epochs=3)


def curved(run: Path, job: Job) -> JobResult:
    """A member with a learning curve; trial 1 fails."""
    if job.trial == 1:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"), finished=50.0)
    curve = tuple(Epoch(n, 2 / n, 1 / n, 0.5, 2.0) for n in range(1, job.stop + 1))
    member = replace(member_of(job), curve=curve)
    Library(run).add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member, started=40.0, finished=50.0)


def search(run: Path, watch: Any, trials: int = 6) -> Snapshot:
    settings = replace(SETTINGS, trials=trials)
    return run_search(Library(run), settings, InlinePool(partial(curved, run)), watch=watch)


def events(folder: Path) -> Iterator[Any]:
    """Read the records of event files as TensorBoard does, oldest file first."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def scalars(folder: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """(tag, step) -> (value, wall time)."""
    return {
        (value.tag, event.step): (value.simple_value, event.wall_time)
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


def test_tensorboard_gets_each_epoch_of_each_trial_once_and_the_search(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra `tensorboard`")
    last = search(tmp_path, TensorBoardCallback(tmp_path / "board"))
    held = Library(tmp_path)
    deepest = {m.trial: m.epoch for m in held.members()}
    for trial, epochs in deepest.items():
        found = scalars(tmp_path / "board" / f"trial-{trial:05d}")
        assert [step for tag, step in found if tag == "cross-entropy/valid"] == list(range(1, epochs + 1))
        assert found["cross-entropy/valid", epochs][0] == pytest.approx(1 / epochs)
        if epochs == 3:  # epochs 2 and 3 were of one job, and took two seconds each
            times = [found["cross-entropy/valid", epoch][1] for epoch in (2, 3)]
            assert times[1] - times[0] == pytest.approx(2.0)
    whole = scalars(tmp_path / "board" / "search")
    assert whole["search/members", last.jobs][0] == len(held)
    assert whole["search/best-cross-entropy", last.jobs][0] == pytest.approx(last.best_loss)


def test_tensorboard_knows_configurations_and_failures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra `tensorboard`")
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    search(tmp_path, TensorBoardCallback(tmp_path / "board"))
    values = [v for e in events(tmp_path / "board" / "trial-00000") for v in e.summary.value]
    info = next(v for v in values if v.tag == "_hparams_/session_start_info")
    hparams = HParamsPluginData.FromString(info.metadata.plugin_data.content).session_start_info.hparams
    assert set(hparams) == set(Library(tmp_path).members()[0].configuration)
    failed = [v for e in events(tmp_path / "board" / "trial-00001") for v in e.summary.value]
    assert any(b"not a number" in b"".join(v.tensor.string_val) for v in failed)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_gets_a_run_a_trial_below_one_of_the_search_that_goes_on(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    search(tmp_path, MLflowCallback("mine", uri), trials=3)
    last = search(tmp_path, MLflowCallback("mine", uri))  # six trials now
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("ripieno").experiment_id])
    assert len(runs) == 7
    parent = next(r for r in runs if r.info.run_name == "mine")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["members"] == last.members
    children = {r.data.tags["ripieno.trial"]: r for r in runs if r is not parent}
    assert all(r.data.tags["mlflow.parentRunId"] == parent.info.run_id for r in children.values())
    for member in Library(tmp_path).members():
        run = children[str(member.trial)]
        assert set(run.data.params) == set(member.configuration)
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "cross-entropy/valid")]
        assert member.epoch in steps
        assert len(steps) == len(set(steps))
    assert children["1"].info.status == "FAILED"
    assert "not a number" in children["1"].data.tags["failure"]


def test_a_watcher_that_breaks_does_not_end_the_search(tmp_path: Path) -> None:
    calls, lost, seen = [0], [], []

    def broken(_: Snapshot) -> None:
        calls[0] += 1
        raise OSError("the server is gone")

    last = search(tmp_path, combine_callbacks(broken, seen.append, lost=lost.append))
    assert calls == [1]
    assert len(lost) == 1
    assert "the server is gone" in lost[0]
    assert seen[-1] == last


def test_an_unknown_log_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="'wandb': it must be one of tensorboard, mlflow"):
        logger("wandb", tmp_path)
