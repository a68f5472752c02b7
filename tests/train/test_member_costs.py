"""Costs that a worker measures after the first rung of a trial."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ripieno.library import Library
from ripieno.profiles.devices import local_devices
from ripieno.train import TrainingConfig, member_costs, train_job
from ripieno.types import Configuration, Job

SMALL: Configuration = {"width": 4, "stem_filters": 4, **{f"blocks_{n}": 1 for n in (1, 2, 3, 4)}}


def test_costs_are_measured_after_the_first_rung_only_and_leave_no_profile(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_costs, "REPEATS", 1)
    config = replace(config, measured=("seconds", "memory", "latency", "bytes", "parameters"))
    first = train_job(config, Job(0, SMALL, 0, 1))
    assert first.failure is None
    assert first.member is not None
    library = Library(config.run)
    assert set(first.values) == set(config.measured)
    assert first.values["bytes"] == library.onnx_path(first.member.id).stat().st_size
    assert first.values["parameters"] == first.member.parameters
    assert 0 < first.values["latency"] < first.values["seconds"] < 60
    assert first.values["memory"] > 1e6
    assert not library.profiles(local_devices("cpu")[0].kind)
    assert train_job(config, Job(0, SMALL, 1, 2)).values == {}
    assert train_job(replace(config, measured=("flops",)), Job(0, SMALL, 0, 1)).values["flops"] > 0  # it was trained


def test_a_member_that_cannot_be_measured_is_kept_with_a_log(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> dict[str, float]:
        from ripieno.errors import EngineError

        raise EngineError("no ONNX")

    monkeypatch.setattr("ripieno.train.job.measure_costs", refuse)
    result = train_job(replace(config, measured=("latency",)), Job(0, SMALL, 0, 1))
    assert (result.failure, result.values) == (None, {})
    assert result.member is not None
    assert "no ONNX" in (Library(config.run).logs_path / f"{result.member.id}.log").read_text()
