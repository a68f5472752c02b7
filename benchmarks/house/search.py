"""A ten-minute search on real images: the ensemble's accuracy against its best member's.

    python benchmarks/house/search.py fashion --data ../shared/data --minutes 10
    python benchmarks/house/search.py plankton --data ../shared/data --minutes 10

Fashion-MNIST: 5,000 training images of 28 x 28 pixels, scored by accuracy. Plankton: 6,000 images of the 88 classes
with at least 50, padded to 32 x 32, scored by macro-F1. A second start on the same folder resumes. Writes
benchmarks/results/house-SET.json and prints a table.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import platform
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import ripieno
from ripieno.selection import round_budget
from ripieno.types import Metric

SPLITS = {"fashion": (0.72, 0.08, 0.20), "plankton": (0.6, 0.2, 0.2)}
METRICS: dict[str, Metric] = {"fashion": "accuracy", "plankton": "macro-f1"}


def fashion(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the first 5,000 training images and their labels."""
    with lzma.open(data / "fashion_mnist" / "train_images.npy.xz") as packed:
        images = np.load(io.BytesIO(packed.read()))
    return images[:5000, ..., None], np.load(data / "fashion_mnist" / "train_labels.npy")[:5000].astype(np.int64)


def plankton(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Draw 6,000 images from the classes with at least 50, at 32 x 32 pixels on white."""
    with lzma.open(data / "plankton" / "plankton.npz.xz") as packed, np.load(io.BytesIO(packed.read())) as arrays:
        z = {name: arrays[name] for name in arrays.files}
    kept = np.flatnonzero(z["class_ge50"][z["label"]])
    kept = np.sort(np.random.default_rng(0).permutation(kept)[:6000])
    images = np.full((len(kept), 32, 32, 1), 255, np.uint8)
    for row, n in enumerate(kept):
        with Image.open(io.BytesIO(z["jpeg"][z["offset"][n] : z["offset"][n + 1]])) as picture:
            images[row, ..., 0] = np.asarray(ImageOps.pad(picture, (32, 32), color=255))
    return images, np.unique(z["label"][kept], return_inverse=True)[1].astype(np.int64)


def main() -> None:
    """Search, select, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SPLITS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.run or Path(f"runs/house-{options.set}")
    archive = folder / "images.npz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        x, y = {"fashion": fashion, "plankton": plankton}[options.set](options.data)
        np.savez_compressed(archive, images=x, labels=y)
    run = folder / "run"
    if not (run / "ensembles").exists():
        ripieno.tune(
            archive,
            run,
            hours=options.minutes / 60,
            seed=options.seed,
            free="off",
            split=SPLITS[options.set],
            metric=METRICS[options.set],
        )
    profiles = ripieno.measure(run, prune=0.4)
    median = float(np.median([p.cost for p in profiles.values()]))
    budgets = [round_budget(k * median) for k in (1, 2, 4, 8, 16)]
    ensembles = ripieno.select(run, budgets)
    rows = [(e.name, len(e.members), e.cost["seconds"], e.losses) for e in ensembles]
    library = ripieno.Library(run)
    single = min(library.members(), key=lambda m: m.loss)
    alone = ripieno.select(run, [profiles[single.id].cost], method="best")[0]
    rows.insert(0, (f"best single {single.id}", 1, profiles[single.id].cost, alone.losses))
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "minutes": options.minutes,
        "seed": options.seed,
        "members": len(library),
        "rows": [{"name": n, "members": k, "cost": c, **losses} for n, k, c, losses in rows],
    }
    target = Path(__file__).parents[1] / "results" / f"house-{options.set}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    metric = f"test {METRICS[options.set]}"
    print(f"{len(library)} members after {options.minutes:g} minutes; {options.set}")
    print(f"{'':24}{'members':>8}{'cost (s)':>10}{'valid CE':>10}{'test CE':>10}{metric:>12}")
    for name, count, cost, losses in rows:
        figures = f"{losses['valid_cross_entropy']:10.4f}{losses['test_cross_entropy']:10.4f}"
        print(
            f"{name:24}{count:8d}{cost:10.3g}{figures}{100 * losses[metric.replace(' ', '_').replace('-', '_')]:11.2f}%"
        )


if __name__ == "__main__":
    main()
