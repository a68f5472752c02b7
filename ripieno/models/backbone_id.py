"""Ids of frozen backbones that members share: `NAME-DIGEST-RESOLUTION`, such as `mobilenetv2_100-1f2e3d4c-128`.

Pure Python: selections and engines read them without torch. `ripieno.library.backbones` describes the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ripieno.errors import LibraryError

BACKBONES = "backbones"
"""Folder of backbones in a run and in a bundle."""
DIGEST = 8
"""Hexadecimal digits of a SHA-256 that stand in a name."""
_PATTERN = re.compile(rf"([A-Za-z0-9_][\w.]*)-([0-9a-f]{{{DIGEST}}})-([1-9]\d*)")


@dataclass(frozen=True)
class BackboneId:
    """A backbone with its weights frozen, at one resolution; `str` gives the id."""

    name: str
    """of the network in timm"""
    digest: str
    """first digits of the SHA-256 of the file of weights"""
    resolution: int
    """side in pixels of the images that the backbone gets"""

    @property
    def stem(self) -> str:
        """Name of the file of weights, without suffix."""
        return f"{self.name}-{self.digest}"

    def __str__(self) -> str:
        return f"{self.stem}-{self.resolution}"


def parse_backbone_id(text: str) -> BackboneId:
    """Read an id, as of `Member.backbone`. Raises LibraryError for any other text, so that it is a safe file name."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise LibraryError(f"{text!r} is no id of a backbone: expected NAME-DIGEST-RESOLUTION, as in {_EXAMPLE}")
    return BackboneId(found[1], found[2], int(found[3]))


_EXAMPLE = "mobilenetv2_100-1f2e3d4c-128"


def split_stem(stem: str) -> tuple[str, str]:
    """Return name and digest of a `NAME-DIGEST`."""
    name, _, digest = stem.rpartition("-")
    return name, digest


def backbone_path(backbone: str, weights: Path) -> Path:
    """Return the path of the weights of a member's `backbone`, present or not.

    `weights` is the path of the member's own weights, in a run (`RUN/library/ID/weights.safetensors`) or in a bundle
    (`BUNDLE/members/ID/weights.safetensors`). Raises LibraryError when `backbone` is no id.
    """
    return weights.parent.parent.parent / BACKBONES / f"{parse_backbone_id(backbone).stem}.safetensors"
