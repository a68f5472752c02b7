"""Rules that combine what policies return for observations, and the actions that follow.

mean, weighted   boxes: the mean action; `actions_of` clips it to the box
vote             discrete actions: each policy votes for its best action
probability      discrete actions: the mean of probabilities, where all policies return some
value            discrete actions: the mean of action values, where all policies return some. Each policy's values of an
                 observation are standardised over the actions first, since policies differ in scale and offset

The action of a discrete space is that of the largest combined value; ties go to the lowest action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.tasks.combiners import combine
from ripieno.types import Combiner, Float32s, PolicyOutput, Task

BOX_RULES: tuple[Combiner, ...] = ("mean", "weighted")
NEEDED: dict[Combiner, PolicyOutput] = {"probability": "probabilities", "value": "values"}
"""What all policies must return for a rule."""
DISCRETE_RULES: tuple[Combiner, ...] = ("vote", *NEEDED)


def rules_of(task: Task, outputs: Sequence[PolicyOutput | None]) -> tuple[Combiner, ...]:
    """Return the rules that fit the actions of `task` and policies that return `outputs`."""
    if task.low:
        return BOX_RULES[:1]
    return tuple(rule for rule in DISCRETE_RULES if rule not in NEEDED or all(o == NEEDED[rule] for o in outputs))


def single_rule(task: Task) -> Combiner:
    """Return the rule by which one policy acts as it is."""
    return "mean" if task.low else "vote"


def check_rule(rule: str, task: Task, outputs: Sequence[PolicyOutput | None] = ()) -> None:
    """Raise SelectionError where `rule` makes no sense of the actions of `task`, or of what the policies return."""
    fitting = BOX_RULES if task.low else DISCRETE_RULES
    if rule not in fitting:
        plural = "s" if len(task.low) > 1 else ""
        space = f"a box of {len(task.low)} dimension{plural}" if task.low else f"{len(task.names)} discrete actions"
        raise SelectionError(f"combiner {rule!r} makes no sense of {space}: expected {' or '.join(fitting)}")
    needed = NEEDED.get(rule)
    if needed and (other := next((o for o in outputs if o != needed), None)):
        fit = " or ".join(rules_of(task, outputs))
        raise SelectionError(f"combiner {rule!r} needs policies that return {needed}, one returns {other}: use {fit}")


def combine_actions(
    rule: Combiner, outputs: NDArray[Any], weights: Sequence[float] | NDArray[Any] | None = None
) -> Float32s:
    """Combine what policies return, (policies, observations, actions), by a rule, into (observations, actions).

    `weights` (policies,) are used by all rules but "mean"; None: equal ones. Raises SelectionError for weights as
    `combine` does.
    """
    outputs = np.asarray(outputs, np.float32)
    if rule == "value":
        outputs = standardised(outputs)
    return combine(outputs, weights, "weighted" if rule in NEEDED else rule, "identity")


def standardised(values: Float32s) -> Float32s:
    """Return `values` (..., actions) less their mean over the actions, by their deviation; 0 where that is 0."""
    double = values.astype(np.float64)
    centred = double - double.mean(axis=-1, keepdims=True)
    scale = centred.std(axis=-1, keepdims=True)
    return np.asarray(np.where(scale > 0, centred / np.where(scale > 0, scale, 1.0), 0.0), np.float32)


def actions_of(combined: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return actions of combined values: (observations,) int64, or in the box (observations, dimensions) float32."""
    if not task.low:
        return np.asarray(combined.argmax(axis=-1), np.int64)
    return np.clip(
        np.asarray(combined, np.float32), *(np.asarray(bound, np.float32) for bound in (task.low, task.high))
    )


def check_outputs(name: str, outputs: NDArray[Any], observations: int, task: Task) -> NDArray[Any]:
    """Return `outputs` of policy `name`. Raises SelectionError unless they are finite, (observations, actions)."""
    due = (observations, *task.output)
    if outputs.shape != due:
        raise SelectionError(f"policy {name} returned {outputs.shape} for {observations} observations, expected {due}")
    if not np.isfinite(outputs).all():
        raise SelectionError(f"policy {name} returned numbers that are not finite")
    return outputs
