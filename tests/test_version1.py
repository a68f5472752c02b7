"""JSON of version 1 becomes that of today; see also `version1/`, a whole run of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ripieno.data.dataset import DatasetMetadata
from ripieno.errors import LibraryError
from ripieno.files import from_json, to_json
from ripieno.library.bundle import BackendReport, read_backend_report
from ripieno.train.checkpoint import TrainingState
from ripieno.types import Cascade, CascadeEffect, Epoch, Front, Member, classification
from ripieno.version1 import upgrade

MEMBER: dict[str, Any] = {
    **{"id": "00001-e002", "trial": 1, "epoch": 2, "family": "own:net", "input": {"shape": [8, 8, 1]}},
    # names of fields that change elsewhere: hyperparameters and costs keep them
    "configuration": {"classes": 7, "mean": 0.5, "losses": "none", "curve": "flat", "train_cross_entropy": True},
    "costs": {"kind": 3.0, "classes": 1.0, "mean": 2.0},
    **{"classes": ["a", "b"], "losses": {"valid_cross_entropy": 0.5}, "parameters": 9, "seconds": 4.0},
    "curve": [
        {"epoch": 1, "train_cross_entropy": 1.5, "valid_cross_entropy": 0.75, "valid_score": 0.5, "seconds": 2.0}
    ],
    "temperature": 1.25,
}


def read(fields: dict[str, Any], kind: type[Any], version: int = 1) -> Any:
    return from_json(to_json(fields, version=version), kind, Path("one.json"))


def test_a_member_gets_a_task_and_the_losses_of_its_curve_a_name() -> None:
    member = read(MEMBER, Member)
    assert member.task == classification(("a", "b"))
    assert member.curve == (Epoch(1, 1.5, 0.75, 0.5, 2.0),)
    assert (member.configuration, member.costs) == (MEMBER["configuration"], MEMBER["costs"])
    assert (member.loss, member.temperature) == (0.5, 1.25)
    assert from_json(to_json(member), Member, Path("one.json")) == member


def test_a_data_set_keeps_its_metric() -> None:
    fields = {"name": "d", "classes": ["a", "b"], "mean": [0.5], "std": [1.0], "metric": "macro-f1"}
    metadata = read(fields, DatasetMetadata)
    assert (metadata.task, metadata.task.metric) == (classification(("a", "b")), "macro-f1")
    assert (metadata.kind, metadata.range) == ("image", None)


def test_the_progress_in_a_checkpoint_keeps_its_curve() -> None:
    state = read({"trial": "x", "epoch": 1, "seconds": 2.0, "curve": MEMBER["curve"]}, TrainingState)
    assert state.curve == (Epoch(1, 1.5, 0.75, 0.5, 2.0),)


def test_a_front_is_of_a_cost() -> None:
    assert read({"kind": "flops", "method": "smobf", "ensembles": []}, Front) == Front("flops", "smobf", ())


EFFECT = {"samples": 9, "saved": 0.5, "asked": 1.5, "cross_entropy": 0.4, "whole_cross_entropy": 0.3}
EFFECT |= {"accuracy": 0.8, "whole_accuracy": 0.9}
REPORT = {"fits": [], "samples": 9, "loss": 0.4, "reference_loss": 0.3, "accuracy": 0.8, "reference_accuracy": 0.9}


def test_effects_of_cascades_and_reports_of_backends_have_a_loss_and_a_score(tmp_path: Path) -> None:
    plan = {"order": ["a", "b"], "threshold": 0.9, "effects": {"valid": EFFECT}}
    expected = Cascade(("a", "b"), 0.9, 0.0, {"valid": CascadeEffect(9, 0.5, 1.5, 0.4, 0.3, 0.8, 0.9)})
    assert read(plan, Cascade) == expected
    assert upgrade({"allocation": {}, "cascade": plan})["cascade"] == upgrade(plan), "that of a bundle"
    (tmp_path / "bundle.json").write_bytes(to_json({"proof": REPORT}, version=1))
    assert read_backend_report(tmp_path) == BackendReport((), 9, 0.4, 0.3, 0.8, 0.9)


@pytest.mark.parametrize("broken", [{"classes": 3}, {"classes": None}, {"classes": [1]}, {"curve": [3]}, {"curve": 3}])
def test_broken_fields_are_an_error_of_the_file(broken: dict[str, Any]) -> None:
    with pytest.raises(LibraryError, match=r"one\.json cannot be read: .*(task\.names|curve)"):
        read(MEMBER | broken, Member)


def test_fields_of_version_1_in_version_2_are_not_read() -> None:
    with pytest.raises(LibraryError, match="missing required field"):
        read(MEMBER, Member, version=2)


def test_upgrading_leaves_its_argument_unchanged() -> None:
    before = to_json(MEMBER)
    upgrade(MEMBER)
    assert to_json(MEMBER) == before
