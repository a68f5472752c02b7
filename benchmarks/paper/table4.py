"""Table 4: AutoKeras for equal minutes on equal cores and the same data, against our best network and our ensemble.

    python benchmarks/paper/table4.py [SET] --autokeras PYTHON [--quick] [--minutes 20] [--slots N] [--seeds 2] ...

PYTHON belongs to an environment with autokeras and a CPU TensorFlow. Both get the same training, validation and test
images and the same cores, one after the other; AutoKeras runs at most ten trials, as in the paper. Our results come
from the hyperband searches of searches.py: the SMOBF ensemble for a budget of 32 median members, and the best single
network by validation. Writes benchmarks/results/paper-table4-SET.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from record import record
from searches import Plan, SearchedLibrary, arguments, plan, searched
from sets import prepared
from table2 import spread

from ripieno.data import open_dataset
from ripieno.selection import select_members
from ripieno.tasks.metrics import losses
from ripieno.types import Dataset

PAPER = (
    "the paper's, CIFAR-100 accuracy: Auto-Keras 69.57 % after 2 GPU-hours; theirs with B=320 72.39 % after 36, 77.35 %"
    " after 144, 79.44 % after 864; CNN-GA 77.97 % after 960 (V100s and GTX 1080 Ti)."
)


def peer(python: str, asked: Plan, dataset: Dataset, seed: int) -> dict[str, object]:
    """Run AutoKeras, or read its stored result; the result is stored next to our searches."""
    kept = asked.folder / f"autokeras-{seed}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    arrays = asked.folder / "autokeras.npz"
    if not arrays.exists():
        found: dict[str, np.ndarray] = {}
        for split in ("train", "valid", "test"):
            rows = dataset.rows(split)
            found |= {split: dataset.inputs[rows], f"{split}_labels": dataset.targets[rows]}
        np.savez(arrays, **found)
    script = Path(__file__).with_name("autokeras_peer.py")
    cores = len(os.sched_getaffinity(0))  # the cores that our trials share, for any number of them
    command = [python, str(script), str(arrays), f"{asked.minutes:g}", "10", str(seed), str(cores)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"AutoKeras failed: {ran.stderr.strip().splitlines()[-1:]}")
    kept.write_text(ran.stdout.strip().splitlines()[-1])
    return dict(json.loads(kept.read_text()))


def error(dataset: Dataset, answer: dict[str, object]) -> float | None:
    """Return the test error of predicted classes, in percent of the data set's metric."""
    if "predicted" not in answer:
        return None
    sure = np.eye(len(dataset.classes))[np.asarray(answer["predicted"])]
    found = losses(np.clip(sure, 1e-7, 1), dataset.targets[dataset.rows("test")], "test")
    return 100 * (1 - found[f"test_{dataset.task.metric.replace('-', '_')}"])


def main() -> None:
    """Search with both, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("hyperband",), 2, 20)
    parser.add_argument("--cost", choices=("flops", "seconds"), default="flops")
    parser.add_argument("--autokeras", metavar="PYTHON", help="without it only our rows are written")
    given = parser.parse_args()
    asked = plan(given)
    searched_libraries = [SearchedLibrary(run) for _, _, run in searched(given)]
    dataset = open_dataset(prepared(asked.set, asked.data, asked.images))
    singles, together, sizes = [], [], []
    for s in searched_libraries:
        costs = getattr(s, given.cost)
        choice = select_members(s.truth, None, costs, 32 * float(np.median(costs)), prune=1.0, method="smobf")
        singles.append(s.error([s.single()]))
        together.append(s.error(list(choice.members), choice.weights))
        sizes.append(float(len(choice.members)))
    rows: list[dict[str, object]] = [
        {"method": "ours, best single", "networks": "1", "test error %": spread(singles)},
        {"method": "ours, SMOBF", "networks": spread(sizes, 0), "test error %": spread(together)},
    ]
    note = PAPER
    if given.autokeras:
        answers = [peer(given.autokeras, asked, dataset, seed) for seed in range(given.seeds)]
        errors = [e for a in answers if (e := error(dataset, a)) is not None]
        outcomes = "; ".join(
            f"{a['trials']} trials, {a['epochs']} epochs, {a.get('error', a['ended'])}" for a in answers
        )
        rows.append(
            {
                "method": f"AutoKeras {answers[0]['version']}",
                "networks": "1",
                "test error %": spread(errors) if errors else "no network in time",
            }
        )
        note = f"AutoKeras: {outcomes}\n{PAPER}"
    settings = {k: v for k, v in vars(asked).items() if k != "data"} | {"seeds": given.seeds}
    record(f"paper-table4-{asked.set}" + ("-quick" if given.quick else ""), settings, rows, note)


if __name__ == "__main__":
    main()
