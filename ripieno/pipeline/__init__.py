"""The flow as code: dataset -> tune -> library -> select -> ensemble -> allocate -> bundle -> Engine.

Stages never import each other; this package joins them. Every function reads what an earlier one wrote to the run's
folder and returns the types of :mod:`ripieno.types`.
"""

from typing import TYPE_CHECKING, Any

from ripieno.deprecation import find_renamed
from ripieno.pipeline.allocation import allocate as allocate
from ripieno.pipeline.allocation import explain as explain
from ripieno.pipeline.cascading import cascade as cascade
from ripieno.pipeline.command_search import RankedConfiguration as RankedConfiguration
from ripieno.pipeline.command_search import tune_command as tune_command
from ripieno.pipeline.comparison import compare as compare
from ripieno.pipeline.costs import measure as measure
from ripieno.pipeline.costs import measured_costs as measured_costs
from ripieno.pipeline.costs import static_costs as static_costs
from ripieno.pipeline.coverages import coverage as coverage
from ripieno.pipeline.diagnostics import Diagnostics as Diagnostics
from ripieno.pipeline.diagnostics import doctor as doctor
from ripieno.pipeline.episodes import Episode as Episode
from ripieno.pipeline.episodes import run_episodes as run_episodes
from ripieno.pipeline.evaluation import BundleEvaluation as BundleEvaluation
from ripieno.pipeline.evaluation import evaluate as evaluate
from ripieno.pipeline.exporting import export as export
from ripieno.pipeline.history import add_history as add_history
from ripieno.pipeline.history import forget_history as forget_history
from ripieno.pipeline.history import list_history as list_history
from ripieno.pipeline.importing import evict as evict
from ripieno.pipeline.importing import import_ as import_
from ripieno.pipeline.label_suspects import suspects as suspects
from ripieno.pipeline.live_front import front_history as front_history
from ripieno.pipeline.lower_precision import variants as variants
from ripieno.pipeline.mask_prediction import PredictedMask as PredictedMask
from ripieno.pipeline.mask_prediction import predict_masks as predict_masks
from ripieno.pipeline.offline_plan import OfflinePlan as OfflinePlan
from ripieno.pipeline.offline_plan import plan_offline as plan_offline
from ripieno.pipeline.policy_search import PolicyResult as PolicyResult
from ripieno.pipeline.policy_search import augment as augment
from ripieno.pipeline.prediction import predict as predict
from ripieno.pipeline.reselection import Reselection as Reselection
from ripieno.pipeline.reselection import reselect as reselect
from ripieno.pipeline.reselection import reweight as reweight
from ripieno.pipeline.runs import ProgressFunction as ProgressFunction
from ripieno.pipeline.runs import RunSummary as RunSummary
from ripieno.pipeline.runs import metric_of as metric_of
from ripieno.pipeline.runs import open_run as open_run
from ripieno.pipeline.runs import show as show
from ripieno.pipeline.selection import ensemble_losses as ensemble_losses
from ripieno.pipeline.selection import front as front
from ripieno.pipeline.selection import select as select
from ripieno.pipeline.soups import soup as soup
from ripieno.pipeline.tuning import tune as tune

if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(globals(), {"foresee": "plan_offline", "Forecast": "OfflinePlan"}, name)
