"""Portfolios of the built-in spaces, made from real searches: the files in `ripieno/search/portfolios`.

    python benchmarks/search/portfolios.py SPACE --data DATA... [--trials N] [--epochs N] [--size S] [--folds N]
        [--weights FOLDER]

Each DATA is searched in the space by hyperband, one search a seed: images, series or tables that `tune` reads
(`FILE.csv:COLUMN` is a table), or one of scikit-learn's own sets: digits, digits-table, wine, cancer, iris, diabetes.
Spaces of pretrained backbones need a folder of weights; configurations name only the backbones that it holds.
The portfolio of these searches is written with its losses, and with what it was made from: data sets, trials, epochs.
Searches are kept in runs/portfolios and resumed, so that a call that was stopped goes on, and more data may be added.
Trials train in this process, without free members. Bounded by trials, the result depends on the data and seed only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np

from ripieno import files
from ripieno.library.history import SearchRecord
from ripieno.pipeline import tune
from ripieno.pipeline.history import past_search, record_of_run
from ripieno.pipeline.warm_start import BuiltInPortfolio
from ripieno.search.built_in_spaces import find_space
from ripieno.search.portfolio import SIZE, PastModel, rated_portfolio

RUNS = Path(__file__).parents[2] / "runs" / "portfolios"
FOLDER = Path(__file__).parents[2] / "ripieno" / "search" / "portfolios"
BUNDLED = {"wine": "load_wine", "cancer": "load_breast_cancer", "iris": "load_iris", "diabetes": "load_diabetes"}
"""Tables of scikit-learn by the name of their loader."""


def source(data: str) -> tuple[str, dict[str, Any]]:
    """Return what `tune` reads for a data set, and options of its own."""
    from sklearn import datasets

    RUNS.mkdir(parents=True, exist_ok=True)
    if data in BUNDLED or data == "digits-table":
        path = RUNS / f"{data}.csv"
        if not path.exists():
            frame = getattr(datasets, BUNDLED.get(data, "load_digits"))(as_frame=True).frame
            if data != "diabetes":
                frame["target"] = [f"class {value}" for value in frame["target"]]
            frame.to_csv(path, index=False)
        return str(path), {"target": "target", "task": "regression" if data == "diabetes" else "classification"}
    if data == "digits":
        path = RUNS / "digits.npz"
        if not path.exists():
            found = datasets.load_digits()
            np.savez(path, images=(found.images[..., None] * 15).astype(np.uint8), labels=found.target)
        return str(path), {}
    path_name, colon, column = data.partition(":")
    return path_name, {"target": column} if colon else {}


def searched(space: str, data: str, arguments: argparse.Namespace, seed: int) -> SearchRecord:
    """Search a data set, or resume its search; return its record."""
    path, options = source(data)
    name = Path(path).stem
    run = RUNS / f"{space}-{name}"
    family = find_space(space).family
    trainer = family if family.startswith("trees:") else None
    if (run / "run.json").exists():
        tune(None, run, trials=arguments.trials, trainer=trainer, pool="inline", free="off")
    else:
        options |= {"size": arguments.size, "epochs": arguments.epochs, "trials": arguments.trials, "seed": seed}
        options |= {"trainer": trainer, "folds": arguments.folds, "weights": arguments.weights}
        tune(path, run, space=space, algorithm="hyperband", pool="inline", free="off", **options)
    return record_of_run(run)


def provenance(record: SearchRecord) -> dict[str, Any]:
    """Return what a portfolio says of a search that it was made from."""
    assert record.data is not None
    about = {name: getattr(record.data, name) for name in ("kind", "task", "shape", "classes")}
    trained = record.data.samples.get("train", 0)
    trials = len(record.trials)
    name = record.name.rpartition("-")[0].removeprefix(f"{record.space['name']}-")
    return {"name": name, **about, "training samples": trained, "trials": trials, "epochs": record.epochs}


def main() -> None:
    """Search, and write the portfolio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--size", type=int, help="pixels to which images are resized")
    parser.add_argument("--folds", type=int, help="folds in place of a validation split; 0: none")
    parser.add_argument("--weights", help="folder of pretrained weights, NAME.safetensors")
    parser.add_argument("--configurations", type=int, default=SIZE)
    arguments = parser.parse_args()
    space = find_space(arguments.space)
    records = []
    for seed, data in enumerate(arguments.data):
        records.append(searched(space.name, data, arguments, seed))
        print(f"{space.name}: {data} searched, {len(records[-1].trials)} trials", file=sys.stderr)
    models = [PastModel(space, past_search(record)) for record in records]
    rated = rated_portfolio(models, arguments.configurations)
    found = BuiltInPortfolio(
        space=space.name,
        made_from=tuple(provenance(record) for record in records),
        configurations=tuple(values for values, _ in rated),
        losses=tuple(tuple(round(loss, 3) for loss in losses) for _, losses in rated),
    )
    files.write_json(FOLDER / f"{space.name}.json", found)
    print(f"wrote {FOLDER / space.name}.json: {len(rated)} configurations of {len(records)} data sets")


if __name__ == "__main__":
    main()
