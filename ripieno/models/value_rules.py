"""Rules for the values of hyperparameters: some texts, or numbers within bounds. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ripieno.errors import ModelError


@dataclass(frozen=True)
class NumberRule:
    """Numbers that a hyperparameter may have."""

    is_valid: Callable[[float], bool]
    expected: str
    """description of them in messages"""


COUNT = NumberRule(lambda value: isinstance(value, int) and value >= 1, "a whole number of at least 1")
SHARE_BELOW_1 = NumberRule(lambda value: 0 <= value < 1, "a number of at least 0 and below 1")
ABOVE_0 = NumberRule(lambda value: 0 < value < math.inf, "a number above 0")

ValueRules = Mapping[str, NumberRule | tuple[str, ...]]
"""Rule for each hyperparameter by its name: numbers, or the texts that it may be."""


def check_values(values: Mapping[str, Any], rules: ValueRules) -> None:
    """Raise ModelError for a value against its rule; values without a rule are not checked."""
    for name, value in values.items():
        rule = rules.get(name)
        if isinstance(rule, NumberRule):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not rule.is_valid(value):
                raise ModelError(f"{name} is {value!r}: it must be {rule.expected}")
        elif rule is not None and value not in rule:
            raise ModelError(f"{name} is {value!r}: it must be one of {', '.join(rule)}")
