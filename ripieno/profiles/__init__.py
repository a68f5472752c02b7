"""The devices of this machine, and what each member costs on them."""

from ripieno.profiles.description import find_devices
from ripieno.profiles.devices import local_devices, parts
from ripieno.profiles.profiling import BATCH_SIZES, measure_library, profile
from ripieno.profiles.timm import timm_profiles

__all__ = ["BATCH_SIZES", "find_devices", "local_devices", "measure_library", "parts", "profile", "timm_profiles"]
