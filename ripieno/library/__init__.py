"""A folder of members, and the deployments made of them."""

from ripieno.library.bundle import read_bundle, write_bundle
from ripieno.library.import_ import import_predictions
from ripieno.library.library import Library
from ripieno.library.quota import enforce_quota

__all__ = ["Library", "enforce_quota", "import_predictions", "read_bundle", "write_bundle"]
