"""What a library keeps beside its members: what they cost, and what was chosen, planned and placed of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.types import Allocation, Cascade, Ensemble, Front, Profile


class Kept:
    """Profiles, ensembles, cascades and allocations in the run's folder `path`, a JSON file each."""

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
        path = self._named("profiles", device)
        return files.read_json(path, dict[str, list[Profile]])["items"] if path.exists() else []

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
        return self._write("profiles", device, [merged[key] for key in sorted(merged)])

    def forget_profiles(self, member: str) -> None:
        """Drop what a member was measured to cost, on all devices."""
        for device in self.profile_devices():
            known = self._all_profiles(device)
            kept = [p for p in known if p.member != member]
            if len(kept) < len(known):
                self._write("profiles", device, kept)

    # ensembles and allocations

    def write_ensemble(self, ensemble: Ensemble) -> Path:
        """Write an ensemble under its name."""
        return self._write("ensembles", ensemble.name, ensemble)

    def ensemble(self, name: str) -> Ensemble:
        """One ensemble by name. Raises LibraryError that lists the names there are."""
        path = self._named("ensembles", name)
        if not path.exists():
            known = ", ".join(e.name for e in self.ensembles()) or f"none yet: ripieno select {self.path} --budget B"
            raise LibraryError(f"no ensemble {name!r} in {self.path}; there are: {known}")
        return files.read_json(path, Ensemble)

    def ensembles(self) -> list[Ensemble]:
        """All ensembles, cheapest budget first."""
        paths = (self.path / "ensembles").glob("*.json")
        return sorted((files.read_json(p, Ensemble) for p in paths), key=lambda e: (tuple(e.budget.values()), e.name))

    def write_front(self, front: Front) -> Path:
        """Keep the front of all budgets."""
        path = self.path / "front.json"
        files.write_json(path, front)
        return path

    def front(self) -> Front | None:
        """The front of all budgets, None when there is none yet."""
        path = self.path / "front.json"
        return files.read_json(path, Front) if path.exists() else None

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
            known = ", ".join(a.name for a in self.allocations()) or f"none yet: ripieno allocate {self.path} ENSEMBLE"
            raise LibraryError(f"no allocation {name!r} in {self.path}; there are: {known}")
        return files.read_json(path, Allocation)

    def write_cascade(self, ensemble: str, cascade: Cascade) -> Path:
        """Keep what a cascade of an ensemble saves and costs."""
        return self._write("cascades", ensemble, cascade)

    def cascade(self, ensemble: str) -> Cascade | None:
        """The cascade last planned for an ensemble; None when none was."""
        path = self._named("cascades", ensemble)
        return files.read_json(path, Cascade) if path.exists() else None

    def forget_cascade(self, ensemble: str) -> None:
        """Drop the cascade of an ensemble; absent is fine."""
        files.remove_file(self._named("cascades", ensemble))

    def allocations(self) -> list[Allocation]:
        """All allocations, by name."""
        return [files.read_json(p, Allocation) for p in sorted((self.path / "allocations").glob("*.json"))]

    def _named(self, folder: str, name: str) -> Path:
        return self.path / folder / f"{plain_name(name)}.json"

    def _write(self, folder: str, name: str, word: object) -> Path:
        path = self._named(folder, name)
        files.write_json(path, word)
        return path


def plain_name(name: str) -> str:
    """`name` if it is a plain file name; LibraryError when it could leave its folder."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise LibraryError(f"{name!r} is not a name: it must not be empty, start with a dot or contain a slash")
    return name
