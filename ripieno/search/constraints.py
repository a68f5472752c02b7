"""Constraints of a search: bounds of costs and scores, such as `latency<=0.010`. Pure.

Theory of operation. What is known of a configuration before it is trained bounds the configurations that are drawn: one
that breaks it is drawn again. What is known after a job is only measured: samplers learn from it, and trials that break
it rank after all that do not, by how far they are beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np

from ripieno.config import read_quantity
from ripieno.errors import SearchError
from ripieno.search.space import Space, distributions
from ripieno.types import Configuration, Member

DRAWS = 1000
"""Random configurations that are drawn to find one that meets all constraints, before a search is refused."""
PENALTY = 1e100
"""Rank of a trial that breaks a constraint, above every loss."""
KnownCosts = Callable[[Configuration], Mapping[str, float]]
"""KnownCosts of a configuration that are known before training, by name; the same names for each of a search."""


@dataclass(frozen=True)
class Constraint:
    """A bound of a number of each trial."""

    name: str
    """of a cost, a score, or a number that the trainer reports"""
    sign: Literal["<=", ">="]
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.bound:.12g}"

    def violation(self, value: float) -> float:
        """Return how far a value is beyond the bound, as a share of it; 0 or less: the constraint is met."""
        beyond = value - self.bound if self.sign == "<=" else self.bound - value
        return beyond / (abs(self.bound) or 1.0)


def parse_constraint(text: str | Constraint) -> Constraint:
    """Read a constraint, such as `latency<=0.010`, `bytes<=4MiB` or `accuracy>=0.8`. Raises SearchError."""
    if isinstance(text, Constraint):
        return text
    match = re.fullmatch(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=)\s*(.+?)\s*", str(text))
    bound = read_quantity(match[3]) if match else None
    if match is None or bound is None or not isfinite(bound):
        raise SearchError(
            f"constraint {str(text)!r} cannot be read: write NAME<=NUMBER or NAME>=NUMBER, such as latency<=0.010, "
            "bytes<=4MiB or accuracy>=0.8"
        )
    return Constraint(match[1], "<=" if match[2] == "<=" else ">=", bound)


def parse_constraints(texts: Sequence[str | Constraint]) -> tuple[Constraint, ...]:
    """Read constraints. Raises SearchError where one cannot be read, or bounds a number a second time."""
    found = tuple(map(parse_constraint, texts))
    repeated = [c for n, c in enumerate(found) if any((c.name, c.sign) == (d.name, d.sign) for d in found[:n])]
    if repeated:
        raise SearchError(f"constraint {repeated[0]} bounds {repeated[0].name} a second time: give one bound")
    return found


def total_violation(constraints: Sequence[Constraint], values: Mapping[str, float]) -> float:
    """Return the sum of the violations of `values`, 0 where all are met; an unknown value breaks nothing."""
    return sum(max(0.0, c.violation(values[c.name])) for c in constraints if c.name in values)


def read_value(name: str, member: Member) -> float | None:
    """Return a number of a trained member by the name that constraints have for it; None where it is not known."""
    if name == "train_seconds":
        return member.seconds
    key = name.replace("-", "_")
    found = member.losses.get(f"valid_{key}", member.costs.get(name))
    return found if found is not None and isfinite(found) else None


def penalised(rank: float, violation: float) -> float:
    """Return a rank, smaller is better, that is behind that of every trial without violation."""
    return rank if violation <= 0 else PENALTY * (1 + violation)


@dataclass(frozen=True)
class Bounds:
    """Constraints on what is known of a configuration before training."""

    constraints: tuple[Constraint, ...]
    costs: KnownCosts

    def __bool__(self) -> bool:
        return bool(self.constraints)

    def joined(self, other: Bounds | None) -> Bounds:
        """Return these bounds and those of `other`."""
        if not other:
            return self
        if not self:
            return other
        return Bounds(
            (*self.constraints, *other.constraints),
            lambda configuration: {**self.costs(configuration), **other.costs(configuration)},
        )

    @property
    def filter(self) -> Callable[[Configuration], bool] | None:
        """`allow`; None without constraints."""
        return self.allow if self else None

    def allow(self, configuration: Configuration) -> bool:
        """Return whether a configuration meets all constraints."""
        return not self.constraints or total_violation(self.constraints, self.costs(configuration)) <= 0


def split_constraints(
    constraints: Sequence[Constraint], space: Space, costs: KnownCosts | None
) -> tuple[Bounds, tuple[Constraint, ...]]:
    """Return the constraints that are known before training, as bounds, and those that are measured.

    A cost is known where `costs` has it for the first configuration of the space.
    """
    if not constraints or costs is None:
        return Bounds((), lambda _: {}), tuple(constraints)
    known = costs(draw_configuration(space, np.random.default_rng(0)))
    hard = tuple(c for c in constraints if c.name in known)
    return Bounds(hard, costs), tuple(c for c in constraints if c.name not in known)


def check_bounds(bounds: Bounds, space: Space, seed: int) -> None:
    """Raise SearchError if none of `DRAWS` random configurations of a space meets all constraints."""
    if not bounds:
        return
    random = np.random.default_rng([seed, DRAWS])
    nearest: tuple[float, Mapping[str, float]] = (float("inf"), {})
    for _ in range(DRAWS):
        found = bounds.costs(draw_configuration(space, random))
        violation = total_violation(bounds.constraints, found)
        if violation <= 0:
            return
        nearest = min(nearest, (violation, found), key=lambda entry: entry[0])
    texts = " and ".join(map(str, bounds.constraints))
    has = ", ".join(f"{c.name} {nearest[1][c.name]:.4g}" for c in bounds.constraints)
    raise SearchError(
        f"none of {DRAWS:,} random configurations of space {space.name} meets {texts}: the nearest has {has}; give "
        "another bound, or use another space"
    )


def draw_values(space: Space, random: np.random.Generator) -> dict[str, Any]:
    """Draw a value for each range of a space at random."""
    from ripieno.search.encoding import Encoding

    ranges = distributions(space)
    encoding = Encoding(ranges)
    drawn = encoding.values(encoding.draw(1, random)[0]) if encoding else {}
    single = {name: c.to_external_repr(only_value(c)) for name, c in ranges.items() if c.single()}
    return {name: (single | drawn)[name] for name in ranges}


def draw_configuration(space: Space, random: np.random.Generator) -> Configuration:
    """Draw a random configuration of a space."""
    return {**draw_values(space, random), **space.fixed}


def only_value(choice: Any) -> float:
    """Return the only value of a range, as its number."""
    return 0.0 if hasattr(choice, "choices") else float(choice.low)
