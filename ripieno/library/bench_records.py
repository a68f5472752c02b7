"""What benches of a deployment measured, kept in its folder; and where a run's deployments lie.

BUNDLE/bench.json   the last benches of `ripieno bench`, the newest last
RUN/bundles.json    folders of deployments made of the run outside RUN/bundles
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ripieno.library.broken import read_or_none, write_over
from ripieno.library.library import Library

KEPT = 20
"""Benches kept of a deployment, and folders of a run."""


@dataclass(frozen=True)
class BenchRecord:
    """A bench of a deployment: samples a second and seconds of a request."""

    when: float
    """Unix seconds"""
    machine: str
    """kinds of the devices it ran on"""
    isolation: str
    batch: int
    """samples a request"""
    in_flight: int
    seconds: float
    """how long it measured"""
    throughput: float
    spread: float
    """relative"""
    p50: float
    p99: float


@dataclass(frozen=True)
class _Benches:
    """`bench.json`."""

    items: list[BenchRecord]


@dataclass(frozen=True)
class _Bundles:
    """`bundles.json`."""

    items: list[str]


def keep_bench(bundle: Path, bench: BenchRecord) -> Path:
    """Add a bench to those of a deployment, for the report. Raises RipienoError when it cannot be written."""
    path = bundle / "bench.json"
    write_over(path, [*benches_of(bundle), bench][-KEPT:], _Benches)
    return path


def benches_of(bundle: Path) -> list[BenchRecord]:
    """Benches of a deployment, the newest last; none when it was never benched, or, with a warning, for a bad file."""
    found = read_or_none(f"the benches of {bundle}", bundle / "bench.json", _Benches)
    return found.items if found is not None else []


def register_bundle(library: Library, bundle: Path) -> None:
    """Remember that a deployment of the run lies in `bundle`."""
    inside, path = library.path.resolve() / "bundles", bundle.resolve()
    if path.parent == inside:
        return
    known = [p for p in _noted(library) if p != str(path)]
    write_over(library.path / "bundles.json", [*known, str(path)][-KEPT:], _Bundles)


def bundles_of(library: Library) -> list[Path]:
    """Folders of the run's deployments that are still there, by name."""
    paths = [*(library.path / "bundles").glob("*"), *map(Path, _noted(library))]
    return sorted((p for p in paths if (p / "bundle.json").exists()), key=lambda p: (p.name, str(p)))


def _noted(library: Library) -> list[str]:
    found = read_or_none(f"the bundles of {library.path}", library.path / "bundles.json", _Bundles)
    return found.items if found is not None else []
