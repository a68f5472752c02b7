"""The devices of this machine, and what each member costs on them."""

from ripieno.profiles.devices import local_devices
from ripieno.profiles.profiling import BATCH_SIZES, measure_library, profile

__all__ = ["BATCH_SIZES", "local_devices", "measure_library", "profile"]
