"""Import of timm together with a torchvision whose operators cannot be loaded.

timm imports torchvision. The published wheel of torchvision is built for CUDA: its operators cannot be loaded by
PyTorch's build for CPUs, and its import then fails, because it describes two operators that do not exist. Their schemas
are enough for the import. None of these operators is used here.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from ripieno.errors import require

SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
"""Schemas of the operators that torchvision describes when it is imported."""
_declared: list[torch.library.Library] = []
"""The declarations, which end with their object."""


@functools.cache
def import_timm(module: str = "timm") -> ModuleType:
    """Import timm, or a `module` of it. Raises MissingExtraError where it, or torchvision, is not installed."""
    declare_missing_operators()
    require("torchvision")
    return require(module)


def declare_missing_operators() -> None:
    """Declare the schemas of torchvision's operators if they cannot be loaded; call it before torchvision is imported.

    Does nothing where torchvision is imported already, is absent, or can load its own operators.
    """
    spec = None if "torchvision" in sys.modules or _declared else importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _can_load_operators(Path(spec.origin).parent):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _can_load_operators(folder: Path) -> bool:
    """Load torchvision's own operators from its folder; return whether they could be loaded."""
    files = sorted(folder.glob("_C*.so"))
    if not files:
        return False
    try:
        torch.ops.load_library(files[0])  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
