"""A folder of members, and the deployments made of them."""

from ripieno.library.bundle import read_bundle, rewrite_bundle, write_bundle
from ripieno.library.import_ import import_predictions
from ripieno.library.library import Library
from ripieno.library.proof import Fit, Proof, read_proof
from ripieno.library.quota import enforce_quota

__all__ = [
    "Fit",
    "Library",
    "Proof",
    "enforce_quota",
    "import_predictions",
    "read_bundle",
    "read_proof",
    "rewrite_bundle",
    "write_bundle",
]
