"""Library -> profiles: what members cost, measured alone, and every kind of cost that a budget may bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ripieno.backends.backend_id import MODEL, file_of
from ripieno.commands import command
from ripieno.errors import EngineError, LibraryError, MissingExtraError, RipienoError, SelectionError
from ripieno.library import Library
from ripieno.library.broken import warn_broken
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.types import Device, Member, Profile

MEASURED = ("seconds", "memory", "latency")
"""Kinds of cost that a profile gives: seconds for 2,000 samples, bytes, seconds of one sample."""
COUNTED = ("parameters", "flops")
"""Kinds that are counted in the network itself: its numbers, and its operations for one sample."""


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
    """Profile members alone, one at a time, on one device; those measured before only `again`.

    `members` are ids, by default those that `select` and `front` with the same `prune` need the costs of. Those whose
    files are broken are left out with a `BrokenFileWarning`, unless all are. Returns the profiles of the device's kind
    by member.
    """
    from ripieno.profiles import local_devices

    library = open_run(run, writing=True)
    if not 0 < prune <= 1:
        raise LibraryError(f"prune {prune:g}: must be a share of the library, above 0 and at most 1")
    here = local_devices(device)[0]
    there = library.members()
    if not there:
        made = command("tune", "DATA", run=library.path)
        raise LibraryError(f"{library.path} has no members to measure: `{made}` makes some")
    if all(m.format == "predictions" for m in there):
        raise LibraryError(
            f"the members of {library.path} are predictions, which cannot be run and measured: import them again "
            "with --replace and their --costs, or import the networks"
        )
    if members is None:
        members = [m.id for m in selection_candidates(library, prune)]
    return profile_members(
        library, members, here, backend, again=again, trusted=trusted, progress=progress, skip_broken=True
    )


def ensure_profiles(
    library: Library,
    kinds: Collection[str],
    share: float,
    device: Device,
    *,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> None:
    """Find what is missing of the costs in `kinds` that a selection among the best `share` of the library needs.

    They are measured by the backend that most were, for seconds of two do not compare. A `share` that is none is left
    to selection, which says so.
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
        profile_members(library, lacking, device, backend, trusted=trusted, progress=progress, skip_broken=True)
    if "flops" in kinds:  # counted in the ONNX file
        reasons: dict[str, RipienoError] = {}
        counted = [m for m in members if "flops" not in m.costs]
        export_members(library, counted, trusted, progress, failed=_gather(reasons))
        warn_broken(f"the members of {library.path}", [str(e) for e in reasons.values()])


def selection_candidates(library: Library, share: float) -> list[Member]:
    """Members whose costs a selection among the best `share` of the library needs.

    Twice that share, for what is too dear for a budget is passed over, and no fewer than selection looks at.
    """
    from ripieno.selection.problem import PRUNE_LEAST

    ranked = sorted(library.members(), key=lambda m: (m.losses["valid_cross_entropy"], m.id))
    return ranked[: max(PRUNE_LEAST, math.ceil(2 * share * len(ranked)))]


def profile_members(
    library: Library,
    members: Iterable[str],
    device: Device,
    backend: str,
    *,
    again: bool = False,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    skip_broken: bool = False,
) -> dict[str, Profile]:
    """Profiles of `members` on `device` by member; those not measured yet are, one at a time.

    Raises LibraryError or EngineError for one whose files are broken; with `skip_broken` only when all are.
    """
    from ripieno.profiles import measure_library

    runnable = [m for m in map(library.member, members) if m.format != "predictions"]
    reasons: dict[str, RipienoError] = {}
    failed = _gather(reasons) if skip_broken else None
    if file_of(backend) == MODEL:
        export_members(library, runnable, trusted, progress, failed)

    def told(_: Profile, done: int, total: int) -> None:
        progress(f"measuring on {device.kind}", done, total)

    wanted = [m.id for m in runnable if m.id not in reasons]
    found = measure_library(
        library, device, wanted, backend, again=again, trusted=trusted, progress=told, failed=failed
    )
    if reasons and not found:
        raise next(iter(reasons.values()))
    warn_broken(f"the members of {library.path}", [str(e) for e in reasons.values()])
    return found


def _gather(reasons: dict[str, RipienoError]) -> Callable[[str, RipienoError], None]:
    """Keep the errors of single members by id; what is wrong with all of them is raised."""

    def failed(member: str, error: RipienoError) -> None:
        if not isinstance(error, LibraryError | EngineError):
            raise error
        reasons[member] = error

    return failed


def export_members(
    library: Library,
    members: Sequence[Member],
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    failed: Callable[[str, RipienoError], None] | None = None,
) -> None:
    """Make the ONNX file of every trained member that has none yet; errors go to `failed` where it is given."""
    missing = [m for m in members if not library.onnx_path(m.id).exists()]
    if not missing:
        return
    from ripieno.backends.export import export_onnx

    for done, member in enumerate(missing):
        progress("exporting to ONNX", done, len(missing))
        try:
            export_onnx(member, library.weights_path(member.id), library.onnx_path(member.id), trusted=trusted)
        except RipienoError as error:
            if failed is None:
                raise
            failed(member.id, error)
    progress("exporting to ONNX", len(missing), len(missing))


def check_kinds(library: Library, kinds: Iterable[str]) -> None:
    """Raise SelectionError, listing what a budget may bound, for a kind of cost that no member can have."""
    known = _known_kinds(library)
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise SelectionError(f"no cost of kind {unknown[0]!r} in {library.path}: a budget may bound {', '.join(known)}")


def _known_kinds(library: Library) -> list[str]:
    brought = {k for m in library.members() for k in m.costs}
    return [*MEASURED, *COUNTED, *sorted(brought - {*MEASURED, *COUNTED})]


def cost_table(library: Library, kinds: Collection[str], device: str) -> dict[str, dict[str, float]]:
    """Costs of `kinds` by member, of those members that have them all; `device` is a kind of device.

    A cost the user brought stands before a measured one of the same kind. Raises SelectionError naming what the kinds
    can be when no member has one of them.
    """
    profiles = library.profiles(device)
    table: dict[str, dict[str, float]] = {}
    for member in library.members():
        costs = {k: _cost(library, member, profiles.get(member.id), k) for k in kinds}
        found = {k: v for k, v in costs.items() if v is not None}
        if len(found) == len(costs):
            table[member.id] = found
    if not table:
        lacks = f"no member of {library.path} has costs in {' and '.join(kinds)}"
        if all(member.format == "predictions" for member in library.members()):
            brought = sorted({kind for member in library.members() for kind in member.costs})
            other = f", or bound {', '.join(brought)}" if brought else ""
            raise SelectionError(
                f"{lacks}, and none can be measured: they are known by predictions only. "
                f"Import them again with costs of your own (--costs costs.csv --replace){other}"
            )
        known = ", ".join(_known_kinds(library))
        raise SelectionError(
            f"{lacks} on {device}: `{command('measure', library.path)}` measures them; a budget may bound {known}"
        )
    return table


def static_costs(library: Library, members: Iterable[str]) -> dict[str, dict[str, float]]:
    """Parameters and FLOPs of one sample by member, of those whose network is at hand and can be counted."""
    found: dict[str, dict[str, float]] = {}
    for member in map(library.member, members):
        found[member.id] = {}
        for kind in COUNTED:
            with suppress(MissingExtraError):  # without the package to count with, costs that were measured are no less
                count = _cost(library, member, None, kind)
                if count is not None:
                    found[member.id][kind] = count
    return found


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
        except LibraryError:  # a graph of others whose shapes nobody knows
            return None
    return None
