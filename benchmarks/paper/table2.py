"""Table 2: error of the SMOBF ensemble by algorithm and budget, after equal time.

    python benchmarks/paper/table2.py [SET] [--quick] [--minutes 20] [--slots N] [--seeds 3] [--cost flops|seconds] ...

The searches are those of searches.py, with seven algorithms unless `--algorithms` names others. Budgets are multiples
of the median member's cost over all libraries. The cost is the counted floating point operations of one image, which
have no noise, or the paper's own: measured seconds for 2,000 images. Selection uses the validation split; the errors
are on the test split: median over seeds as in the paper, and range. With `--against ALGORITHM`, the mean difference
from its ensembles over seeds stands beside, in points of error and in nats, with 95 % intervals of the test images.
Writes benchmarks/results/paper-table2-SET.{json,txt}, or paper-table2-SET-against-ALGORITHM.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from intervals import difference
from record import record
from searches import SearchedLibrary, arguments, plan, searched

from ripieno.selection import select_members

SEVEN = ("random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic")
MULTIPLES = (1, 2, 4, 8)
PAPER = """the paper's, CIFAR-100, 6 days on 6 GPUs, B=20 / 80 / 320: random 31.26 / 22.69 / 20.64,
hyperband 27.8 / 21.73 / 20.42, gp 31.58 / 26.2 / 23.76, bohb 29.24 / 22.58 / 21.1, smac 24.44 / 22.17 / 21.87,
tpe 29.97 / 24.25 / 22.46, genetic 24.61 / 21.07 / 21.91; microfossils, B=125 / 375 / 1000: random 13.45 / 10.84 / 9.69,
hyperband 11.93 / 9.32 / 8.46. Data, network sizes and hours differ here; the procedure is the paper's."""


def spread(values: list[float], digits: int = 2) -> str:
    """Return the median and the range, as text."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def choose(s: SearchedLibrary, costs: NDArray[np.float64], budget: float) -> tuple[list[int], Any] | None:
    """Return members and weights of the best ensemble within `budget`; None where no member fits."""
    if costs.min() > budget:
        return None
    choice = select_members(s.truth, None, costs, budget, prune=1.0, method="smobf")
    return list(choice.members), choice.weights


def main() -> None:
    """Search, select, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, SEVEN, 3, 20)
    parser.add_argument("--cost", choices=("flops", "seconds"), default="flops")
    parser.add_argument("--against", help="algorithm of the list that the others are compared with")
    given = parser.parse_args()
    if given.quick and given.algorithms == list(SEVEN):
        given.algorithms = ["random", "hyperband"]
    searched_libraries: dict[str, list[SearchedLibrary]] = {}
    for algorithm, _, run in searched(given):
        searched_libraries.setdefault(algorithm, []).append(SearchedLibrary(run))
    median = statistics.median(
        [float(c) for found in searched_libraries.values() for s in found for c in getattr(s, given.cost)]
    )
    rows: list[dict[str, object]] = []
    answers: dict[tuple[str, int], list[NDArray[np.float64] | None]] = {}
    for algorithm, found in searched_libraries.items():
        row: dict[str, object] = {
            "algorithm": algorithm,
            "members": spread([float(len(s.ids)) for s in found], 0),
            "epochs": spread([float(s.epochs) for s in found], 0),
            "occupancy": statistics.mean(s.occupancy for s in found),
            "best single, test error %": spread([s.error([s.single()]) for s in found]),
        }
        for multiple in MULTIPLES:
            choices = [choose(s, getattr(s, given.cost), multiple * median) for s in found]
            errors = [s.error(*choice) for s, choice in zip(found, choices, strict=True) if choice]
            row[f"SMOBF, {multiple} x"] = spread(errors) if errors else "no member within the budget"
            answers[algorithm, multiple] = [
                s.answers(*choice) if choice else None for s, choice in zip(found, choices, strict=True)
            ]
        rows.append(row)
    if given.against:
        labels, metric = found[0].library.targets("test"), found[0].metric
        for row in rows:
            for multiple in MULTIPLES:
                both = zip(answers[str(row["algorithm"]), multiple], answers[given.against, multiple], strict=True)
                pairs = [(ours, other) for ours, other in both if ours is not None and other is not None]
                if pairs and row["algorithm"] != given.against:
                    points, nats = difference(pairs, labels, metric)
                    row |= {f"{multiple} x, points against {given.against}": points, f"{multiple} x, nats": nats}
    asked = plan(given)
    name = f"paper-table2-{asked.set}" + (f"-against-{given.against}" if given.against else "")
    name += "-quick" if given.quick else ""
    settings = {k: v for k, v in vars(asked).items() if k != "data"} | {"seeds": given.seeds}
    unit = "million operations an image" if given.cost == "flops" else "seconds for 2,000 images"
    record(name, settings, rows, f"budgets are multiples of {median:.3g} {unit}\n{PAPER}")


if __name__ == "__main__":
    main()
