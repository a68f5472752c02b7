"""Past searches in terms of a new space."""

from __future__ import annotations

import pytest

from ripieno.errors import SearchError
from ripieno.search.built_in_spaces import SPACES
from ripieno.search.space import Categorical, Continuous, Integer, Range, Space
from ripieno.search.warm_start import (
    PastResult,
    PastSearch,
    PastTrial,
    alternate,
    check_same_space,
    distinct,
    find_difference,
    middle,
    nearest,
    translate,
)
from ripieno.types import Value

RATE = Continuous(0.01, 1.0, log=True)
OLD = Space("old", "none", {"rate": RATE, "width": Integer(4, 32), "kind": Categorical(("a", "b"))}, {"depth": 3})


@pytest.mark.parametrize(
    ("choice", "value", "expected"),
    [
        (Continuous(0.1, 0.5), 0.7, 0.5),
        (Continuous(0.0, 2.0), 1, 1.0),
        (Integer(4, 16), 40, 16),
        (Integer(4, 17, step=4), 11, 12),
        (Integer(4, 17, step=4), 99, 16),
        (Integer(1, 8, log=True), 0.2, 1),
        (Integer(1, 8), "three", None),
        (Categorical(("a", "b")), "b", "b"),
        (Categorical(("a", "b")), "c", None),
        (Categorical((96, 128)), 160, 128),
        (Categorical((0.0, 0.99)), 0.99, 0.99),
        (Categorical((False,)), True, False),
        (Categorical(("a", 1)), 2, None),
    ],
)
def test_a_value_outside_of_a_range_becomes_its_nearest_and_an_unknown_choice_none(
    choice: Range, value: Value, expected: Value | None
) -> None:
    found = nearest(choice, value)
    assert found == expected
    assert type(found) is type(expected)


def test_the_middle_of_a_range() -> None:
    assert middle(RATE) == pytest.approx(0.1)
    assert middle(Integer(1, 9)) == 5
    assert middle(Categorical(("x", "y"))) == "x"


def test_values_are_those_of_the_new_space() -> None:
    new = Space(
        "new", "none", {"rate": Continuous(0.1, 1.0), "depth": Integer(1, 2), "new": Integer(1, 3)}, {"kind": "a"}
    )
    assert translate(new, OLD, {"rate": 0.01, "width": 4, "kind": "a"}) == {"rate": 0.1, "depth": 2, "new": 2}
    assert translate(new, OLD, {"rate": 0.01, "width": 4, "kind": "b"}) is None  # another kind is fixed


def test_augmentation_that_is_fixed_by_the_data_is_no_other_choice() -> None:
    new = Space("new", "none", {"rate": RATE}, {"policy": "flip", "flip": False})
    old = Space("old", "none", {"rate": RATE, "flip": Categorical((True, False))}, {"policy": "rotate"})
    assert translate(new, old, {"rate": 0.5, "flip": True}) == {"rate": 0.5}


def test_the_same_space_has_the_same_family_and_half_of_the_hyperparameters() -> None:
    assert find_difference(OLD, OLD) == ""
    few = Space("few", "none", {"rate": RATE}, {"kind": "a"})
    assert find_difference(OLD, few) == ""  # two of three
    assert "lacks width, kind" in find_difference(OLD, Space("one", "none", {"rate": RATE}))
    assert find_difference(OLD, Space("other", "resnet", OLD.ranges)) == "of family resnet, not none"
    with pytest.raises(SearchError, match=r"^digits is a search of space other, of family resnet, not none, and"):
        check_same_space(OLD, PastSearch("digits", Space("other", "resnet", OLD.ranges), ()))


def test_a_family_that_names_one_network_of_a_space_is_of_that_space() -> None:
    lite = Space(
        "series", "lite", {n: r for n, r in SPACES["series"].ranges.items() if n != "network"}, {"network": "lite"}
    )
    assert find_difference(lite, SPACES["series"]) == ""
    values = {name: middle(choice) for name, choice in SPACES["series"].ranges.items()}
    assert translate(lite, SPACES["series"], values | {"network": "lite"}) is not None
    assert translate(lite, SPACES["series"], values | {"network": "inception"}) is None
    assert find_difference(SPACES["timm"], SPACES["timm-small"]) == ""
    assert find_difference(SPACES["resnet"], SPACES["resnet-tiny"]) == ""
    assert find_difference(SPACES["cell"], SPACES["resnet"]) != ""


def test_lists_alternate_without_repetition() -> None:
    one, two, three = {"x": 1}, {"x": 2}, {"x": 3}
    assert alternate([one, two], [two, three]) == (one, two, three)
    assert alternate([], [one]) == (one,)
    assert alternate() == ()


def test_a_search_that_is_named_twice_counts_once() -> None:
    trial = PastTrial({"rate": 0.1}, (PastResult(1, 0.5),))
    first, again, other = (PastSearch(n, OLD, (trial,), i) for n, i in (("a", "1"), ("b", "1"), ("c", "2")))
    unknown = PastSearch("d", OLD, (trial,))
    assert distinct([first, again, other, unknown, unknown]) == (first, other, unknown, unknown)
