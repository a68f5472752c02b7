"""What temperatures gain on the masks of a run: none, one of the ensemble, one a member, or both.

    python benchmarks/uncertainty/mask_temperatures.py RUN [RUN ...] [--draws 5] [--members 1 3 5]

The best networks of each run are combined by their mean. Temperatures are fitted to a sample of the pixels of a random
half of the validation images, each kept where the evidence is strong enough; the cross-entropy is that of the pixels of
the other half. Writes benchmarks/results/uncertainty-mask-temperatures.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.library import Library
from ripieno.tasks.calibration import apply_temperature, calibrate_member
from ripieno.tasks.pixel_calibration import sample_pixels
from ripieno.tasks.pixels import pixel_cross_entropy
from ripieno.tasks.registry import kind_of

WAYS = ("none", "of the ensemble", "of members", "both")


def losses(cube: np.ndarray, classes: np.ndarray, images: np.ndarray, held: np.ndarray, kind: Any) -> list[float]:
    """Return the cross-entropy of the pixels of the images `held` (images,), for each of `WAYS`."""
    other = np.repeat(held, images)

    def calibrated(predictions: np.ndarray) -> np.ndarray:
        seen = predictions[~other], classes[~other], kind, images[~held]
        return apply_temperature(predictions, calibrate_member(*seen).temperature, kind)

    plain, members = cube.mean(axis=0), np.mean([calibrated(own) for own in cube], axis=0)
    rows = np.flatnonzero(other)
    return [
        pixel_cross_entropy(means[rows, classes[rows]])
        for means in (plain, calibrated(plain), members, calibrated(members))
    ]


def main() -> None:
    """Measure all runs and record the mean losses, with the standard errors of what both gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 3, 5])
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        library = Library(run)
        best = sorted(library.members(), key=lambda member: (member.loss, member.id))[: max(options.members)]
        sample, kind = sample_pixels(library.targets()), kind_of(best[0].task)
        cube = np.stack([sample.read(library.predictions(member.id)) for member in best]).astype(np.float32)
        for count in options.members:
            found = []
            for draw in range(options.draws):
                held = np.random.default_rng(draw).permutation(len(sample.images)) % 2 == 0
                found += [losses(cube[:count], sample.classes, sample.images, own, kind) for own in (held, ~held)]
            table = np.array(found)
            gains = table[:, 0] - table[:, 3]
            row: dict[str, Any] = {"run": run.name, "members": count}
            row |= dict(zip(WAYS, table.mean(axis=0).tolist(), strict=True))
            row |= {"none - both": float(gains.mean()), "deviation": float(gains.std(ddof=1))}
            rows.append(row)
            print(row, flush=True)
    record("uncertainty-mask-temperatures", {"draws": options.draws}, rows, "cross-entropy of pixels of unseen images")


if __name__ == "__main__":
    main()
