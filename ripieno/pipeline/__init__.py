"""The flow as code: dataset -> tune -> library -> select -> ensemble -> allocate -> bundle -> Engine.

Stages never import each other; this package joins them. Every function reads what an earlier one wrote to the run's
folder and returns the types of :mod:`ripieno.types`.
"""

from typing import TYPE_CHECKING, Any

from ripieno.deprecation import find_renamed
from ripieno.pipeline.allocation import allocate, explain, predict
from ripieno.pipeline.cascading import cascade
from ripieno.pipeline.costs import measure, static_costs
from ripieno.pipeline.diagnostics import Diagnostics, doctor
from ripieno.pipeline.exporting import export
from ripieno.pipeline.importing import evict, import_
from ripieno.pipeline.offline_plan import OfflinePlan, plan_offline
from ripieno.pipeline.runs import ProgressFunction, RunSummary, metric_of, open_run, show
from ripieno.pipeline.selection import ensemble_losses, front, select
from ripieno.pipeline.tuning import tune

__all__ = [
    "Diagnostics",
    "OfflinePlan",
    "ProgressFunction",
    "RunSummary",
    "allocate",
    "cascade",
    "doctor",
    "ensemble_losses",
    "evict",
    "explain",
    "export",
    "front",
    "import_",
    "measure",
    "metric_of",
    "open_run",
    "plan_offline",
    "predict",
    "select",
    "show",
    "static_costs",
    "tune",
]

if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(globals(), {"foresee": "plan_offline", "Forecast": "OfflinePlan"}, name)
