"""Spaces: the paper's table, files, and Optuna's distributions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ripieno.errors import SearchError
from ripieno.search import SPACES, Categorical, Continuous, Integer, Space, find_space, space_from_json
from ripieno.search.built_in_spaces import fit_space
from ripieno.search.space import (
    backbone_names,
    distributions,
    fix_backbone,
    space_from_plain,
    space_to_plain,
)
from ripieno.types import DataKind, Task, classification


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


MIXED = {"mixup": Continuous(0.1, 0.4), "cutmix": Continuous(0.5, 1.0), "min_crop": Continuous(0.3, 1.0)}
MIXED |= {"colour": Continuous(0.0, 0.4), "width": Integer(4, 8)}


@pytest.mark.parametrize(
    ("kind", "task", "left"),
    [
        ("image", classification("ab"), ["mixup", "cutmix", "min_crop", "colour", "width"]),
        ("image", Task("multilabel", (1,), ("a",)), ["mixup", "cutmix", "min_crop", "colour", "width"]),
        ("image", Task("regression", (1,), ("a",)), ["mixup", "min_crop", "colour", "width"]),
        ("series", classification("ab"), ["mixup", "width"]),
        ("table", Task("regression", (1,), ("a",)), ["mixup", "width"]),
    ],
)
def test_mixing_and_augmentation_are_left_out_where_they_do_not_apply(
    kind: DataKind, task: Task, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space("mixed", "resnet", MIXED)
    monkeypatch.setitem(SPACES, "mixed", space)
    assert list(fit_space(space, kind, task).ranges) == left


def test_a_space_of_ones_own_with_cutmix_of_numbers_is_refused() -> None:
    with pytest.raises(SearchError, match="space own: cutmix does not fit task regression: leave it out"):
        fit_space(Space("own", "resnet", MIXED), "image", Task("regression", (1,), ("a",)))


def test_a_fixed_backbone_replaces_the_choice() -> None:
    space = fix_backbone(SPACES["timm-small"], "timm:resnet10t")
    assert (space.family, space.fixed["backbone"]) == ("timm:resnet10t", "resnet10t")
    assert "backbone" not in space.ranges
    assert backbone_names(space) == ("resnet10t",)
    assert fix_backbone(space, "timm:resnet10t") == space
    assert len(backbone_names(SPACES["timm-small"])) == 12
    assert backbone_names(SPACES["resnet"]) == ()
    space = SPACES["timm"]
    left = fit_space(space, "image", Task("regression", (1,), ("a",)))
    assert set(space.ranges) - set(left.ranges) == {"cutmix", "label_smoothing"}
