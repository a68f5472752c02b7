"""Profiles: seconds and bytes of a member alone on a device, measured in its own process (`profiler_process`)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import MODEL, WEIGHTS, file_of
from ripieno.backends.batch_limit import limit_batch
from ripieno.backends.network_part import NetworkPart, is_exported, parts_of
from ripieno.durations import check_duration
from ripieno.errors import EngineError, RipienoError
from ripieno.files import write_array
from ripieno.profiles.profiler_process import ProfileReply, ProfileRequest
from ripieno.resources import thread_variables
from ripieno.types import BatchProfile, Device, Member, Profile

if TYPE_CHECKING:
    from ripieno.library import Library

BATCH_SIZES = (1, 8, 32, 128)
"""Default batch sizes; those of large predictions are smaller, see `limit_batch`."""


def profile(
    path: str | Path,
    member: Member,
    device: Device,
    backend: str = "onnx",
    *,
    batch_sizes: Sequence[int] | None = None,
    samples: NDArray[np.generic] | None = None,
    window: float = 0.15,
    spread: float = 0.05,
    max_seconds: float = 8.0,
    trusted: Collection[str] = (),
    part: NetworkPart = "whole",
    energy: bool = False,
    progress: Callable[[BatchProfile], None] | None = None,
) -> Profile:
    """Measure a member alone on `device`, with one thread per core; its `backend` file is at `path`.

    `samples` (n, *member.input.shape) are repeated to fill each batch; default: noise. Each batch size is timed for
    `window` seconds, and longer until its spread is at most `spread`; all sizes together take about `max_seconds`. A
    point's bytes are the growth of a fresh process, or of the GPU memory used, by the load and the batches so far.
    `Profile.base` is the process's own memory. If a batch size fails (out of memory), the profile ends with the smaller
    ones. `trusted` names the user's families that the torch backend may import. `part` measures the backbone that the
    member shares, whose name the profile then has, or its head alone. With `energy` its joules at the best batch size
    are measured too, in some five seconds. `progress` is called with each point.

    Raises EngineError if the member cannot be loaded or run, and with `energy` if no energy counter can be read.
    """
    for name, value in (("window", window), ("max_seconds", max_seconds)):
        check_duration(value, name, error=EngineError)
    sizes = default_batch_sizes(member) if batch_sizes is None else tuple(sorted(set(batch_sizes)))
    if not sizes or sizes[0] < 1:
        raise EngineError(f"batch sizes {sizes} are invalid: expected one or more numbers of at least 1")
    points: list[BatchProfile] = []
    base, held, idle, joules, error = 0, 0, True, None, ""
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        if samples is not None:
            got, wanted = (samples.shape[1:], str(samples.dtype)), (member.input.shape, member.input.dtype)
            if got != wanted or not len(samples):
                shape = f"(n, {', '.join(map(str, member.input.shape))}) {member.input.dtype}"
                found = f"samples have shape and type {samples.shape} {samples.dtype}"
                raise EngineError(f"{found}, but {member.id} needs {shape}: convert them")
            write_array(Path(folder) / "samples.npy", samples)
        request = ProfileRequest(
            path=Path(path).resolve(),
            member=member,
            device=device,
            backend=backend,
            threads=max(1, len(device.cores)),
            batch_sizes=sizes,
            samples=None if samples is None else Path(folder) / "samples.npy",
            window=window,
            spread=spread,
            seconds=max_seconds,
            trusted=tuple(trusted),
            part=part,
            energy=energy,
        )
        for reply in _replies(request):
            base = base if reply.base is None else reply.base
            held = held if reply.load is None else reply.load
            idle = idle if reply.idle is None else reply.idle
            joules = joules if reply.joules is None else reply.joules
            error = error if reply.error is None else reply.error
            if reply.point is not None:
                points.append(reply.point)
                if progress is not None:
                    progress(reply.point)
    name = member.backbone if part == "backbone" else member.id
    if not points or (energy and joules is None):
        raise EngineError(f"cannot measure {name} on {device.name} with {backend}: {error}")
    return Profile(name, device.kind, backend, tuple(points), idle, base, held, sizes, joules)


def _replies(request: ProfileRequest) -> Iterator[ProfileReply]:
    """Start the process, send it the request and yield its replies; an unexpected exit yields an error."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "ripieno.profiles.profiler_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={
                **os.environ,
                **thread_variables(request.threads),
                "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),  # for the user's families
            },
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it exited before reading: reported below
                process.stdin.write(msgspec.json.encode(request, enc_hook=str) + b"\n")
                process.stdin.flush()
            ended = False
            for line in process.stdout:
                reply = msgspec.json.decode(line, type=ProfileReply)
                ended = ended or reply.idle is not None or reply.error is not None
                yield reply
            if not ended:
                yield ProfileReply(error=_exit_reason(process.wait(), errors))
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _exit_reason(code: int, errors: IO[bytes]) -> str:
    """Return the reason of the exit: the signal, or the last line of standard error."""
    if code < 0:
        return f"its process was killed by signal {-code}, usually because memory ran out"
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"its process exited with code {code}"


def measure_library(
    library: Library,
    device: Device,
    members: Iterable[str] | None = None,
    backend: str = "onnx",
    *,
    batch_sizes: Sequence[int] | None = None,
    again: bool = False,
    energy: bool = False,
    window: float = 0.15,
    spread: float = 0.05,
    max_seconds: float = 8.0,
    progress: Callable[[Profile, int, int], None] | None = None,
    failed: Callable[[str, RipienoError], None] | None = None,
) -> dict[str, Profile]:
    """Measure `members` (None: all) on `device`, one after the other, and save the profiles in the library.

    Existing profiles for this kind of device, backend and batch sizes (including sizes that did not fit) are reused
    unless `again`. Each new profile is saved immediately, so that an interrupted run can continue. Members without an
    ONNX file get one next to their weights if `backend` is `onnx`. Of members that share a backbone, the backbone is
    measured once, under its own name, and their heads apart. With `energy` profiles without joules are measured again.
    `progress` is called with each profile, the number of
    members done and the total. A member that cannot be measured is passed to `failed` and skipped; without `failed` its
    error is raised.
    """
    wanted = list(library.ids() if members is None else members)
    known = {} if again else library.profiles(device.kind, backend)
    profiles: dict[str, Profile] = {}
    for done, name in enumerate(wanted, 1):
        try:
            member = library.member(name)
            for own, part in parts_of(member).items():
                if own in profiles:
                    continue
                result = known.get(own)
                sizes = default_batch_sizes(member) if batch_sizes is None else batch_sizes
                # a batch size that did not fit would not fit again
                if (
                    result is None
                    or not set(sizes) <= {p.batch_size for p in result.points} | set(result.tried)
                    or (energy and result.joules is None)
                ):
                    result = profile(
                        model_file(library, member, backend),
                        member,
                        device,
                        backend,
                        batch_sizes=sizes,
                        window=window,
                        spread=spread,
                        max_seconds=max_seconds,
                        trusted=library.trusted,
                        part=part,
                        energy=energy,
                    )
                    library.write_profiles(device.kind, [result])
                profiles[own] = result
                if progress is not None:
                    progress(result, done, len(wanted))
        except RipienoError as error:
            if failed is None:
                raise
            failed(name, error)
    return profiles


def default_batch_sizes(member: Member) -> tuple[int, ...]:
    """Return the batch sizes at which a member is measured, ascending."""
    return tuple(sorted({limit_batch(size, member.task.output) for size in BATCH_SIZES}))


def model_file(library: Library, member: Member, backend: str) -> Path:
    """Return the file of `member` that `backend` runs; export a missing ONNX file, its own or its backbone's."""
    name = file_of(backend)
    if name == WEIGHTS:
        return library.weights_path(member.id)
    target = library.onnx_path(member.id)
    if name != MODEL:
        return target.with_name(name)
    if not is_exported(target, member):
        from ripieno.backends.export import export_onnx

        export_onnx(member, library.weights_path(member.id), target, library.trusted)
    return target
