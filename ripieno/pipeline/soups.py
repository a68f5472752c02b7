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
from ripieno.pipeline.runs import ProgressFunction, folds_of, no_progress, open_run, refuse_policies, task_of
from ripieno.resources import sleep_while_waiting, usable_cores
from ripieno.search.settings import kept_settings
from ripieno.shell_command import command
from ripieno.types import Dataset, Member

if TYPE_CHECKING:
    from ripieno.models.build import Network
    from ripieno.train.soup import MeanWeights

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
    refuse_policies(task_of(library), "a soup")
    if candidates < LEAST:
        raise LibraryError(f"candidates is {candidates}: at least {LEAST} trials must be tried")
    with files.locked(library.path / "lock", "a search or a soup"):
        found = {key: _readable(library, members) for key, members in find_fine_tuned(library).items()}
        if not any(len(members) >= LEAST for members in found.values()):
            raise LibraryError(_explain_none(library))
        sleep_while_waiting()  # before PyTorch is loaded
        from ripieno.models.torchvision_import import import_timm

        import_timm()
        on = "cuda" if ExecutionConfig(device=device).on_gpu() else "cpu"
        soups = [
            _GreedyAverage(library, key, members[:candidates], on).make(_prefix(key, found), progress)
            for key, members in found.items()
            if len(members) >= LEAST
        ]
    return tuple(sorted(soups, key=lambda result: (result.member or result.best).loss))


def find_fine_tuned(library: Library) -> dict[BackboneId, list[Member]]:
    """Return the best member of each fine-tuned trial, the best first, by pretrained weights and resolution.

    Members without weights of their own, because they share a frozen backbone, are left out. There are none on a data
    set with folds: the models that predict out of fold, which would judge an average, are not kept.
    """
    if folds_of(library):
        return {}
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
    if folds_of(library):
        return (
            f"{library.path} validates by folds, whose models are not kept: no average of weights can be judged. "
            "Search in another run without --folds"
        )
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


class _GreedyAverage:
    """Greedy average of `members` on one backbone, the best first, after the steps that the run records."""

    def __init__(self, library: Library, backbone: BackboneId, members: Sequence[Member], device: str) -> None:
        self._library, self._backbone, self._members, self._device = library, backbone, members, device
        self._steps = read_steps(library, str(backbone), members)

    def make(self, prefix: str, progress: ProgressFunction) -> Soup:
        """Try the members that were not tried before, and add the average as `PREFIX-k` unless the library has it."""
        made, added = self._find_made(), False
        if len(self._steps) < len(self._members) or (made is None and len(self._averaged) >= LEAST):
            import torch

            threads = torch.get_num_threads()
            torch.set_num_threads(len(usable_cores()))
            try:
                made, added = self._continue(prefix, progress)
            finally:
                torch.set_num_threads(threads)
        return Soup(self._backbone, self._members[0], len(self._members), made, added)

    @property
    def _averaged(self) -> tuple[str, ...]:
        """Ids of the members that stayed in the average."""
        return tuple(step.member for step in self._steps if step.kept)

    def _find_made(self) -> Member | None:
        """Return the library's mean of the members that stayed, as they are now."""
        newest = max((m.created for m in self._members if m.id in self._averaged), default=0.0)
        found = (m for m in self._library.members() if m.averaged == self._averaged and m.created >= newest)
        return next(found, None) if self._averaged else None

    def _continue(self, prefix: str, progress: ProgressFunction) -> tuple[Member | None, bool]:
        from ripieno.backends.torch import load_network
        from ripieno.data.dataset import open_dataset
        from ripieno.train.checkpoint import weights_bytes
        from ripieno.train.evaluate import losses_of
        from ripieno.train.soup import choose_statistics

        started, library, best = time.perf_counter(), self._library, self._members[0]
        dataset = open_dataset(library.dataset_path)
        network: Network = load_network(best, library.weights_path(best.id)).to(self._device)
        mean = self._try_rest(network, dataset, progress)
        made = self._find_made()
        if made is not None or len(self._averaged) < LEAST:
            return made, False
        network.load_state_dict(mean.mean())
        predictions, rows = choose_statistics(network, dataset, self._device), dataset.rows("valid")
        member = dataclasses.replace(
            best,
            id=_free_id(library, f"{prefix}-{len(self._averaged)}"),
            trial=NO_TRIAL,
            epoch=0,
            losses=losses_of(predictions, dataset, rows),
            seconds=time.perf_counter() - started,
            curve=(),
            created=clock.now(),
            temperature=None,
            averaged=self._averaged,
        )
        library.add(member, predictions, np.asarray(dataset.targets[rows]), weights_bytes(network))
        return member, True

    def _try_rest(self, network: Network, dataset: Dataset, progress: ProgressFunction) -> MeanWeights:
        """Try each member that was not tried before, and return the mean of those that stay."""
        from ripieno.train.soup import MeanWeights, read_weights, validate

        mean, lowest = MeanWeights(), self._members[0].loss
        stage = f"averaging {self._backbone.name} at {self._backbone.resolution} pixels"
        for number, member in enumerate(self._members):
            progress(stage, number, len(self._members))
            step = self._steps[number] if number < len(self._steps) else None
            if step is not None and not step.kept:
                continue
            tensors = read_weights(self._library.weights_path(member.id), network)
            if step is None:
                loss: float | None = member.loss
                if number:
                    network.load_state_dict(mean.mean(tensors))
                    loss = validate(network, dataset, self._device)[1]
                step = SoupStep(member.id, member.loss, loss, loss is not None and loss <= lowest)
                self._steps.append(step)
                write_steps(self._library, str(self._backbone), self._steps)
            if step.kept:
                assert step.loss is not None, f"{step} was kept without a loss"
                mean.add(tensors)
                lowest = step.loss
        progress(stage, len(self._members), len(self._members))
        return mean


def _free_id(library: Library, name: str) -> str:
    """Return `name`, with a number where the library has a member of that name: it may be one of an ensemble."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((name,), numbered) if candidate not in library)
