"""Width and coverage of the intervals of a regression, by score and by the least size of score `root`.

    python benchmarks/uncertainty/interval_scores.py [--draws 5] [--floors 0.1 0.25 0.5]

Six multilayer perceptrons of scikit-learn are trained on two fifths of each data set; intervals of coverage 0.9 around
their mean are fitted to one fifth and measured on the rest. A width is divided by that of score `residual` on the same
draw. Writes benchmarks/results/uncertainty-interval-scores.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.tasks import conformal
from ripieno.types import CoverageScore, Task

LEVEL, MEMBERS, SAMPLES = 0.9, 6, 1500
TASK = Task("regression", (1,), ("value",))


def data_sets() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, inputs (samples, features) and targets (samples,)."""
    yield "diabetes", *load_diabetes(return_X_y=True)
    yield "friedman1", *make_friedman1(SAMPLES, noise=1.0, random_state=0)
    yield "friedman2", *make_friedman2(SAMPLES, noise=100.0, random_state=0)
    yield "friedman3", *make_friedman3(SAMPLES, noise=0.1, random_state=0)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(SAMPLES, 6))
    yield "counts", inputs, generator.poisson(np.exp(0.6 * inputs[:, 0] + 0.5 * np.sin(2 * inputs[:, 1]) + 1.5)) * 1.0
    inputs = generator.uniform(-2, 2, (SAMPLES, 4))
    noise = (0.1 + 0.5 * np.abs(inputs[:, 2])) * generator.normal(size=SAMPLES)
    yield "uneven noise", inputs, np.sin(2 * inputs[:, 0]) + inputs[:, 1] + noise


def fitted(inputs: np.ndarray, targets: np.ndarray, generator: np.random.Generator) -> list[Any]:
    """Return networks of random width, depth and weight decay."""
    members = []
    for seed in range(MEMBERS):
        layers = (int(generator.choice([16, 32, 64])),) * int(generator.choice([1, 2]))
        network = MLPRegressor(
            hidden_layer_sizes=layers, alpha=10 ** generator.uniform(-4, 0), max_iter=200, random_state=seed
        )
        member = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
        members.append(member.fit(inputs, targets))
    return members


def main() -> None:
    """Measure all data sets and record the mean widths and coverages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--floors", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for name, inputs, targets in data_sets():
        found: dict[tuple[str, float], list[tuple[float, float]]] = {}
        for draw in range(options.draws):
            generator = np.random.default_rng(draw)
            train, valid, test = np.split(
                generator.permutation(len(targets)), [2 * len(targets) // 5, 3 * len(targets) // 5]
            )
            members = fitted(inputs[train], targets[train], generator)
            seen, unseen = (np.stack([m.predict(inputs[part]) for m in members])[..., None] for part in (valid, test))
            width = 0.0
            tried: list[tuple[CoverageScore, float]] = [("residual", 0.0), ("spread", 0.0)]
            for score, floor in [*tried, *(("root", floor) for floor in options.floors)]:
                conformal.FLOOR_SHARE = floor
                spread = {"spread": seen.std(axis=0)}
                coverage = conformal.fit_coverage(
                    seen.mean(axis=0), targets[valid, None], TASK, LEVEL, score=score, **spread
                )
                low, high = conformal.interval(unseen.mean(axis=0), coverage, unseen.std(axis=0))
                own = float((high - low).mean())
                width = width or own
                held = (low <= targets[test, None]) & (targets[test, None] <= high)
                found.setdefault((score, floor), []).append((own / width, float(held.mean())))
        for (score, floor), values in found.items():
            widths, shares = np.array(values).T
            error = float(widths.std(ddof=1) / len(widths) ** 0.5)
            row = {"data": name, "score": score, "floor": floor, "width": float(widths.mean()), "width error": error}
            rows.append(row | {"coverage": float(shares.mean())})
    record("uncertainty-interval-scores", {"draws": options.draws}, rows, "width: of that of score residual")


if __name__ == "__main__":
    main()
