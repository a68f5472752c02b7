"""Parsing of option values."""

from __future__ import annotations

import pytest

from ripieno.cli import parsing
from ripieno.errors import RipienoError


def test_values_are_numbers_booleans_or_words() -> None:
    pairs = parsing.values("--configuration", "depth=2, rate=1e-3,flip=true,activation=relu,name=nan,path=a=b")
    assert pairs == {"depth": 2, "rate": 1e-3, "flip": True, "activation": "relu", "name": "nan", "path": "a=b"}
    assert parsing.values("--configuration", "") == {}


@pytest.mark.parametrize("text", ["depth", "=2", "depth=", "depth=1,depth=2", "depth=1,"])
def test_values_without_a_name_or_a_value_are_refused(text: str) -> None:
    with pytest.raises(RipienoError, match="must be name=value"):
        parsing.values("--configuration", text)


def test_a_number_of_folds_is_auto_or_a_whole_number():
    assert [parsing.parse_folds("--folds", text) for text in ("auto", "0", "5")] == ["auto", 0, 5]
    for text in ("few", "-1", "2.5", ""):
        with pytest.raises(RipienoError) as caught:
            parsing.parse_folds("--folds", text)
        assert str(caught.value) == f"--folds {text!r} must be auto, 0 for none, or a number of folds such as 5"


def test_kinds_of_columns_are_pairs_whose_names_may_hold_the_sign() -> None:
    assert parsing.parse_columns("--column", ["zip=category", "a=b=date"]) == {"zip": "category", "a=b": "date"}
    assert parsing.parse_columns("--column", None) == {}
    for texts in (["zip"], ["zip=text"], ["=date"], ["a=date", "a=number"]):
        with pytest.raises(
            RipienoError, match="must be NAME=KIND, each name once, with a kind of number, category, date"
        ):
            parsing.parse_columns("--column", texts)


def test_options_on_the_data_are_those_that_are_given() -> None:
    names = ("kind", "target", "value", "drop", "column", "ignore")
    assert parsing.parse_data_options(dict.fromkeys(names)) == dict.fromkeys(names)
    given = {"kind": "table", "target": ["pay"], "value": ["a, b", "c"], "drop": ["x,y"], "column": ["zip=category"]}
    given |= {"ignore": ["void, sky", "11"]}
    assert parsing.parse_data_options(given) == {
        **{"kind": "table", "target": ["pay"], "value": ["a", "b", "c"]},
        **{"drop": ["x,y"], "column": {"zip": "category"}, "ignore": ["void, sky", "11"]},
    }
    with pytest.raises(RipienoError, match="--kind"):
        parsing.parse_data_options({**given, "kind": "sound"})


def test_commas_separate_budgets_as_spaces_do() -> None:
    assert parsing.budgets(["5,20"], ["80"]) == [5.0, 20.0, 80.0]
    assert parsing.budgets(["seconds=20,memory=4GiB"], []) == [{"seconds": 20.0, "memory": 4 * 2.0**30}]
    assert parsing.budgets([], []) is None


def test_a_search_takes_one_budget() -> None:
    assert parsing.one_budget(None) is None
    assert parsing.one_budget(["5"]) == 5.0
    assert parsing.one_budget(["seconds=20,memory=4GiB"]) == {"seconds": 20.0, "memory": 4 * 2.0**30}
    assert parsing.one_budget(["seconds=20", "bytes=4M"]) == {"seconds": 20.0, "bytes": 4e6}
    with pytest.raises(RipienoError, match="--budget has 2 numbers: a search takes one budget, such as 5 or seconds"):
        parsing.one_budget(["5,20"])
