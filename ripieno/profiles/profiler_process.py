"""Process that measures one member on one device.

Theory of operation. Memory can be measured only in a process that never held another network: freed memory stays with
the allocator and hides the use of the next network. So each member gets its own process, with these steps:

1. Read one `ProfileRequest` from standard input and pin itself to the device's cores. From then on, exit when the input
   closes, since the parent died.
2. Import the backend's runtime and create the samples. The resident memory is now the *base*, which every worker needs
   once.
3. Load the member and run it at each batch size, ascending. The peak resident memory since then, minus the base, is the
   member's memory at that batch size. Smaller batches ran before, as a worker's last batches do, so their leftovers are
   counted, and a point is never below that of a smaller batch. Times are those of an idle machine, see `timing`.
4. Where energy is asked for, rest, then run the member at its best batch size, and read the energy counter (`energy`).
5. Write one `ProfileReply` per line: the base, a point per batch size, the joules, whether the machine was idle.

On a GPU the memory is read from the driver. The base (a CUDA context, the runtime's libraries) is the difference
between the first and the second of two loads.
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

import msgspec
import numpy as np
import psutil

from ripieno import backends
from ripieno.backends.loaded_member import LoadedMember
from ripieno.backends.network_part import NetworkPart
from ripieno.data.pixels import random_images
from ripieno.errors import EngineError, error_summary
from ripieno.files import read_array
from ripieno.profiles.devices import used_gpu_memory
from ripieno.profiles.energy import joules_of, open_counter
from ripieno.profiles.timing import BUSY, CpuInterference, RunQueueDelay, time_calls
from ripieno.types import COST_SAMPLES, BatchProfile, Device, Member, Profile


@dataclass(frozen=True)
class ProfileRequest:
    """One measurement; see `profiling.profile`."""

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
    energy: bool = False
    part: NetworkPart = "whole"


@dataclass(frozen=True)
class ProfileReply:
    """One line of the reply; absent values are None."""

    base: int | None = None
    load: int | None = None
    point: BatchProfile | None = None
    idle: bool | None = None
    joules: float | None = None
    error: str | None = None


def peak_host_memory() -> int:
    """Return the peak resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return int(psutil.Process().memory_info().rss)


def measure(request: ProfileRequest, reply: Callable[[ProfileReply], None]) -> None:
    """Measure the member and send each value as soon as it is known."""
    backends.runtime(request.backend)
    sizes = sorted(set(request.batch_sizes))
    counter = open_counter(request.device) if request.energy else None
    if request.samples is None:
        images = None if request.part == "head" else random_images(request.member.input, sizes[-1])
    else:
        samples = read_array(request.samples)
        images = np.ascontiguousarray(np.resize(samples, (sizes[-1], *samples.shape[1:])))

    what = request.backend, request.path, request.member, request.device, request.threads, request.trusted
    load = functools.partial(backends.load, *what, part=request.part)
    on_gpu = request.device.type == "cuda"
    # GPU runtimes keep their allocations, so the current value is the peak
    peak = functools.partial(used_gpu_memory, request.device.name) if on_gpu else peak_host_memory
    with contextlib.suppress(OSError):  # reset the peak of the imports; if this fails the base is higher
        Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    backend = load()
    if images is None:  # only the loaded head states how many features it takes
        assert isinstance(backend, LoadedMember)
        images = random_images(backend.input, sizes[-1])
        before += 0 if on_gpu else images.nbytes
    if on_gpu:
        backend.infer(images[: sizes[0]])
        first = peak()
        second = load()
        second.infer(images[: sizes[0]])
        base = max(0, 2 * first - before - peak())
        second.close()
        reply(ProfileReply(base=base))
        before += base
    else:
        reply(ProfileReply(base=before, load=max(0, peak() - before)))
    interference, delay = CpuInterference(), RunQueueDelay()
    finish = time.perf_counter() + request.seconds
    points: list[BatchProfile] = []
    for i, size in enumerate(sizes):
        share = (finish - time.perf_counter()) / (len(sizes) - i)
        infer = functools.partial(backend.infer, images[:size])
        predictions = infer()  # starts the threads that it needs
        # a network of float inputs need not give finite predictions for noise
        must_be_finite = request.samples is not None or images.dtype.kind in "iu"
        if must_be_finite and not np.isfinite(predictions).all():
            raise EngineError("predictions are not finite (NaN or infinite)")
        delay.look()
        seconds, spread = time_calls(infer, request.window, request.spread, share, waited=delay)
        points.append(BatchProfile(size, seconds, spread, max(0, peak() - before)))
        reply(ProfileReply(point=points[-1]))
    if counter is not None:
        size = Profile(request.member.id, request.device.kind, request.backend, tuple(points)).best.batch_size
        joules = joules_of(functools.partial(backend.infer, images[:size]), counter)
        reply(ProfileReply(joules=joules / size * COST_SAMPLES))
    reply(ProfileReply(idle=interference.share() < BUSY))
    backend.close()


def main() -> None:
    """Process the request on standard input; redirect output of libraries to standard error."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(
        sys.stdin.buffer.readline(), type=ProfileRequest, dec_hook=lambda kind, value: kind(value)
    )

    def exit_on_close() -> None:  # the parent's end closes when it dies
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=exit_on_close, daemon=True).start()
    if request.device.cores:
        os.sched_setaffinity(0, request.device.cores)

    def reply(message: ProfileReply) -> None:
        output.write(msgspec.json.encode(message) + b"\n")
        output.flush()

    try:
        measure(request, reply)
    except Exception as error:  # a runtime may raise anything; the parent adds the member's name
        reply(ProfileReply(error=error_summary(error)))


if __name__ == "__main__":
    main()
