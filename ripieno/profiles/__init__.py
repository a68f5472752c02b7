"""Devices of this machine, and profiles of members on them."""

from ripieno.profiles.device_spec import find_devices as find_devices
from ripieno.profiles.devices import cpu_partitions as cpu_partitions
from ripieno.profiles.devices import local_devices as local_devices
from ripieno.profiles.profiler import BATCH_SIZES as BATCH_SIZES
from ripieno.profiles.profiler import measure_library as measure_library
from ripieno.profiles.profiler import profile as profile
from ripieno.profiles.timm import timm_profiles as timm_profiles
