"""Spaces and policies of augmentation: a space of the steps of a policy, and a space whose policy is fixed.

A step is an operation with its probability and its magnitude: three hyperparameters of the search of a policy. Their
values, rounded to hundredths, are the policy of a trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ripieno.data.augmentation_policy import NAMES, LearntPolicy, Policy, PolicyStep, hyperparameters_of
from ripieno.search.space import Categorical, Continuous, Range, Space
from ripieno.types import Configuration, DataKind

STEPS = 3
"""Steps of a learnt policy."""
REPLACED = frozenset(
    (
        *("max_zoom", "max_translation", "max_shear", "max_rotation", "max_channel_shift", "colour"),
        *("jitter", "scaling", "window_warp", "crop"),
        *NAMES,
    )
)
"""Hyperparameters of augmentation that a fixed policy takes the place of; crops, flips and mixtures are none."""


def policy_space(family: str, fixed: Configuration, operations: Sequence[str], steps: int = STEPS) -> Space:
    """Return the space of policies of some `operations`, for networks of the `fixed` configuration."""
    ranges: dict[str, Range] = {}
    for number in range(1, steps + 1):
        ranges[f"operation_{number}"] = Categorical(tuple(operations))
        ranges[f"probability_{number}"] = Continuous(0.0, 1.0)
        ranges[f"magnitude_{number}"] = Continuous(0.0, 1.0)
    return Space("policy", family, ranges, fixed)


def policy_configuration(drawn: Configuration, kind: DataKind) -> Configuration:
    """Return the configuration of a network with the policy that a trial of a `policy_space` stands for."""
    steps = []
    rest = dict(drawn)
    for number in range(1, sum(name.startswith("operation_") for name in drawn) + 1):
        operation = str(rest.pop(f"operation_{number}"))
        probability, magnitude = (round(float(rest.pop(f"{n}_{number}")), 2) for n in ("probability", "magnitude"))
        steps.append(PolicyStep(operation, probability, magnitude))
    return {**rest, **hyperparameters_of(LearntPolicy(kind, tuple(steps)))}


def has_policy(space: Space, policy: Policy) -> bool:
    """Return whether `policy` is fixed in `space`, of which some operations may have been left out."""
    wanted = hyperparameters_of(policy)
    if text := wanted.get("policy"):
        kept = str(space.fixed.get("policy", "none")).split("; ")
        return {*kept} - {""} <= {*str(text).split("; ")}
    return all(space.fixed.get(name) == wanted[name] for name in ("operations", "magnitude"))


def policy_words(space: Space) -> str:
    """Describe the policy that is fixed in `space`."""
    if text := space.fixed.get("policy"):
        return f"the policy of augmentation {str(text)!r}"
    return "no policy of augmentation" if "operations" not in space.fixed else "another policy of augmentation"


def keep_policy(space: Space, kept: Space) -> Space:
    """Return `space` with the fixed policy of `kept`, of which the data may have left operations out."""
    own = {name: value for name, value in space.fixed.items() if name not in NAMES}
    return replace(space, fixed=own | {n: value for n, value in kept.fixed.items() if n in NAMES})


def fix_policy(space: Space, policy: Policy) -> Space:
    """Return `space` with `policy` fixed, in place of the hyperparameters that it replaces."""
    ranges = {name: choice for name, choice in space.ranges.items() if name not in REPLACED}
    fixed = {name: value for name, value in space.fixed.items() if name not in REPLACED}
    return replace(space, ranges=ranges, fixed={**fixed, **hyperparameters_of(policy)})
