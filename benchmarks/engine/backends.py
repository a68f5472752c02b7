"""All backends compared, by batch size and precision, and the choice of `auto` against the best of them.

    python benchmarks/engine/backends.py [--quick]

Four networks (32x32x3, 100 classes, 7 to 92 million multiply-adds) run on one thread and one pinned core, all backends
in turns. `auto` measures briefly by itself. Then all backends are measured again, longer, and the choice of `auto` is
compared with the best. Target: at most 5 % slower. Writes benchmarks/results/engine-backends.{json,txt}.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from networks import CLASSES, FOUR, SHAPE, Size, write_network
from record import record
from torch_networks import FAMILY, write_weights

from ripieno import backends
from ripieno.backends.backend_id import split
from ripieno.backends.compare import time_alternately
from ripieno.data import write_dataset
from ripieno.library import Library
from ripieno.pipeline.backend_selection import BackendSelector, Tolerances
from ripieno.types import Dataset, Device, Ensemble, classification

HAND = ("onnx", "openvino", "torch", "openvino:bf16", "torch:bf16", "onnx:int8", "openvino:int8")
LOOSE = Tolerances(near=1.0, least=100.0)
"""Tolerances that accept every precision: losses of random weights mean nothing, so speed alone decides."""


def make_library(folder: Path, sizes: list[Size]) -> Library:
    """Write a run of generated networks, each as ONNX and as PyTorch weights, evaluated on noise."""
    library = Library(folder / "run")
    count = 4 * CLASSES
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)
    labels = np.arange(count) % CLASSES
    rows = np.repeat(np.arange(3, dtype=np.uint8), (CLASSES, 2 * CLASSES, CLASSES))
    classes = tuple(f"class{i}" for i in range(CLASSES))
    write_dataset(
        Dataset("noise", images, labels, rows, classification(classes), (0.0,) * 3, (255.0,) * 3), library.dataset_path
    )
    for index, size in enumerate(sizes):
        member, _ = write_network(folder / f"{index}.onnx", size, index)
        member = dataclasses.replace(member, family=FAMILY, configuration=dataclasses.asdict(size))
        answers = np.full((2 * CLASSES, CLASSES), 1 / CLASSES, np.float32)
        library.add(member, answers, labels[rows == 1], (folder / f"{index}.onnx").read_bytes())
        write_weights(library.onnx_path(member.id), library.weights_path(member.id))
    return library


def choose(
    library: Library, precision: str, terms: Tolerances, device: Device, batch: int, quick: bool
) -> dict[str, str]:
    """Return the backend that `auto` selects for each member."""
    names = tuple(library.ids())
    ensemble = Ensemble("all", names, (1 / len(names),) * len(names), "hand", {}, {}, {})
    terms = dataclasses.replace(terms, samples=64, **({"rounds": 3} if quick else {}))
    selector = BackendSelector(library, ensemble, "auto", precision, terms=terms)
    return {name: selector.select(name, device, 1, batch).backend for name in names}


def main() -> None:
    """Let `auto` choose, measure every backend, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two networks, two batch sizes, short turns")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.1, help="seconds of a turn")
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [options.core])
    sizes, batches = (list(FOUR[:2]), (1, 16)) if options.quick else (list(FOUR), (1, 8, 64))
    rounds, seconds = (4, 0.05) if options.quick else (options.rounds, options.seconds)
    hand = [name for name in HAND if importlib.util.find_spec("openvino") or not name.startswith("openvino")]
    device = Device("cpu:0", "cpu", 1 << 33, (options.core,))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder), sizes)
        images = np.random.default_rng(1).integers(0, 256, (max(batches), *SHAPE), np.uint8)
        for batch in batches:
            exact = choose(library, "fp32", Tolerances(), device, batch, options.quick)
            free = choose(library, "auto", LOOSE, device, batch, options.quick)
            for name, size in zip(library.ids(), sizes, strict=True):
                member = library.member(name)
                known = list(dict.fromkeys((*hand, exact[name], free[name])))
                loaded = {
                    one: backends.load(one, library.model_path(name, one), member, device, 1, [FAMILY]) for one in known
                }
                took = time_alternately(loaded, images[:batch], rounds=rounds, seconds=seconds)
                answers = {one: runner.infer(images[:8]) for one, runner in loaded.items() if split(one)[1] == "fp32"}
                assert max(np.abs(a - answers["onnx"]).max() for a in answers.values()) < 1e-3, (
                    "the backends run different networks"
                )
                for runner in loaded.values():
                    runner.close()
                plain = min(s for one, s in took.items() if split(one)[1] == "fp32")
                rows.append(
                    {"network": f"{size.width}x{size.blocks}", "batch": batch}
                    | {one: batch / took[one] for one in hand}
                    | {"auto, fp32": exact[name], "of best fp32": plain / took[exact[name]]}
                    | {"auto": free[name], "of best": min(took.values()) / took[free[name]]}
                )
    os.sched_setaffinity(0, cores)
    worst = min(float(row[key]) for row in rows for key in ("of best fp32", "of best"))
    note = f"images/s, one thread. auto is at worst {1 - worst:.1%} slower than the best by hand (target: 5 %)."
    note += " Accuracy is not judged here: the weights are random."
    record("engine-backends" + ("-quick" if options.quick else ""), {"rounds": rounds, "turn": seconds}, rows, note)


if __name__ == "__main__":
    main()
