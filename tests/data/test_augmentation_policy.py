from __future__ import annotations

import json

import pytest

from ripieno.data import augmentation_policy
from ripieno.data.augmentation_policy import (
    OPERATIONS,
    LearntPolicy,
    PolicyStep,
    RandomPolicy,
    hyperparameters_of,
    policy_from_plain,
    policy_of,
    read_policy,
    write_policy,
)
from ripieno.errors import DataError

LEARNT = LearntPolicy("image", (PolicyStep("rotate", 0.5, 0.3), PolicyStep("colour", 1 / 3, 1.0)))
POLICIES = [
    RandomPolicy("image"),
    RandomPolicy("image", 2, 0.25, ("colour", "solarize")),
    LEARNT,
]


def test_images_have_the_fourteen_operations_of_randaugment():
    assert len(set(OPERATIONS["image"])) == 14


@pytest.mark.parametrize("policy", POLICIES)
def test_a_file_gives_back_the_policy(policy, tmp_path):
    write_policy(tmp_path / "p.json", policy)
    assert read_policy(tmp_path / "p.json") == policy
    assert json.loads((tmp_path / "p.json").read_text())["version"] == augmentation_policy.type_version


@pytest.mark.parametrize("policy", POLICIES)
def test_hyperparameters_give_back_the_policy_and_are_plain_values(policy):
    chosen = hyperparameters_of(policy)
    assert policy_of(json.loads(json.dumps(chosen)), "image") == policy


@pytest.mark.parametrize("configuration", [{}, {"operations": 0}, {"operations": 0, "magnitude": 0.5}, {"policy": ""}])
def test_a_configuration_without_operations_has_no_policy(configuration):
    assert policy_of(configuration, "image") is None


def test_a_random_policy_draws_all_operations_but_those_without():
    assert RandomPolicy("image").drawn == OPERATIONS["image"]
    assert "colour" not in RandomPolicy("image", without=("colour",)).drawn


STEP = {"operation": "rotate", "probability": 0.5, "magnitude": 0.5}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "image", "steps": [STEP | {"operation": "spin"}]}, "'spin' is no operation on inputs of kind image:"),
        ({"kind": "image", "steps": [STEP | {"magnitude": 1.5}]}, "magnitude of rotate is 1.5: it must be a number"),
        ({"kind": "image", "steps": [STEP | {"magnitude": True}]}, "magnitude of rotate is True: it must be a number"),
        ({"kind": "image", "steps": [STEP | {"magnitude": "random"}]}, "magnitude of rotate is 'random'"),
        ({"kind": "image", "steps": [STEP | {"probability": -0.1}]}, "probability of rotate is -0.1: it must be"),
        ({"kind": "image", "steps": [STEP | {"probability": float("nan")}]}, "probability of rotate is nan: it must"),
        ({"kind": "image", "steps": [STEP | {"sign": 1}]}, "it must have operation, probability and magnitude"),
        ({"kind": "image", "steps": ["rotate"]}, "step 'rotate': it must have operation"),
        ({"kind": "image", "steps": []}, "has no steps"),
        ({"kind": "image", "steps": 3}, '"steps" must be a list'),
        ({"kind": "image", "operations": 4}, "operations is 4: it must be a whole number from 0 to 3"),
        ({"kind": "image", "operations": 1.5}, "operations is 1.5: it must be a whole number"),
        ({"kind": "image", "operations": True}, "operations is True: it must be a whole number"),
        ({"kind": "image", "operations": [1]}, "operations is [1]: it must be a whole number"),
        ({"kind": "image", "operations": 1, "magnitude": 2}, "magnitude is 2: it must be a number from 0 to 1 or"),
        ({"kind": "image", "operations": 1, "magnitude": "x"}, "magnitude is 'x': it must be a number from 0 to 1"),
        ({"kind": "image", "operations": 1, "without": ["spin"]}, "'spin' is no operation"),
        ({"kind": "image", "operations": 1, "without": "colour"}, "\"without\" is 'colour': it must be a list"),
        ({"kind": "image", "operations": 1, "without": list(OPERATIONS["image"])}, "without leaves no operation"),
        ({"kind": "image"}, 'needs "operations"'),
        ({"kind": "sound", "operations": 1}, "\"kind\" is 'sound': it must be one of image, series, table"),
        ({"kind": "image", "operations": 1, "strength": 1}, "unknown field 'strength'"),
        ({"kind": "image", "operations": 1, "version": 99}, "version 99 is above"),
        ({"kind": "image", "operations": 1, "version": "1"}, "\"version\" is '1': it must be a whole number"),
        ({"kind": ["image"], "operations": 1}, "\"kind\" is ['image']: it must be one of"),
        ({"kind": "image", "operations": 1.0}, "operations is 1.0: it must be a whole number"),
        ([1], "it must hold one JSON object"),
    ],
)
def test_a_wrong_file_is_one_line_naming_it(fields, said, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError) as error:
        read_policy(path)
    message = str(error.value)
    assert said in message
    assert message.startswith(f"policy {path}: ")
    assert "\n" not in message


def test_a_file_that_is_missing_or_not_json_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_policy(tmp_path / "none.json")
    for text in ("", "{", "[" * 100_000):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(DataError, match="is not JSON"):
            read_policy(tmp_path / "p.json")


def test_a_file_of_another_kind_of_data_is_refused(tmp_path):
    write_policy(tmp_path / "p.json", LEARNT)
    with pytest.raises(DataError, match="for inputs of kind image, the data are of kind series"):
        read_policy(tmp_path / "p.json", "series")


def test_an_operation_of_another_kind_is_named_as_such(monkeypatch):
    monkeypatch.setattr(augmentation_policy, "OPERATIONS", {"image": ("rotate",), "series": ("jitter",), "table": ()})
    with pytest.raises(DataError, match=r"'jitter' is no operation on inputs of kind image \(it is one on .* series\)"):
        policy_from_plain({"kind": "image", "steps": [STEP | {"operation": "jitter"}]})


@pytest.mark.parametrize("text", ["rotate", "rotate 0.5", "rotate 0.5 x", "rotate 0.5 0.3;", "rotate 0.5 0.3 1"])
def test_a_text_with_a_step_that_is_none_is_refused(text):
    with pytest.raises(DataError, match="is no step of a policy"):
        policy_of({"policy": text}, "image")


def test_a_learnt_policy_and_operations_exclude_each_other():
    with pytest.raises(DataError, match="operations is 1, but there is a learnt policy"):
        policy_of(hyperparameters_of(LEARNT) | {"operations": 1}, "image")
