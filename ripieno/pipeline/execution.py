"""Execution of trials: pools and their slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ripieno.durations import check_duration
from ripieno.errors import SearchError
from ripieno.pipeline.trial_packing import PackingConfig
from ripieno.types import Job, JobResult

if TYPE_CHECKING:
    from ripieno.cluster import Pool
    from ripieno.cluster.slots import SlotEnv

MOST = 10**9
"""Limit of slots, cores and seconds: a larger value is a typing error, and no clock can wait that long."""
PoolName = Literal["local", "inline", "ray"]


@dataclass(frozen=True)
class ExecutionConfig:
    """Execution of trials. Pool `local` has one process per slot, `inline` uses this process, `ray` a cluster."""

    pool: PoolName = "local"
    device: str = "auto"
    """`auto`, `cpu` or `cuda`"""
    slots: int | None = None
    """concurrent trials; by default the number a profile chose, else one per core, or `per_device` per GPU"""
    per_device: int = 1
    """trials that share a GPU"""
    address: str = "local"
    """address of the Ray cluster; `local` starts one for the run"""
    cpus: float = 1.0
    """cores of a Ray slot"""
    limit: float | None = None
    """timeout of an epoch in seconds; the trial fails when it is exceeded"""
    pack: PackingConfig | None = None
    """trials that share this machine, when a profile has chosen them"""

    def __post_init__(self) -> None:
        if self.pool not in get_args(PoolName):
            raise SearchError(f"pool {self.pool!r} is unknown: it must be one of {', '.join(get_args(PoolName))}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise SearchError(f"device {self.device!r} is unknown: it must be auto, cpu or cuda")
        for name in ("slots", "per_device", "cpus"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                raise SearchError(f"{name} {value:g} is out of range: it must be more than 0 and at most {MOST:,}")
        if self.limit is not None:
            check_duration(self.limit, "limit", error=SearchError)
        if self.pool == "inline" and self.limit is not None:
            raise SearchError("limit cannot be used with the inline pool: leave it out, or use the local pool")

    def gpus(self) -> list[str]:
        """Return numbers of this machine's GPUs for training. Raises SearchError for `cuda` without a GPU."""
        from ripieno.profiles import local_devices

        found = [d for d in local_devices("auto", "torch") if d.type == "cuda"] if self.device != "cpu" else []
        if self.device == "cuda" and not found and self.pool != "ray":
            raise SearchError("device cuda is not available: PyTorch finds no GPU here: see `ripieno doctor`")
        return [d.name.partition(":")[2] for d in found]

    def on_gpu(self) -> bool:
        """Return whether trials train on GPUs; on a Ray cluster only if the user chose `cuda`."""
        return self.device == "cuda" if self.pool == "ray" else bool(self.gpus())

    @property
    def auto_packing(self) -> bool:
        """Automatic choice of the number of trials that share this machine."""
        return self.pool == "local" and self.slots is None and self.per_device == 1

    def spare(self) -> int:
        """Return cores per trial for data loading: with a GPU all cores but one, on CPUs the choice of a profile."""
        if self.pack is not None:
            return self.pack.spare
        return max(0, self.threads() - 1) if self.on_gpu() else 0

    def threads(self) -> int:
        """Return the threads of one trial."""
        return max(1, int(self.cpus)) if self.pool == "ray" else int(self._local()[0]["OMP_NUM_THREADS"])

    @property
    def sharing(self) -> int:
        """Trials that share a GPU."""
        return self.per_device if self.pack is None else self.pack.slots

    def open(
        self, work: Callable[[Job], JobResult], logs: Path, progress: Callable[[Job], object] = lambda _job: None
    ) -> Pool:
        """Open the pool that runs `work`; the output of its workers is written to the folder `logs`.

        The value of `progress` for a job changes as it advances. A worker killed after an advance does not count
        against the job.
        """
        from ripieno.cluster import InlinePool, LocalPool, RayPool

        if self.pool == "inline":
            return InlinePool(work)
        if self.pool == "local":
            return LocalPool(work, self._local(), logs=logs, limit=self.limit, progress=progress)
        gpus = 1 / self.per_device if self.on_gpu() else 0
        most, cpus, limit = self.slots, self.cpus, self.limit
        return RayPool(work, self.address, slots=most, cpus=cpus, gpus=gpus, logs=logs, limit=limit, progress=progress)

    def _local(self) -> tuple[SlotEnv, ...]:
        from ripieno.cluster import cpu_slots, gpu_slots

        if self.pack is not None:
            gpus = self.gpus()
            each = self.pack.slots, self.pack.threads
            return gpu_slots(gpus, *each) if gpus else cpu_slots(*each)
        if gpus := self.gpus():
            return gpu_slots(gpus, self.per_device)[: self.slots]
        return cpu_slots(1 if self.pool == "inline" else self.slots)
