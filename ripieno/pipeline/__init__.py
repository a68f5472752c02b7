"""The flow as code: dataset -> tune -> library -> select -> ensemble -> allocate -> bundle -> Engine.

Stages never import each other; they meet here. Every function works alone on what an earlier one left in the run's
folder and returns the words of :mod:`ripieno.types`.
"""

from ripieno.pipeline.brought import evict, import_
from ripieno.pipeline.cascading import cascade
from ripieno.pipeline.checkup import Checkup, doctor
from ripieno.pipeline.costs import counted, measure
from ripieno.pipeline.deployment import allocate, predict
from ripieno.pipeline.ensembles import ensemble_losses, front, select
from ripieno.pipeline.explained import explain
from ripieno.pipeline.exporting import export
from ripieno.pipeline.foreseen import Forecast, foresee
from ripieno.pipeline.runs import Overview, Progress, metric_of, open_run, show
from ripieno.pipeline.tuning import tune

__all__ = [
    "Checkup",
    "Forecast",
    "Overview",
    "Progress",
    "allocate",
    "cascade",
    "counted",
    "doctor",
    "ensemble_losses",
    "evict",
    "explain",
    "export",
    "foresee",
    "front",
    "import_",
    "measure",
    "metric_of",
    "open_run",
    "predict",
    "select",
    "show",
    "tune",
]
