"""Write the folders `run`, `promoted` and `bundle` and the expected numbers with the first build of ripieno.

    PYTHONPATH=FIRST_BUILD python tests/version1/make.py

See README.md. The names used here are those of the first build, so that the script does not run with today's package.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import ripieno
from ripieno.library import read_bundle
from ripieno.pipeline import foresee

HERE = Path(__file__).resolve().parent
FOLDERS = ("run", "promoted", "bundle")
LEFT_OUT = ("lock", "logs", "bundles.json")
"""Files that only hold paths and processes of one machine."""
SPACE = {
    "family": "resnet",
    "ranges": {
        "learning_rate": {"kind": "continuous", "low": 2e-2, "high": 3e-2, "log": True},
        "convolution": {"kind": "categorical", "choices": ["v1", "v2"]},
        "stem_filters": {"kind": "integer", "low": 2, "high": 6},
    },
    "fixed": {
        "activation": "relu",
        "batch_size": 4,
        "optimizer": "adamw",
        "schedule": "rung",
        "width": 1,
        **dict.fromkeys(("blocks_1", "blocks_2", "blocks_3", "blocks_4"), 1),
    },
}
"""Networks of about 1,500 parameters."""
DEVICES = "1x cpu 2 cores"
"""Devices of the offline plan: the same on every machine."""


def digits() -> tuple[Any, Any]:
    """Return images (150, 8, 8, 1) of the digits 0, 1 and 2 that scikit-learn ships, and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=3, return_X_y=True)
    return np.rint(images[:150] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1), labels[:150].astype(np.int64)


def write() -> dict[str, Any]:
    """Write the folders to the working directory, and the arrays next to this file; return the expected numbers."""
    settings: dict[str, Any] = {"space": "space.json", "pool": "inline", "epochs": 3, "seed": 4}
    data = digits()
    run = ripieno.tune(data, "run", trials=4, split=(0.5, 0.3, 0.2), **settings)
    ripieno.measure(run, prune=1.0)
    device = run.usual_device()
    costs = [profile.cost for profile in run.profiles(device).values()]
    ensembles = ripieno.select(run, [1.01 * min(costs), 1.01 * sum(costs)], prune=1.0)
    # so small networks add little to each other: three of them, for a bundle with more than one member
    ensembles += ripieno.select(run, [{"parameters": 10_000}], method="top-k", size=3, prune=1.0)
    front = ripieno.front(run, prune=1.0)
    bundle = ripieno.allocate(run, ensembles[-1], devices="cpu", bundle="bundle", max_benches=0)
    ripieno.cascade(run, "bundle", tolerance=0.05, output="bundle")
    bundle = read_bundle("bundle")
    images = data[0][:12]
    np.save(HERE / "inputs.npy", images)
    with ripieno.Engine(bundle, cascade=False) as engine:
        np.save(HERE / "probabilities.npy", engine.predict(images))
    with ripieno.Engine(bundle) as engine:
        np.save(HERE / "cascade.npy", engine.predict(images))
    profiles = [f"cpu-2-cores=run/profiles/{device}.json"]
    plan = foresee(run, ensembles[-1].name, devices=DEVICES, profiles=profiles, output="plan")
    promoted = ripieno.tune(data, "promoted", trials=2, promote="ensemble", budget={"parameters": 4000}, **settings)
    chosen = ripieno.select(promoted, [{"parameters": 4000}], prune=1.0)
    # the first build resumes a copy of the search: today's code has to make the same decisions
    shutil.copytree("run", "resumed")
    resumed = ripieno.tune(run="resumed", trials=6, pool="inline")
    return {
        "device": device,
        "members": {name: run.member(name) for name in run.ids()},
        "ensembles": ensembles,
        "front": front,
        "cascade": bundle.cascade,
        "plan": plan.allocation,
        "promoted": chosen,
        "resumed": {name: resumed.member(name).configuration for name in resumed.ids()},
    }


def main() -> None:
    """Work in a temporary folder, as records hold paths; then copy what is kept."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("space.json").write_text(json.dumps(SPACE))
        expected = msgspec.json.format(msgspec.json.encode(write()), indent=1)
        for name in FOLDERS:
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.copytree(name, HERE / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.rmtree(HERE / "promoted" / "checkpoints")  # this search cannot be resumed
    (HERE / "expected.json").write_bytes(expected + b"\n")


if __name__ == "__main__":
    main()
