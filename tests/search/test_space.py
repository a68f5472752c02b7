"""Spaces: the paper's table, files, and Optuna's distributions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ripieno.errors import SearchError
from ripieno.search import SPACES, Categorical, Continuous, Integer, Space, find_space, space_from_json
from ripieno.search.space import distributions, space_from_plain, space_to_plain


def test_resnet_paper_is_table_5() -> None:
    ranges = SPACES["resnet-paper"].ranges
    assert {name: (r.low, r.high) for name, r in ranges.items() if isinstance(r, Continuous)} == {
        "learning_rate": (0.001, 0.01),
        "weight_decay": (0, 0.1),
        "max_zoom": (0, 0.6),
        "max_translation": (0, 0.6),
        "max_shear": (0, 0.3),
        "max_channel_shift": (0, 0.3),
    }
    assert {name: (r.low, r.high) for name, r in ranges.items() if isinstance(r, Integer)} == {
        "batch_size": (8, 48),
        "stem_filters": (32, 128),
        "width": (32, 128),
        **{f"blocks_{stage}": (1, 11) for stage in (1, 2, 3, 4)},
        "max_rotation": (0, 90),
    }
    assert ranges["convolution"] == Categorical(("v1", "v2", "next"))
    assert ranges["activation"] == Categorical(("tanh", "relu", "elu"))
    assert SPACES["resnet-paper"].fixed["optimizer"] == "adam"
    assert not any(getattr(r, "log", False) for r in ranges.values())


@pytest.mark.parametrize("name", SPACES)
def test_every_space_survives_json_and_reaches_optuna(name: str) -> None:
    space = SPACES[name]
    assert space_from_plain(json.loads(json.dumps(space_to_plain(space)))) == space
    made = distributions(space)
    assert list(made) == list(space.ranges)
    assert find_space(name) is space


def test_a_space_from_a_file_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    ranges = {
        "depth": {"kind": "integer", "low": 1, "high": 9, "step": 2},
        "kind": {"kind": "categorical", "choices": [1, "a"]},
    }
    path.write_text(json.dumps({"family": "my.module:build", "ranges": ranges, "fixed": {"flip": True}}))
    expected = Space(
        "mine", "my.module:build", {"depth": Integer(1, 9, step=2), "kind": Categorical((1, "a"))}, {"flip": True}
    )
    assert space_from_json(path) == find_space(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "is not JSON"),
        ("[]", "one JSON object"),
        ('{"range": {}}', "unknown field 'range'"),
        ('{"ranges": {}}', "no ranges"),
        (
            '{"ranges": {"a": {"kind": "real"}}}',
            "a: \"kind\" is 'real', it must be one of continuous, integer, categorical",
        ),
        ('{"ranges": {"a": {"kind": "integer", "low": 1}}}', "a: .*`high`"),
        (
            '{"ranges": {"a": {"kind": "integer", "low": 1, "high": 2.5}}}',
            "a: Expected `int`, got `float`",
        ),
        ('{"ranges": {"a": {"kind": "categorical", "choices": [1], "log": true}}}', "a: .* categorical has no 'log'"),
        ('{"ranges": {"a": {"kind": "continuous", "low": 0, "high": 1, "log": true}}}', "a: range .* exceed 0"),
        ('{"ranges": {"a": {"kind": "categorical", "choices": []}}}', "a: a categorical range has no choices"),
        ('{"ranges": {"a": {"kind": "integer", "low": 3, "high": 1}}}', "a: range .* must not exceed high"),
        ('{"ranges": {"a": {"kind": "categorical", "choices": [1]}}, "fixed": {"a": 1}}', "both ranges over"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, content: str, line: str) -> None:
    path = tmp_path / "space.json"
    path.write_text(content)
    with pytest.raises(SearchError, match=line) as error:
        space_from_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_space_lists_those_there_are() -> None:
    with pytest.raises(SearchError, match=r"there are: resnet-tiny, .*resnet-paper"):
        find_space("resnet50")
    with pytest.raises(SearchError, match="cannot be read"):
        find_space("absent.json")
