"""Settings of a search, stored in the run's `run.json`: a resumed search must have the same settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError, SearchError
from ripieno.search.algorithms import (
    Algorithm,
    algorithm_from_plain,
    algorithm_to_plain,
    change_algorithm,
    find_algorithm,
)
from ripieno.search.constraints import parse_constraints
from ripieno.search.objectives import LOSS, parse_objectives
from ripieno.search.result_order import OrderName
from ripieno.search.space import Space, space_from_plain, space_to_plain
from ripieno.types import TrainingUnit

IMMUTABLE = (
    "space",
    "algorithm",
    "step",
    "keep",
    "epochs",
    "seed",
    "metric",
    "weights",
    "constraints",
    "budget",
    "objective",
)
"""Settings that a resumed search must not change; `trials` may. `step` and `keep` are the algorithm's."""
_RATIOS = ("step", "keep")
_LATER = ("hours", "unit", "weights", "eta", "constraints", "budget", "objective", "warm_start")
"""Settings that records of older versions lack."""


@dataclass(frozen=True)
class Settings:
    """Space, algorithm and bounds of a search."""

    space: Space
    algorithm: str | Path | Algorithm = "hyperband"
    """a name, `scheduler+sampler`, a JSON file or the record, which it becomes"""
    trials: int | None = None
    """maximum number of trials; None: as many as time allows"""
    epochs: int = 27
    """maximum number of epochs of a trial"""
    eta: int | None = None
    """sets `step` and `keep` of the algorithm, and becomes None"""
    seed: int = 0
    metric: str = "valid_cross_entropy"
    """loss that ranks trials; smaller is better"""
    order: OrderName | None = None
    """order of results; None: "virtual" (reproducible), or "arrival" when the search has a deadline"""
    window: int | None = None
    """workers of the virtual order; None: twice the slots there are at the first start"""
    hours: float | None = None
    """hours given at the last start; None: until all trials are done"""
    unit: TrainingUnit = "epochs"
    """what the trainer counts as an epoch"""
    weights: tuple[str, ...] = ()
    """pretrained weights of the backbones of the space, as `NAME-DIGEST`; none: all networks start random"""
    constraints: tuple[str, ...] = ()
    """bounds that trials must meet, such as `bytes<=4e6`; see `ripieno.search.constraints`"""
    budget: Mapping[str, float] | None = None
    """bound on the cost of an ensemble by kind; what costs more alone is not trained; None: no bound"""
    objective: tuple[str, ...] = (LOSS,)
    """what is made small (a metric that is better when larger: large): see `ripieno.search.objectives`"""
    warm_start: tuple[str, ...] = ()
    """names of the past searches from which the search learns: see `ripieno.search.warm_start`"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", tuple(map(str, parse_constraints(self.constraints))))
        object.__setattr__(self, "algorithm", change_algorithm(self.algorithm, eta=self.eta))
        object.__setattr__(self, "eta", None)
        object.__setattr__(self, "objective", parse_objectives(self.objective))
        for name, least in (("epochs", 1), ("trials", 1), ("window", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SearchError(f"{name} {value}: must be at least {least}")
        if self.seed < 0:
            raise SearchError(f"seed {self.seed}: it must not be negative")


def resolve_settings(path: Path, asked: Settings, slots: int, deadline: float | None) -> Settings:
    """Write the settings of a run to its `run.json` at `path` and return them; a first start completes `asked`.

    Raises SearchError that names the differences when `asked` contradicts an earlier start.
    """
    kept, before = _plain(path), kept_settings(path)
    if before is not None:
        check_same(path.parent, before, asked)
        settings = replace(asked, space=before.space, order=before.order, window=before.window)
    else:
        order: OrderName = asked.order or ("virtual" if deadline is None else "arrival")
        settings = replace(asked, order=order, window=asked.window or 2 * slots)
    plain = kept | {f.name: getattr(settings, f.name) for f in fields(Settings)}
    plain["space"] = space_to_plain(settings.space)
    plain["algorithm"] = algorithm_to_plain(find_algorithm(settings.algorithm))
    del plain["eta"]  # of older versions; the algorithm has it
    if not settings.constraints:
        del plain["constraints"]
    if settings.budget is None:
        del plain["budget"]
    if not settings.warm_start:
        del plain["warm_start"]
    if plain["objective"] == (LOSS,):
        del plain["objective"]  # as in older versions
    else:
        plain["objective"] = list(plain["objective"])
    if plain != kept:
        files.write_json(path, plain)
    return settings


def kept_settings(path: Path) -> Settings | None:
    """Return the settings of the last start from the `run.json` at `path`, if any. Raises SearchError if broken."""
    kept = _plain(path)
    if kept.get("promote") == "ensemble":
        raise SearchError(
            f"{path.parent} promoted trials by their worth to an ensemble, which is no longer supported. "
            "Select from its library, or search in another folder with --run."
        )
    if not kept:
        return None
    try:
        # records of older versions do not hold all
        values = {f.name: kept[f.name] for f in fields(Settings) if f.name not in _LATER or f.name in kept}
        values["weights"] = tuple(values.get("weights", ()))
        values["constraints"] = tuple(values.get("constraints", ()))
        values["warm_start"] = tuple(values.get("warm_start", ()))
        values["objective"] = tuple(values.get("objective", (LOSS,)))
        if isinstance(values["algorithm"], Mapping):  # older versions: a name, and eta
            values["algorithm"] = algorithm_from_plain(values["algorithm"])
        return Settings(**{**values, "space": space_from_plain(values["space"])})
    except (KeyError, TypeError, SearchError) as error:
        raise SearchError(f"{path} is not the record of a search ({error}): use another folder") from error


def _plain(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path, dict[str, Any]) if path.exists() else {}
    except LibraryError as error:
        raise SearchError(f"{error}: restore it from a copy, or use another folder with --run") from error


def check_same(run: Path, before: Settings, asked: Settings) -> None:
    """Raise SearchError that shows both values of every setting in which `asked` contradicts the run."""
    differing = [name for name in IMMUTABLE if _shown(before, name) != _shown(asked, name)]
    if differing:
        had = " and ".join(f"{n} {_short(before, asked, n)}" for n in differing)
        wants = " and ".join(f"{n} {_short(asked, before, n)}" for n in differing)
        remedy = f"pass the same values, omit {' and '.join(differing)} to resume, or use another folder with --run"
        raise SearchError(f"{run} contains a search with {had}, requested is {wants}: {remedy}")


def _shown(settings: Settings, name: str) -> Any:
    if name == "space":  # the same space may be in a file of another name
        return {**space_to_plain(settings.space), "name": ""}
    if name == "constraints":
        return sorted(settings.constraints)
    algorithm = algorithm_to_plain(find_algorithm(settings.algorithm))
    if name == "algorithm":
        return {option: value for option, value in algorithm.items() if option not in ("name", *_RATIOS)}
    return algorithm[name] if name in _RATIOS else getattr(settings, name)


def _short(settings: Settings, other: Settings, name: str) -> str:
    """Describe a setting so that it differs from that of `other`."""
    if name == "space":
        plain, others = space_to_plain(settings.space), space_to_plain(other.space)
        parts = [f"family {plain['family']}"] if plain["family"] != others["family"] else []
        for part in ("ranges", "fixed"):
            names = [n for n in plain[part] | others[part] if plain[part].get(n) != others[part].get(n)]
            parts += [f"{n} {range_text(plain[part].get(n))}" for n in names[:2]]
            parts += [f"{len(names) - 2} more {part}"] if len(names) > 2 else []
        return f"({', '.join(parts)})"
    if name == "algorithm":
        options, others = _shown(settings, name), _shown(other, name)
        parts = [f"{option} {range_text(value)}" for option, value in options.items() if value != others[option]]
        return f"{find_algorithm(settings.algorithm).name} ({', '.join(parts)})".lstrip()
    if name == "constraints":
        return ", ".join(settings.constraints) or "none"
    if name == "objective":
        return ",".join(settings.objective)
    if name == "weights":
        return ", ".join(set(settings.weights) - set(other.weights)) or ", ".join(settings.weights) or "none"
    if name == "budget":
        return " and ".join(f"{bound:g} {kind}" for kind, bound in (settings.budget or {}).items()) or "none"
    return str(_shown(settings, name))


def range_text(value: Any) -> str:
    """Describe a range or a fixed value of a space as `space_to_plain` returns it."""
    if not isinstance(value, Mapping):
        return "absent" if value is None else str(value)
    if "choices" in value:
        return f"of {', '.join(map(str, value['choices']))}"
    return f"{value['low']} to {value['high']}{' in logarithm' * bool(value.get('log'))}"
