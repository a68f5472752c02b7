"""A folder of members, and the deployments made of them."""

from ripieno.library.bundle import read_bundle, write_bundle
from ripieno.library.library import Library

__all__ = ["Library", "read_bundle", "write_bundle"]
