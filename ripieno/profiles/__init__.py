"""Devices of this machine, and profiles of members on them."""

from ripieno.profiles.device_spec import find_devices
from ripieno.profiles.devices import cpu_partitions, local_devices
from ripieno.profiles.profiler import BATCH_SIZES, measure_library, profile
from ripieno.profiles.timm import timm_profiles

__all__ = [
    "BATCH_SIZES",
    "cpu_partitions",
    "find_devices",
    "local_devices",
    "measure_library",
    "profile",
    "timm_profiles",
]
