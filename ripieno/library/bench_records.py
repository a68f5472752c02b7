"""Benchmark results of a deployment, stored in its folder, and the list of a run's deployments.

BUNDLE/bench.json   the last results of `ripieno bench`, the newest last
RUN/bundles.json    folders of deployments made from the run outside RUN/bundles
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ripieno.library.broken import read_or_none, write_over
from ripieno.library.library import Library

KEPT = 20
"""Benchmark results kept per deployment, and folders per run."""


@dataclass(frozen=True)
class BenchRecord:
    """A benchmark result of a deployment: samples per second and seconds per request."""

    when: float
    """Unix seconds"""
    machine: str
    """kinds of the devices it ran on"""
    isolation: str
    batch: int
    """samples per request"""
    in_flight: int
    seconds: float
    """duration of the measurement"""
    throughput: float
    spread: float
    """relative"""
    p50: float
    p99: float


def keep_bench(bundle: Path, bench: BenchRecord) -> Path:
    """Add a benchmark result to a deployment, for the report. Raises RipienoError when it cannot be written."""
    path = bundle / "bench.json"
    write_over(path, [*benches_of(bundle), bench][-KEPT:], list[BenchRecord])
    return path


def benches_of(bundle: Path) -> list[BenchRecord]:
    """Return a deployment's benchmark results, the newest last; empty for none or, with a warning, a broken file."""
    return read_or_none(f"the benchmarks of {bundle}", bundle / "bench.json", list[BenchRecord]) or []


def register_bundle(library: Library, bundle: Path) -> None:
    """Record that `bundle` is a deployment of the run."""
    inside, path = library.path.resolve() / "bundles", bundle.resolve()
    if path.parent == inside:
        return
    known = [p for p in _registered(library) if p != str(path)]
    write_over(library.path / "bundles.json", [*known, str(path)][-KEPT:], list[str])


def bundles_of(library: Library) -> list[Path]:
    """List the folders of the run's existing deployments, by name."""
    paths = [*(library.path / "bundles").glob("*"), *map(Path, _registered(library))]
    return sorted((p for p in paths if (p / "bundle.json").exists()), key=lambda p: (p.name, str(p)))


def _registered(library: Library) -> list[str]:
    return read_or_none(f"the bundles of {library.path}", library.path / "bundles.json", list[str]) or []
