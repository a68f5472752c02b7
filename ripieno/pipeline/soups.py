"""Library -> soups: members whose weights are the mean of those of several fine-tuned trials.

The greedy soup of Wortsman et al. 2022 (algorithm 1), for each backbone and resolution: the members are tried from the
best on by validation loss, and each stays in the average if its loss does not rise. A soup costs as much as one of its
members.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ripieno import clock, files
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.broken import read_sound
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.library.soups import SoupStep, read_steps, write_steps
from ripieno.models.backbone_id import BackboneId, split_stem
from ripieno.models.timm_config import PREFIX, backbone_config
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.resources import sleep_while_waiting, usable_cores
from ripieno.search.settings import kept_settings
from ripieno.shell_command import command
from ripieno.types import Dataset, Member

if TYPE_CHECKING:
    from ripieno.models.build import Network

CANDIDATES = 20
"""Trials of a backbone and resolution that are tried, where the user sets no number."""
LEAST = 2
"""Trials of which an average can be made."""


@dataclass(frozen=True)
class Soup:
    """Result of the trials on one backbone."""

    backbone: BackboneId
    best: Member
    """best of them alone, by validation loss"""
    tried: int
    """number of them that were tried, the best included"""
    member: Member | None
    """mean of some of them; None where no average is as good as the best alone"""
    added: bool
    """whether the library did not have it before"""


def soup(
    run: str | Path | Library,
    *,
    candidates: int = CANDIDATES,
    device: str = ExecutionConfig.device,
    progress: ProgressFunction = no_progress,
) -> tuple[Soup, ...]:
    """Add the averages of fine-tuned trials' weights to the library of `run`; return them, the best first.

    Trials are averaged if they began from the same pretrained weights at the same resolution: of each its best member,
    and at most `candidates` of them. Members that share a frozen backbone, such as those of first epochs, are left out.
    The statistics of batch norms are computed again from training samples if that lowers the validation loss. Averages
    that were evaluated before are not evaluated again; a soup of other trials than before is another member.

    `device` is `auto`, `cpu` or `cuda`.

    Raises LibraryError when the run has no two such trials, RipienoError while it is searched, MissingExtraError
    without timm.
    """
    library = open_run(run, writing=True)
    if candidates < LEAST:
        raise LibraryError(f"candidates is {candidates}: at least {LEAST} trials must be tried")
    with files.locked(library.path / "lock", "a search or a soup"):
        found = find_fine_tuned(library)
        if not any(len(members) >= LEAST for members in found.values()):
            raise LibraryError(_explain_none(library))
        found = {key: _readable(library, members) for key, members in found.items()}
        sleep_while_waiting()  # before PyTorch is loaded
        from ripieno.models.torchvision_import import import_timm

        import_timm()
        on = "cuda" if ExecutionConfig(device=device).on_gpu() else "cpu"
        soups = [
            _make(library, key, members[:candidates], _prefix(key, found), on, progress)
            for key, members in found.items()
            if len(members) >= LEAST
        ]
    return tuple(sorted(soups, key=lambda result: (result.member or result.best).loss))


def find_fine_tuned(library: Library) -> dict[BackboneId, list[Member]]:
    """Return the best member of each fine-tuned trial, the best first, by pretrained weights and resolution.

    Members without weights of their own, because they share a frozen backbone, are left out.
    """
    settings = kept_settings(library.path / "run.json")
    digests = dict(map(split_stem, settings.weights if settings else ()))
    best: dict[tuple[BackboneId, int], Member] = {}
    for member in sorted(library.members(), key=lambda m: (m.loss, m.id)):
        name = member.family.removeprefix(PREFIX)
        if member.trial != NO_TRIAL and not member.backbone and name in digests:
            best.setdefault((BackboneId(name, digests[name], _resolution(member)), member.trial), member)
    groups: dict[BackboneId, list[Member]] = {}
    for (key, _), member in best.items():
        groups.setdefault(key, []).append(member)
    return groups


def has_untried(library: Library, candidates: int = CANDIDATES) -> bool:
    """Return whether `soup` would try an average that it has not tried yet."""
    groups = {key: members[:candidates] for key, members in find_fine_tuned(library).items() if len(members) >= LEAST}
    return any(len(read_steps(library, str(key), members)) < len(members) for key, members in groups.items())


def _resolution(member: Member) -> int:
    """Return the side in pixels of the backbone's input."""
    chosen = backbone_config(member.family, member.configuration)
    if chosen.resolution:
        return chosen.resolution
    from ripieno.models.timm_network import native_resolution

    return native_resolution(chosen.backbone)


def _explain_none(library: Library) -> str:
    """Describe what a run lacks for a soup."""
    settings = kept_settings(library.path / "run.json")
    if settings is None or not settings.weights:
        remedy = command("tune", "DATA", run="NEW", weights="WEIGHTS")
        return f"{library.path} has no trials on pretrained weights, which soups are made of: `{remedy}` makes some"
    return (
        f"{library.path} has no {LEAST} trials fine-tuned from the same weights at the same resolution, without the "
        f"heads on frozen backbones that first epochs make: `{command('tune', run=library.path, hours=1)}` adds trials"
    )


def _readable(library: Library, members: Sequence[Member]) -> list[Member]:
    """Return the members whose weights can be read; one warning names the others."""
    from safetensors import SafetensorError, safe_open

    def check(member: Member) -> None:
        path = library.weights_path(member.id)
        try:
            with safe_open(path, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise LibraryError(f"{path} is no readable safetensors file: {error}") from error

    by_id = {member.id: member for member in members}
    return [
        by_id[name] for name in read_sound(f"the weights of {library.path}", by_id, lambda name: check(by_id[name]))
    ]


def _prefix(key: BackboneId, keys: Collection[BackboneId]) -> str:
    """Return the first part of a soup's id, with the resolution where trials of the network have several."""
    several = sum(other.name == key.name for other in keys) > 1
    return f"soup-{key.name}-{key.resolution}" if several else f"soup-{key.name}"


def _make(
    library: Library, key: BackboneId, members: Sequence[Member], prefix: str, device: str, progress: ProgressFunction
) -> Soup:
    """Average `members`, the best first, unless that was done before."""
    steps = read_steps(library, str(key), members)
    made = _find_made(library, _kept(steps), members)
    if len(steps) == len(members) and (made is not None or len(_kept(steps)) < LEAST):
        return Soup(key, members[0], len(members), made, False)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(len(usable_cores()))
    try:
        return _average(library, key, members, steps, prefix, device, progress)
    finally:
        torch.set_num_threads(threads)


def _average(
    library: Library,
    key: BackboneId,
    members: Sequence[Member],
    steps: list[SoupStep],
    prefix: str,
    device: str,
    progress: ProgressFunction,
) -> Soup:
    """Go on with the greedy average of `members` after `steps`, and add it to the library."""
    from ripieno.backends.torch import load_network
    from ripieno.data.dataset import open_dataset
    from ripieno.train.soup import MeanWeights, read_weights, validate

    started, best, stage = time.perf_counter(), members[0], f"averaging {key.name} at {key.resolution} pixels"
    dataset = open_dataset(library.dataset_path)
    network: Network = load_network(best, library.weights_path(best.id)).to(device)
    mean, lowest = MeanWeights(), best.loss
    for number, member in enumerate(members):
        progress(stage, number, len(members))
        step = steps[number] if number < len(steps) else None
        if step is not None and not step.kept:
            continue
        tensors = read_weights(library.weights_path(member.id), network)
        if step is None:
            loss: float | None = best.loss
            if number:
                network.load_state_dict(mean.mean(tensors))
                loss = validate(network, dataset, device)[1]
            step = SoupStep(member.id, member.loss, loss, loss is not None and loss <= lowest)
            steps.append(step)
            write_steps(library, str(key), steps)
        if step.kept:
            assert step.loss is not None, f"{step} was kept without a loss"
            mean.add(tensors)
            lowest = step.loss
    averaged = _kept(steps)
    made, added = _find_made(library, averaged, members), False
    if made is None and len(averaged) >= LEAST:
        network.load_state_dict(mean.mean())
        name = _free_id(library, f"{prefix}-{len(averaged)}")
        made, added = _add(library, best, name, averaged, network, dataset, device, started), True
    progress(stage, len(members), len(members))
    return Soup(key, best, len(members), made, added)


def _add(
    library: Library,
    best: Member,
    name: str,
    averaged: tuple[str, ...],
    network: Network,
    dataset: Dataset,
    device: str,
    started: float,
) -> Member:
    """Add the average of weights as a member, with its own statistics of batch norms if they lower its loss."""
    from ripieno.train.checkpoint import weights_bytes
    from ripieno.train.evaluate import losses_of
    from ripieno.train.soup import compute_statistics, validate

    predictions, loss = validate(network, dataset, device)
    content = weights_bytes(network)
    if compute_statistics(network, dataset, device):
        others, other = validate(network, dataset, device)
        if loss is not None and other is not None and other < loss:
            predictions, content = others, weights_bytes(network)
    rows = dataset.rows("valid")
    member = dataclasses.replace(
        best,
        id=name,
        trial=NO_TRIAL,
        epoch=0,
        losses=losses_of(predictions, dataset, rows),
        seconds=time.perf_counter() - started,
        curve=(),
        created=clock.now(),
        temperature=None,
        averaged=averaged,
    )
    library.add(member, predictions, np.asarray(dataset.targets[rows]), content)
    return member


def _kept(steps: Sequence[SoupStep]) -> tuple[str, ...]:
    return tuple(step.member for step in steps if step.kept)


def _find_made(library: Library, averaged: tuple[str, ...], members: Sequence[Member]) -> Member | None:
    """Return the member that is the mean of `averaged`, as they are now."""
    newest = max(member.created for member in members if member.id in averaged) if averaged else 0.0
    made = (m for m in library.members() if averaged and m.averaged == averaged and m.created >= newest)
    return next(made, None)


def _free_id(library: Library, name: str) -> str:
    """Return `name`, with a number where the library has a member of that name: it may be one of an ensemble."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((name,), numbered) if candidate not in library)
