"""`tune` for several objectives, with a trainer of the user that reports a number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import ripieno
from ripieno.errors import EngineError, ModelError, SearchError
from ripieno.search import Snapshot
from ripieno.train.trainer import reported_values

SPACE = {"ranges": {"rate": {"kind": "continuous", "low": 0.01, "high": 1.0, "log": True}}}
REPORTING = "tests.own_trainer:Reporting"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = load_digits()
    images = (source.images[:120, :, :, None] * 15).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=source.target[:120])
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    return tmp_path / "data.npz"


def test_numbers_that_a_trainer_reports_are_objectives_and_costs_of_its_members(data: Path) -> None:
    run, seen = data.parent / "run", list[Snapshot]()
    options = {"trainer": REPORTING, "space": str(data.parent / "space.json"), "pool": "inline", "free": "off"}
    library = ripieno.tune(
        data,
        run,
        trials=4,
        epochs=3,
        objective="loss, way",
        watch=seen.append,
        **options,  # type: ignore[arg-type]
    )
    points = {m.id: (m.loss, m.costs["way"]) for m in library.members()}
    front = seen[-1].trial_front
    assert len(points) >= 4
    assert [trial.values for trial in front] == [
        dict(zip(("loss", "way"), points[trial.member], strict=True)) for trial in front
    ]
    assert min(points.values()) == (front[0].values["loss"], front[0].values["way"])
    assert json.loads((run / "run.json").read_text())["objective"] == ["loss", "way"]
    more = ripieno.tune(None, run, trials=5, **options)  # type: ignore[arg-type]
    assert len({m.trial for m in more.members()}) == 5
    with pytest.raises(SearchError, match="a search with objective loss,way, requested is objective loss:"):
        ripieno.tune(None, run, trials=6, objective="loss", **options)  # type: ignore[arg-type]


def test_joules_are_refused_before_anything_trains_where_no_counter_can_be_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPIENO_POWERCAP", str(data.parent))
    for options in ({"objective": "loss,joules"}, {"constraint": "joules<=5"}, {"budget": {"joules": 5.0}}):
        with pytest.raises(EngineError, match=r"^cannot measure joules on cpu:0: .*--costs costs.csv"):
            ripieno.tune(data, data.parent / "other", trials=2, space="resnet-tiny", **options)  # type: ignore[arg-type]
        assert not (data.parent / "other" / "library").exists()


def test_an_unknown_objective_is_refused_before_anything_trains(data: Path) -> None:
    run = data.parent / "other"
    with pytest.raises(SearchError, match=r"no objective speed; there are: loss, .*, accuracy, macro-f1, way$"):
        ripieno.tune(
            data, run, trials=2, objective="loss,speed", trainer=REPORTING, space=str(data.parent / "space.json"),
            pool="inline", free="off",
        )  # fmt: skip


def test_a_trainer_that_reports_no_number_is_told_so() -> None:
    class Vague:
        reports = ("way",)

        def values(self) -> dict[str, object]:
            return {"way": "far"}

    with pytest.raises(ModelError, match=r"values\(\) of the trainer returned 'far' for way; expected a finite number"):
        reported_values(Vague())  # type: ignore[arg-type]
