"""How a search was asked for, kept in the run's `run.json`: a search that goes on must be the same search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ripieno import files
from ripieno.errors import LibraryError, SearchError
from ripieno.search.algorithms import find_algorithm, make_scheduler
from ripieno.search.order import OrderName
from ripieno.search.space import Space, space_from_plain, space_to_plain

Promotion = Literal["loss", "ensemble"]
SAME = ("space", "algorithm", "epochs", "eta", "seed", "metric", "promote", "budget")
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
    promote: Promotion = "loss"
    """paused trials go on by their own loss, or by what they add to the best ensemble under `budget`"""
    budget: Mapping[str, float] = field(default_factory=dict)
    """bound per kind of cost of that ensemble; empty when promoting by loss"""

    def __post_init__(self) -> None:
        find_algorithm(self.algorithm)
        for name, least in (("epochs", 1), ("eta", 2), ("trials", 1), ("window", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SearchError(f"{name} {value}: must be at least {least}")
        if self.seed < 0:
            raise SearchError(f"seed {self.seed}: it must not be negative")
        if self.promote == "ensemble":
            if not self.budget:
                raise SearchError("promote='ensemble' needs a budget for that ensemble, such as {'flops': 4e7}")
            make_scheduler(self.algorithm, self.epochs, self.eta, self.trials, _nothing)
        elif self.budget:
            raise SearchError("a budget is for promoting by what a trial adds to an ensemble: promote='ensemble'")


def settle(path: Path, asked: Settings, slots: int, deadline: float | None) -> Settings:
    """The settings of the run whose `run.json` is `path`, written there; a first start fills the gaps of `asked`.

    Raises SearchError that says what differs when `asked` contradicts an earlier start.
    """
    try:
        kept: dict[str, Any] = files.read_json(path, dict[str, Any]) if path.exists() else {}
    except LibraryError as error:
        raise SearchError(f"{error}: restore it from a copy, or use another folder with --run") from error
    if kept:
        before = _from_plain(path, kept)
        _check_same(path.parent, before, asked)
        settings = replace(asked, order=before.order, window=before.window)
    else:
        order: OrderName = asked.order or ("virtual" if deadline is None else "arrival")
        settings = replace(asked, order=order, window=asked.window or 2 * slots)
    plain = kept | {f.name: getattr(settings, f.name) for f in fields(Settings)}
    plain["space"] = space_to_plain(settings.space)
    if plain != kept:
        files.write_json(path, plain)
    return settings


def _from_plain(path: Path, plain: Mapping[str, Any]) -> Settings:
    try:
        # records of before there was a choice of promotion say nothing of it
        values = {f.name: plain[f.name] for f in fields(Settings) if f.name not in ("promote", "budget")}
        values |= {name: plain[name] for name in ("promote", "budget") if name in plain}
        return Settings(**{**values, "space": space_from_plain(values["space"])})
    except (KeyError, TypeError, SearchError) as error:
        raise SearchError(f"{path} is not the record of a search ({error}): use another folder") from error


def _check_same(run: Path, before: Settings, asked: Settings) -> None:
    differing = [name for name in SAME if _shown(before, name) != _shown(asked, name)]
    if differing:
        had, wants = (" and ".join(f"{n} {_short(s, n)}" for n in differing) for s in (before, asked))
        raise SearchError(f"{run} holds a search with {had}, asked is {wants}: ask for the same, or use another folder")


def _shown(settings: Settings, name: str) -> Any:
    return space_to_plain(settings.space) if name == "space" else getattr(settings, name)


def _short(settings: Settings, name: str) -> str:
    if name == "space":
        return f"{settings.space.name} of {len(settings.space.ranges)} ranges for {settings.space.family}"
    if name == "budget":
        return ", ".join(f"{kind}={bound:g}" for kind, bound in settings.budget.items()) or "none"
    return str(getattr(settings, name))


def _nothing(_told: object, waiting: Sequence[object]) -> Sequence[float]:
    """All that wait are worth the same."""
    return [0.0] * len(waiting)
