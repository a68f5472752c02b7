"""Pretrained backbones of a run or a bundle: their files, and where the weights are from.

RUN/backbones/NAME-DIGEST.safetensors   weights by timm's names, without classifier; DIGEST: see `BackboneId`
RUN/backbones/NAME-DIGEST.json          a `BackboneRecord`, written last: a backbone exists when it does
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.library.broken import read_sound
from ripieno.models.backbone_id import BACKBONES, DIGEST, parse_backbone_id
from ripieno.models.smp_config import encoder_of, is_smp
from ripieno.models.timm_config import PREFIX
from ripieno.types import Member


@dataclass(frozen=True)
class BackboneRecord:
    """Pretrained weights of a backbone, and their origin."""

    name: str
    """of the network in timm"""
    source: str
    """name of the file they were read from, or their address"""
    licence: str
    """as timm states it; empty: not known"""
    sha256: str
    """of the file in the run"""

    @property
    def stem(self) -> str:
        """Name of the file of weights, without suffix: `NAME-DIGEST`."""
        return f"{self.name}-{self.sha256[:DIGEST]}"


def backbones_folder(folder: Path) -> Path:
    """Return the folder of backbones of a run or a bundle, present or not."""
    return folder / BACKBONES


def weights_file(folder: Path, stem: str) -> Path:
    """Return the path of the weights of the backbone `stem` (`NAME-DIGEST`) in the run or bundle `folder`."""
    return folder / BACKBONES / f"{stem}.safetensors"


def read_backbones(folder: Path) -> dict[str, BackboneRecord]:
    """Read what the run or bundle `folder` knows of its backbones, by `NAME-DIGEST`, sorted; broken files are noted."""
    paths = {path.stem: path for path in sorted((folder / BACKBONES).glob("[!.]*.json"))}
    return read_sound(f"the backbones of {folder}", list(paths), lambda stem: _read_record(paths[stem]))


def _read_record(path: Path) -> BackboneRecord:
    record = files.read_json(path, BackboneRecord)
    if record.stem != path.stem:
        raise LibraryError(f"{path} is of {record.stem!r}, not of {path.stem!r}")
    return record


def find_origins(folder: Path, members: Iterable[Member]) -> dict[str, BackboneRecord]:
    """Return the pretrained weights that `members` of the run or bundle `folder` began from, by `NAME-DIGEST`.

    Members that share no backbone began from the weights of the run's search. Broken files are noted, and left out.
    """
    known, members = read_backbones(folder), list(members)
    used = _searched(folder / "run.json", known)
    # trees name the backbone of their features in their configuration
    trees = [m.configuration.get("features") for m in members if m.family.startswith("trees:")]
    ids = [*(m.backbone for m in members), *(str(feature or "") for feature in trees)]
    stems = {parse_backbone_id(backbone).stem for backbone in ids if backbone}
    named = {encoder_of(m.family) if is_smp(m.family) else m.family.removeprefix(PREFIX) for m in members}
    stems |= {stem for stem in used if known[stem].name in named}
    return {stem: record for stem, record in known.items() if stem in stems}


def _searched(path: Path, known: Collection[str]) -> list[str]:
    """Return the weights of the search of a run, those of its record at `path`; all `known` in a bundle."""
    try:
        record = files.read_json(path, dict[str, Any]) if path.exists() else {"weights": list(known)}
    except LibraryError:
        record = {}
    return [stem for stem in record.get("weights", ()) if stem in known]
