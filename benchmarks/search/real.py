"""The seven algorithms on a real small search, equal minutes: our form of the paper's table 2.

    python benchmarks/search/real.py [--quick] [--minutes M] [--slots N] [--seeds N] [--algorithms ...] [--data FOLDER]

5,000 images of Fashion-MNIST, `resnet-tiny`, at most nine epochs a trial; every search gets the same minutes on the
same slots, seed by seed so that a change of the machine meets all algorithms. Then SMOBF selects, from each library, an
ensemble for each of four budgets of multiply-adds (multiples of the median member's over all libraries: a cost without
noise), on validation; told is the error on the test split, mean and range over seeds. Searches that are done are kept
in runs/, so it may be cut off and started again. Writes benchmarks/results/search-real.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "house"))
import numpy as np
from record import record
from search import fashion

import ripieno
from ripieno.library.evaluate import evaluate
from ripieno.models.cost import megaflops
from ripieno.pipeline.costs import export
from ripieno.selection import select_members

SEVEN = ("random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic")
MULTIPLES = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class Found:
    """What one search came to."""

    occupancy: float
    costs: np.ndarray[tuple[int], np.dtype[np.float64]]
    """million multiply-adds of each member"""
    truth: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """each member's probability of the true class, validation"""
    test: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
    labels: np.ndarray[tuple[int], np.dtype[np.int64]]

    def error(self, members: list[int]) -> float:
        """Test error of the mean of `members`, in percent."""
        return float(100 * (self.test[members].mean(0).argmax(-1) != self.labels).mean())

    @property
    def single(self) -> int:
        """The member with the least validation loss."""
        return int(np.log(self.truth).mean(1).argmax())


def search(archive: Path, run: Path, algorithm: str, seed: int, minutes: float, slots: int) -> None:
    """Search, unless it was done before."""
    done = run / "done.json"
    if done.exists():
        return
    occupancy = [0.0]
    ripieno.tune(
        archive,
        run,
        hours=minutes / 60,
        space="resnet-tiny",
        epochs=9,
        algorithm=algorithm,
        seed=seed,
        slots=slots,
        watch=lambda snapshot: occupancy.append(snapshot.occupancy),
    )
    done.write_text(json.dumps({"occupancy": occupancy[-1]}))


def read(run: Path) -> Found:
    """The library of a search that is done."""
    library = ripieno.Library(run)
    members = library.members()
    ids = [m.id for m in members]
    export(library, members)
    evaluate(library, ids)
    return Found(
        json.loads((run / "done.json").read_text())["occupancy"],
        np.array([megaflops(m.configuration, m.input) for m in members]),
        library.truth(ids),
        np.stack([library.probabilities(one, "test") for one in ids]),
        library.labels("test"),
    )


def spread(values: list[float]) -> str:
    """Mean, and from where to where."""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Search all, select, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--algorithms", nargs="+", default=SEVEN)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.seeds, arguments.algorithms = 0.5, 1, ("random", "hyperband")
    folder = Path("runs") / f"search-real-{arguments.minutes:g}-{arguments.slots}"
    archive = folder / "images.npz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = fashion(arguments.data)
        np.savez_compressed(archive, images=images, labels=labels)
    found: dict[tuple[str, int], Found] = {}
    for seed in range(arguments.seeds):
        for algorithm in arguments.algorithms:
            run = folder / f"{algorithm}-{seed}"
            search(archive, run, algorithm, seed, arguments.minutes, arguments.slots)
            found[algorithm, seed] = read(run)
            print(f"seed {seed} {algorithm}: {len(found[algorithm, seed].costs)} members", file=sys.stderr)
    median = statistics.median([cost for one in found.values() for cost in one.costs])
    rows = []
    for algorithm in arguments.algorithms:
        ours = [found[algorithm, seed] for seed in range(arguments.seeds)]
        row: dict[str, object] = {
            "algorithm": algorithm,
            "members": spread([float(len(one.costs)) for one in ours]),
            "occupancy": statistics.mean(one.occupancy for one in ours),
            "best single, test error %": spread([one.error([one.single]) for one in ours]),
        }
        for multiple in MULTIPLES:
            errors = []
            for one in ours:
                if (budget := multiple * median) < one.costs.min():  # no member is that cheap
                    continue
                choice = select_members(one.truth, None, one.costs, budget, prune=1.0)
                errors.append(one.error(list(choice.members)))
            row[f"SMOBF at {multiple} x"] = spread(errors) if len(errors) == arguments.seeds else f"only {len(errors)}"
        rows.append(row)
    name = "search-real" + ("-quick" if arguments.quick else "")
    settings = {k: getattr(arguments, k) for k in ("minutes", "slots", "seeds")}
    record(name, settings, rows, f"budgets are multiples of {median:.2f} million multiply-adds")


if __name__ == "__main__":
    main()
