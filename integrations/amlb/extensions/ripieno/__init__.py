"""Framework ripieno of the AutoML benchmark: the part that runs in the benchmark's own process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np


def setup(*args: str, **options: Any) -> None:
    """Install ripieno into an environment of its own; `args` are those of the framework definition."""
    from amlb.utils import call_script_in_same_dir

    call_script_in_same_dir(__file__, "setup.sh", *args, **options)


def run(dataset: Any, config: Any) -> Any:
    """Run a task in ripieno's environment. Raises ValueError for a type of task that it has no answer for."""
    from frameworks.shared.caller import run_in_venv

    import_module(f"{__name__}.conversion").task_kind(config.type_)  # this package may have another name
    target = dataset.target

    def rows(split: Any) -> dict[str, Any]:
        # numbers of classes, as the benchmark's encoder gives them: no name has to survive the way to ripieno and back
        return {"X": split.X, "y": target.label_encoder.transform(np.asarray(split.y.iloc[:, 0]))}

    data = {"train": rows(dataset.train), "test": rows(dataset.test), "classes": list(target.values or ())}
    # data sets from files have no subsamples: rows in memory are measured alone
    if config.measure_inference_time and hasattr(dataset, "inference_subsample_files"):
        data["inference_files"] = dataset.inference_subsample_files(fmt="parquet", keep_empty_features=True)
    dense = {"sparse_matrix_deserialized_format": "dense", "sparse_dataframe_deserialized_format": "dense"}
    options = {"serialization": dense}
    return run_in_venv(__file__, "exec.py", input_data=data, dataset=dataset, config=config, options=options)
