from __future__ import annotations

import pytest

from ripieno.data.augmentation_policy import OPERATIONS, policy_of
from ripieno.errors import SearchError
from ripieno.search.augmentation_space import leave_out, leave_out_operations, parse_without
from ripieno.search.built_in_spaces import SPACES, fit_space
from ripieno.search.space import Categorical, Continuous, Integer, Space
from ripieno.types import Task, classification

RANDOM = Space(
    "own",
    "resnet",
    {
        "width": Integer(4, 8),
        "operations": Integer(0, 2),
        "magnitude": Categorical(("random", 0.3)),
        "max_rotation": Integer(0, 30),
    },
    {"flip": True, "without": "solarize"},
)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("flip", ("flip",)),
        ("flip,rotate", ("flip", "rotate")),
        (["flip, rotate", "shear-x", "flip"], ("flip", "rotate", "shear-x")),
    ],
)
def test_names_are_separated_by_commas(given, names):
    assert parse_without(given) == names


@pytest.mark.parametrize("name", ["flips", "identity", "operations"])
def test_an_unknown_name_is_one_line_with_the_known_ones(name):
    with pytest.raises(SearchError, match=f"without is '{name}': it must be of auto-contrast, brightness, .*flip"):
        parse_without(f"rotate,{name}")


def test_ranges_and_fixed_values_of_what_is_left_out_go_and_a_policy_does_without_it():
    left = leave_out(RANDOM, ["flip", "rotate"])
    assert set(left.ranges) == {"width", "operations", "magnitude"}
    assert left.fixed == {"without": "solarize, rotate"}
    policy = policy_of({**left.fixed, "operations": 1}, "image")
    assert set(OPERATIONS["image"]) - set(policy.drawn) == {"solarize", "rotate"}
    assert leave_out(left, ["flip", "rotate"]) == left


def test_a_space_without_a_policy_keeps_no_list_of_operations():
    left = leave_out(SPACES["resnet"], ["rotate", "translate-x", "solarize"])
    assert set(SPACES["resnet"].ranges) - set(left.ranges) == {"max_rotation", "max_translation"}
    assert left.fixed == SPACES["resnet"].fixed


def test_a_learnt_policy_loses_its_steps():
    space = Space("own", "resnet", {"width": Integer(4, 8)}, {"policy": "rotate 0.5 0.3; shear-x 1.0 0.1"})
    assert leave_out(space, ["rotate"]).fixed == {"policy": "shear-x 1.0 0.1"}
    assert policy_of(leave_out(space, ["rotate", "shear-x"]).fixed, "image") is None


def test_other_names_than_operations_do_not_concern_a_policy():
    assert leave_out_operations(RANDOM, ["flip", "mixup"]) == RANDOM


def test_nothing_left_is_refused():
    with pytest.raises(SearchError, match="space own searches nothing without zoom: leave fewer out"):
        leave_out(Space("own", "resnet", {"max_zoom": Continuous(0, 0.2)}), ["zoom"])
    with pytest.raises(SearchError, match="no operation is left: leave fewer out"):
        leave_out(RANDOM, OPERATIONS["image"])


def test_policies_fit_all_kinds_of_data_and_erasing_images_only():
    ranges = {name: RANDOM.ranges[name] for name in ("operations", "magnitude")}
    space = Space("own", "mlp", ranges, {})
    assert fit_space(space, "table", classification("ab")) == space
    with pytest.raises(SearchError, match="erasing does not fit inputs of kind table: leave it out"):
        fit_space(Space("own", "mlp", {"erasing": Continuous(0, 1)}), "table", classification("ab"))
    erased = Space("own", "unet", {"erasing": Continuous(0, 1)})
    with pytest.raises(SearchError, match="erasing does not fit task segmentation"):
        fit_space(erased, "image", Task("segmentation", (2, 8, 8), ("a", "b")))
