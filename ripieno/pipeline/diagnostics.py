"""Devices of this machine, and optional packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.errors import EXTRAS
from ripieno.types import Device


@dataclass(frozen=True)
class Diagnostics:
    """Devices of this machine, and the version of each optional package, empty when it is not installed."""

    devices: tuple[Device, ...]
    parts: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Extras that install the missing packages."""
        return tuple(dict.fromkeys(EXTRAS[part] for part, version in self.parts.items() if not version))


def doctor() -> Diagnostics:
    """Return the diagnostics of this machine; imports no optional package."""
    from ripieno.profiles import local_devices

    return Diagnostics(local_devices("auto"), {module: _version(module) for module in EXTRAS})


def _version(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version({"sklearn": "scikit-learn"}.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "yes"
