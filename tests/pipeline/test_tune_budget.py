"""Searches under a budget: what is trained, what the run keeps, and what `select` does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno import files
from ripieno.errors import SearchError, SelectionError
from ripieno.library import Library
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline.cost_samples import CostRecord
from ripieno.profiles.cost_model import CostModel

IMAGES = np.random.default_rng(0).integers(0, 120, (60, 6, 5, 1), np.uint8)
LABELS = np.arange(60) % 2
QUICK: dict[str, Any] = {"epochs": 1, "algorithm": "random", "space": "resnet-tiny", "pool": "inline", "free": "off"}
FLOPS = 800_000.0
"""Of the networks of the space for such images, a third does not exceed it."""


def flops(library: Library) -> list[float]:
    members = library.members()
    return [configuration_costs(m.family, m.configuration, m.input, m.task)["flops"] for m in members]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, list[str]]:
    run, notes = tmp_path_factory.mktemp("bounded") / "run", list[str]()
    budget = {"flops": FLOPS}
    return ripieno.tune((IMAGES, LABELS), run, budget=budget, trials=6, notes=notes, **QUICK), notes


def test_no_network_that_exceeds_the_budget_is_trained(bounded: tuple[Library, list[str]], tmp_path: Path) -> None:
    library, notes = bounded
    assert len(library) == 6
    assert max(flops(library)) <= FLOPS
    assert "networks over the budget of 800000 flops are not trained" in notes
    free = ripieno.tune((IMAGES, LABELS), tmp_path / "run", trials=6, **QUICK)
    assert max(flops(free)) > FLOPS  # the same seed without a budget


def test_the_run_keeps_its_budget_and_another_is_refused(bounded: tuple[Library, list[str]]) -> None:
    library, _ = bounded
    assert json.loads((library.path / "run.json").read_text())["budget"] == {"flops": FLOPS}
    with pytest.raises(SearchError, match="with budget 800000 flops, requested is budget 5 seconds: pass the same"):
        ripieno.tune(run=library.path, budget=5, **QUICK)
    more = ripieno.tune(run=library.path, trials=8, **QUICK)
    assert len(more) == 8
    assert max(flops(more)) <= FLOPS


def test_select_uses_the_budget_of_the_search(bounded: tuple[Library, list[str]]) -> None:
    (ensemble,) = ripieno.select(bounded[0].path)
    assert ensemble.budget == {"flops": FLOPS}
    assert ensemble.cost["flops"] <= FLOPS
    (other,) = ripieno.select(bounded[0].path, {"parameters": 1e9})
    assert other.budget == {"parameters": 1e9}


def test_predicted_costs_bound_at_twice_the_budget(tmp_path: Path) -> None:
    # seconds are a millionth of the FLOPs, so 0.4 of them bound as 0.8 million FLOPs do
    models = {"seconds": CostModel(("log flops",), (float(np.log(1e6)),), (1.0,), 0.0, 1.2, 12)}
    files.write_json(tmp_path / "run" / "cost-models.json", CostRecord("a-cpu", models))
    notes: list[str] = []
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", budget=0.4, trials=6, notes=notes, **QUICK)
    assert FLOPS / 2 < max(flops(library)) <= FLOPS
    assert any("predicted above 0.8 seconds, twice the budget, are not trained" in note for note in notes)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["budget"] == {"seconds": 0.4}


def test_a_budget_that_nothing_fits_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"no network of space resnet-tiny fits the budget of 10 flops: the cheapest"):
        ripieno.tune((IMAGES, LABELS), tmp_path / "run", budget={"flops": 10}, trials=2, **QUICK)
    assert not (tmp_path / "run" / "run.json").exists()
    for budget, error in (({"euros": 3}, SearchError), (-1, SelectionError)):
        with pytest.raises(error):
            ripieno.tune((IMAGES, LABELS), tmp_path / "other", budget=budget, trials=2, **QUICK)  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def test_a_trainer_of_trees_is_searched_with_a_note(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    notes: list[str] = []
    quick = {**QUICK, "space": "lightgbm"}
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", budget=5, trials=1, notes=notes, **quick)
    assert len(library) == 1
    assert sum(note.startswith("no network is left out for its seconds, not known before training") for note in notes)
