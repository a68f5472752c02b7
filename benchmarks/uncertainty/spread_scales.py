"""What the calibrated standard deviation of a regression gains over the spread, and over one deviation for all.

    python benchmarks/uncertainty/spread_scales.py [--draws 5]

The networks and data sets are those of `interval_scores.py`. Scale and floor of the spread are fitted to one fifth of
each data set; the normal negative log likelihood is that of two fifths. `spread`: the spread alone, at least a
hundredth of the root of the mean squared error; `one`: that root for all samples; `calibrated`: the fitted one. Writes
benchmarks/results/uncertainty-spread-scales.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from interval_scores import data_sets, fitted
from record import record

from ripieno.tasks.metrics import normal_log_loss
from ripieno.tasks.spread_calibration import fit_spread, standard_deviation


def main() -> None:
    """Measure all data sets and record the mean losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for name, inputs, targets in data_sets():
        found, scales = [], []
        for draw in range(options.draws):
            generator = np.random.default_rng(draw)
            fifth = len(targets) // 5
            train, valid, test = np.split(generator.permutation(len(targets)), [2 * fifth, 3 * fifth])
            members = fitted(inputs[train], targets[train], generator)
            seen, unseen = (np.stack([m.predict(inputs[part]) for m in members])[..., None] for part in (valid, test))
            mean, truth = unseen.mean(axis=0), targets[test, None]
            known = fit_spread(seen.mean(axis=0), targets[valid, None], seen.std(axis=0))
            error = np.sqrt(np.mean((seen.mean(axis=0) - targets[valid, None]) ** 2))
            widths = (
                np.maximum(unseen.std(axis=0), error / 100),
                np.full_like(mean, error),
                standard_deviation(unseen.std(axis=0), known),
            )
            found.append([normal_log_loss(mean, truth, width) for width in widths])
            scales.append(known.scales[0])
        losses = np.array(found)
        gains = losses[:, 1] - losses[:, 2]
        row = dict(zip(("spread", "one", "calibrated"), losses.mean(axis=0).tolist(), strict=True))
        error = float(gains.std(ddof=1) / len(gains) ** 0.5)
        extra = {"one - calibrated": float(gains.mean()), "error": error, "mean scale": float(np.mean(scales))}
        rows.append({"data": name, **row, **extra, "scale is 0": f"{scales.count(0.0)} of {len(scales)}"})
        print(rows[-1], flush=True)
    record(
        "uncertainty-spread-scales", {"draws": options.draws}, rows, "normal negative log likelihood, unseen samples"
    )


if __name__ == "__main__":
    main()
