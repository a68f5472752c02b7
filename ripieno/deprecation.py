"""Aliases of renamed public names: each works for one version and warns with the new name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def warn_renamed(old: str, new: str, level: int = 3) -> None:
    """Issue a DeprecationWarning at the caller's caller: `old` is now `new`."""
    message = f"{old} is now {new}: the old name goes with the next version"
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def find_renamed(module: str, names: Mapping[str, str], name: str, namespace: Mapping[str, Any]) -> Any:
    """Return the object of `namespace` that `name` was renamed to.

    For a module's `__getattr__`; `names` maps old names to new ones. Raises AttributeError for an unknown name.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warn_renamed(f"{module}.{name}", names[name])
    return namespace[names[name]]


def renamed_keywords(**names: str) -> Callable[[F], F]:
    """Accept keyword arguments of a function under their old names, `old="new"`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def accept(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old in kwargs:
                    warn_renamed(f"{function.__name__}({old}=)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accept  # type: ignore[return-value]

    return decorate


def renamed_attribute(new: str) -> Any:
    """Make a property that answers an old name of a class with the attribute `new`."""

    class Renamed:
        """Descriptor of an old name."""

        def __set_name__(self, owner: type, name: str) -> None:
            self.old = f"{owner.__name__}.{name}"

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return self
            warn_renamed(self.old, new)
            return getattr(instance, new)

    return Renamed()
