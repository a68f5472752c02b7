"""Library -> profiles: costs of members, measured one at a time, and every kind of cost that a budget may bound."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ripieno import clock
from ripieno.backends.backend_id import MODEL, file_of
from ripieno.backends.network_part import is_exported
from ripieno.backends.support import check_support
from ripieno.errors import EngineError, LibraryError, MissingExtraError, RipienoError, SelectionError
from ripieno.library import Library
from ripieno.library.broken import warn_broken
from ripieno.library.cost_table import (
    COUNTED,
    EXPORTED,
    MEASURED,
    CostTable,
    backbone_cost,
    own_cost,
    profile_cost,
    read_cost_table,
)
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.shell_command import command
from ripieno.types import Device, Member, Profile

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
    energy: bool = False,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> dict[str, Profile]:
    """Profile members alone, one at a time, on one device; with `again` also those measured before.

    `members` are ids; by default those with costs that `select` and `front` need at the same `prune`. Members with
    broken files are skipped with a `BrokenFileWarning`; if all are broken, the error is raised. With `energy` joules
    are measured too, in some five seconds a member more. Returns profiles for the device's kind by member.

    Raises EngineError with `energy` where no energy counter can be read.
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
    return profile_members(
        library, members, target, backend, again=again, energy=energy, progress=progress, skip_broken=True
    )


def ensure_profiles(
    library: Library,
    kinds: Collection[str],
    share: float,
    device: Device,
    *,
    until: float | None = None,
    progress: ProgressFunction = no_progress,
) -> None:
    """Measure missing costs in `kinds` that a selection among the best `share` of the library needs.

    They are measured with the backend of the known profiles, since seconds of two backends cannot be compared. None
    but the first is begun after the time `until`, by `ripieno.clock`. An invalid `share` is ignored here; selection
    raises the error.
    """
    if not 0 < share <= 1:
        return
    members = [m for m in selection_candidates(library, share) if m.format != "predictions"]
    known = library.profiles(device.kind)
    backend = next((p.backend for p in known.values()), "onnx")
    lacking = [
        m.id
        for m in members
        if any(k in MEASURED and k not in m.costs and _is_missing(known, m, k) for k in kinds)
        and (file_of(backend) == MODEL or library.model_path(m.id, backend).exists())
    ]
    measure = functools.partial(
        profile_members, library, device=device, backend=backend, energy="joules" in kinds, skip_broken=True
    )
    if lacking and until is None:
        measure(lacking, progress=progress)
    elif until is not None:
        _measure_until(until, lacking, bool(known), measure, progress)
    if counted := [kind for kind in EXPORTED if kind in kinds]:
        reasons: dict[str, RipienoError] = {}
        uncounted = [m for m in members if any(kind not in m.costs for kind in counted)]
        export_members(library, uncounted, progress, failed=_collect(reasons))
        warn_broken(f"the members of {library.path}", [str(e) for e in reasons.values()])


def _measure_until(
    until: float,
    members: Sequence[str],
    any_known: bool,
    measure: Callable[[list[str]], object],
    progress: ProgressFunction,
) -> None:
    """Measure members one at a time, the best first, until the time is over and the cost of one is known."""
    for done, member in enumerate(members):
        if any_known and clock.now() >= until:
            break
        progress("measuring members", done, len(members))
        with suppress(LibraryError, EngineError):  # a broken member is skipped, as among many
            any_known = bool(measure([member])) or any_known


def _is_missing(known: Mapping[str, Profile], member: Member, kind: str) -> bool:
    """Return whether a profile that the cost of `kind` of `member` needs is not `known`, or does not have it."""
    parts = [known.get(name) for name in (member.id, member.backbone) if name]
    return any(profile_cost(part, kind) is None for part in parts)


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
    energy: bool = False,
    progress: ProgressFunction = no_progress,
    skip_broken: bool = False,
) -> dict[str, Profile]:
    """Return profiles of `members` on `device` by member; measure missing ones, one at a time.

    Raises LibraryError or EngineError for a member with broken files, or that the backend cannot run; with
    `skip_broken` only when that holds for all. Raises EngineError with `energy` where no energy counter can be read.
    """
    from ripieno.profiles import measure_library
    from ripieno.profiles.energy import open_counter

    if energy:
        open_counter(device)

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
    profiles = measure_library(
        library, device, wanted, backend, again=again, energy=energy, progress=report, failed=failed
    )
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
    missing = [m for m in members if not is_exported(library.onnx_path(m.id), m)]
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


def cost_table(library: Library, kinds: Collection[str], device: str) -> CostTable:
    """Return costs of `kinds` of the members that have them all; `device` is a kind of device.

    Raises SelectionError, with a list of valid kinds, when no member has all of them.
    """
    table = read_cost_table(library, kinds, device)
    if not table.own:
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

    def uncountable(member: Member) -> bool:
        if not library.onnx_path(member.id).exists():
            return False
        known = [own_cost(library, member, None, "flops")]
        known += [backbone_cost(library, member.backbone, None, "flops")] if member.backbone else []
        return None in known

    return "flops" in kinds and all(map(uncountable, members))


def measured_costs(library: Library, profiles: Mapping[str, Profile]) -> CostTable:
    """Return the seconds of the members with `profiles`, as `measure` returns them, and of their backbones."""
    members = [m for m in library.members() if m.id in profiles]
    backbones = {m.id: m.backbone for m in members if m.backbone in profiles}
    seconds = {name: {"seconds": profile.cost} for name, profile in profiles.items()}
    shared = {backbone: seconds[backbone] for backbone in backbones.values()}
    return CostTable({m.id: seconds[m.id] for m in members}, backbones, shared)


def static_costs(library: Library, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return parameters, FLOPs of one sample and bytes of the ONNX file by name, where they can be counted.

    `names` are ids of members and of backbones. A member with a backbone has its own costs, without the backbone's.
    """
    members = {member.id: member for member in library.members()}
    counts: dict[str, dict[str, float]] = {}
    for name in names:
        counts[name] = {}
        for kind in COUNTED:
            with suppress(MissingExtraError):  # a missing package to count with must not hide measured costs
                member = members.get(name)
                count = own_cost(library, member, None, kind) if member else backbone_cost(library, name, None, kind)
                if count is not None:
                    counts[name][kind] = count
    return counts
