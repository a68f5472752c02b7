"""Optuna's NSGA-II and NSGA-III, whose generations follow from the results alone.

Optuna's own keep the generation of a trial, and the parents of a generation, in the study. A resumed search has only
its results, so here a generation is complete with every `population_size` trials that reached their last epoch, in the
order in which their results were reported. The parents of a generation are selected from it and from its own parents.
"""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.samplers._ga import BaseGASampler
from optuna.trial import FrozenTrial, TrialState

from ripieno.search.in_memory_study import ReportedStudy


class _GenerationsOfResults(BaseGASampler):
    """Genetic sampler of Optuna's without state in the study."""

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:  # noqa: ARG002
        """Return the number of complete generations."""
        return len(_finished(study)) // (self.population_size or 1)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the parents of `generation`; none of the first."""
        if generation == 0:
            return []
        assert isinstance(study, ReportedStudy), "generations are counted by the results of a search of ripieno"
        key = type(self).__name__, generation
        if key not in study.cache:
            size = self.population_size or 1
            last = _finished(study)[(generation - 1) * size : generation * size]
            candidates = [*last, *self.get_parent_population(study, generation - 1)]
            # NSGA-III selects at random: the seed is the generation's, as all of its trials have the same parents
            make: Any = type(self)  # one of the two below
            chosen = make(seed=generation)._elite_population_selection_strategy(study, candidates)
            study.cache[key] = [trial.number for trial in chosen]
        trials = study.get_trials(deepcopy=False)
        return [trials[number] for number in study.cache[key]]


class NsgaTwoSampler(_GenerationsOfResults, NSGAIISampler):
    """NSGA-II: parents by non-dominated layer, then by crowding distance."""


class NsgaThreeSampler(_GenerationsOfResults, NSGAIIISampler):
    """NSGA-III: parents by non-dominated layer, then by reference points."""


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the trials at their last epoch, in the order in which they were reported."""
    assert isinstance(study, ReportedStudy), "generations are counted by the results of a search of ripieno"
    trials: list[Any] = study.get_trials(deepcopy=False)
    found = [trials[result.trial] for result in study.results if result.last]
    return [trial for trial in found if trial.state == TrialState.COMPLETE]
