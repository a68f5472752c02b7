"""Ensembles of deep networks that fit a budget: search, select, allocate and serve them.

    run = ripieno.tune("images/", run="run", hours=1)
    ensembles = ripieno.select(run, budgets=[5, 20])
    bundle = ripieno.allocate(run, ensembles[-1], bundle="bundle")
    with ripieno.Engine(bundle) as engine:
        probabilities = engine.predict(images)

Names are looked up on first use, so that importing ripieno costs nothing and pulls in neither torch nor ray.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripieno.engine import Engine as Engine
    from ripieno.engine import bench as bench
    from ripieno.errors import RipienoError as RipienoError
    from ripieno.library import Library as Library
    from ripieno.pipeline import add_history as add_history
    from ripieno.pipeline import allocate as allocate
    from ripieno.pipeline import augment as augment
    from ripieno.pipeline import cascade as cascade
    from ripieno.pipeline import compare as compare
    from ripieno.pipeline import coverage as coverage
    from ripieno.pipeline import doctor as doctor
    from ripieno.pipeline import evaluate as evaluate
    from ripieno.pipeline import evict as evict
    from ripieno.pipeline import export as export
    from ripieno.pipeline import forget_history as forget_history
    from ripieno.pipeline import front as front
    from ripieno.pipeline import front_history as front_history
    from ripieno.pipeline import import_ as import_
    from ripieno.pipeline import list_history as list_history
    from ripieno.pipeline import measure as measure
    from ripieno.pipeline import predict as predict
    from ripieno.pipeline import predict_masks as predict_masks
    from ripieno.pipeline import reselect as reselect
    from ripieno.pipeline import reweight as reweight
    from ripieno.pipeline import run_episodes as run_episodes
    from ripieno.pipeline import select as select
    from ripieno.pipeline import show as show
    from ripieno.pipeline import soup as soup
    from ripieno.pipeline import suspects as suspects
    from ripieno.pipeline import tune as tune
    from ripieno.pipeline import tune_command as tune_command
    from ripieno.pipeline import variants as variants
    from ripieno.pipeline.classifier import EnsembleClassifier as EnsembleClassifier
    from ripieno.pipeline.regressor import EnsembleRegressor as EnsembleRegressor
    from ripieno.reports import report as report
    from ripieno.selection import Choice as Choice
    from ripieno.selection import select_members as select_members
    from ripieno.server import serve as serve
    from ripieno.types import Allocation as Allocation
    from ripieno.types import Bundle as Bundle
    from ripieno.types import Dataset as Dataset
    from ripieno.types import Device as Device
    from ripieno.types import Ensemble as Ensemble
    from ripieno.types import Front as Front
    from ripieno.types import FrontEnsemble as FrontEnsemble
    from ripieno.types import LiveFront as LiveFront
    from ripieno.types import Member as Member
    from ripieno.types import Placement as Placement
    from ripieno.types import Profile as Profile

# nvidia-smi, which lists the GPUs, numbers them by bus position; CUDA by default numbers the fastest first
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

__version__ = "0.1.0"

_MODULES = {
    "engine": "Engine bench",
    "errors": "RipienoError",
    "library": "Library",
    "pipeline": "add_history allocate augment cascade compare coverage doctor evaluate evict export forget_history "
    "front front_history import_ list_history measure predict predict_masks reselect reweight run_episodes select "
    "show soup suspects tune tune_command variants",
    "pipeline.classifier": "EnsembleClassifier",
    "pipeline.regressor": "EnsembleRegressor",
    "reports": "report",
    "selection": "Choice select_members",
    "server": "serve",
    "types": "Allocation Bundle Dataset Device Ensemble Front FrontEnsemble LiveFront Member Placement Profile",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        importlib.import_module("ripieno.notebook").register()
        return getattr(importlib.import_module(f"ripieno.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ripieno' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
