"""How a search was asked for, kept in the run's `run.json`: a search that goes on must be the same search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError, SearchError
from ripieno.search.algorithms import find_algorithm
from ripieno.search.result_order import OrderName
from ripieno.search.space import Space, space_from_plain, space_to_plain

IMMUTABLE = ("space", "algorithm", "epochs", "eta", "seed", "metric")
"""What must not change when a search goes on; `trials` may."""


@dataclass(frozen=True)
class Settings:
    """What to search, how, and how much."""

    space: Space
    algorithm: str = "hyperband"
    trials: int | None = None
    """how many trials are started at most; None: as many as time allows"""
    epochs: int = 27
    """how many epochs a trial is trained at most"""
    eta: int = 3
    seed: int = 0
    metric: str = "valid_cross_entropy"
    """the loss of members that trials are ranked by, smaller is better"""
    order: OrderName | None = None
    """how results are ordered; None: "virtual" (reproducible), or "arrival" when the search has a deadline"""
    window: int | None = None
    """workers of the virtual order; None: twice the slots there are at the first start"""
    hours: float | None = None
    """how long the last start was to search; None: until all trials are done"""

    def __post_init__(self) -> None:
        find_algorithm(self.algorithm)
        for name, least in (("epochs", 1), ("eta", 2), ("trials", 1), ("window", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SearchError(f"{name} {value}: must be at least {least}")
        if self.seed < 0:
            raise SearchError(f"seed {self.seed}: it must not be negative")


def resolve_settings(path: Path, asked: Settings, slots: int, deadline: float | None) -> Settings:
    """The settings of the run whose `run.json` is `path`, written there; a first start fills the gaps of `asked`.

    Raises SearchError that says what differs when `asked` contradicts an earlier start.
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
    if plain != kept:
        files.write_json(path, plain)
    return settings


def kept_settings(path: Path) -> Settings | None:
    """The settings of the last start of the run whose `run.json` is `path`; None when it was not started yet.

    Raises SearchError when the record is broken.
    """
    kept = _plain(path)
    if kept.get("promote") == "ensemble":
        raise SearchError(
            f"{path.parent} promoted trials by their worth to an ensemble, which is no longer supported. "
            "Select from its library, or search in another folder with --run."
        )
    return _from_plain(path, kept) if kept else None


def _plain(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path, dict[str, Any]) if path.exists() else {}
    except LibraryError as error:
        raise SearchError(f"{error}: restore it from a copy, or use another folder with --run") from error


def _from_plain(path: Path, plain: Mapping[str, Any]) -> Settings:
    try:
        # records of older versions do not hold the later fields
        later = ("hours",)
        values = {f.name: plain[f.name] for f in fields(Settings) if f.name not in later or f.name in plain}
        return Settings(**{**values, "space": space_from_plain(values["space"])})
    except (KeyError, TypeError, SearchError) as error:
        raise SearchError(f"{path} is not the record of a search ({error}): use another folder") from error


def check_same(run: Path, before: Settings, asked: Settings) -> None:
    """Raise SearchError that shows both values of every setting in which `asked` contradicts the run."""
    differing = [name for name in IMMUTABLE if _shown(before, name) != _shown(asked, name)]
    if differing:
        had = " and ".join(f"{n} {_short(before, asked, n)}" for n in differing)
        wants = " and ".join(f"{n} {_short(asked, before, n)}" for n in differing)
        mend = f"ask for the same, leave {' and '.join(differing)} out to go on, or use another folder with --run"
        raise SearchError(f"{run} holds a search with {had}, asked is {wants}: {mend}")


def _shown(settings: Settings, name: str) -> Any:
    # the same space may lie in a file of another name
    return {**space_to_plain(settings.space), "name": ""} if name == "space" else getattr(settings, name)


def _short(settings: Settings, other: Settings, name: str) -> str:
    """A setting in words that tell it from the one of `other`."""
    if name == "space":
        plain, others = space_to_plain(settings.space), space_to_plain(other.space)
        parts = [f"family {plain['family']}"] if plain["family"] != others["family"] else []
        for part in ("ranges", "fixed"):
            names = [n for n in plain[part] | others[part] if plain[part].get(n) != others[part].get(n)]
            parts += [f"{n} {_words(plain[part].get(n))}" for n in names[:2]]
            parts += [f"{len(names) - 2} more {part}"] if len(names) > 2 else []
        return f"({', '.join(parts)})"
    return str(getattr(settings, name))


def _words(value: Any) -> str:
    """A range or a fixed value of a space."""
    if not isinstance(value, Mapping):
        return "absent" if value is None else str(value)
    if "choices" in value:
        return f"of {', '.join(map(str, value['choices']))}"
    return f"{value['low']} to {value['high']}{' in logarithm' * bool(value.get('log'))}"
