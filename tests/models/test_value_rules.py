"""Rules for the values of hyperparameters: what each refuses."""

from __future__ import annotations

from typing import Any

import pytest

from ripieno.errors import ModelError
from ripieno.models.value_rules import ABOVE_0, COUNT, SHARE_BELOW_1, ValueRules, check_values

RULES: ValueRules = {"count": COUNT, "share": SHARE_BELOW_1, "rate": ABOVE_0, "kind": ("a", "b")}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 0, "a whole number of at least 1"),
        ("count", 2.0, "a whole number of at least 1"),
        ("count", True, "a whole number of at least 1"),
        ("share", 1, "a number of at least 0 and below 1"),
        ("share", float("nan"), "a number of at least 0 and below 1"),
        ("rate", float("inf"), "a number above 0"),
        ("rate", "1", "a number above 0"),
        ("kind", "c", "one of a, b"),
        ("kind", 1, "one of a, b"),
    ],
)
def test_a_value_against_its_rule_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_values({"other": None, name: value}, RULES)
    assert str(caught.value) == f"{name} is {value!r}: it must be {expected}"


def test_values_by_their_rules_and_without_one_are_taken() -> None:
    check_values({"count": 1, "share": 0, "rate": 1e-9, "kind": "b", "other": "x"}, RULES)
