"""Data sets: reading, splitting, and storing as one memory-mapped folder.

Names are imported on first use, so that a check of a request's pixels does not load the image readers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripieno.data.dataset import open_dataset as open_dataset
    from ripieno.data.dataset import write_dataset as write_dataset
    from ripieno.data.load import load_dataset as load_dataset

_MODULES = {"load_dataset": "load", "open_dataset": "dataset", "write_dataset": "dataset"}

__all__ = ["load_dataset", "open_dataset", "write_dataset"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"ripieno.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ripieno.data' has no attribute {name!r}")
