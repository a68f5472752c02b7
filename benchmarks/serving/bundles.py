"""The ensemble of the serving benchmarks as two bundles: `onnx`, and `auto` with the backends chosen here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from networks import CLASSES, SHAPE, lay_out, write_members

from ripieno import files
from ripieno.data import write_dataset
from ripieno.library import Library, read_bundle, write_bundle
from ripieno.pipeline.backend_selection import BackendSelector
from ripieno.types import Bundle, Dataset

BATCH = 32


def bundles_under(home: Path, cores: int) -> dict[str, Bundle]:
    """Return both bundles, with every network in a worker on every core; made once under `home`."""
    plain, chosen = home / "onnx", home / f"auto-{cores}"
    members, _ = write_members(plain)
    bundle = lay_out(plain, members, [range(len(members))] * cores, BATCH, cores)
    files.write_json(plain / "bundle.json", bundle)
    if not (chosen / "bundle.json").exists():
        choose(bundle, home / "library", chosen)
    return {"onnx": bundle, "auto": read_bundle(chosen)}


def choose(bundle: Bundle, run: Path, path: Path) -> None:
    """Write the same bundle with the fastest accurate backends, in any precision, judged on images of noise."""
    library = Library(run)
    count = 4 * CLASSES
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)
    labels = np.arange(count) % CLASSES
    rows = np.repeat(np.arange(3, dtype=np.uint8), (CLASSES, 2 * CLASSES, CLASSES))
    noise = Dataset("noise", images, labels, rows, bundle.task, (0.0,) * 3, (255.0,) * 3)
    if not (library.dataset_path / "dataset.json").exists():
        write_dataset(noise, library.dataset_path)
    for member in bundle.members:
        if member.id not in library.ids():
            answers = np.full((2 * CLASSES, CLASSES), 1 / CLASSES, np.float32)
            network = (bundle.path / "members" / member.id / "model.onnx").read_bytes()
            library.add(member, answers, labels[rows == 1], network)
    selector = BackendSelector(library, bundle.ensemble, "auto", "auto")
    device = bundle.allocation.devices[0]
    choices = [selector.select(member.id, device, 1, BATCH) for member in bundle.members]
    write_bundle(library, bundle.ensemble, bundle.allocation, "onnx", path, selector.proof(choices))
