"""Settings of runs and configurations of members as values, those that differ, and runs that differ in the seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ripieno import files
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.pipeline.compared_data import source_record
from ripieno.pipeline.preparation import BEFORE, DEFAULTS
from ripieno.search.algorithms import algorithm_from_plain, algorithm_to_plain, change_algorithm, find_algorithm
from ripieno.search.settings import Settings, range_text
from ripieno.types import Member, Value

NESTED = ("space", "algorithm", "eta")
"""Settings that are shown by their parts."""
SEEDS = ("seed", "data.seed")
"""Settings in which the runs of a group may differ."""


def settings_of(library: Library) -> dict[str, str]:
    """Return the settings of a run's search and data as text, by name; those that older versions lack have defaults."""
    values: dict[str, Any] = {}
    if (library.path / "run.json").exists():
        kept = files.read_json(library.path / "run.json", dict[str, Any])
        values |= _algorithm(kept)
        values |= {f.name: kept.get(f.name, f.default) for f in dataclasses.fields(Settings) if f.name not in NESTED}
        space = kept.get("space") or {}
        values |= {name: space.get(part) for name, part in (("space", "name"), ("family", "family"))}
        ranges = {**space.get("ranges", {}), **space.get("fixed", {})}
        values |= {f"space.{name}": range_text(value) for name, value in ranges.items()}
    if source := source_record(library):
        options = DEFAULTS | BEFORE | source
        values |= {f"data.{name}": options[name] for name in DEFAULTS}
    return {name: _text(value) for name, value in values.items()}


def _algorithm(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a search's algorithm; only what its record says where this version does not know it."""
    recorded = kept.get("algorithm", Settings.algorithm)
    try:
        found = algorithm_from_plain(recorded) if isinstance(recorded, Mapping) else find_algorithm(recorded)
        options = algorithm_to_plain(change_algorithm(found, eta=kept.get("eta")))
    except SearchError:
        options = dict(recorded) if isinstance(recorded, Mapping) else {"name": recorded}
    return {"algorithm" if name == "name" else f"algorithm.{name}": value for name, value in options.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def configuration_of(member: Member) -> dict[str, Value]:
    """Return the family, the length of training and the hyperparameters of a member."""
    return {"family": member.family, member.unit: member.epoch, **member.configuration}


def differing_values(of_runs: Sequence[Mapping[str, Value]]) -> dict[str, tuple[Any, ...]]:
    """Return the names whose values are not the same in all runs, and the values; None: a run has none."""
    names: Collection[str] = dict.fromkeys(name for one in of_runs for name in one)
    values = {name: tuple(one.get(name) for one in of_runs) for name in names}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def seed_groups(of_runs: Sequence[Mapping[str, str]]) -> tuple[tuple[int, ...], ...]:
    """Return the indices of runs by their settings without the seed; none where each has others, or all one seed."""
    groups: dict[object, list[int]] = {}
    for place, settings in enumerate(of_runs):
        others = frozenset((name, value) for name, value in settings.items() if name not in SEEDS)
        # the same settings again are another group, and imports have none
        repeated = sum(settings == earlier for earlier in of_runs[:place])
        groups.setdefault((others, repeated) if "algorithm" in settings else place, []).append(place)
    return tuple(map(tuple, groups.values())) if len(groups) < len(of_runs) else ()
