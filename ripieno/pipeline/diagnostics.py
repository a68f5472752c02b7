"""What this machine has, and what is not installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.errors import EXTRAS
from ripieno.types import Device


@dataclass(frozen=True)
class Diagnostics:
    """Devices of this machine; version of each optional part, empty when it is not installed."""

    devices: tuple[Device, ...]
    parts: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Extras that would bring what is not installed."""
        return tuple(dict.fromkeys(EXTRAS[part] for part, version in self.parts.items() if not version))


def doctor() -> Diagnostics:
    """Look at this machine; nothing heavy is imported."""
    from ripieno.profiles import local_devices

    return Diagnostics(local_devices("auto"), {module: _version(module) for module in EXTRAS})


def _version(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version({"sklearn": "scikit-learn"}.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "yes"
