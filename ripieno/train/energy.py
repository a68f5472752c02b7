"""Energy of a training job, by the counter of its device."""

from __future__ import annotations

import os

import torch

from ripieno.errors import EngineError
from ripieno.profiles.energy import EnergyMeter, GPUCounter, ProcessorCounter
from ripieno.train.training_config import TrainingConfig


def open_meter(config: TrainingConfig) -> EnergyMeter | None:
    """Return a meter of the energy of a trial; None where its device has no counter.

    A trial on a processor is given the share of the energy that its cores are of all, one on a GPU an equal part.
    """
    try:
        if config.device.startswith("cuda"):
            uuid = str(torch.cuda.get_device_properties(config.device).uuid)
            return EnergyMeter(GPUCounter(uuid), 1 / config.sharing)
        return EnergyMeter(ProcessorCounter(), min(1.0, (config.threads + config.spare) / (os.cpu_count() or 1)))
    except EngineError:
        return None
