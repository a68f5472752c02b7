"""What all jobs of a search share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingConfig:
    """What all jobs of a search share."""

    run: Path
    """folder of the library"""
    dataset: Path
    """folder of the prepared data set"""
    family: str
    """a built-in family or the user's `module:function`, which is trusted: the user gave it"""
    epochs: int
    """the most any job trains"""
    seed: int
    threads: int = 1
    device: str = "cpu"
    """as torch names it: `cpu`, `cuda:0`"""
    spare: int = 0
    """cores that may prepare data beside each trainer"""
    compiled: bool = False
    """whether networks are trained through torch.compile: worth its minute on a GPU, for trials of hours"""
    deadline: float | None = None
    """time by `ripieno.clock` after which a job stops at the end of its running epoch"""
