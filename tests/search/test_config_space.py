"""Spaces of commands, in ConfigSpace's JSON and ours."""

from __future__ import annotations

import json

import pytest

from ripieno.errors import SearchError
from ripieno.search.config_space import read_command_space
from ripieno.search.space import Categorical, Continuous, Integer

FOUND = [
    {"type": "uniform_float", "name": "a", "lower": 0.1, "upper": 1.0, "log": True, "default_value": 0.5},
    {"type": "uniform_int", "name": "b", "lower": 1, "upper": 9, "log": False, "default_value": 2},
    {"type": "categorical", "name": "c", "choices": ["x", "y"], "default_value": "x"},
    {"type": "ordinal", "name": "d", "sequence": [1, 2, 4], "default_value": 4},
    {"type": "constant", "name": "e", "value": "z"},
]


def write(tmp_path, content):
    path = tmp_path / "space.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_space_of_config_space(tmp_path):
    space, default = read_command_space(write(tmp_path, {"name": "sat", "hyperparameters": FOUND, "conditions": []}))
    assert (space.name, space.family, space.fixed) == ("sat", "command", {"e": "z"})
    assert space.ranges == {
        "a": Continuous(0.1, 1.0, True),
        "b": Integer(1, 9),
        "c": Categorical(("x", "y")),
        "d": Categorical((1, 2, 4)),
    }
    assert default == {"a": 0.5, "b": 2, "c": "x", "d": 4}


def test_config_space_writes_what_is_read(tmp_path):
    library = pytest.importorskip("ConfigSpace", reason="needs the extra smac")
    made = library.ConfigurationSpace(space={"a": (0.1, 1.0), "b": (1, 9), "c": ["x", "y"]}, name="made")
    made.to_json(tmp_path / "made.json")
    space, _ = read_command_space(tmp_path / "made.json")
    assert space.ranges == {"a": Continuous(0.1, 1.0), "b": Integer(1, 9), "c": Categorical(("x", "y"))}


def test_a_space_of_ours_needs_its_ranges_only(tmp_path):
    plain = {"ranges": {"a": {"kind": "continuous", "low": 0.0, "high": 1.0}}}
    space, default = read_command_space(write(tmp_path, plain))
    assert (space.name, space.family, space.ranges, default) == ("space", "command", {"a": Continuous(0.0, 1.0)}, {})


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no object of ranges"),
        ({"hyperparameters": FOUND, "conditions": [{"child": "a"}]}, "it has conditions"),
        ({"hyperparameters": FOUND, "forbiddens": [{"name": "a"}]}, "it has forbiddens"),
        ({"hyperparameters": [{"type": "normal_float", "name": "a"}]}, "is of type normal_float"),
        ({"hyperparameters": [{"type": "uniform_int", "name": "a", "lower": 1}]}, "has no 'upper'"),
        ({"hyperparameters": 3}, "must be a list"),
        ({}, "ranges"),
    ],
)
def test_a_space_that_cannot_be_read_is_one_line_with_its_file(tmp_path, content, error):
    with pytest.raises(SearchError, match=error) as raised:
        read_command_space(write(tmp_path, content))
    assert "space.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SearchError, match="there is no space"):
        read_command_space(tmp_path / "absent.json")
