"""Where trials train: pools and the slots they are made of."""

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
"""Of slots, cores and seconds: what is more was mistyped, and no clock can wait for it."""
PoolName = Literal["local", "inline", "ray"]


@dataclass(frozen=True)
class ExecutionConfig:
    """Where trials train. `local` is a process a slot on this machine, `inline` this process, `ray` a cluster."""

    pool: PoolName = "local"
    device: str = "auto"
    """`auto`, `cpu` or `cuda`"""
    slots: int | None = None
    """trials at a time; by default as many as a profile says, else one a core, or `per_device` a GPU"""
    per_device: int = 1
    """trials that share a GPU"""
    address: str = "local"
    """of the Ray cluster; `local` starts one for the run"""
    cpus: float = 1.0
    """cores of a Ray slot"""
    limit: float | None = None
    """seconds after which an epoch is taken to hang, and its trial ended"""
    pack: PackingConfig | None = None
    """how trials share this machine, when a profile decided"""

    def __post_init__(self) -> None:
        if self.pool not in get_args(PoolName):
            raise SearchError(f"pool {self.pool!r}: must be one of {', '.join(get_args(PoolName))}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise SearchError(f"device {self.device!r}: must be auto, cpu or cuda")
        for name in ("slots", "per_device", "cpus"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                raise SearchError(f"{name} {value:g}: must be more than 0 and at most {MOST:,}")
        if self.limit is not None:
            check_duration(self.limit, "limit", error=SearchError)
        if self.pool == "inline" and self.limit is not None:
            raise SearchError("limit: the inline pool cannot end a trial that hangs: leave it out or take local")

    def gpus(self) -> list[str]:
        """Numbers of the GPUs of this machine that trials train on. Raises SearchError for `cuda` without one."""
        from ripieno.profiles import local_devices

        found = [d for d in local_devices("auto", "torch") if d.type == "cuda"] if self.device != "cpu" else []
        if self.device == "cuda" and not found and self.pool != "ray":
            raise SearchError("device cuda: this machine has no GPU that PyTorch can use: see `ripieno doctor`")
        return [d.name.partition(":")[2] for d in found]

    def on_gpu(self) -> bool:
        """Whether trials train on GPUs; the nodes of a Ray cluster have some only if the user says so."""
        return self.device == "cuda" if self.pool == "ray" else bool(self.gpus())

    @property
    def auto_packing(self) -> bool:
        """Whether the user leaves it to ripieno how many trials share this machine."""
        return self.pool == "local" and self.slots is None and self.per_device == 1

    def spare(self) -> int:
        """Cores of one trial that may prepare its data: those its GPU leaves idle; on CPUs what a profile gave."""
        if self.pack is not None:
            return self.pack.spare
        return max(0, self.threads() - 1) if self.on_gpu() else 0

    def threads(self) -> int:
        """Threads of one trial."""
        return max(1, int(self.cpus)) if self.pool == "ray" else int(self._local()[0]["OMP_NUM_THREADS"])

    def open(
        self, work: Callable[[Job], JobResult], logs: Path, progress: Callable[[Job], object] = lambda _job: None
    ) -> Pool:
        """The pool that runs `work`; what its workers print goes to the folder `logs`.

        What `progress` says of a job changes when it gets on: workers killed meanwhile are not its fault.
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
