"""The process that measures one member on one device.

Theory of operation. Memory is honest only in a process that never held another network: what one frees stays with the
allocator and hides what the next one takes. So each member gets a process of its own, which does, in this order:

1. pins itself to the device's cores, reads one `Request` from its input, and from then on ends when that input closes
   (its parent died);
2. imports the backend's runtime and makes the samples: what is resident now is the *base*, that every lane pays once;
3. loads the member and runs it at each batch size, ascending: the peak of resident memory since, less the base, is
   what the member takes in batches of that size. Smaller batches ran before, as a lane's last batches do, so what they
   leave behind is counted, and a point is never less than that of a smaller batch;
   Time is what a quiet machine would have taken, see `timing`;
4. answers one `Reply` a line: the base, a point per batch size, and at last whether the machine was idle.

On a GPU the same is read from the driver, and the base (a CUDA context, the runtime's libraries) is what the first of
two loads took more than the second.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from ripieno import backends
from ripieno.errors import EngineError, error_summary
from ripieno.files import read_array
from ripieno.profiles.devices import used_gpu_memory
from ripieno.profiles.timing import BUSY, CpuInterference, RunQueueDelay, time_calls
from ripieno.types import BatchProfile, Device, Input, Member


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure; see `profiling.profile`."""

    path: Path
    member: Member
    device: Device
    backend: str
    threads: int
    batch_sizes: tuple[int, ...]
    samples: Path | None
    window: float
    spread: float
    seconds: float
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProfileReply:
    """One line of the answer; what is absent is None."""

    base: int | None = None
    load: int | None = None
    point: BatchProfile | None = None
    idle: bool | None = None
    error: str | None = None


def random_samples(kind: Input, count: int) -> NDArray[np.generic]:
    """`count` samples of noise, (count, *kind.shape) of `kind.dtype`; always the same."""
    generator = np.random.default_rng(0)
    if np.issubdtype(np.dtype(kind.dtype), np.integer):
        return generator.integers(0, 256, (count, *kind.shape)).astype(kind.dtype)
    return generator.standard_normal((count, *kind.shape), dtype=np.float32).astype(kind.dtype)


class HostMemory:
    """Peak resident bytes of this process."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # forget the peak of the imports; without it the base is the higher
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes, the most there were since this object was made."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        return int(psutil.Process().memory_info().rss)


class GpuMemory:
    """Bytes taken on a GPU; runtimes keep what they took, so that what is held is the peak."""

    def __init__(self, device: str) -> None:
        self.device = device

    def peak(self) -> int:
        """Bytes taken now."""
        return used_gpu_memory(self.device)


def measure(request: ProfileRequest, reply: Callable[[ProfileReply], None]) -> None:
    """Measure, answering as soon as each figure is known."""
    backends.runtime(request.backend)
    sizes = sorted(set(request.batch_sizes))
    images = _images(request, sizes[-1])

    def load() -> backends.Backend:
        return backends.load(
            request.backend, request.path, request.member, request.device, request.threads, request.trusted
        )

    memory = GpuMemory(request.device.name) if request.device.type == "cuda" else HostMemory()
    before = memory.peak()
    backend = load()
    if isinstance(memory, GpuMemory):
        backend.infer(images[: sizes[0]])
        first = memory.peak()
        second = load()
        second.infer(images[: sizes[0]])
        base = max(0, 2 * first - before - memory.peak())
        second.close()
        reply(ProfileReply(base=base))
        before += base
    else:
        reply(ProfileReply(base=before, load=max(0, memory.peak() - before)))
    neighbours, waits = CpuInterference(), RunQueueDelay()
    finish = time.perf_counter() + request.seconds
    for i, size in enumerate(sizes):
        share = (finish - time.perf_counter()) / (len(sizes) - i)
        infer = functools.partial(backend.infer, images[:size])
        answers = infer()  # whatever threads it needs are there now
        # noise may be no input for a network of floats
        meant = request.samples is not None or images.dtype.kind in "iu"
        if meant and not np.isfinite(answers).all():
            raise EngineError("its predictions are not finite (NaN or infinite)")
        waits.look()
        seconds, apart = time_calls(infer, request.window, request.spread, share, waited=waits)
        reply(ProfileReply(point=BatchProfile(size, seconds, apart, max(0, memory.peak() - before))))
    reply(ProfileReply(idle=neighbours.share() < BUSY))
    backend.close()


def _images(request: ProfileRequest, count: int) -> NDArray[np.generic]:
    if request.samples is None:
        return random_samples(request.member.input, count)
    samples = read_array(request.samples)
    return np.ascontiguousarray(np.resize(samples, (count, *samples.shape[1:])))


def main() -> None:
    """Answer the one request on standard input; anything printed by libraries goes to standard error."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(
        sys.stdin.buffer.readline(), type=ProfileRequest, dec_hook=lambda kind, value: kind(value)
    )
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    if request.device.cores:
        os.sched_setaffinity(0, request.device.cores)

    def reply(word: ProfileReply) -> None:
        output.write(msgspec.json.encode(word) + b"\n")
        output.flush()

    try:
        measure(request, reply)
    except Exception as error:  # whatever a runtime raises, our parent says which member it was
        reply(ProfileReply(error=error_summary(error)))


def _end_with(stream: BinaryIO) -> None:
    """End this process when its parent's side of `stream` closes."""
    stream.read()
    os._exit(1)


if __name__ == "__main__":
    main()
