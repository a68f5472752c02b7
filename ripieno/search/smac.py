"""SMAC3 as an Optuna sampler: a random forest of the results, and the configuration it rates best."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from smac import HyperparameterOptimizationFacade as Facade
from smac import Scenario
from smac.model.random_forest import RandomForest
from smac.runhistory import StatusType
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from ripieno.search.in_memory_study import ranked

STARTUP = 10
"""Number of results from random configurations before SMAC is used, as in Optuna's samplers."""


class SmacSampler(RandomSampler):
    """SMAC3 sampler without state: every trial replays all results into a new optimiser, about 0.5 s at 200 trials."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed % 2**31

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return all ranges once there are `STARTUP` results, none before."""
        known = ranked(study)
        return dict(known[0].distributions) if len(known) >= STARTUP else {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of SMAC's next configuration."""
        if not search_space:
            return {}
        space = _config_space(search_space, self._seed)
        known = ranked(study)
        with tempfile.TemporaryDirectory() as folder:
            facade = _facade(space, self._seed, folder, _encoded(space, search_space, known[0]))
            worst = max(_loss(t) for t in known)
            for done in study.get_trials(deepcopy=False):
                if done.state.is_finished():
                    failed = not done.intermediate_values  # its loss is infinite, which no forest can learn
                    value = TrialValue(worst, status=StatusType.CRASHED) if failed else TrialValue(_loss(done))
                    facade.tell(TrialInfo(_encoded(space, search_space, done), seed=0), value, save=False)
            chosen = dict(facade.ask().config)
        return {name: _decoded(choice, chosen[name]) for name, choice in search_space.items()}


def _facade(space: ConfigurationSpace, seed: int, folder: str, first: Configuration) -> Facade:
    """Return SMAC's black-box optimiser without an initial design of its own: `first` has a result already."""
    scenario = Scenario(space, deterministic=True, n_trials=2**31, output_directory=Path(folder), seed=seed)
    # the facade's default forest with two changes: one thread (with more, each of hundreds of predictions waits for a
    # thread pool), and 2^12 instead of 2^20 leaves (that limit alone costs scikit-learn 0.1 s per tree)
    forest = RandomForest(
        space,
        n_trees=10,
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_depth=2**20,
        max_leaf_nodes=2**12,
        bootstrapping=True,
        log_y=True,
        seed=seed,
        n_jobs=1,
    )
    return Facade(
        scenario,
        _never,
        model=forest,
        initial_design=Facade.get_initial_design(scenario, n_configs=0, additional_configs=[first]),
        config_selector=Facade.get_config_selector(scenario, retrain_after=1),
        logging_level=False,
        overwrite=True,
    )


def _never(config: Configuration, seed: int = 0) -> float:  # noqa: ARG001
    """Fail: SMAC requires a function, but is used through ask and tell."""
    raise AssertionError("SMAC ran a trial itself")


def _loss(trial: FrozenTrial) -> float:
    return trial.intermediate_values[trial.last_step or 0]


def _config_space(ranges: Mapping[str, BaseDistribution], seed: int) -> ConfigurationSpace:
    space = ConfigurationSpace(seed=seed)
    for name, choice in ranges.items():
        if isinstance(choice, CategoricalDistribution):  # by index: choices may have several types
            space.add(Categorical(name, list(range(len(choice.choices)))))
        elif isinstance(choice, IntDistribution):  # by number of steps
            low, high = (choice.low, choice.high) if choice.log else (0, (choice.high - choice.low) // choice.step)
            space.add(Integer(name, (low, high), log=choice.log) if low < high else Categorical(name, [low]))
        else:
            assert isinstance(choice, FloatDistribution)
            bounds = (choice.low, choice.high)
            space.add(
                Float(name, bounds, log=choice.log) if choice.low < choice.high else Categorical(name, bounds[:1])
            )
    return space


def _encoded(space: ConfigurationSpace, ranges: Mapping[str, BaseDistribution], trial: FrozenTrial) -> Configuration:
    """Return the configuration of `trial` in SMAC's encoding."""
    values = {}
    for name, choice in ranges.items():
        value = trial.params[name]
        if isinstance(choice, CategoricalDistribution):
            value = int(choice.to_internal_repr(value))
        elif isinstance(choice, IntDistribution) and not choice.log:
            value = (value - choice.low) // choice.step
        values[name] = value
    return Configuration(space, values)


def _decoded(choice: BaseDistribution, value: Any) -> Any:
    """Invert `_encoded` for one value."""
    if isinstance(choice, CategoricalDistribution):
        return choice.choices[int(value)]
    if isinstance(choice, IntDistribution):
        return int(value) if choice.log else choice.low + int(value) * choice.step
    return float(value)
