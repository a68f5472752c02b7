"""A run on disk, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ripieno import files
from ripieno.commands import command
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.diversity import disagreement
from ripieno.types import Allocation, Ensemble, Member

ProgressFunction = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""


def no_progress(what: str, done: int, total: int) -> None:
    """No progress."""


def open_run(run: str | Path | Library, *, writing: bool = False) -> Library:
    """The library of a run. Raises LibraryError when the folder holds none.

    With `writing`, RipienoError when it may not be written: before the work, not after it.
    """
    library = run if isinstance(run, Library) else Library(run)
    if not (library.path / "library").is_dir():
        if (library.path / "bundle.json").exists():
            raise LibraryError(f"{library.path} is no run but a bundle: give the folder that `ripieno tune` made")
        raise LibraryError(f"{library.path} is no run: `{command('tune', 'DATA', run=library.path)}` makes one")
    if writing:
        files.check_writable(library.path)
    return library


def default_kind(members: Sequence[Member]) -> str:
    """What a cost without a kind is: seconds, or the only kind brought with members that cannot be run."""
    kinds = {kind for m in members for kind in m.costs}
    measurable = any(m.format != "predictions" for m in members)
    return next(iter(kinds)) if len(kinds) == 1 and not measurable else "seconds"


@dataclass(frozen=True)
class RunSummary:
    """What a run holds."""

    path: Path
    metric: str
    """the score that is shown, `accuracy` or `macro-f1`"""
    members: tuple[Member, ...]
    """by validation cross-entropy, the best first"""
    cost_kind: str
    """what `costs` are: `seconds`, or the only kind that members brought who cannot be run"""
    costs: Mapping[str, float]
    """of those measured on `device`, or brought"""
    device: str
    """kind of device, empty when nothing was measured"""
    diversity: Mapping[str, float]
    """mean share of validation samples on which a member answers otherwise than another"""
    ensembles: tuple[Ensemble, ...]
    allocations: tuple[Allocation, ...]


def show(run: str | Path | Library) -> RunSummary:
    """What a run holds: members, costs, ensembles, allocations. Raises LibraryError when the folder is no run."""
    library = open_run(run)
    device = library.usual_device()
    members = library.members()
    kind = default_kind(members)
    costs = {m.id: m.costs[kind] for m in members if kind in m.costs}
    if kind == "seconds" and device:
        costs |= {m: p.cost for m, p in library.profiles(device).items()}
    return RunSummary(
        path=library.path,
        metric=metric_of(library),
        members=tuple(sorted(members, key=lambda m: (m.losses["valid_cross_entropy"], m.id))),
        cost_kind=kind,
        costs=costs,
        device=device,
        diversity=disagreement(library),
        ensembles=tuple(library.ensembles()),
        allocations=tuple(library.allocations()),
    )


def metric_of(library: Library) -> str:
    """The score that is shown of a run: its data set's metric, accuracy when it has none."""
    from ripieno.data import open_dataset

    found = (library.dataset_path / "dataset.json").exists()
    return open_dataset(library.dataset_path).metric if found else "accuracy"
