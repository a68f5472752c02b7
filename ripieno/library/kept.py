"""What a library keeps beside its members: what they cost, and what was chosen, planned and placed of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ripieno import files
from ripieno.commands import command
from ripieno.errors import LibraryError, error_summary
from ripieno.library.broken import read_or_none, read_sound, warn_broken, write_over
from ripieno.types import Allocation, Cascade, Ensemble, Front, Profile


@dataclass(frozen=True)
class _Items:
    """What a file of several words holds."""

    items: list[Any]


W = TypeVar("W", Ensemble, Allocation)


class Kept:
    """Profiles, ensembles, cascades and allocations in the run's folder `path`, a JSON file each.

    Of what is broken there, a list leaves it out with a `BrokenFileWarning`; to ask for it by name raises LibraryError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # profiles

    def profiles(self, device: str, backend: str | None = None) -> dict[str, Profile]:
        """Profiles measured on devices of kind `device` by `backend` (`onnx`, `openvino:bf16`), by member; maybe none.

        Without a backend, by the one that most members were measured with (ties: the first name), for seconds of two
        backends do not compare.
        """
        found = self._all_profiles(device)
        counts = Counter(p.backend for p in found)
        backend = backend or max(sorted(counts), key=lambda name: counts[name], default="")
        return {p.member: p for p in found if p.backend == backend}

    def _all_profiles(self, device: str) -> list[Profile]:
        found, reasons = self._read_profiles(device)
        warn_broken(f"the profiles of {self.path}", reasons)
        return found

    def _read_profiles(self, device: str) -> tuple[list[Profile], list[str]]:
        """Sound profiles, and why others are none: one that is broken does not take the file's others with it."""
        path = self._named("profiles", device)
        if not path.exists():
            return [], []
        try:
            items = files.read_json(path, _Items).items
        except LibraryError as error:
            return [], [str(error)]
        found, reasons = [], []
        for number, item in enumerate(items):
            try:
                found.append(_checked_profile(files.convert(item, Profile)))
            except (msgspec.ValidationError, ValueError) as error:
                reasons.append(f"{path} item {number}: {error_summary(error)}")
        return found, reasons

    def profile_devices(self) -> list[str]:
        """Kinds of device that profiles exist for, sorted."""
        return sorted(p.stem for p in (self.path / "profiles").glob("*.json"))

    def usual_device(self) -> str:
        """Kind of device that most members were measured on (ties: the first name); empty when none was.

        Seconds of two kinds do not compare: what stands on one axis must come from one kind.
        """
        measured = {kind: len(self.profiles(kind)) for kind in self.profile_devices()}
        return max((kind for kind in measured if measured[kind]), key=lambda kind: measured[kind], default="")

    def write_profiles(self, device: str, profiles: Iterable[Profile]) -> Path:
        """Keep profiles of devices of kind `device`, replacing those of the same members by the same backends."""
        merged = {(p.member, p.backend): p for p in (*self._all_profiles(device), *profiles)}
        return self._replace_profiles(device, [merged[key] for key in sorted(merged)])

    def forget_profiles(self, member: str) -> None:
        """Drop what a member was measured to cost, on all devices."""
        for device in self.profile_devices():
            known = self._all_profiles(device)
            kept = [p for p in known if p.member != member]
            if len(kept) < len(known):
                self._replace_profiles(device, kept)

    def _replace_profiles(self, device: str, profiles: list[Profile]) -> Path:
        path = self._named("profiles", device)
        if self._read_profiles(device)[1]:  # what cannot be read now may be of worth to who can
            files.set_aside(path)
        files.write_json(path, profiles)
        return path

    # ensembles and allocations

    def write_ensemble(self, ensemble: Ensemble) -> Path:
        """Write an ensemble under its name."""
        return self._write("ensembles", ensemble.name, ensemble)

    def ensemble(self, name: str) -> Ensemble:
        """One ensemble by name. Raises LibraryError that lists the names there are."""
        path = self._named("ensembles", name)
        if not path.exists():
            known = (
                ", ".join(e.name for e in self.ensembles()) or f"none yet: `{command('select', self.path, budget='B')}`"
            )
            raise LibraryError(f"no ensemble {name!r} in {self.path}; there are: {known}")
        try:
            return _read_named(path, Ensemble)
        except LibraryError as error:
            raise LibraryError(f"{error}: restore it from a copy, or select the ensemble again") from error

    def ensembles(self) -> list[Ensemble]:
        """All ensembles, cheapest budget first."""
        return sorted(self._all("ensembles", Ensemble), key=lambda e: (tuple(e.budget.values()), e.name))

    def write_front(self, front: Front) -> Path:
        """Keep the front of all budgets."""
        path = self.path / "front.json"
        write_over(path, front, Front)
        return path

    def front(self) -> Front | None:
        """The front of all budgets, None when there is none yet."""
        return read_or_none(f"the fronts of {self.path}", self.path / "front.json", Front)

    def forget_front(self) -> None:
        """Drop the front; absent is fine."""
        files.remove_file(self.path / "front.json")

    def write_allocation(self, allocation: Allocation) -> Path:
        """Write an allocation under its name."""
        return self._write("allocations", allocation.name, allocation)

    def allocation(self, name: str) -> Allocation:
        """One allocation by name. Raises LibraryError that lists the names there are."""
        path = self._named("allocations", name)
        if not path.exists():
            known = (
                ", ".join(a.name for a in self.allocations())
                or f"none yet: `{command('allocate', self.path, 'ENSEMBLE')}`"
            )
            raise LibraryError(f"no allocation {name!r} in {self.path}; there are: {known}")
        try:
            return _read_named(path, Allocation)
        except LibraryError as error:
            raise LibraryError(f"{error}: restore it from a copy, or allocate the ensemble again") from error

    def write_cascade(self, ensemble: str, cascade: Cascade) -> Path:
        """Keep what a cascade of an ensemble saves and costs."""
        return self._write("cascades", ensemble, cascade)

    def cascade(self, ensemble: str) -> Cascade | None:
        """The cascade last planned for an ensemble; None when none was."""
        return read_or_none(f"the cascades of {self.path}", self._named("cascades", ensemble), Cascade)

    def forget_cascade(self, ensemble: str) -> None:
        """Drop the cascade of an ensemble; absent is fine."""
        files.remove_file(self._named("cascades", ensemble))

    def allocations(self) -> list[Allocation]:
        """All allocations, by name."""
        return self._all("allocations", Allocation)

    def _all(self, folder: str, kind: type[W]) -> list[W]:
        paths = sorted((self.path / folder).glob("[!.]*.json"))
        return list(read_sound(f"the {folder} of {self.path}", paths, lambda path: _read_named(path, kind)).values())

    def _named(self, folder: str, name: str) -> Path:
        return self.path / folder / f"{plain_name(name)}.json"

    def _write(self, folder: str, name: str, word: Ensemble | Allocation | Cascade) -> Path:
        path = self._named(folder, name)
        write_over(path, word, type(word))
        return path


def _read_named(path: Path, kind: type[W]) -> W:
    """An ensemble or an allocation. Raises LibraryError when it is broken or lies under another name than its own."""
    word = files.read_json(path, kind)
    if word.name != path.stem:
        raise LibraryError(f"{path} is of {word.name!r}, not of {path.stem!r}")
    if isinstance(word, Ensemble) and len(word.members) != len(word.weights):
        raise LibraryError(f"{path} has {len(word.members)} members and {len(word.weights)} weights")
    return word


def _checked_profile(profile: Profile) -> Profile:
    """Raise ValueError unless each point of a profile, one at least, is a time of a batch."""
    if not profile.points:
        raise ValueError("no points")
    for point in profile.points:
        if point.batch_size < 1 or not 0 < point.seconds < math.inf:
            raise ValueError(f"{point.seconds:g} seconds for a batch of {point.batch_size}")
    return profile


def plain_name(name: str) -> str:
    """`name` if it is a plain file name; LibraryError when it could leave its folder."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise LibraryError(f"{name!r} is not a name: it must not be empty, start with a dot or contain a slash")
    return name
