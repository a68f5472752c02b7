"""Hyperparameter search: spaces, schedulers, samplers, and the driver that keeps a pool of workers busy."""

from ripieno.search.algorithms import ALGORITHMS, SCHEDULERS, Algorithm
from ripieno.search.progress import Snapshot, Summary
from ripieno.search.run import Simulation, run_search, simulate
from ripieno.search.samplers import SAMPLERS
from ripieno.search.settings import Settings
from ripieno.search.space import SPACES, Categorical, Continuous, Integer, Range, Space, find_space, space_from_json

__all__ = [
    "ALGORITHMS",
    "SAMPLERS",
    "SCHEDULERS",
    "SPACES",
    "Algorithm",
    "Categorical",
    "Continuous",
    "Integer",
    "Range",
    "Settings",
    "Simulation",
    "Snapshot",
    "Space",
    "Summary",
    "find_space",
    "run_search",
    "simulate",
    "space_from_json",
]
