"""Aliases of renamed public names: each works for one version and warns with the new name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def warn_renamed(old: str, new: str, level: int = 3) -> None:
    """Issue a DeprecationWarning for the line that used `old`, which is now `new`.

    To be called by the function that this line called; one more call between them makes the `level` one higher.
    """
    message = f"{old} is now {new}; the old name goes with the next version."
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def find_renamed(namespace: Mapping[str, Any], renamed: Mapping[str, str], name: str) -> Any:
    """Return the object that `name` was renamed to, with a DeprecationWarning; the body of a module's `__getattr__`.

    `namespace` is the module's `globals()`, `renamed` maps old names to new ones. Raises AttributeError for a name that
    is not among them.
    """
    module = namespace["__name__"]
    if name not in renamed:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warn_renamed(f"{module}.{name}", renamed[name], level=4)
    return namespace[renamed[name]]
