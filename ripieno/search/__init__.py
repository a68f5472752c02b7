"""Hyperparameter search: spaces, schedulers, samplers, and the driver that keeps a pool of workers busy."""

from ripieno.search.algorithms import ALGORITHMS as ALGORITHMS
from ripieno.search.algorithms import SCHEDULERS as SCHEDULERS
from ripieno.search.algorithms import Algorithm as Algorithm
from ripieno.search.algorithms import find_algorithm as find_algorithm
from ripieno.search.built_in_spaces import SPACES as SPACES
from ripieno.search.built_in_spaces import find_space as find_space
from ripieno.search.progress import Snapshot as Snapshot
from ripieno.search.progress import Summary as Summary
from ripieno.search.run import Simulation as Simulation
from ripieno.search.run import run_search as run_search
from ripieno.search.run import simulate as simulate
from ripieno.search.samplers import SAMPLERS as SAMPLERS
from ripieno.search.settings import Settings as Settings
from ripieno.search.space import Categorical as Categorical
from ripieno.search.space import Continuous as Continuous
from ripieno.search.space import Integer as Integer
from ripieno.search.space import Range as Range
from ripieno.search.space import Space as Space
from ripieno.search.space import space_from_json as space_from_json
