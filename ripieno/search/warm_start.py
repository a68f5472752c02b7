"""Warm start of a search: what it takes from past searches of the same space, in terms of its own.

A past search is of the same space if its family is the same and it knows at least half of the hyperparameters. Ranges
may differ, as data and time narrow them: a number outside of its range becomes the nearest one in it, and a
configuration with a choice that the range lacks is left out. What the past space did not have takes the middle of its
range, and a range of choices its first.

Pure: no file, no clock, nothing at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from ripieno.errors import SearchError
from ripieno.models import smp_config, timm_config
from ripieno.models.family_config import network_group
from ripieno.search.space import Categorical, Continuous, Range, Space
from ripieno.types import Configuration, Value

KNOWN_SHARE = 0.5
"""Share of the ranges of a space that a past one of the same space has, at least."""
AUGMENTATION = ("policy", "operations", "without")
"""Texts that a space fixes by the data: configurations of another one may be taken."""


@dataclass(frozen=True)
class PastResult:
    """Result of a past trial: its `loss` after `epoch` epochs, None if it failed."""

    epoch: int
    loss: float | None
    seconds: float = 0.0
    """spent training since the result before"""


@dataclass(frozen=True)
class PastTrial:
    """Trial of a past search: the values of its ranges, and its results by epoch."""

    values: Configuration
    results: tuple[PastResult, ...]


@dataclass(frozen=True)
class PastSearch:
    """Past search; `name` is for people."""

    name: str
    space: Space
    trials: tuple[PastTrial, ...]
    identity: str = ""
    """equal for two records of one search; empty: not known"""


@dataclass(frozen=True)
class PastCurve:
    """Losses of a past configuration in terms of a new search, standardised over its own search."""

    values: Configuration
    points: tuple[tuple[float, float], ...]
    """epochs, so that the last one of its search is the last one of the new search, and losses"""


@dataclass(frozen=True)
class WarmStart:
    """Findings of past searches that a search takes: configurations to begin with, and losses for its sampler."""

    sources: tuple[str, ...] = ()
    """names of the past searches, and of a built-in portfolio"""
    portfolio: tuple[Configuration, ...] = ()
    """values of the ranges of the first trials, best first"""
    curves: tuple[PastCurve, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.portfolio or self.curves)


COLD = WarmStart()
"""Start without past searches."""


def values_key(values: Configuration) -> tuple[tuple[str, Value], ...]:
    """Return a key that equal values of ranges share."""
    return tuple(sorted(values.items()))


def family_group(family: str) -> str:
    """Return the name that families share if one space can search them all: `timm` of `timm:resnet18`."""
    if timm_config.is_timm(family):
        return timm_config.FAMILY
    return smp_config.FAMILY if smp_config.is_smp(family) else network_group(family) or family


def find_difference(space: Space, past: Space) -> str:
    """Return why a search of `past` is none of the same space as one of `space`; empty: it is."""
    if family_group(space.family) != family_group(past.family):
        return f"of family {past.family}, not {space.family}"
    known = past.ranges.keys() | past.fixed.keys()
    missing = [name for name in space.ranges if name not in known]
    if len(missing) > (1 - KNOWN_SHARE) * len(space.ranges):
        return f"of other hyperparameters: it lacks {', '.join(missing[:3])}"
    return ""


def check_same_space(space: Space, past: PastSearch) -> None:
    """Raise SearchError that names the difference if `past` did not search the same space."""
    if difference := find_difference(space, past.space):
        raise SearchError(
            f"{past.name} is a search of space {past.space.name}, {difference}, and this one is of {space.name}: "
            "learn from searches of the same space"
        )


def translate(space: Space, past: Space, values: Configuration) -> Configuration | None:
    """Return the values of the ranges of `space` for those of `past`; None: a choice of theirs is not in `space`."""
    before = {**past.fixed, **values}
    for name, value in space.fixed.items():
        own = before.get(name, value)
        if isinstance(own, str) and own != value and name not in AUGMENTATION:
            return None
    found: dict[str, Value] = {}
    for name, choice in space.ranges.items():
        fitted = nearest(choice, before[name]) if name in before else middle(choice)
        if fitted is None:
            return None
        found[name] = fitted
    return found


def nearest(choice: Range, value: Value) -> Value | None:
    """Return the value of a range that is nearest to `value`; None: they have no distance."""
    if isinstance(choice, Categorical):
        same = [known for known in choice.choices if known == value and type(known) is type(value)]
        if same or isinstance(value, str) or any(isinstance(known, str) for known in choice.choices):
            return same[0] if same else None
        return min(choice.choices, key=lambda known: abs(float(known) - float(value)))
    if isinstance(value, str):
        return None
    if isinstance(choice, Continuous):
        return min(choice.high, max(choice.low, float(value)))
    steps = round((float(value) - choice.low) / choice.step)
    return choice.low + choice.step * min((choice.high - choice.low) // choice.step, max(0, steps))


def middle(choice: Range) -> Value:
    """Return the middle of a range, in logarithm where the range is; the first of choices."""
    if isinstance(choice, Categorical):
        return choice.choices[0]
    low, high = choice.low, choice.high
    value = nearest(choice, exp((log(low) + log(high)) / 2) if choice.log else (low + high) / 2)
    assert value is not None
    return value


def translated(space: Space, past: PastSearch) -> tuple[PastTrial, ...]:
    """Return the trials of `past` that have a result, with values of `space`; those that do not fit are left out."""
    pairs = ((translate(space, past.space, t.values), t) for t in past.trials if t.results)
    return tuple(PastTrial(values, trial.results) for values, trial in pairs if values is not None)


def distinct(past: Sequence[PastSearch]) -> tuple[PastSearch, ...]:
    """Return the searches without those that are in `past` before, by their identity."""
    found: dict[str, PastSearch] = {}
    for number, search in enumerate(past):
        found.setdefault(search.identity or f"#{number}", search)
    return tuple(found.values())


def alternate(*lists: Sequence[Configuration]) -> tuple[Mapping[str, Value], ...]:
    """Return the configurations of all `lists`, one of each in turn, without those that were there before."""
    found: list[Configuration] = []
    for place in range(max(map(len, lists), default=0)):
        for one in lists:
            if place < len(one) and one[place] not in found:
                found.append(one[place])
    return tuple(found)
