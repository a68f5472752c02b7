"""Heads on one backbone served together, against the same networks served whole: images per second and memory.

    python benchmarks/tasks/shared_backbones.py --weights FOLDER [--backbone NAME] [--resolution PIXELS] [--quick]

HEADS trials of one epoch make heads on one frozen backbone. Their networks, written whole, are imported beside them.
Both ensembles are measured, allocated to this machine with default options, and give the same predictions; then they
are loaded in alternating turns. Memory is the proportional set size (PSS) of a fresh process and its workers, less
that of the bare imports. The machine must be quiet. Writes benchmarks/results/tasks-shared-backbones.{json,txt}.
Goal: 3 times the images per second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
import psutil
from libraries import one_thread
from record import record
from sets import ROOT, prepared

import ripieno
from ripieno.backends.merge_onnx import whole_onnx
from ripieno.engine import Engine, bench
from ripieno.library import Library
from ripieno.library.bundle import model_path
from ripieno.types import Ensemble

HEADS = 5
SET = "few20"
MIB = 1 << 20
LOADS = {"64-image requests, 4 in flight": (64, 4), "single images, 64 in flight": (1, 64)}


def make_library(folder: Path, options: argparse.Namespace) -> Library:
    """Return a library of heads and of the same networks whole, with the ensembles `shared` and `whole`."""
    ranges = {"weight_decay": {"kind": "continuous", "low": 1e-3, "high": 0.3, "log": True}}
    fixed = {"backbone": options.backbone, "resolution": options.resolution, "frozen": "all"}
    space = folder / "heads.json"
    space.write_text(json.dumps({"family": "timm", "ranges": ranges, "fixed": fixed}))
    data = prepared(SET, 0, options.data)
    bounds = {"trials": HEADS, "epochs": 1, "algorithm": "random", "free": "off"}
    weights = options.weights / f"{options.backbone}.safetensors"
    library = ripieno.tune(data, folder / "run", space=str(space), weights=weights, **bounds)
    heads = sorted(member.id for member in library.members())
    bundle = ripieno.allocate(library, mean("heads", heads), max_benches=0, bundle=folder / "bundle")
    files = [folder / f"whole-{number}.onnx" for number in range(HEADS)]
    for path, name in zip(files, heads, strict=True):
        (backbone,) = (bundle.path / "backbones").glob("*.onnx")
        path.write_bytes(whole_onnx(backbone, model_path(bundle, name), bundle.input, bundle.task))
    whole = [member.id for member in ripieno.import_(library, files)]
    ripieno.measure(library, members=[*heads, *whole])
    for name, members in (("shared", heads), ("whole", whole)):
        library.write_ensemble(mean(name, members))
    return library


def mean(name: str, members: list[str]) -> Ensemble:
    """Return the mean of `members`."""
    return Ensemble(name, tuple(members), (1 / len(members),) * len(members), "hand", {"seconds": 1.0}, {}, {})


def memory(bundle: str) -> float:
    """Return the MiB that an engine of `bundle` adds to this process and its workers after a load."""
    base = _tree()
    with Engine(bundle) as engine:
        bench(bundle, engine=engine, seconds=2.0, batch=64, in_flight=4)
        return _tree() - base


def _tree() -> float:
    parent = psutil.Process()
    return sum(p.memory_full_info().pss for p in (parent, *parent.children(recursive=True))) / MIB


def main() -> None:
    """Make both bundles, then measure them in turns."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of NAME.safetensors")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    parser.add_argument("--memory", help="internal: the bundle whose memory a child process measures")
    options = parser.parse_args()
    if options.memory:
        print(memory(options.memory))
        return
    rounds, seconds = (4, 1.0) if options.quick else (12, 3.0)
    with tempfile.TemporaryDirectory() as name:
        library = make_library(Path(name), options)
        bundles = [ripieno.allocate(library, ensemble) for ensemble in ("whole", "shared")]
        used = []
        for bundle in bundles:
            command = [sys.executable, __file__, "--memory", str(bundle.path)]
            used.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        rows = [{"measure": "memory MiB", "whole": used[0], "shared": used[1], "ratio": used[0] / used[1]}]
        with Engine(bundles[0]) as whole, Engine(bundles[1]) as shared:
            images = np.random.default_rng(0).integers(0, 256, (64, *bundles[0].input.shape), np.uint8)
            np.testing.assert_allclose(shared.predict(images), whole.predict(images), atol=1e-4)
            for load, (batch, in_flight) in LOADS.items():
                speeds = []
                for turn in range(rounds):
                    pair = list(zip(bundles, (whole, shared), strict=True))
                    taken = [
                        bench(bundle, engine=engine, seconds=seconds, batch=batch, in_flight=in_flight).throughput
                        for bundle, engine in (pair if turn % 2 else pair[::-1])
                    ]
                    speeds.append(taken if turn % 2 else taken[::-1])
                table = np.array(speeds)
                ratios = table[:, 1] / table[:, 0]
                row = {
                    "measure": f"images/s, {load}",
                    "whole": np.median(table[:, 0]),
                    "shared": np.median(table[:, 1]),
                }
                rows.append(row | {"ratio": float(np.median(ratios)), "least": ratios.min(), "most": ratios.max()})
    settings = {"backbone": options.backbone, "resolution": options.resolution, "heads": HEADS, "rounds": rounds}
    record("tasks-shared-backbones" + "-quick" * options.quick, settings, rows)


if __name__ == "__main__":
    main()
