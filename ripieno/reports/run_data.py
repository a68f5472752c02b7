"""Data of a report, read from a run once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ripieno.data import open_dataset
from ripieno.data_kinds import DATA_KINDS, noun_of
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.bench_records import BenchRecord, benches_of, bundles_of
from ripieno.library.command_record import refuse_command_run
from ripieno.library.cost_table import CostTable, read_cost_table
from ripieno.shell_command import command
from ripieno.tasks.display import score_of
from ripieno.tasks.metrics import METRICS
from ripieno.types import RANKING_METRICS, Allocation, Dataset, Ensemble, Front, Ints, Member, Split, Task

UNITS = {
    "seconds": "seconds for 2,000 samples",
    "memory": "bytes",
    "joules": "joules for 2,000 samples",
    "latency": "seconds for one sample",
    "flops": "operations for one sample",
    "bytes": "of the ONNX files",
}


@dataclass(frozen=True)
class RunData:
    """Data of a run for the report."""

    library: Library
    members: tuple[Member, ...]
    """sorted by loss, the best first"""
    dataset: Dataset | None
    score: str
    """the score shown, a name in `METRICS`"""
    kind: str
    """the kind of cost that the report uses"""
    device: str
    table: CostTable
    """costs of `kind`"""
    ensembles: tuple[Ensemble, ...]
    """ensembles selected under a budget of `kind`"""
    allocations: tuple[Allocation, ...]
    benches: tuple[tuple[str, BenchRecord], ...] = ()
    """benchmarks of the run's deployments, by name and then by time"""

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """Costs of `kind` by member, each with its shared backbone."""
        return self.table.alone(self.kind)

    @property
    def unit(self) -> str:
        """Unit of the cost."""
        return UNITS.get(self.kind, self.kind)

    @property
    def metric(self) -> str:
        """Display name of the score."""
        return METRICS[self.score].title

    @property
    def task(self) -> Task:
        """The task of the members."""
        return self.members[0].task

    @property
    def noun(self) -> str:
        """Plural name of the samples."""
        return noun_of(self.members[0].input) if self.dataset is None else DATA_KINDS[self.dataset.kind].noun

    @property
    def ranking(self) -> str:
        """Name in `METRICS` of the loss by which members are ranked."""
        return RANKING_METRICS[self.task.kind]

    @property
    def loss(self) -> str:
        """Display name of the loss by which members are ranked."""
        return METRICS[self.ranking].title

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, labels or targets."""
        return self.members[0].classes

    def name_of(self, answer: int | str) -> str:
        """Return the name of a class by its index, or labels and values, which are texts, as they are."""
        return self.classes()[answer] if isinstance(answer, int) else answer

    def split(self, ids: tuple[str, ...]) -> Split:
        """Return the split to show these members on: the test split if all have predictions for it."""
        return "test" if all(self.library.has_predictions(m, "test") for m in ids) else "valid"


def load_run(library: Library) -> RunData:
    """Read a run. Raises LibraryError when it has no members."""
    refuse_command_run(library.path)
    members = library.members()
    if not members:
        raise LibraryError(
            f"{library.path} has no members: train some with `{command('tune', 'DATA', run=library.path)}`"
        )
    dataset = open_dataset(library.dataset_path) if (library.dataset_path / "dataset.json").exists() else None
    kinds = {kind for m in members for kind in m.costs}
    imported = len(kinds) == 1 and all(m.format == "predictions" for m in members)
    kind = kinds.pop() if imported else "seconds"
    device = "" if imported else library.usual_device()
    return RunData(
        library,
        tuple(sorted(members, key=lambda m: (m.loss, m.id))),
        dataset,
        score_of(dataset.task if dataset else members[0].task),
        kind,
        device,
        read_cost_table(library, (kind,), device, members),
        tuple(e for e in library.ensembles() if set(e.budget) == {kind} and kind in e.cost),
        tuple(library.allocations()),
        tuple((path.name, bench) for path in bundles_of(library) for bench in benches_of(path)),
    )


def evenly_spaced(count: int, most: int) -> Ints:
    """Return at most `most` of the indices below `count`, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def kept_front(reading: RunData) -> Front | None:
    """Return the run's own front if it is of the report's kind of cost and all its members still exist."""
    front = reading.library.front()
    if front is None or front.cost != reading.kind or not front.ensembles:
        return None
    known = {m.id for m in reading.members}
    return front if all(known.issuperset(e.members) for e in front.ensembles) else None
