"""Library of members, and the bundles made from it."""

from ripieno.library.backend_report import BackendChoice, BackendReport, read_backend_report
from ripieno.library.bundle import read_bundle, rewrite_bundle, write_bundle
from ripieno.library.eviction import enforce_quota
from ripieno.library.import_predictions import import_predictions
from ripieno.library.library import Library

__all__ = [
    "BackendChoice",
    "BackendReport",
    "Library",
    "enforce_quota",
    "import_predictions",
    "read_bundle",
    "read_backend_report",
    "rewrite_bundle",
    "write_bundle",
]
