"""Library of members, and the bundles made from it."""

from typing import TYPE_CHECKING, Any

from ripieno.deprecation import find_renamed
from ripieno.library.bundle import BackendChoice as BackendChoice
from ripieno.library.bundle import BackendReport as BackendReport
from ripieno.library.bundle import read_backend_report as read_backend_report
from ripieno.library.bundle import read_bundle as read_bundle
from ripieno.library.bundle import rewrite_bundle as rewrite_bundle
from ripieno.library.bundle import write_bundle as write_bundle
from ripieno.library.eviction import enforce_quota as enforce_quota
from ripieno.library.import_predictions import import_predictions as import_predictions
from ripieno.library.library import Library as Library

if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(
            globals(), {"read_proof": "read_backend_report", "Proof": "BackendReport", "Fit": "BackendChoice"}, name
        )
