"""Aliases of renamed public names: each works for one version and warns with the new name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def warn_renamed(old: str, new: str) -> None:
    """Issue a DeprecationWarning for the line that used `old`, which is now `new`.

    To be called by the function that this line called.
    """
    message = f"{old} is now {new}; the old name goes with the next version."
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def find_renamed(namespace: Mapping[str, Any], renamed: Mapping[str, str], name: str) -> Any:
    """Return the object that `name` was renamed to, with a DeprecationWarning; the body of a module's `__getattr__`.

    `namespace` is the module's `globals()`, `renamed` maps old names to new ones. Raises AttributeError for a name that
    is not among them.
    """
    module = namespace["__name__"]
    if name not in renamed:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    message = f"{module}.{name} is now {renamed[name]}; the old name goes with the next version."
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return namespace[renamed[name]]
