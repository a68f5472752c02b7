"""Framework ripieno of the AutoML benchmark: the part that runs in ripieno's environment, once for each fold."""

from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from conversion import (
    Parameters,
    class_probabilities,
    column_kinds,
    fit_seconds,
    read_parameters,
    rows_of_rare_classes,
    samples_of,
    slots_for,
    task_kind,
)
from frameworks.shared.callee import call_run, measure_inference_times, output_subdir, result
from frameworks.shared.utils import Timer, zip_path
from memory_guard import MemoryGuard

import ripieno
from ripieno.data.prediction_inputs import read_inputs
from ripieno.errors import SearchError

log = logging.getLogger(__name__)

HELD = 3
"""Seconds for which the pipes to the benchmark stay open after the end of this process."""
MEASURED = 100
"""Rows whose prediction is timed, one at a time."""


def run(dataset: Any, config: Any) -> dict[str, Any]:
    """Search, select and predict, within the benchmark's limits of time, cores and memory."""
    log.info("ripieno %s", ripieno.__version__)
    parameters = read_parameters(config.framework_params)
    classification = task_kind(config.type_) == "classification"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.cores])
    folder = Path(config.result_dir) / "run"  # the benchmark removes it, however this process ends
    train, test = dataset.train, dataset.test
    targets = train.y.reshape(-1).astype(np.int64 if classification else np.float64)
    frame = train.X
    if classification and len(rare := rows_of_rare_classes(targets)):
        log.info("%d rows of rare classes are repeated, so that each split of ripieno has one", len(rare))
        frame, targets = pd.concat([frame, frame.iloc[rare]]), np.concatenate([targets, targets[rare]])

    with Timer() as training, MemoryGuard(config.max_mem_size_mb):
        estimator = _estimator(parameters, frame, config, classification, folder)
        _fit(estimator, samples_of(frame, parameters.images), targets, config)
    log.info("Finished fit in %.1f s.", training.duration)

    bundle, inference_times = estimator.bundle_, {}
    with ripieno.Engine(bundle) as engine:

        def predict(rows: Any) -> tuple[Any, Any]:
            rows = pd.read_parquet(rows) if isinstance(rows, str) else rows
            samples = samples_of(rows, parameters.images)
            predicted = engine.predict(read_inputs(samples, bundle.input)[1])
            if not classification:
                return predicted[:, 0].astype(np.float64), None
            probabilities = class_probabilities(predicted, estimator.classes_, len(dataset.classes))
            return probabilities.argmax(axis=1), probabilities

        if config.measure_inference_time:
            single = [(1, test.X.sample(1, random_state=i)) for i in range(MEASURED)]
            inference_times["df"] = measure_inference_times(predict, single)
            if files := getattr(dataset, "inference_files", None):
                inference_times["file"] = measure_inference_times(predict, files)
            log.info("Finished inference time measurements.")
        with Timer() as prediction:
            predictions, probabilities = predict(test.X)
    log.info("Finished predict in %.1f s.", prediction.duration)

    library = ripieno.Library(folder)
    _save_artefacts(parameters.artefacts, library, estimator, config)
    return result(
        output_file=config.output_predictions_file,
        predictions=predictions,
        probabilities=probabilities,
        truth=test.y.reshape(-1),
        target_is_encoded=classification,
        models_count=len(library),
        models_ensemble_count=len(estimator.ensemble_.members),
        training_duration=training.duration,
        predict_duration=prediction.duration,
        inference_times=inference_times,
    )


def _estimator(parameters: Parameters, frame: Any, config: Any, classification: bool, folder: Path) -> Any:
    """Return the estimator of a task, whose fit takes the time that the benchmark leaves."""
    options = dict(parameters.search)
    if (slots := slots_for(config.cores, config.max_mem_size_mb)) is not None:
        options.setdefault("slots", slots)
    if not parameters.images:
        options |= {"column": column_kinds(frame)}
    options |= {"kind": "image" if parameters.images else "table", "random_state": config.seed, "run": folder}
    make = ripieno.EnsembleClassifier if classification else ripieno.EnsembleRegressor
    elapsed = time.time() - psutil.Process().create_time()
    seconds = fit_seconds(config.max_runtime_seconds, elapsed)
    log.info("Fitting for %.0f of %d s on %d cores.", seconds, config.max_runtime_seconds, config.cores)
    return make(hours=seconds / 3600, verbose=1, **options)


def _fit(estimator: Any, samples: Any, targets: Any, config: Any) -> None:
    """Fit the estimator. Raises ValueError where the time was too short for one member."""
    try:
        estimator.fit(samples, targets)
    except SearchError as error:
        if "in the time given" not in str(error):
            raise
        limit = f"max_runtime_seconds {config.max_runtime_seconds:g}"
        raise ValueError(f"{limit} is too little: nothing was trained in it: give more") from error


def _save_artefacts(names: tuple[str, ...], library: Any, estimator: Any, config: Any) -> None:
    """Write artefacts to the benchmark's output folder; a failure is logged, and leaves the result."""
    try:
        if "leaderboard" in names:
            path = Path(output_subdir("leaderboard", config)) / "leaderboard.csv"
            _write_leaderboard(path, library, set(estimator.ensemble_.members))
        if "front" in names:
            ripieno.front(library, cost="parameters")
            content = (library.path / "front.json").read_bytes()
            (Path(output_subdir("front", config)) / "front.json").write_bytes(content)
        if "models" in names:
            zip_path(str(estimator.bundle_.path), str(Path(output_subdir("models", config)) / "models.zip"))
    except Exception:
        log.warning("Error when saving artifacts.", exc_info=True)


def _write_leaderboard(path: Path, library: Any, chosen: set[str]) -> None:
    """Write a line for each member of the library, the best first."""
    members = sorted(library.members(), key=lambda m: m.loss)
    losses = sorted({name for m in members for name in m.losses if name.startswith("valid_")})
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["member", "family", "in_ensemble", *losses, "parameters", "train_seconds", "configuration"])
        for m in members:
            scores = [m.losses.get(name, "") for name in losses]
            lines.writerow([m.id, m.family, m.id in chosen, *scores, m.parameters, m.seconds, dict(m.configuration)])


if __name__ == "__main__":
    call_run(run)
    # The benchmark takes the end of the pipes for the end of this process, and fails when it is a moment early: a child
    # keeps them open, and this process ends at once.
    subprocess.Popen(["sleep", str(HELD)], start_new_session=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
