"""Options of the training jobs of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingConfig:
    """Training options that all jobs of a search share."""

    run: Path = Path("run")
    """folder of the library"""
    dataset: Path = Path("run/dataset")
    """folder of the prepared data set"""
    family: str = "resnet"
    """a built-in family (of `timm`, the configuration names the backbone) or the user's `module:function`, trusted
    because the user gave it; of another trainer than `network`, its name"""
    epochs: int = 27
    """most epochs of a job"""
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    """name in torch: `cpu`, `cuda:0`"""
    sharing: int = 1
    """trials that share a GPU"""
    spare: int = 0
    """cores per trainer for data loading"""
    compiled: bool = False
    """train networks with torch.compile: worth its minute on a GPU, for trials of hours"""
    deadline: float | None = None
    """time by `ripieno.clock` by which the next epoch of a job has to end, at the pace of its last one"""
    trainer: str = "network"
    """a built-in trainer or the user's `module:Class`, which is trusted because the user gave it"""
    measured: tuple[str, ...] = ()
    """costs that are measured after the first rung of each trial, see `member_costs`"""
    weights: tuple[str, ...] = ()
    """pretrained weights in `RUN/backbones` of backbones of timm, as `NAME-DIGEST`; others start random"""
