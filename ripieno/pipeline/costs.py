"""Library -> profiles: costs of members, measured one at a time, and every kind of cost that a budget may bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ripieno.backends.backend_id import MODEL, file_of
from ripieno.backends.support import check_support
from ripieno.errors import EngineError, LibraryError, MissingExtraError, RipienoError, SelectionError
from ripieno.library import Library
from ripieno.library.broken import warn_broken
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.shell_command import command
from ripieno.types import Device, Member, Profile

MEASURED = ("seconds", "memory", "latency")
"""Kinds of cost in a profile: seconds for 2,000 samples, bytes, seconds of one sample."""
COUNTED = ("parameters", "flops")
"""Kinds that are counted in the network: its parameters, and its operations for one sample."""
UNCOUNTABLE = "the operations in their models, such as those of trees, cannot be counted"
"""Reason for missing FLOPs."""


def measure(
    run: str | Path | Library,
    members: Iterable[str] | None = None,
    *,
    device: str = "cpu",
    prune: float = 1.0,
    backend: str = "onnx",
    again: bool = False,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> dict[str, Profile]:
    """Profile members alone, one at a time, on one device; with `again` also those measured before.

    `members` are ids; by default those with costs that `select` and `front` need at the same `prune`. Members with
    broken files are skipped with a `BrokenFileWarning`; if all are broken, the error is raised. Returns profiles for
    the device's kind by member.
    """
    from ripieno.profiles import local_devices

    library = open_run(run, writing=True, trusted=trusted)
    if not 0 < prune <= 1:
        raise LibraryError(f"prune {prune:g} is not valid: it must be a share of the library, above 0 and at most 1")
    target = local_devices(device)[0]
    known = library.members()
    if not known:
        tune = command("tune", "DATA", run=library.path)
        raise LibraryError(f"{library.path} has no members to measure: `{tune}` trains some")
    if all(m.format == "predictions" for m in known):
        raise LibraryError(
            f"{library.path} holds only predictions, which cannot be measured: import them again with --replace and "
            "their --costs, or import the networks"
        )
    if members is None:
        members = [m.id for m in selection_candidates(library, prune)]
    return profile_members(library, members, target, backend, again=again, progress=progress, skip_broken=True)


def ensure_profiles(
    library: Library, kinds: Collection[str], share: float, device: Device, *, progress: ProgressFunction = no_progress
) -> None:
    """Measure missing costs in `kinds` that a selection among the best `share` of the library needs.

    They are measured with the backend of the known profiles, since seconds of two backends cannot be compared. An
    invalid `share` is ignored here; selection raises the error.
    """
    if not 0 < share <= 1:
        return
    members = [m for m in selection_candidates(library, share) if m.format != "predictions"]
    known = library.profiles(device.kind)
    backend = next((p.backend for p in known.values()), "onnx")
    lacking = [
        m.id
        for m in members
        if m.id not in known
        and any(k in MEASURED and k not in m.costs for k in kinds)
        and (file_of(backend) == MODEL or library.model_path(m.id, backend).exists())
    ]
    if lacking:
        profile_members(library, lacking, device, backend, progress=progress, skip_broken=True)
    if "flops" in kinds:  # counted in the ONNX file
        reasons: dict[str, RipienoError] = {}
        uncounted = [m for m in members if "flops" not in m.costs]
        export_members(library, uncounted, progress, failed=_collect(reasons))
        warn_broken(f"the members of {library.path}", [str(e) for e in reasons.values()])


def selection_candidates(library: Library, share: float) -> list[Member]:
    """Return the members with costs that a selection among the best `share` of the library needs.

    These are twice that share, since selection skips members too expensive for a budget, and at least its minimum.
    """
    from ripieno.selection.problem import PRUNE_LEAST

    ranked = sorted(library.members(), key=lambda m: (m.loss, m.id))
    return ranked[: max(PRUNE_LEAST, math.ceil(2 * share * len(ranked)))]


def profile_members(
    library: Library,
    members: Iterable[str],
    device: Device,
    backend: str,
    *,
    again: bool = False,
    progress: ProgressFunction = no_progress,
    skip_broken: bool = False,
) -> dict[str, Profile]:
    """Return profiles of `members` on `device` by member; measure missing ones, one at a time.

    Raises LibraryError or EngineError for a member with broken files, or that the backend cannot run; with
    `skip_broken` only when that holds for all.
    """
    from ripieno.profiles import measure_library

    runnable = [m for m in map(library.member, members) if m.format != "predictions"]
    unsupported: dict[str, RipienoError] = {}
    for member in runnable:
        try:
            check_support(backend, member, library.onnx_path(member.id))
        except EngineError as error:
            unsupported[member.id] = error
    if unsupported and (not skip_broken or len(unsupported) == len(runnable)):
        raise next(iter(unsupported.values()))
    warn_broken(f"the members of {library.path}", [str(e) for e in unsupported.values()], "")
    runnable = [m for m in runnable if m.id not in unsupported]
    reasons: dict[str, RipienoError] = {}
    failed = _collect(reasons) if skip_broken else None
    if file_of(backend) == MODEL:
        export_members(library, runnable, progress, failed)

    def report(_: Profile, done: int, total: int) -> None:
        progress(f"measuring on {device.kind}", done, total)

    wanted = [m.id for m in runnable if m.id not in reasons]
    profiles = measure_library(library, device, wanted, backend, again=again, progress=report, failed=failed)
    if reasons and not profiles:
        raise next(iter(reasons.values()))
    warn_broken(f"the members of {library.path}", [str(e) for e in reasons.values()])
    return profiles


def _collect(reasons: dict[str, RipienoError]) -> Callable[[str, RipienoError], None]:
    """Return a callback that stores the errors of single members by id, and raises an error that concerns them all."""

    def failed(member: str, error: RipienoError) -> None:
        if not isinstance(error, LibraryError | EngineError):
            raise error
        reasons[member] = error

    return failed


def export_members(
    library: Library,
    members: Sequence[Member],
    progress: ProgressFunction = no_progress,
    failed: Callable[[str, RipienoError], None] | None = None,
) -> None:
    """Export every trained member without an ONNX file to ONNX; `failed` receives errors where it is given."""
    missing = [m for m in members if not library.onnx_path(m.id).exists()]
    if not missing:
        return
    from ripieno.backends.export import export_onnx

    for done, member in enumerate(missing):
        progress("exporting to ONNX", done, len(missing))
        try:
            export_onnx(member, library.weights_path(member.id), library.onnx_path(member.id), trusted=library.trusted)
        except RipienoError as error:
            if failed is None:
                raise
            failed(member.id, error)
    progress("exporting to ONNX", len(missing), len(missing))


def check_kinds(library: Library, kinds: Iterable[str]) -> None:
    """Raise SelectionError, with a list of valid kinds, for a kind of cost that no member can have."""
    known = _known_kinds(library)
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise SelectionError(f"no cost of kind {unknown[0]!r} in {library.path}: a budget may bound {', '.join(known)}")


def _known_kinds(library: Library) -> list[str]:
    imported = {k for m in library.members() for k in m.costs}
    return [*MEASURED, *COUNTED, *sorted(imported - {*MEASURED, *COUNTED})]


def cost_table(library: Library, kinds: Collection[str], device: str) -> dict[str, dict[str, float]]:
    """Return costs of `kinds` by member, for members that have them all; `device` is a kind of device.

    An imported cost takes precedence over a measured one of the same kind. Raises SelectionError, with a list of valid
    kinds, when no member has all of them.
    """
    profiles = library.profiles(device)
    table: dict[str, dict[str, float]] = {}
    for member in library.members():
        costs = {k: _cost(library, member, profiles.get(member.id), k) for k in kinds}
        complete = {k: v for k, v in costs.items() if v is not None}
        if len(complete) == len(costs):
            table[member.id] = complete
    if not table:
        problem = f"no member of {library.path} has costs in {' and '.join(kinds)}"
        if all(member.format == "predictions" for member in library.members()):
            imported = sorted({kind for member in library.members() for kind in member.costs})
            other = f", or bound {', '.join(imported)}" if imported else ""
            raise SelectionError(
                f"{problem}, and none can be measured: the library holds predictions only. "
                f"Import them again with your own costs (--costs costs.csv --replace){other}"
            )
        known = ", ".join(_known_kinds(library))
        if cannot_count(library, library.members(), kinds):
            raise SelectionError(f"{problem}: {UNCOUNTABLE}; a budget may bound {known}")
        raise SelectionError(
            f"{problem} on {device}: `{command('measure', library.path)}` measures them; a budget may bound {known}"
        )
    return table


def cannot_count(library: Library, members: Iterable[Member], kinds: Collection[str]) -> bool:
    """Return whether `members` have models, but FLOPs, one of `kinds`, cannot be counted in any of them."""
    return "flops" in kinds and all(
        library.onnx_path(m.id).exists() and _cost(library, m, None, "flops") is None for m in members
    )


def static_costs(library: Library, members: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return parameters and FLOPs of one sample by member, where the network is available and can be counted."""
    counts: dict[str, dict[str, float]] = {}
    for member in map(library.member, members):
        counts[member.id] = {}
        for kind in COUNTED:
            with suppress(MissingExtraError):  # a missing package to count with must not hide measured costs
                count = _cost(library, member, None, kind)
                if count is not None:
                    counts[member.id][kind] = count
    return counts


def _cost(library: Library, member: Member, profile: Profile | None, kind: str) -> float | None:
    if kind in member.costs:
        return member.costs[kind]
    if profile is not None and kind in MEASURED:
        latency = min(profile.points, key=lambda p: p.batch_size)
        return {"seconds": profile.cost, "memory": float(profile.best.bytes), "latency": latency.seconds}[kind]
    if kind == "parameters" and member.parameters:
        return float(member.parameters)
    if kind == "flops" and library.onnx_path(member.id).exists():
        from ripieno.backends.flops import onnx_flops

        try:
            return onnx_flops(library.onnx_path(member.id))
        except LibraryError:  # a graph with unknown shapes or operations
            return None
    return None
