"""Profiles: seconds and bytes of a member alone on a device, measured in a process of its own (`profiles.child`)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import MODEL, WEIGHTS, file_of
from ripieno.durations import check_duration
from ripieno.errors import EngineError, RipienoError
from ripieno.files import write_array
from ripieno.profiles.profile_process import ProfileReply, ProfileRequest
from ripieno.resources import thread_variables
from ripieno.types import BatchProfile, Device, Member, Profile

BATCH_SIZES = (1, 8, 32, 128)
"""Batch sizes measured unless others are asked for."""


def profile(
    path: str | Path,
    member: Member,
    device: Device,
    backend: str = "onnx",
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    samples: NDArray[np.generic] | None = None,
    window: float = 0.15,
    spread: float = 0.05,
    max_seconds: float = 8.0,
    trusted: Collection[str] = (),
    progress: Callable[[BatchProfile], None] | None = None,
) -> Profile:
    """Measure the member whose `backend` file is at `path`, alone on `device`, with as many threads as it has cores.

    `samples` (n, *member.input.shape) are repeated to fill each batch; noise without them. Each batch size is timed
    for `window` seconds and on until its spread is at most `spread`, all of them within about `max_seconds`. A point's
    bytes are the growth of a fresh process, or of what is taken on the GPU, by the load and the batches so far;
    `Profile.base` is that process's own share. A batch size that fails (out of memory) ends the profile with the
    smaller ones. `trusted` names the families of the user's own that the torch backend may import. `progress` is called
    with each point.

    Raises EngineError when the member cannot be loaded or run.
    """
    for name, value in (("window", window), ("max_seconds", max_seconds)):
        check_duration(value, name, error=EngineError)
    sizes = tuple(sorted(set(batch_sizes)))
    if not sizes or sizes[0] < 1:
        raise EngineError(f"batch sizes {tuple(batch_sizes)} must be one or more numbers of at least 1")
    points: list[BatchProfile] = []
    base, held, idle, error = 0, 0, True, ""
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        if samples is not None:
            write_array(Path(folder) / "samples.npy", _checked(samples, member))
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
        )
        for reply in _ask(request):
            base = base if reply.base is None else reply.base
            held = held if reply.load is None else reply.load
            idle = idle if reply.idle is None else reply.idle
            error = error if reply.error is None else reply.error
            if reply.point is not None:
                points.append(reply.point)
                if progress is not None:
                    progress(reply.point)
    if not points:
        raise EngineError(f"{member.id} cannot be measured on {device.name} by {backend}: {error}")
    return Profile(member.id, device.kind, backend, tuple(points), idle, base, held, sizes)


def _checked(samples: NDArray[np.generic], member: Member) -> NDArray[np.generic]:
    if samples.shape[1:] != member.input.shape or str(samples.dtype) != member.input.dtype or not len(samples):
        got, wanted = f"{samples.shape} {samples.dtype}", f"(n, {', '.join(map(str, member.input.shape))})"
        raise EngineError(f"samples are {got}, must be {wanted} {member.input.dtype} for {member.id}: convert them")
    return samples


def _ask(request: ProfileRequest) -> Iterator[ProfileReply]:
    """Start the process, hand it the request, and yield its replies; an unexpected end is a reply with an error."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "ripieno.profiles.profile_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(request),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended before it could listen: said below
                process.stdin.write(msgspec.json.encode(request, enc_hook=str) + b"\n")
                process.stdin.flush()
            ended = False
            for line in process.stdout:
                reply = msgspec.json.decode(line, type=ProfileReply)
                ended = ended or reply.idle is not None or reply.error is not None
                yield reply
            if not ended:
                yield ProfileReply(error=_last_words(process.wait(), errors))
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _last_words(code: int, errors: IO[bytes]) -> str:
    """Why the process ended: the signal, or the last line it wrote."""
    if code < 0:
        return f"its process was killed by signal {-code}, most often for want of memory"
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"its process ended with code {code}"


def _environment(request: ProfileRequest) -> dict[str, str]:
    """This process's environment with the device's threads, and its import path so that families are found."""
    return {
        **os.environ,
        **thread_variables(request.threads),
        "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
    }


class ProfileStore(Protocol):
    """What measuring needs of a library; `ripieno.library.Library` has it."""

    def ids(self) -> list[str]:
        """All members."""

    def member(self, member: str) -> Member:
        """One member."""

    def weights_path(self, member: str) -> Path:
        """Weights of a trained member."""

    def onnx_path(self, member: str) -> Path:
        """ONNX file of a member, present or not."""

    def profiles(self, device: str, backend: str | None = None) -> dict[str, Profile]:
        """Profiles on a kind of device by a backend, by member."""

    def write_profiles(self, device: str, profiles: Iterable[Profile]) -> Path:
        """Keep profiles on a kind of device."""


def measure_library(
    library: ProfileStore,
    device: Device,
    members: Iterable[str] | None = None,
    backend: str = "onnx",
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    again: bool = False,
    window: float = 0.15,
    spread: float = 0.05,
    max_seconds: float = 8.0,
    trusted: Collection[str] = (),
    progress: Callable[[Profile, int, int], None] | None = None,
    failed: Callable[[str, RipienoError], None] | None = None,
) -> dict[str, Profile]:
    """Profiles of `members` (all when None) on `device`, measured one after the other and kept in the library.

    Those the library has already for this kind of device, backend and batch sizes (fitting or not) are not measured
    again unless `again`; each new one is kept at once, so that an interrupted run goes on where it stopped. Members
    without an ONNX file get one beside their weights when `backend` is `onnx`. `progress` is called with each profile,
    how many are done and how many there are. A member that cannot be measured is handed to `failed` and left out;
    without `failed` its error is raised.
    """
    wanted = list(library.ids() if members is None else members)
    known = {} if again else library.profiles(device.kind, backend)
    found: dict[str, Profile] = {}
    for done, name in enumerate(wanted, 1):
        try:
            got = known.get(name)
            # what was tried and did not fit would not fit again
            if got is None or not set(batch_sizes) <= {p.batch_size for p in got.points} | set(got.tried):
                member = library.member(name)
                got = profile(
                    model_file(library, member, backend, trusted),
                    member,
                    device,
                    backend,
                    batch_sizes=batch_sizes,
                    window=window,
                    spread=spread,
                    max_seconds=max_seconds,
                    trusted=trusted,
                )
                library.write_profiles(device.kind, [got])
        except RipienoError as error:
            if failed is None:
                raise
            failed(name, error)
            continue
        found[name] = got
        if progress is not None:
            progress(got, done, len(wanted))
    return found


def model_file(library: ProfileStore, member: Member, backend: str, trusted: Collection[str] = ()) -> Path:
    """The file of `member` that `backend` runs, made when it is an ONNX file that is not there yet."""
    name = file_of(backend)
    if name == WEIGHTS:
        return library.weights_path(member.id)
    target = library.onnx_path(member.id)
    if name != MODEL:
        return target.with_name(name)
    if not target.exists():
        from ripieno.backends.export import export_onnx

        export_onnx(member, library.weights_path(member.id), target, trusted)
    return target
