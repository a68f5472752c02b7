"""Searches of real networks with constraints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import ripieno
from ripieno.errors import SearchError
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline.budgets import constrained_budget, needs_no_measurement
from ripieno.pipeline.search_plan import check_names


def arrays() -> tuple[np.ndarray, np.ndarray]:
    source = load_digits()
    return (source.images[:200, :, :, None] * 15).astype(np.uint8), source.target[:200]


def test_a_search_trains_only_what_its_constraints_allow_and_names_the_budget(tmp_path: Path) -> None:
    options = {"space": "resnet-tiny", "pool": "inline", "free": "off", "epochs": 1, "trials": 3, "seed": 1}
    bounds = ["bytes<=60k", "accuracy>=0.99"]
    seen: list[ripieno.search.Snapshot] = []
    library = ripieno.tune(arrays(), tmp_path / "run", constraint=bounds, watch=seen.append, **options)
    for member in library.members():
        costs = configuration_costs(member.family, member.configuration, member.input, member.task)
        assert costs["bytes"] == 4 * member.parameters <= 60_000
    assert seen[-1].redrawn > 0
    assert seen[-1].infeasible == 3
    assert constrained_budget(library) == ["bytes=60000"]
    assert needs_no_measurement(library)
    with pytest.raises(
        SearchError, match=r"constraints bytes<=60000, accuracy>=0.99, requested is constraints bytes<=5"
    ):
        ripieno.tune(run=tmp_path / "run", constraint="bytes<=50k", pool="inline")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("bytes<=1k", r"none of 1,000 random configurations of space resnet-tiny meets bytes<=1000: the nearest has"),
        ("acuracy>=0.5", r"constraint of 'acuracy': trials have no such number; use one of seconds, .* accuracy"),
        ("bytes<1k", r"constraint 'bytes<1k' cannot be read"),
    ],
)
def test_a_wrong_constraint_is_one_line_before_anything_is_trained(
    constraint: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SearchError, match=message):
        ripieno.tune(arrays(), tmp_path / "run", constraint=constraint, space="resnet-tiny", pool="inline", trials=1)
    assert not (tmp_path / "run" / "run.json").exists()


def test_numbers_that_a_trainer_reports_may_be_bounded() -> None:
    check_names(["latency", "macro-f1", "frames"], ["macro_f1"], ["frames"])
    with pytest.raises(SearchError, match=r"constraint of 'frames': .* use one of seconds, .*, macro-f1$"):
        check_names(["frames"], ["macro_f1"], [])
