"""A deployment whose one member is built by a user's own code, and run by PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import backends, files
from ripieno.types import Allocation, Bundle, Ensemble, Input, Placement
from tests.backends.made import CPU, make

FAMILY = "own_deployed:plain"
CODE = """
from torch import nn
def plain(configuration, input, classes):
    height, width, channels = input.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, classes))
"""
MEMBER = "00001-e001"


@dataclass(frozen=True)
class Own:
    """A deployment, images for it, and what its member says of them."""

    bundle: Bundle
    images: NDArray[np.generic]
    truth: NDArray[np.float32]
    code: Path
    """folder of the module, for the import path of other processes"""


@contextmanager
def own_deployment(folder: Path) -> Iterator[Own]:
    """One in `folder`; its code can be imported from this process while the block runs."""
    (folder / "own_deployed.py").write_text(CODE)
    path = folder / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        made = make(path / "members" / MEMBER, {}, Input((8, 8, 3)), FAMILY, export=False)
        ensemble = Ensemble("B1", (MEMBER,), (1.0,), "smobf", {"seconds": 1.0}, {"seconds": 0.5}, {})
        allocation = Allocation("own", "B1", (CPU,), (Placement(MEMBER, CPU.name, 8),))
        bundle = Bundle(ensemble, allocation, (made.member,), made.member.input, made.member.task, "torch")
        files.write_json(path / "bundle.json", bundle)
        truth = backends.load("torch", made.path("torch"), made.member, CPU, 1, [FAMILY]).infer(made.images)
        yield Own(dataclasses.replace(bundle, path=path), made.images, truth, folder)
