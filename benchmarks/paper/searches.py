"""Searches behind the paper's tables and figures, one after the other, each for the same minutes.

    python benchmarks/paper/searches.py SET [--minutes 20] [--slots N] [--seeds 2] [--algorithms hyperband random]
                                            [--images N] [--space NAME] [--epochs N] [--device cpu|cuda] [--data FOLDER]

Concurrent trials: `--slots`, by default one per core; on a GPU as many as a profile says, or `--per-device`. SET
is fashion, fashion14 (half the size), plankton, cifar20 or cifar100. The order is seed by seed, so that a change of
the machine affects all algorithms. Every search has its own folder under runs/paper/. An interrupted search resumes
for its remaining minutes and a finished one is skipped: hours can be spread over days. The tables and figures run the
same searches and then read the results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from sets import RUNS, SETS, prepared

import ripieno
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.costs import export_members
from ripieno.search import Snapshot
from ripieno.tasks.metrics import losses

QUICK = {"minutes": 0.5, "seeds": 1, "space": "resnet-tiny", "epochs": 3, "images": 1500}


@dataclass(frozen=True)
class Plan:
    """Data set, duration and settings of a search; equal for every algorithm and seed."""

    set: str
    images: int
    minutes: float
    slots: int | None
    space: str
    epochs: int
    device: str
    data: Path
    per_device: int = 1

    @property
    def folder(self) -> Path:
        """Folder of all its searches."""
        places = f"{self.slots or self.per_device}x{self.device}"
        return RUNS / f"{self.set}-{self.images}-{self.space}-e{self.epochs}-{self.minutes:g}m-{places}"

    def run(self, name: str, seed: int) -> Path:
        """Return a search's folder."""
        return self.folder / f"{name}-{seed}"

    def search(self, algorithm: str, seed: int, name: str = "", **more: Any) -> Path:
        """Search for the remaining minutes; return the run's folder. `more` goes to `ripieno.tune`."""
        run = self.run(name or algorithm, seed)
        timeline = run / "timeline.jsonl"
        run.mkdir(parents=True, exist_ok=True)
        lines = timeline.read_text().splitlines() if timeline.exists() else []
        spent = float(json.loads(lines[-1])["seconds"]) if lines else 0.0
        left = 60 * self.minutes - spent
        if (run / "done").exists():
            return run

        with timeline.open("a") as file:

            def watch(snapshot: Snapshot) -> None:
                if snapshot.finished or snapshot.ended:
                    made = [o.member.id for o in snapshot.finished if o.member is not None]
                    at = {"seconds": spent + snapshot.seconds, "occupancy": snapshot.occupancy, "members": made}
                    file.write(json.dumps(at) + "\n")
                    file.flush()

            if left > 1:
                ripieno.tune(
                    prepared(self.set, self.data, self.images),
                    run,
                    hours=left / 3600,
                    space=self.space,
                    epochs=self.epochs,
                    algorithm=algorithm,
                    seed=seed,
                    free="off",
                    slots=self.slots,
                    device=self.device,
                    per_device=self.per_device,
                    metric=SETS[self.set].metric,
                    watch=watch,
                    **more,
                )
        (run / "done").touch()
        return run


class SearchedLibrary:
    """A library that a search filled: the data for selection and the tables."""

    def __init__(self, run: Path) -> None:
        self.library = ripieno.Library(run)
        members = self.library.members()
        export_members(self.library, members)
        self.ids = [m.id for m in members]
        evaluate(self.library, self.ids)
        self.metric = ripieno.show(self.library).metric.replace("-", "_")
        lines = [json.loads(line) for line in (run / "timeline.jsonl").read_text().splitlines()]
        self.occupancy = float(lines[-1]["occupancy"]) if lines else 0.0
        self._at = {member: line["seconds"] for line in lines for member in line["members"]}
        self.epochs = sum({m.trial: m.epoch for m in sorted(members, key=lambda m: m.epoch)}.values())

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """The paper's cost of each member: seconds for 2,000 images, alone, on one device of this machine."""
        profiles = ripieno.measure(self.library, prune=1.0)
        return np.array([profiles[m].cost for m in self.ids])

    @cached_property
    def flops(self) -> NDArray[np.float64]:
        """Million floating point operations of one image, by member."""
        from ripieno.backends.flops import onnx_flops

        return np.array([onnx_flops(self.library.onnx_path(m)) / 1e6 for m in self.ids])

    @cached_property
    def at(self) -> NDArray[np.float64]:
        """Seconds of search at which each member was stored; of an interrupted search, its end."""
        last = max(self._at.values(), default=0.0)
        return np.array([self._at.get(m, last) for m in self.ids])

    @cached_property
    def truth(self) -> NDArray[np.float32]:
        """Probability of the true class on validation, (members, samples)."""
        return self.library.true_class_probabilities(self.ids)

    def single(self) -> int:
        """Return the member with the least validation loss."""
        return int(np.log(np.maximum(self.truth, 1e-12)).mean(1).argmax())

    def error(self, members: list[int], weights: Any = None) -> float:
        """Return the test error of the mean of `members`, in percent of the data set's own metric."""
        return 100 * (1 - self._judged(members, weights)[f"test_{self.metric}"])

    def cross_entropy(self, members: list[int], weights: Any = None) -> float:
        """Return the test cross-entropy of the mean of `members`: selection lowers it on validation."""
        return self._judged(members, weights)["test_cross_entropy"]

    def answers(self, members: list[int], weights: Any = None) -> NDArray[np.float64]:
        """Return the mean of `members` on test, (samples, classes)."""
        shares = np.full(len(members), 1 / len(members)) if weights is None else np.asarray(weights)
        parts = [w * self.library.predictions(self.ids[i], "test") for i, w in zip(members, shares, strict=True)]
        return np.asarray(np.sum(parts, axis=0, dtype=np.float64))

    def _judged(self, members: list[int], weights: Any) -> dict[str, float]:
        return losses(self.answers(members, weights), self.library.targets("test"), "test")


def arguments(parser: argparse.ArgumentParser, algorithms: tuple[str, ...], seeds: int, minutes: float) -> None:
    """Add the options common to all tables."""
    parser.add_argument("set", choices=SETS, nargs="?", default="fashion")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--per-device", type=int, default=1, help="trials that share a GPU")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--algorithms", nargs="+", default=list(algorithms))
    parser.add_argument("--images", type=int)
    parser.add_argument("--space")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="half a minute each, one seed, tiny networks")


def plan(given: argparse.Namespace) -> Plan:
    """Return the plan of the command line, completed by the data set's defaults."""
    if given.quick:
        vars(given).update({k: v for k, v in QUICK.items() if k in ("minutes", "seeds") or getattr(given, k) is None})
    known = SETS[given.set]
    return Plan(
        given.set,
        given.images or known.images,
        given.minutes,
        given.slots or (len(os.sched_getaffinity(0)) if given.device == "cpu" else None),
        given.space or known.space,
        given.epochs or known.epochs,
        given.device,
        given.data,
        given.per_device,
    )


def searched(given: argparse.Namespace) -> Iterator[tuple[str, int, Path]]:
    """Run every search; yield its algorithm, seed and run."""
    asked = plan(given)
    for seed in range(given.seeds):
        for algorithm in given.algorithms:
            run = asked.search(algorithm, seed)
            print(f"{asked.set} seed {seed} {algorithm}: {len(ripieno.Library(run))} members", file=sys.stderr)
            yield algorithm, seed, run


def main() -> None:
    """Run the searches only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("hyperband", "random"), 2, 20)
    for _ in searched(parser.parse_args()):
        pass


if __name__ == "__main__":
    main()
