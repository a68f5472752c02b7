"""Import of the user's own code by name, which happens only when the user has named it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ripieno.errors import ModelError, error_summary
from ripieno.models.timm_config import is_timm


def import_named(noun: str, name: str, trusted: Collection[str], expected: str) -> Any:
    """Import the object `name` (`module:attribute`), which is a `noun` and is passed as `--noun`.

    A name read from a file is data, and importing it would run its code: it must be in `trusted`. Raises ModelError
    when it is not, or cannot be imported; `expected` describes the object.
    """
    module_name, _, attribute = name.partition(":")
    if name not in trusted:
        raise ModelError(f"{noun} {name!r} is not trusted; pass --{noun} {name} to allow its import")
    try:
        here = str(Path.cwd())  # a console script does not search the working folder by default
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        module = importlib.import_module(module_name)
    except Exception as error:  # the import of a user's module may raise anything
        remedy = "it must be importable from the working folder or from PYTHONPATH"
        line = error_summary(error, named=True)
        raise ModelError(f"{noun} {name!r}: cannot import {module_name} ({line}); {remedy}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise ModelError(f"{noun} {name!r}: {module_name} has no {attribute}; expected {expected}")
    return found


def is_user_code(name: str) -> bool:
    """Return whether `name` has the form `module:attribute`; `timm:NAME` is a family of ripieno's own."""
    module_name, _, attribute = name.partition(":")
    return bool(module_name and attribute) and not is_timm(name)
