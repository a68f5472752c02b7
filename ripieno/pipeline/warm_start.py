"""Warm start of a new search from earlier runs: read, translated into its space, and kept in its own run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError, SearchError
from ripieno.library import Library
from ripieno.pipeline.history import VARIABLE, existing, find_folder, past_search, read_source
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.search.built_in_spaces import find_space
from ripieno.search.portfolio import PastModel, make_warm_start
from ripieno.search.settings import Settings
from ripieno.search.space import Space
from ripieno.search.warm_start import (
    COLD,
    PastSearch,
    WarmStart,
    check_same_space,
    distinct,
    find_difference,
    translate,
)
from ripieno.types import Configuration

BUILT_IN = "built-in"
"""Word for the portfolio that is shipped for a built-in space, in place of a run or of a folder of records."""
FILE = "warm_start.json"
"""File of a run that keeps what its search took from earlier runs."""


@dataclass(frozen=True)
class PastSources:
    """Earlier searches from which a new one is asked to learn."""

    named: tuple[PastSearch, ...] = ()
    """must be of the same space"""
    recorded: tuple[PastSearch, ...] = ()
    """of a history: those of the same space are used"""
    folder: str = ""
    """the history; empty: none"""
    built_in: bool = False
    """the built-in portfolio"""
    is_required: bool = False
    """the space must have a built-in portfolio"""


NO_SOURCES = PastSources()


@dataclass(frozen=True)
class BuiltInPortfolio:
    """Portfolio of a built-in space, shipped as a file that `benchmarks/search/portfolios.py` writes."""

    space: str
    made_from: tuple[Mapping[str, Any], ...]
    """data sets whose searches it was made from, with the numbers of trials"""
    configurations: tuple[Configuration, ...]
    losses: tuple[tuple[float, ...], ...] = ()
    """normalised, of each configuration by data set"""


def read_sources(sources: str | Path | Sequence[str | Path] | None, history: str | Path | None) -> PastSources:
    """Return the earlier searches in `sources` (runs, records, `built-in`) and in the folder `history`.

    Without `history` it is the folder that RIPIENO_HISTORY names. Raises LibraryError and SearchError for what is no
    run, has no finished trials, is broken, or does not exist.
    """
    asked = as_list(sources)
    folder = history or os.environ.get(VARIABLE) or ""
    named = distinct([read_source(source) for source in asked if str(source) != BUILT_IN])
    is_named = BUILT_IN in map(str, asked)
    if not folder or str(folder) == BUILT_IN:
        return PastSources(named, built_in=bool(folder) or is_named, is_required=is_named)
    recorded = existing(find_folder(folder)).read(past_search)
    return PastSources(named, tuple(recorded), str(folder), is_named, is_named)


def as_list(sources: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Return `sources` as a list."""
    return [sources] if isinstance(sources, str | Path) else list(sources or ())


def check_sources(run: Path, before: Settings, sources: str | Path | Sequence[str | Path] | None) -> None:
    """Raise SearchError if one of `sources` is none of those that the search of a run learned from at its start.

    They are compared by name: they need not exist any more.
    """
    names = {BUILT_IN if name.startswith(f"{BUILT_IN} ") else name for name in before.warm_start}
    known = names | {name.rpartition("-")[0] for name in names}
    for source in as_list(sources):
        path = Path(source)
        asked = path.stem if path.suffix == ".jsonl" else path.resolve().name
        if str(source) not in known and asked not in known:
            learned = f"from {', '.join(before.warm_start)}" if before.warm_start else "from no earlier run"
            raise SearchError(
                f"{run} contains a search that learned {learned}, not from {source}: leave --from out to resume it, "
                "or use another folder with --run"
            )


def plan_warm_start(
    sources: PastSources,
    space: Space,
    epochs: int,
    trials: int | None,
    notes: list[str],
    progress: ProgressFunction = no_progress,
) -> WarmStart:
    """Return what a search of `space` takes from `sources`, and say it in `notes`.

    Raises SearchError for a search of another space, one of which nothing fits, and a space without the built-in
    portfolio that is required.
    """
    for past in sources.named:
        check_same_space(space, past)
    alike = [past for past in sources.recorded if not find_difference(space, past.space)]
    if sources.folder and not alike:
        notes.append(f"history {sources.folder} has no search of space {space.name}: none of it is used")
    models: list[PastModel] = []
    searches = distinct((*sources.named, *alike))
    for number, past in enumerate(searches):
        progress("learning from earlier runs", number, len(searches))
        model = PastModel(space, past)
        if past in sources.named and not model.trials:
            raise SearchError(
                f"no configuration of {past.name} is in the space of this search, which lacks its choices: learn from "
                "another run, or give another --space"
            )
        models += [model] if model.trials else []
    shipped = built_in_configurations(space, sources.is_required, notes) if sources.built_in else ()
    found = make_warm_start(models, epochs, trials, (f"{BUILT_IN} {space.name}", shipped))
    if found:
        notes.append(describe(found, len(models)))
    return found


def describe(found: WarmStart, runs: int) -> str:
    """Return a line on what a search takes from a number of earlier `runs`."""
    count = len(found.portfolio)
    sources = [f"{runs} earlier run{'s' * (runs > 1)}"] if runs else []
    sources += [f"the {name} portfolio" for name in found.sources[runs:]]
    verb = f"configuration{'s' * (count > 1)} of {' and '.join(sources)} start{'s' * (count == 1)} the search"
    return f"{count} {verb}"


def built_in_names() -> list[str]:
    """Return the names of the built-in spaces that have a portfolio."""
    folder = package_files("ripieno.search") / "portfolios"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def built_in_portfolio(space: str) -> BuiltInPortfolio | None:
    """Return the portfolio of the built-in space called `space`; None: it has none."""
    if space not in built_in_names():
        return None
    entry = package_files("ripieno.search") / "portfolios" / f"{space}.json"
    return files.from_json(entry.read_bytes(), BuiltInPortfolio, Path(str(entry)))


def built_in_configurations(space: Space, is_required: bool, notes: list[str]) -> tuple[Configuration, ...]:
    """Return the configurations of the built-in portfolio of `space` that fit it.

    Without a portfolio a line in `notes` says so. Raises SearchError instead where it `is_required`.
    """
    found = built_in_portfolio(space.name)
    if found is None:
        line = f"space {space.name} has no built-in portfolio; there are: {', '.join(built_in_names())}"
        if is_required:
            raise SearchError(line)
        notes.append(line)
        return ()
    shipped = find_space(found.space)
    fitting = (translate(space, shipped, values) for values in found.configurations)
    return tuple(values for values in fitting if values is not None)


def keep_warm_start(library: Library, found: WarmStart) -> None:
    """Write what a new search takes from earlier runs to its own run, if it takes anything."""
    if found:
        files.write_json(library.path / FILE, found)


def kept_warm_start(library: Library, before: Settings) -> WarmStart:
    """Return what the search of a run took from earlier runs at its start. Raises SearchError if its file is gone."""
    if not before.warm_start:
        return COLD
    try:
        return files.read_json(library.path / FILE, WarmStart)
    except LibraryError as error:
        raise SearchError(f"{error}: restore it from a copy, or use another folder with --run") from error
