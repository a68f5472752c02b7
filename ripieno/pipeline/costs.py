"""Library -> profiles: what members cost, measured alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.pipeline.runs import Progress, open_run, quiet
from ripieno.types import Device, Member, Profile


def measure(
    run: str | Path | Library,
    members: Iterable[str] | None = None,
    *,
    device: str = "cpu",
    prune: float = 1.0,
    backend: str = "onnx",
    trusted: Sequence[str] = (),
    progress: Progress = quiet,
) -> dict[str, Profile]:
    """Profile members alone, one at a time, on one device; those measured before are not measured again.

    `members` are ids, by default the top share `prune` of the library by validation cross-entropy.
    Returns the profiles of the device's kind by member.
    """
    from ripieno.profiles import local_devices

    library = open_run(run)
    if not 0 < prune <= 1:
        raise LibraryError(f"prune {prune:g}: must be a share of the library, above 0 and at most 1")
    here = local_devices(device)[0]
    if members is None:
        ranked = sorted(library.members(), key=lambda m: (m.losses["valid_cross_entropy"], m.id))
        members = [m.id for m in ranked[: max(1, round(prune * len(ranked)))]]
    return profiles_on(library, members, here, backend, trusted=trusted, progress=progress)


def profiles_on(
    library: Library,
    members: Iterable[str],
    device: Device,
    backend: str,
    *,
    trusted: Sequence[str] = (),
    progress: Progress = quiet,
) -> dict[str, Profile]:
    """Profiles of `members` on `device` by member; those not measured yet are, one at a time."""
    from ripieno.profiles import measure_library

    runnable = [m for m in map(library.member, members) if m.format != "predictions"]
    if backend == "onnx":
        export(library, runnable, trusted, progress)

    def told(_: Profile, done: int, total: int) -> None:
        progress(f"measuring on {device.kind}", done, total)

    return measure_library(library, device, [m.id for m in runnable], backend, progress=told)


def export(
    library: Library, members: Sequence[Member], trusted: Sequence[str] = (), progress: Progress = quiet
) -> None:
    """Make the ONNX file of every trained member that has none yet."""
    missing = [m for m in members if not library.onnx_path(m.id).exists()]
    if not missing:
        return
    from ripieno.backends.export import export_onnx

    for done, member in enumerate(missing):
        progress("exporting to ONNX", done, len(missing))
        export_onnx(member, library.weights_path(member.id), library.onnx_path(member.id), trusted=trusted)
    progress("exporting to ONNX", len(missing), len(missing))
