"""Searches of tables: single members and ensembles, against forests, boosting and AutoGluon.

    python benchmarks/tasks/tables.py [SET ...] --data FOLDER [--seeds 0 1 2 3 4] [--minutes 10]
        [--autogluon PYTHON] [--search-only]

FOLDER holds SET.csv. A fifth of the rows, stratified by class, are test rows. ripieno and AutoGluon have MINUTES of
two cores each, from the same file; where a search of ripieno had less processor time, because of other work, it is
resumed for the rest. AutoGluon (best quality) runs in the environment of PYTHON. RandomForest (500 trees) and
HistGradientBoosting of scikit-learn have their default hyperparameters, behind one-hot codes and ordinal ones. Finished
searches and predictions are read. Costs are measured alone. Budgets are in costs of the median member. Means over seeds
have 95 % intervals by Student's t. Writes benchmarks/results/tasks-tables.{json,txt}.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
import pandas
from ensembles import at_median_budgets
from libraries import one_thread, versions
from searches import CORES, timed_search
from seeds import MEDIAN, by_seed, mean_row, paired, record_seeds
from sets import RUNS
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from ripieno.library import Library
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble


class Table(NamedTuple):
    """A set: its target, whether that is a number, and columns that give it away."""

    target: str
    is_regression: bool = False
    dropped: tuple[str, ...] = ()


SETS = {
    "Caravan": Table("Purchase"),
    "Default": Table("default"),
    "OJ": Table("Purchase"),
    "diamonds": Table("price", True),
    "Bikeshare": Table("bikers", True, ("casual", "registered")),
    "Wage": Table("wage", True, ("logwage",)),
}
SCORES = ("RMSE", "log-loss", "AUC")


def divided(name: str, seed: int, data: Path) -> Path:
    """Return a file of the set with a column `split`, which is written where it does not exist."""
    path, table = RUNS / "tables" / "data" / f"{name}-{seed}.csv", SETS[name]
    if not path.exists():
        with open(data / f"{name}.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        labels = None if table.is_regression else [row[table.target] for row in rows]
        test = set(train_test_split(range(len(rows)), test_size=0.2, stratify=labels, random_state=seed)[1])
        names = [column for column in rows[0] if column not in table.dropped]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([*names, "split"])
            writer.writerows([*(row[n] for n in names), "test" if i in test else "train"] for i, row in enumerate(rows))
    return path


def search(name: str, seed: int, options: argparse.Namespace) -> Library:
    """Return the library of a set and a seed."""
    arguments = [str(divided(name, seed, options.data)), "--target", SETS[name].target, "--seed", str(seed)]
    return timed_search(RUNS / "tables" / f"{name}-{seed}", arguments, options.minutes)


def autogluon(name: str, seed: int, options: argparse.Namespace) -> Path:
    """Return the file of AutoGluon's predictions."""
    output, table = RUNS / "tables" / "autogluon" / f"{name}-{seed}.npz", SETS[name]
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("autogluon_predictions.py")
        kind = "regression" if table.is_regression else "classification"
        command = [options.autogluon, script, divided(name, seed, options.data), table.target, kind, options.minutes]
        subprocess.run([*map(str, command), str(output)], check=True, stdout=subprocess.DEVNULL)
    return output


def peers(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the predictions of the test rows by other systems: (rows, classes sorted), or (rows,)."""
    table = pandas.read_csv(divided(name, seed, options.data))
    target, kind = SETS[name].target, SETS[name]
    parts = [table[table["split"] == split].drop(columns="split") for split in ("train", "test")]
    (train, y), (test, _) = ((part.drop(columns=target), part[target]) for part in parts)
    text = make_column_selector(dtype_exclude="number")
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    forest, boosting = RandomForestClassifier, HistGradientBoostingClassifier
    if kind.is_regression:
        forest, boosting = RandomForestRegressor, HistGradientBoostingRegressor
    models = {
        "RandomForest": (OneHotEncoder(handle_unknown="ignore"), forest(500, random_state=seed, n_jobs=CORES)),
        "HistGradientBoosting": (ordinal, boosting(random_state=seed)),
    }
    found = {}
    for title, (encoder, model) in models.items():
        whole = make_pipeline(make_column_transformer((encoder, text), remainder="passthrough"), model).fit(train, y)
        found[title] = whole.predict(test) if kind.is_regression else whole.predict_proba(test)
    if options.autogluon:
        with np.load(autogluon(name, seed, options)) as held:
            order = np.argsort(held["classes"])
            found["AutoGluon"] = held["predictions"][:, 0] if kind.is_regression else held["predictions"][:, order]
    return found


def test_predictions(library: Library, ensemble: Ensemble) -> Any:
    """Return the predictions of the test rows by an ensemble."""
    kind = kind_of(library.members()[0].task)
    return combine_calibrated([library.predictions(m, "test") for m in ensemble.members], ensemble, kind)


def scores(predictions: Any, name: str, targets: Any) -> dict[str, float]:
    """Return the loss of predictions of test rows, and of two classes the area under the curve."""
    if SETS[name].is_regression:
        return {"RMSE": float(root_mean_squared_error(targets, predictions))}
    kept = np.clip(predictions, 1e-15, 1)
    return {
        "log-loss": float(log_loss(targets, kept / kept.sum(axis=1, keepdims=True), labels=range(kept.shape[1]))),
        "AUC": float(roc_auc_score(targets, predictions[:, 1])),
    }


def rows(name: str, seed: int, library: Library, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each ensemble of a library and each other system."""
    found = at_median_budgets(library)  # it predicts the test split, which a search does not
    targets = library.targets("test")
    targets = targets[:, 0] if SETS[name].is_regression else targets
    lines = []
    for title, ensemble in found.items():
        predictions = test_predictions(library, ensemble)
        predictions = predictions[:, 0] if SETS[name].is_regression else predictions
        kinds = [m.split("-")[0] for m in ensemble.members]
        lines.append(
            {"set": name, "seed": seed, "system": title, "members": len(ensemble.members), "library": len(library)}
            | {"trees": kinds.count("trees"), "cost s": ensemble.cost["seconds"]}
            | scores(predictions, name, targets)
        )
    for title, predictions in peers(name, seed, options).items():
        lines.append({"set": name, "seed": seed, "system": title} | scores(predictions, name, targets))
    return lines


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row with its interval, and paired differences from AutoGluon."""
    groups = by_seed(found, "set", "system")
    lines = []
    for (name, system), group in groups.items():
        line = {"set": name, "system": system}
        line |= mean_row(group, ("library", "members", "trees", "cost s"), {key: (key, 1) for key in SCORES})
        loss = "RMSE" if SETS[name].is_regression else "log-loss"
        line["loss above AutoGluon"] = paired(group, groups.get((name, "AutoGluon"), {}), loss, 1)
        lines.append(line)
    return lines


def main() -> None:
    """Search all sets and seeds, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, required=True, help="folder of SET.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--autogluon", help="a Python with AutoGluon")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    if unknown := sorted(set(options.sets) - set(SETS)):
        parser.error(f"unknown set {unknown[0]!r}; expected {', '.join(SETS)}")
    runs = [(name, seed) for seed in options.seeds for name in options.sets]
    libraries = {}
    for name, seed in runs:
        libraries[name, seed] = search(name, seed, options)
        if options.autogluon:
            autogluon(name, seed, options)
        print(f"{name}, seed {seed}: {len(libraries[name, seed])} members", flush=True)
    if options.search_only:
        return
    found = [row for name, seed in runs for row in rows(name, seed, libraries[name, seed], options)]
    settings = {"minutes": options.minutes, "cores": CORES, **versions()}
    record_seeds("tasks-tables", settings, summary(found), found, MEDIAN)


if __name__ == "__main__":
    main()
