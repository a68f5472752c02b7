"""A ten-minute search on 5,000 images of Fashion-MNIST: is the ensemble at least as accurate as its best member?

    python benchmarks/house/fashion.py --data ../shared/data --minutes 10

Started again on the same folder it goes on. Writes benchmarks/results/house-fashion.json and prints a table.
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

import ripieno

SPLIT = (0.72, 0.08, 0.20)


def images(data: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` training images of Fashion-MNIST and their labels."""
    packed = lzma.open(data / "fashion_mnist" / "train_images.npy.xz").read()
    loaded = np.load(io.BytesIO(packed))[:count, ..., None]
    return loaded, np.load(data / "fashion_mnist" / "train_labels.npy")[:count].astype(np.int64)


def main() -> None:
    """Search, select, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path, default=Path("runs/house-fashion"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    archive = options.run / "fashion.npz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        x, y = images(options.data, options.images)
        np.savez_compressed(archive, images=x, labels=y)
    run = options.run / "run"
    if not (run / "ensembles").exists():
        ripieno.tune(archive, run, hours=options.minutes / 60, seed=options.seed, split=SPLIT)
    profiles = ripieno.measure(run, prune=0.4)
    median = float(np.median([p.cost for p in profiles.values()]))
    budgets = [float(f"{k * median:.2g}") for k in (1, 2, 4, 8, 16)]
    ensembles = ripieno.select(run, budgets, prune=0.4)
    rows = [(e.name, len(e.members), e.cost["seconds"], e.losses) for e in ensembles]
    library = ripieno.Library(run)
    single = min(library.members(), key=lambda m: m.losses["valid_cross_entropy"])
    alone = ripieno.select(run, [profiles[single.id].cost], method="best", prune=1.0)[0]
    rows.insert(0, (f"best single {single.id}", 1, profiles[single.id].cost, alone.losses))
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "minutes": options.minutes,
        "images": options.images,
        "seed": options.seed,
        "members": len(library),
        "rows": [{"name": n, "members": k, "cost": c, **losses} for n, k, c, losses in rows],
    }
    target = Path(__file__).parents[1] / "results" / "house-fashion.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{len(library)} members after {options.minutes:g} minutes; test split of {options.images} images")
    print(f"{'':24}{'members':>8}{'cost (s)':>10}{'valid CE':>10}{'test CE':>10}{'test acc':>10}")
    for name, count, cost, losses in rows:
        figures = f"{losses['valid_cross_entropy']:10.4f}{losses['test_cross_entropy']:10.4f}"
        print(f"{name:24}{count:8d}{cost:10.3g}{figures}{100 * losses['test_accuracy']:9.2f}%")


if __name__ == "__main__":
    main()
