"""Costs of members that share backbones, by kind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ripieno.library import Library
from ripieno.library.cost_table import COUNTED, MEASURED, CostTable, read_cost_table
from ripieno.library.eviction import dominated
from ripieno.profiles import local_devices
from ripieno.selection import select_members
from tests.shared_run import BACKBONES, LARGE, NETWORK, SMALL, expected_cost, make_shared_run

KINDS = (*MEASURED, *COUNTED)
DEVICE = local_devices("cpu")[0].kind


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_shared_run(tmp_path_factory.mktemp("shared") / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_costs_each_member_and_each_backbone_once(library: Library, kind: str) -> None:
    table = read_cost_table(library, (kind,), DEVICE)
    names = (*BACKBONES, NETWORK)
    for members in itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(1, 7)):
        assert table.total(members)[kind] == pytest.approx(expected_cost(library, members, kind))
    assert table.alone(kind) == pytest.approx({m: expected_cost(library, [m], kind) for m in names})
    assert table.total(("00000-e001", "00000-e001")) == table.total(("00000-e001",))


def test_a_selection_of_arrays_gets_the_same_costs(library: Library) -> None:
    table = read_cost_table(library, KINDS, DEVICE)
    truth = library.true_class_probabilities(library.ids())
    for members in itertools.combinations(range(6), 3):
        ids = [library.ids()[m] for m in members]
        choice = select_members(truth[list(members)], method="forward", size=3, **table.arguments(ids))
        assert choice.costs == pytest.approx(table.total(ids))


def test_members_without_backbones_give_the_arguments_of_before(library: Library) -> None:
    table = read_cost_table(library, ("seconds",), DEVICE)
    assert table.arguments([NETWORK]) == {"costs": {"seconds": [5.0]}}
    assert table.arguments(["00003-e001", NETWORK]) == {
        "costs": {"seconds": [0.5, 5.0]},
        "shared": [LARGE, ""],
        "shared_costs": {LARGE: {"seconds": 9.0}},
    }


def test_a_member_with_an_unmeasured_backbone_has_no_cost(tmp_path: Path) -> None:
    library = make_shared_run(tmp_path / "run")
    library.forget_profiles(SMALL)
    table = read_cost_table(library, ("seconds",), DEVICE)
    assert sorted(table.own) == ["00003-e001", "00004-e001", NETWORK]
    assert dict(table.backbones) == {"00003-e001": LARGE, "00004-e001": LARGE}
    library.weights_path("00004-e001").write_bytes(b"broken")
    assert sorted(read_cost_table(library, ("seconds", "parameters"), DEVICE).own) == ["00003-e001", NETWORK]
    assert set(read_cost_table(library, ("parameters",)).own) == {*BACKBONES, NETWORK} - {"00004-e001"}


def test_a_head_is_dominated_by_what_costs_no_more_than_a_head(library: Library) -> None:
    # the members are the better the later, and heads cost 0.5: only heads of the same backbone are no dearer
    losses = {m.id: m.loss for m in library.members()}
    found = dominated(library)
    for member, by in found.items():
        assert losses[by] <= losses[member]
        assert by in BACKBONES
        assert BACKBONES[member] == BACKBONES[by]
    assert NETWORK not in found
    assert set(found) == {
        m for m, b in BACKBONES.items() if any(losses[o] < losses[m] for o, other in BACKBONES.items() if other == b)
    }


def test_an_empty_table_has_no_costs() -> None:
    assert CostTable({}, {}, {}).arguments([]) == {"costs": {}}
