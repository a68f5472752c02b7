"""Rules that combine policies, by exact values, and the refusal of those that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.tasks.action_rules import actions_of, check_outputs, check_rule, combine_actions, rules_of
from ripieno.tasks.registry import kind_of
from ripieno.types import Task

BOX = Task("policy", (2,), ("0", "1"), "return", (-1.0, 0.0), (1.0, 2.0))
DISCRETE = Task("policy", (3,), ("0", "1", "2"), "return")


def test_the_mean_action_stays_in_the_box():
    combined = combine_actions("mean", np.array([[[1.0, 2.5]], [[0.0, 2.5]]]))
    assert combined.tolist() == [[0.5, 2.5]]
    assert actions_of(combined, BOX).tolist() == [[0.5, 2.0]]
    assert actions_of(combined, BOX).dtype == np.float32


def test_weights_count_where_the_rule_is_weighted():
    outputs = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert combine_actions("weighted", outputs, [3, 1]).tolist() == [[0.75, 0.25]]
    assert combine_actions("mean", outputs, [3, 1]).tolist() == [[0.5, 0.5]]
    assert combine_actions("vote", np.array([[[1.0, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]]), [1, 1, 2]).tolist() == [
        [0.25, 0.25, 0.5]
    ]


def test_votes_and_their_ties_which_the_lowest_action_wins():
    outputs = np.array([[[0.0, 5.0, 4.0]], [[9.0, 0.0, 8.0]]])
    combined = combine_actions("vote", outputs)
    assert combined.tolist() == [[0.5, 0.5, 0.0]]
    assert actions_of(combined, DISCRETE).tolist() == [0]


def test_values_are_standardised_over_the_actions_of_each_policy():
    small, large = [0.0, 0.0, 3.0], [1001.0, 1000.0, 1000.0]
    combined = combine_actions("value", np.array([[small], [large]]))
    root = np.sqrt(2.0)
    assert np.allclose(combined, [[(-1 / root + root) / 2, -1 / root, (root - 1 / root) / 2]], atol=1e-6)
    assert actions_of(combined, DISCRETE).tolist() == [0]
    assert combine_actions("value", np.full((2, 1, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]]


def test_the_mean_of_probabilities():
    combined = combine_actions("probability", np.array([[[0.6, 0.4, 0.0]], [[0.0, 0.5, 0.5]]]))
    assert np.allclose(combined, [[0.3, 0.45, 0.25]])
    assert actions_of(combined, DISCRETE).tolist() == [1]


def test_rules_that_fit():
    assert rules_of(BOX, ["action", "action"]) == ("mean",)
    assert rules_of(DISCRETE, ["values", "values"]) == ("vote", "value")
    assert rules_of(DISCRETE, ["probabilities"]) == ("vote", "probability")
    assert rules_of(DISCRETE, ["probabilities", "values"]) == ("vote",)


@pytest.mark.parametrize(
    ("rule", "task", "outputs", "error"),
    [
        ("vote", BOX, (), "'vote' makes no sense of a box of 2 dimensions: expected mean or weighted"),
        ("mean", DISCRETE, (), "'mean' makes no sense of 3 discrete actions: expected vote or probability or value"),
        ("median", BOX, (), "makes no sense"),
        (
            "value",
            DISCRETE,
            ("values", "probabilities"),
            "needs policies that return values, one returns probabilities",
        ),
    ],
)
def test_rules_that_make_no_sense_are_one_line(rule, task, outputs, error):
    with pytest.raises(SelectionError, match=error):
        check_rule(rule, task, outputs)


def test_a_policy_that_returns_another_shape_or_no_numbers_is_named():
    assert check_outputs("a", np.zeros((4, 3)), 4, DISCRETE).shape == (4, 3)
    with pytest.raises(SelectionError, match=r"policy a returned \(4, 2\) for 4 observations, expected \(4, 3\)"):
        check_outputs("a", np.zeros((4, 2)), 4, DISCRETE)
    with pytest.raises(SelectionError, match="policy a returned numbers that are not finite"):
        check_outputs("a", np.full((4, 3), np.nan), 4, DISCRETE)


def test_the_task_combines_by_the_same_rules_as_the_engine():
    outputs = np.array([[[0.0, 5.0, 4.0]], [[9.0, 0.0, 8.0]]], np.float32)
    for rule in ("vote", "probability", "value"):
        assert np.array_equal(kind_of(DISCRETE).combine(outputs, None, rule), combine_actions(rule, outputs))
    with pytest.raises(SelectionError, match="does not fit task policy"):
        kind_of(DISCRETE).combine(outputs, None, "median")
