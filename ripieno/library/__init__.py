"""Library of members, and the bundles made from it."""

from typing import TYPE_CHECKING, Any

from ripieno.deprecation import find_renamed
from ripieno.library.bundle import (
    BackendChoice,
    BackendReport,
    read_backend_report,
    read_bundle,
    rewrite_bundle,
    write_bundle,
)
from ripieno.library.eviction import enforce_quota
from ripieno.library.import_predictions import import_predictions
from ripieno.library.library import Library

__all__ = [
    "BackendChoice",
    "BackendReport",
    "Library",
    "enforce_quota",
    "import_predictions",
    "read_backend_report",
    "read_bundle",
    "rewrite_bundle",
    "write_bundle",
]


if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(
            globals(), {"read_proof": "read_backend_report", "Proof": "BackendReport", "Fit": "BackendChoice"}, name
        )
