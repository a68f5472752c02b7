"""Validation of durations."""

from __future__ import annotations

import math

import pytest

from ripieno.durations import LONGEST, check_duration
from ripieno.errors import RipienoError, SearchError


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1, -1e-9, 1.01e8, pytest.param(10**400, id="huge"), "1", True, None, [1]]
)
def test_what_is_no_duration_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(SearchError, match=r"^hours .* must be a number of hours, 0 or more and at most 27777\.8$"):
        check_duration(value, "hours", zero=True, unit=3600, error=SearchError)


@pytest.mark.parametrize("value", [1e-9, 1, 2.5, LONGEST])
def test_a_duration_is_given_back_as_a_float(value: float) -> None:
    assert check_duration(value, "timeout") == value
    assert isinstance(check_duration(value, "timeout"), float)


def test_nought_is_a_duration_only_where_it_means_something() -> None:
    assert check_duration(0, "timeout", zero=True) == 0
    with pytest.raises(RipienoError, match="timeout 0 must be a number of seconds, more than 0"):
        check_duration(0, "timeout")


def test_the_ceiling_is_the_same_in_every_unit() -> None:
    assert check_duration(1e14, "timeout", unit=1e-6) == 1e14
    with pytest.raises(RipienoError, match="a number of microseconds"):
        check_duration(1.01e14, "timeout", unit=1e-6)
