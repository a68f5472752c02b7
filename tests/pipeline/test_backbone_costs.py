"""Budgets, ensembles and fronts of a run whose members share backbones."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.cli import tables
from ripieno.cli.demo import baselines
from ripieno.library.cost_table import read_cost_table
from ripieno.pipeline import measured_costs, show, static_costs
from ripieno.pipeline.runs import no_progress
from ripieno.profiles import local_devices
from ripieno.reports.explorer import load_front
from ripieno.reports.figures import figures
from ripieno.reports.run_data import load_run
from tests.shared_networks import FAMILY, shared_networks
from tests.shared_run import BACKBONES, LARGE, NETWORK, PARAMETERS, SMALL, expected_cost, make_shared_run


@pytest.fixture
def library(tmp_path: Path) -> ripieno.Library:
    return make_shared_run(tmp_path / "run")


@pytest.mark.parametrize("kind", ["seconds", "memory", "latency", "parameters", "flops", "bytes"])
def test_ensembles_and_fronts_cost_each_backbone_once(library: ripieno.Library, kind: str) -> None:
    everything = expected_cost(library, (*BACKBONES, NETWORK), kind)
    budgets = [{kind: everything * share} for share in (0.4, 0.7, 1.0)]
    for ensemble, budget in zip(ripieno.select(library, budgets, method="exact", test=False), budgets, strict=True):
        assert ensemble.cost[kind] == pytest.approx(expected_cost(library, ensemble.members, kind))
        assert ensemble.cost[kind] <= budget[kind] * (1 + 1e-9)
    front = ripieno.front(library, cost=kind, method="exact", test=False)
    assert [e.cost[kind] for e in front.ensembles] == pytest.approx(
        [expected_cost(library, e.members, kind) for e in front.ensembles]
    )


def test_a_budget_of_a_backbone_and_its_heads_gives_the_best_of_all_ensembles(library: ripieno.Library) -> None:
    truth = dict(zip(library.ids(), library.true_class_probabilities(library.ids()), strict=True))
    for budget in (4.6, 5.5, 9.6, 10.1, 14.6, 19.0):
        (ensemble,) = ripieno.select(library, budget, method="exact", test=False)
        every = itertools.chain.from_iterable(itertools.combinations(library.ids(), k) for k in range(1, 7))
        fitting = [s for s in every if expected_cost(library, s, "seconds") <= budget]
        best = min(-np.log(np.mean([truth[m] for m in s], axis=0)).mean() for s in fitting)
        assert ensemble.losses["valid_cross_entropy"] == pytest.approx(best, abs=1e-6)


def test_default_budgets_begin_with_the_best_network_and_its_backbone(library: ripieno.Library) -> None:
    library.remove(NETWORK)
    best = min(library.members(), key=lambda m: m.loss).id
    ensembles = ripieno.select(library, method="smobf", test=False)
    alone = expected_cost(library, [best], "seconds")
    assert [e.budget["seconds"] for e in ensembles] == pytest.approx([k * alone for k in (1, 2, 4, 8)], rel=0.1)
    notes: list[str] = []
    ripieno.select(library, [0.6, 19.0], method="smobf", test=False, notes=notes)
    assert any("no member fits the budget of 0.6 seconds: the cheapest costs 4.5 seconds" in note for note in notes)


def test_show_lists_costs_alone_and_those_of_the_backbones(library: ripieno.Library) -> None:
    summary = show(library)
    assert summary.costs == pytest.approx({m: expected_cost(library, [m], "seconds") for m in (*BACKBONES, NETWORK)})
    assert summary.backbones == pytest.approx({SMALL: 4.0, LARGE: 9.0})


def test_counts_are_those_of_heads_and_of_backbones(library: ripieno.Library) -> None:
    counts = static_costs(library, ["00000-e001", SMALL, NETWORK])
    assert {name: count["parameters"] for name, count in counts.items()} == {
        name: PARAMETERS[name] for name in ("00000-e001", SMALL, NETWORK)
    }
    assert counts["00000-e001"]["flops"] + counts[SMALL]["flops"] == pytest.approx(
        expected_cost(library, ["00000-e001"], "flops")
    )


def test_baselines_and_reports_cost_each_backbone_once(library: ripieno.Library) -> None:
    for name in library.ids():  # the baselines of the demo are judged on the test split
        library.write_predictions(name, "test", library.predictions(name), library.targets())
    measured = measured_costs(library, library.profiles(local_devices("cpu")[0].kind))
    assert measured == read_cost_table(library, ("seconds",), local_devices("cpu")[0].kind)
    for baseline in baselines(library, measured):
        assert baseline.cost["seconds"] == pytest.approx(expected_cost(library, baseline.members, "seconds"))
    reading = load_run(library)
    assert reading.costs == pytest.approx({m: expected_cost(library, [m], "seconds") for m in library.ids()})
    for ensemble in load_front(reading, no_progress):
        assert ensemble.cost["seconds"] == pytest.approx(expected_cost(library, ensemble.members, "seconds"))
    found = figures(library, reading.table, "accuracy")
    assert found is not None
    everything = expected_cost(library, library.ids(), "seconds")
    assert max(found.budgets) == pytest.approx(everything, rel=0.05)
    assert max(point.cost for point in found.points if point.members == 6) == pytest.approx(everything)


def test_the_best_heads_of_a_run_are_listed_with_their_backbone(library: ripieno.Library) -> None:
    lines = tables.backbone_lines(library.members(), show(library).backbones, "seconds")
    assert lines == [
        f"3 members share the backbone {SMALL}: an ensemble pays its 4 seconds once",
        f"2 members share the backbone {LARGE}: an ensemble pays its 9 seconds once",
    ]


def test_missing_costs_of_heads_and_of_their_backbone_are_measured_and_counted(tmp_path: Path) -> None:
    with shared_networks(tmp_path / "run", 2, home="library", export=False) as shared:
        library, targets = ripieno.Library(tmp_path / "run", trusted=[FAMILY]), np.arange(30) % 4
        for member, predictions in zip(shared.members, shared.predictions, strict=True):
            weights = shared.path(member, "weights.safetensors").read_bytes()
            member = dataclasses.replace(member, losses={"valid_cross_entropy": 1.0})
            library.add(member, predictions, targets, weights)
        ids, backbone = library.ids(), shared.members[0].backbone
        for kind in ("seconds", "parameters", "flops", "bytes"):
            (ensemble,) = ripieno.select(library, {kind: 1e12}, method="top-k", size=2, test=False)
            assert sorted(ensemble.members) == ids
            table = read_cost_table(library, (kind,), local_devices("cpu")[0].kind)
            assert ensemble.cost == pytest.approx(table.total(ids))
            assert table.own[ids[0]][kind] > 0
            assert table.shared[backbone][kind] > 0
        device = local_devices("cpu")[0].kind
        assert library.profiles(device).keys() == {*ids, backbone}
        library.forget_profiles(backbone)
        ripieno.select(library, 1e12, method="best", test=False)
        assert backbone in library.profiles(device)
        counts = static_costs(library, [ids[0], backbone])
    head, convolution, norm = 6 * 4 + 4, 6 * 3 * 9 + 6, 2 * 6
    assert [count["parameters"] for count in counts.values()] == [head, convolution + norm]
    assert [count["flops"] for count in counts.values()] == [2 * 6 * 4, 2 * (4 * 3) * 6 * 3 * 9]
