"""What benches of a deployment measured, kept in its folder; and where a run's deployments lie.

BUNDLE/bench.json   the last benches of `ripieno bench`, the newest last
RUN/bundles.json    folders of deployments made of the run outside RUN/bundles
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import RipienoError
from ripieno.library.library import Library

KEPT = 20
"""Benches kept of a deployment, and folders of a run."""


@dataclass(frozen=True)
class Bench:
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


def keep_bench(bundle: Path, bench: Bench) -> Path:
    """Add a bench to those of a deployment, for the report. Raises RipienoError when it cannot be written."""
    path = bundle / "bench.json"
    files.write_json(path, [*benches_of(bundle), bench][-KEPT:])
    return path


def benches_of(bundle: Path) -> list[Bench]:
    """Benches of a deployment, the newest last; none when it was never benched. Raises LibraryError for a bad file."""
    path = bundle / "bench.json"
    return files.read_json(path, dict[str, list[Bench]])["items"] if path.exists() else []


def note_bundle(library: Library, bundle: Path) -> None:
    """Remember that a deployment of the run lies in `bundle`."""
    inside, path = library.path.resolve() / "bundles", bundle.resolve()
    if path.parent == inside:
        return
    known = [p for p in _noted(library) if p != str(path)]
    files.write_json(library.path / "bundles.json", [*known, str(path)][-KEPT:])


def bundles_of(library: Library) -> list[Path]:
    """Folders of the run's deployments that are still there, by name."""
    paths = [*(library.path / "bundles").glob("*"), *map(Path, _noted(library))]
    return sorted((p for p in paths if (p / "bundle.json").exists()), key=lambda p: (p.name, str(p)))


def _noted(library: Library) -> list[str]:
    path = library.path / "bundles.json"
    try:
        kept: dict[str, Any] = files.read_json(path, dict[str, Any]) if path.exists() else {}
    except RipienoError:  # a list for the report's sake: nothing fails for it
        return []
    return [str(p) for p in kept.get("items", [])]
