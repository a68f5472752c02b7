"""Choice of a search's space and trainer, from the options given, the run's own, and the kind of data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ripieno.errors import SearchError
from ripieno.models.build import built_in_family, built_in_names, find_family
from ripieno.models.cell_config import FAMILY as CELL
from ripieno.models.family_config import network_group
from ripieno.models.policy_config import FAMILY as POLICY
from ripieno.models.smp_config import is_smp
from ripieno.models.timm_config import is_timm
from ripieno.models.unet_config import FAMILY as UNET
from ripieno.pipeline.smp_space import check_encoders
from ripieno.pipeline.timm_space import check_backbones, family_of_weights, fit_resolution
from ripieno.search.built_in_spaces import RETIRED, SPACES, find_space
from ripieno.search.settings import Settings
from ripieno.search.space import Space, fix_backbone, fix_encoder, fix_network
from ripieno.tasks.registry import TASKS
from ripieno.train.registry import TRAINERS, find_trainer
from ripieno.types import DataKind

AUTO = "auto"
"""Name of the space that the run, or else the trainer, the family and the data decide."""


def choose_space(
    space: str,
    family: str | None,
    trainer: str | None,
    weights: str | Path | None,
    before: Settings | None,
    on_gpu: bool,
    task: str | None = None,
) -> tuple[Space, str]:
    """Return the space of a search and its trainer; `before` are the settings of the run, if it has been searched.

    Without any other option the space is that of images, before the data are known: see `default_space`. `task` is the
    kind of task where it is known. Raises
    SearchError for options that contradict each other, and for code of the user's that was not named.
    """
    if weights is not None and (family, trainer, space, before) == (None, None, AUTO, None):
        family = family_of_weights(weights, _is_pixelwise(task))
    if before is not None and (space == AUTO or (space in SPACES | RETIRED and space == before.space.name)):
        found = before.space  # a built-in space may have been fitted to the data and the time
    elif space == AUTO:
        found = default_space(trainer, on_gpu, family, task=task)
    else:
        found = find_space(space)
    if family and trainer not in (None, "network"):
        raise SearchError(f"family {family} is of networks, not of trainer {trainer}: leave one of them out")
    if family and is_timm(family):
        found = fit_resolution(fix_backbone(found, family))
    elif family and is_smp(family):
        found = fix_encoder(found, family)
    elif family and network_group(family):
        found = fix_network(found, family)
    elif family:
        find_family(family, (family,))
        found = dataclasses.replace(found, family=family)
    elif trainer not in (None, "network"):
        if trainer not in TRAINERS:
            find_trainer(trainer, (trainer,))
        found = dataclasses.replace(found, family=trainer)
    elif found.family in TRAINERS:
        trainer = found.family
    elif built_in_family(found.family) is None:
        own, named = found.family, "of the run" if space == AUTO else space
        raise SearchError(
            f"space {named} names the family {own!r}: it must be {built_in_names()}, or your own code, which is "
            f"run only when you name it too: --family {own} (family=), or --trainer {own} (trainer=)"
        )
    if is_timm(found.family):
        check_backbones(found)
    if is_smp(found.family):
        check_encoders(found)
    return found, trainer or "network"


def default_space(
    trainer: str | None,
    on_gpu: bool,
    family: str | None = None,
    kind: DataKind = "image",
    task: str | None = None,
) -> Space:
    """Return the built-in space of a built-in trainer and family, or without one that of the `kind` of data and `task`.

    Raises SearchError for a trainer of the user's.
    """
    if family and is_smp(family):
        return find_space("segmentation-pretrained")
    if task == POLICY and not family and trainer in (None, "network"):
        return find_space(POLICY)
    if family == UNET or (not family and trainer in (None, "network") and _is_pixelwise(task)):
        return find_space("segmentation" if on_gpu else "segmentation-small")
    if family and is_timm(family):
        return find_space("timm" if on_gpu else "timm-small")
    if family == CELL:
        return find_space("cell-series" if kind == "series" else "cell-segmentation" if _is_pixelwise(task) else "cell")
    if trainer in (None, "network") and (group := network_group(family or kind)):
        return find_space(group)
    if trainer in (None, "network"):
        return find_space("resnet" if on_gpu else "resnet-small")
    found = next((space for space in SPACES.values() if space.family == trainer), None)
    if found is None:
        raise SearchError(f"trainer {trainer} has no space of its own: pass its hyperparameters with --space FILE.json")
    return found


def _is_pixelwise(task: str | None) -> bool:
    """Return whether a kind of task predicts pixels; an unknown one is refused later."""
    return task in TASKS and TASKS[str(task)].is_pixelwise
