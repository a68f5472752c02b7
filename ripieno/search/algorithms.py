"""The algorithm of a search as one record: a scheduler (trial and epochs), a sampler (configuration), their options.

A record is written as a JSON file and read from one. The algorithms that have a name are such records, and
`ripieno algorithm NAME` prints one as a file to start from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from ripieno.config import check_fields, read_config, update
from ripieno.errors import RipienoError, SearchError
from ripieno.search.asha import Asha, IsFavoured, hyperband
from ripieno.search.generations import Generations
from ripieno.search.samplers import SAMPLERS, MakeSampler, bind_sampler, complete_options
from ripieno.search.scheduler import Scheduler

HALVING = "halving"
"""Name of successive halving, the scheduler that all options of `Algorithm` describe."""
MakeScheduler = Callable[[int, int, int | None], Scheduler]
"""Factory of another scheduler; arguments: maximum epochs of a trial, `keep`, maximum number of trials."""
SCHEDULERS: dict[str, MakeScheduler] = {
    "generations": lambda epochs, _keep, trials: Generations(epochs, trials=trials),
}
"""Schedulers besides successive halving, by name; add custom ones here. `generations` runs a dozen trials at a time."""
GROWTH_OPTIONS = ("first", "beam", "macro")
"""Options of the sampler that grows cells, which commands have too."""
OF_GROWTH = (*GROWTH_OPTIONS, "time_learner")
"""All options of that sampler: other algorithms are written without them."""
SAMPLER_OPTIONS = ("random_share", "candidates", "learner", *OF_GROWTH)
"""Options of samplers."""
Brackets = Literal["all", "one", "full"]
Rule = Literal["promotion", "stopping"]


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The whole algorithm of a search. Raises SearchError that names an option and what it must be."""

    name: str = field(default="", compare=False)
    """for people; it decides nothing"""
    scheduler: str = HALVING
    """`halving`, `generations`, or one that you added to `SCHEDULERS`; the next four options describe `halving`"""
    brackets: Brackets = "all"
    """`all` of Hyperband's, `one` (from the lowest rung, as in ASHA), or `full`: every trial to its last epoch"""
    rule: Rule = "promotion"
    """`promotion`: a trial pauses at a rung until it is among its best; `stopping`: it trains on at once, or never"""
    step: float = 3
    """fidelity: ratio of the epochs of two rungs, above 1"""
    keep: int = 3
    """survival: one in `keep` of the trials of a rung trains on to the next; at least 2"""
    sampler: str = "random"
    """name of a sampler; the next options are for it, None: its default, or it has none"""
    random_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    """share of the new trials with a random configuration, whatever the sampler"""
    candidates: Annotated[int, Meta(ge=1)] | None = None
    """configurations that the sampler rates for every one that it proposes"""
    learner: str | None = None
    """model that the sampler fits to the results"""
    first: Annotated[int, Meta(ge=1)] | None = None
    """of `popnas`: number of the first trials, which have one block"""
    beam: Annotated[int, Meta(ge=1)] | None = None
    """of `popnas`: trials of each further number of blocks"""
    macro: Literal["along", "after"] | None = None
    """of `popnas`: whether other hyperparameters are searched along with the cells, or after them on their front"""
    time_learner: str | None = None
    """of `popnas`: model of the seconds of training"""

    def __post_init__(self) -> None:
        check_fields(self, SearchError)
        if not (isfinite(self.step) and self.step > 1):
            raise SearchError(f"step {self.step:g}: the ratio of the epochs of two rungs must be above 1")
        if self.keep < 2:
            raise SearchError(f"keep {self.keep}: one in `keep` trials survives a rung, so it must be at least 2")
        if self.scheduler != HALVING:
            _check_other_scheduler(self)
        given = {name: getattr(self, name) for name in SAMPLER_OPTIONS}
        for name, value in complete_options(self.sampler, given).items():
            object.__setattr__(self, name, value)


def _check_other_scheduler(algorithm: Algorithm) -> None:
    name = algorithm.scheduler
    if name not in SCHEDULERS:
        raise SearchError(f"no scheduler {name!r}; there are: {', '.join((HALVING, *SCHEDULERS))}")
    if algorithm.step != algorithm.keep or (algorithm.brackets, algorithm.rule) != ("all", "promotion"):
        raise SearchError(f"scheduler {name} has no brackets, rule, or step other than keep: leave them out")


LADDERS: dict[str, dict[str, str]] = {
    "full": {"brackets": "full"},
    "asha": {"brackets": "one"},
    "hyperband": {},
    "asha-stopping": {"brackets": "one", "rule": "stopping"},
    "hyperband-stopping": {"rule": "stopping"},
}
"""Options of successive halving by the names that pairs such as `asha+tpe` use."""


def _pair(scheduler: str, sampler: str, name: str) -> Algorithm:
    """Return the algorithm of a pair of names. Raises SearchError that lists the known names."""
    if scheduler not in LADDERS and scheduler not in SCHEDULERS:
        raise SearchError(f"no scheduler {scheduler!r}; there are: {', '.join((*LADDERS, *SCHEDULERS))}")
    options: dict[str, Any] = {"scheduler": scheduler} if scheduler in SCHEDULERS else LADDERS[scheduler]
    return Algorithm(name=name, sampler=sampler, **options)


_PAIRS = {
    "hyperband": ("hyperband", "random"),
    "asha": ("asha", "random"),
    "random": ("full", "random"),
    "bohb": ("hyperband", "multivariate-tpe"),
    "tpe": ("full", "tpe"),
    "gp": ("full", "gp"),
    "smac": ("full", "smac"),
    "genetic": ("generations", "genetic"),
    "forest": ("hyperband", "forest"),
    "popnas": ("full", "popnas"),
}
ALGORITHMS = {name: _pair(*pair, name) for name, pair in _PAIRS.items()}
"""Algorithms by name; any other pair is written `SCHEDULER+SAMPLER`, as in `asha+forest`."""


def find_algorithm(algorithm: str | Path | Algorithm) -> Algorithm:
    """Return the algorithm of a name, of `scheduler+sampler`, of a JSON file, or the record itself.

    Raises SearchError that lists the known names, or names the file and what is wrong in it.
    """
    if isinstance(algorithm, Algorithm):
        return algorithm
    name = str(algorithm)
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if is_file(name):
        return _read(Path(name))
    scheduler, plus, sampler = name.partition("+")
    if not plus:
        raise SearchError(
            f"no algorithm {name!r}; there are: {', '.join(ALGORITHMS)}, or a scheduler "
            f"({', '.join((*LADDERS, *SCHEDULERS))}) and a sampler ({', '.join(SAMPLERS)}) as in hyperband+tpe, "
            "or the path of a .json file"
        )
    return _pair(scheduler, sampler, name)


def is_file(algorithm: str | Path | Algorithm) -> bool:
    """Return True if `algorithm` is the path of a JSON file."""
    return not isinstance(algorithm, Algorithm) and str(algorithm).endswith(".json")


def _read(path: Path) -> Algorithm:
    """Read an algorithm from a JSON file; options that it leaves out are those of `Algorithm()`, Hyperband's."""
    try:
        return read_config(Algorithm(name=path.stem), path)
    except RipienoError as error:
        raise SearchError(f"algorithm {error}") from error


def algorithm_from_plain(plain: Mapping[str, Any]) -> Algorithm:
    """Return the algorithm of plain values, as `algorithm_to_plain` gives them. Raises SearchError."""
    try:
        return update(Algorithm(), plain)
    except RipienoError as error:
        raise SearchError(str(error)) from error


def algorithm_to_plain(algorithm: Algorithm) -> dict[str, Any]:
    """Return all options of an algorithm as plain values, for JSON."""
    step = int(algorithm.step) if algorithm.step.is_integer() else algorithm.step
    plain = asdict(algorithm) | {"step": step}
    return {name: value for name, value in plain.items() if value is not None or name not in OF_GROWTH}


def change_algorithm(
    algorithm: str | Path | Algorithm,
    asked: str | Path | Algorithm | None = None,
    eta: int | None = None,
    step: float | None = None,
    keep: int | None = None,
    **growth: Any,
) -> Algorithm:
    """Return the `asked` algorithm, or `algorithm`, with another `step` and `keep`; `eta` sets both.

    `growth` are `GROWTH_OPTIONS`; None leaves one as it is. Asked for by its name, the algorithm stays as it is: that
    of a run may have had its options changed. Raises SearchError as `find_algorithm`, and for `eta` with one of the
    two.
    """
    found = find_algorithm(algorithm)
    if asked is not None and (is_file(asked) or asked != found.name):
        found = find_algorithm(asked)
    if eta is not None:
        if step is not None or keep is not None:
            raise SearchError("eta sets step and keep: give eta alone, or step and keep")
        if eta < 2:
            raise SearchError(f"eta {eta}: must be at least 2")
        step = keep = eta
    changes: dict[str, Any] = {"step": step, "keep": keep, **growth}
    return replace(found, **{name: value for name, value in changes.items() if value is not None})


def make_scheduler(
    algorithm: Algorithm, epochs: int, trials: int | None, is_favoured: IsFavoured | None = None
) -> Scheduler:
    """Return the scheduler of trials of at most `epochs` epochs; `trials` limits their number, None: no limit.

    Successive halving stops fewer of the trials that `is_favoured`.
    """
    if algorithm.scheduler != HALVING:
        return SCHEDULERS[algorithm.scheduler](epochs, algorithm.keep, trials)
    brackets = hyperband(epochs, algorithm.step)
    if algorithm.brackets != "all":
        brackets = brackets[:1] if algorithm.brackets == "one" else ((epochs,),)
    return Asha(brackets, algorithm.keep, trials, algorithm.rule == "stopping", algorithm.step, is_favoured)


def make_sampler(algorithm: Algorithm) -> MakeSampler:
    """Return the factory of the algorithm's sampler, with its options."""
    options = {name: getattr(algorithm, name) for name in SAMPLER_OPTIONS}
    return bind_sampler(algorithm.sampler, options)


def find_mismatch(algorithm: str | Path | Algorithm, objectives: int = 1) -> str:
    """Return a line that warns if the scheduler and the sampler of an algorithm hardly help each other, else "".

    `objectives` is their number.
    """
    found = find_algorithm(algorithm)
    if found.sampler in ("nsga2", "nsga3") and found.scheduler == HALVING and found.brackets != "full":
        return (
            f"sampler {found.sampler} takes parents only from trials at their last epoch, and this algorithm trains "
            f"few to it: use full+{found.sampler}, or sampler genetic or forest, which learn from every rung"
        )
    if found.sampler.startswith("parego-") and objectives == 1:
        return f"sampler {found.sampler} combines several objectives, and this search has one: name others in objective"
    if found.sampler in ("gp", "parego-gp") and found.scheduler == HALVING and found.brackets != "full":
        return (
            f"sampler {found.sampler} learns only from trials at their last epoch, and this algorithm trains few to "
            "it: use algorithm gp, which trains all, or sampler forest, which learns from every rung"
        )
    if found.scheduler == "generations" and found.sampler in SAMPLERS.keys() - {"genetic"}:
        return (
            "scheduler generations lets workers wait for the slowest of each dozen trials, which only genetic needs: "
            f"use full+{found.sampler}"
        )
    return ""


def check_algorithm(algorithm: str | Path | Algorithm) -> None:
    """Raise SearchError if the algorithm is unknown, MissingExtraError if a package it needs is not installed."""
    found = find_algorithm(algorithm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that a sampler is experimental
        make_sampler(replace(found, random_share=0.0))(0)
