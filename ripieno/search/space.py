"""Search spaces: ranges of hyperparameters, in Python and in JSON. `built_in_spaces` has those that are built in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ripieno.errors import SearchError
from ripieno.models import smp_config
from ripieno.models.family_config import network_group
from ripieno.models.timm_config import FAMILY, PREFIX, is_timm
from ripieno.types import Configuration, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Continuous:
    """A real number in [low, high], uniform, or uniform in its logarithm when `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)


@dataclass(frozen=True)
class Integer:
    """An integer low, low + step, ... up to `high`, uniform, or uniform in its logarithm when `log`."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)
        if self.step < 1 or (self.log and self.step != 1):
            raise SearchError(f"step {self.step}: it must be at least 1, and exactly 1 in a logarithmic range")


@dataclass(frozen=True)
class Categorical:
    """One of the unordered `choices`."""

    choices: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise SearchError("a categorical range has no choices: it needs at least one")


Range = Continuous | Integer | Categorical
_KINDS: dict[str, type[Range]] = {"continuous": Continuous, "integer": Integer, "categorical": Categorical}


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not low <= high or (log and low <= 0):
        raise SearchError(f"range [{low}, {high}]: low must not exceed high" + (", and exceed 0 if log" if log else ""))


@dataclass(frozen=True)
class Space:
    """Search space of a family: a configuration has one value of every range, and the `fixed` values."""

    name: str
    family: str
    ranges: Mapping[str, Range]
    fixed: Configuration = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ranges:
            raise SearchError(f"space {self.name!r} has no ranges: it needs at least one hyperparameter to choose")
        if both := self.ranges.keys() & self.fixed.keys():
            raise SearchError(f"space {self.name!r} both ranges over and fixes {', '.join(sorted(both))}")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the ranges as Optuna distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(choice: Range) -> BaseDistribution:
        if isinstance(choice, Continuous):
            return FloatDistribution(choice.low, choice.high, choice.log)
        if isinstance(choice, Integer):
            return IntDistribution(choice.low, choice.high, choice.log, choice.step)
        return CategoricalDistribution(choice.choices)

    return {name: of(choice) for name, choice in space.ranges.items()}


def fix_backbone(space: Space, family: str) -> Space:
    """Return `space`, of networks of timm, with the one backbone that `family` (`timm:NAME`) names.

    The family `timm` leaves the choice to the space. Raises SearchError for a space of another family.
    """
    if not is_timm(space.family):
        raise SearchError(f"space {space.name} is of family {space.family}, not of {family}: use timm-small or timm")
    if family == FAMILY:
        return space
    ranges = {name: choice for name, choice in space.ranges.items() if name != "backbone"}
    return replace(space, family=family, ranges=ranges, fixed={**space.fixed, "backbone": family.removeprefix(PREFIX)})


def fix_network(space: Space, family: str) -> Space:
    """Return `space`, of networks of series or tables, with the one network that `family` names.

    The families `series` and `table` leave the choice to the space. Raises SearchError for a space of another family.
    """
    group = network_group(family)
    if space.family not in (group, family):
        raise SearchError(f"space {space.name} is of family {space.family}, not of {family}: use {group}")
    if space.family == family:
        return space
    ranges = {name: choice for name, choice in space.ranges.items() if name != "network"}
    return replace(space, family=family, ranges=ranges, fixed={**space.fixed, "network": family})


def fix_encoder(space: Space, family: str) -> Space:
    """Return `space`, of networks of smp, with the architecture and encoder that `family` names.

    The family `smp` leaves the choice to the space. Raises SearchError for a space of another family, ModelError for a
    family that names no such architecture.
    """
    if not smp_config.is_smp(space.family):
        raise SearchError(
            f"space {space.name} is of family {space.family}, not of {family}: use segmentation-pretrained"
        )
    if family == smp_config.FAMILY:
        return space
    chosen = smp_config.smp_config(family, {})
    named = {"architecture": chosen.architecture, "backbone": chosen.backbone}
    ranges = {name: choice for name, choice in space.ranges.items() if name not in named}
    return replace(space, family=smp_config.smp_family(chosen), ranges=ranges, fixed={**space.fixed, **named})


def backbone_names(space: Space) -> tuple[str, ...]:
    """Return the names of the networks of timm, or encoders, that `space` chooses from; empty where it has none."""
    if smp_config.is_smp(space.family):
        fixed = space.family != smp_config.FAMILY
        own = smp_config.smp_config(space.family, {}).backbone if fixed else space.fixed.get("backbone", "")
    elif is_timm(space.family):
        own = space.family.removeprefix(PREFIX) if space.family != FAMILY else space.fixed.get("backbone", "")
    else:
        return ()
    choice = space.ranges.get("backbone", Categorical((own,)))
    return tuple(str(name) for name in getattr(choice, "choices", ()) if name)


def space_to_plain(space: Space) -> dict[str, Any]:
    """Return `space` as plain values for a JSON file."""
    kinds = {kind: name for name, kind in _KINDS.items()}
    ranges = {name: {"kind": kinds[type(choice)], **asdict(choice)} for name, choice in space.ranges.items()}
    return {"name": space.name, "family": space.family, "ranges": ranges, "fixed": dict(space.fixed)}


def space_from_plain(fields: Mapping[str, Any]) -> Space:
    """Return the space of plain values, the inverse of `space_to_plain`. Raises SearchError naming the wrong field."""
    unknown = fields.keys() - {"name", "family", "ranges", "fixed", "version"}
    if unknown:
        raise SearchError(f"unknown field {sorted(unknown)[0]!r}: a space has name, family, ranges and fixed")
    if not isinstance(fields.get("ranges"), Mapping):
        raise SearchError('a space needs "ranges": {"width": {"kind": "integer", "low": 4, "high": 16}, ...}')
    ranges = {str(name): _range(str(name), choice) for name, choice in fields["ranges"].items()}
    return Space(
        str(fields.get("name", "space")), str(fields.get("family", "resnet")), ranges, dict(fields.get("fixed", {}))
    )


def _range(name: str, fields: Any) -> Range:
    kind = fields.get("kind") if isinstance(fields, Mapping) else None
    if kind not in _KINDS:
        raise SearchError(f'{name}: "kind" is {kind!r}, it must be one of {", ".join(_KINDS)}')
    try:
        if unknown := fields.keys() - {"kind", *_KINDS[kind].__dataclass_fields__}:
            raise SearchError(f"a range of kind {kind} has no {sorted(unknown)[0]!r}")
        return msgspec.convert(fields, _KINDS[kind])
    except (SearchError, msgspec.ValidationError) as error:
        raise SearchError(f"{name}: {error}") from error


def space_from_json(path: str | Path) -> Space:
    """Read a space from a JSON file of `name`, `family`, `ranges` and `fixed`.

    A range is `{"kind": "continuous", "low": .., "high": .., "log": true}`, `{"kind": "integer", ..., "step": 1}` or
    `{"kind": "categorical", "choices": [...]}`. Raises SearchError naming the file and what is wrong in it.
    """
    try:
        fields = json.loads(Path(path).read_text())
        if not isinstance(fields, dict):
            raise SearchError("it must hold one JSON object")
        return space_from_plain({"name": Path(path).stem, **fields})
    except OSError as error:
        raise SearchError(f"space {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SearchError(f"space {path} is not JSON: {error}") from error
    except SearchError as error:
        raise SearchError(f"space {path}: {error}") from error
