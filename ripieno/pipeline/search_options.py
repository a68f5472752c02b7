"""Options of a search, as the command line and Python give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ripieno.pipeline.budgets import Budget

if TYPE_CHECKING:
    from ripieno.search.algorithms import Algorithm

FreeMembers = Literal["on", "off"]


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search. What is None is as in the run, or the default of `ripieno.search.settings.Settings`."""

    hours: float | None = None
    """bound of the search; one hour without `trials`"""
    trials: int | None = None
    """bound of the number of trials"""
    epochs: int | None = None
    space: str = "auto"
    """name or JSON file; `auto`: that of the run, else `series` of series, `table` of tables, `resnet` of images on a
    GPU and `resnet-small` on a CPU, of masks `segmentation` and `segmentation-small`; of networks of timm, which a
    family or `weights` name, `timm` or `timm-small`, and of smp `segmentation-pretrained`"""
    algorithm: str | Path | Algorithm | None = None
    """a name, `SCHEDULER+SAMPLER`, a JSON file or the record: see `ripieno.search.Algorithm`"""
    step: float | None = None
    """ratio of the epochs of two rungs; the algorithm's"""
    keep: int | None = None
    """one in `keep` trials of a rung trains on to the next; the algorithm's"""
    eta: int | None = None
    """sets `step` and `keep`"""
    first: int | None = None
    """of popnas: number of the first trials, which have one block; the algorithm's"""
    beam: int | None = None
    """of popnas: trials of each further number of blocks; the algorithm's"""
    macro: str | None = None
    """of popnas: when other hyperparameters are searched: `along` or `after`; the algorithm's"""
    seed: int | None = None
    constraint: Sequence[str] | None = None
    """bounds of trials, such as `bytes<=4e6`, `latency<=0.010` or `accuracy>=0.8`; None: the run's, or none"""
    family: str | None = None
    """`timm:NAME`, a network of timm, `unet` or `smp:ARCHITECTURE/ENCODER` for segmentation, one of series or tables,
    such as `lite` or `mlp`, or the user's own model family (`module:function`), whose code is run"""
    trainer: str | None = None
    """`network`, `trees:lightgbm`, `trees:random-forest`, `trees:extra-trees`, or the user's own (`module:Class`),
    whose code is run"""
    free: FreeMembers = "on"
    """`on`: a new search begins with free members, trees that take seconds; see `ripieno.pipeline.free_members`"""
    without: str | Sequence[str] | None = None
    """changes that augmentation leaves out, such as `flip` or `rotate`: see `ripieno.search.augmentation_space`"""
    weights: str | Path | None = None
    """pretrained weights of networks of timm: a .safetensors file, a folder of NAME.safetensors, or `hub`, which
    allows their download; None: those of the run, else none"""
    augmentation: str | Path | None = None
    """JSON file of the policy of augmentation that all networks train with, such as one of `augment`; None: that of
    the run, else the space's"""
    budget: Budget | None = None
    """what an ensemble may cost, as `select` takes it; see `ripieno.pipeline.search_budget`"""
    objective: str | Sequence[str] | None = None
    """what is made small, such as `loss,flops`; the loss alone where the run has no other: see
    `ripieno.search.objectives`"""
    from_: str | Path | Sequence[str | Path] | None = None
    """earlier runs of the same space, records of them, or `built-in`, from which a new search learns: see
    `ripieno.pipeline.warm_start`"""
    history: str | Path | None = None
    """folder of records of earlier runs, from which a new search learns, or `built-in`; None: what RIPIENO_HISTORY
    names, if anything"""
