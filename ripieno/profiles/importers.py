"""Profiles from elsewhere, for devices one need not have: our files, a run's folder of them, or a table of timm's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ripieno import files
from ripieno.commands import command
from ripieno.errors import LibraryError
from ripieno.profiles.timm import timm_profiles
from ripieno.types import Device, Profile

Profiles = dict[str, dict[str, Profile]]
"""By kind of device, then by member."""


def import_profiles(
    words: Iterable[str], devices: Sequence[Device], members: Collection[str] | None = None
) -> Profiles:
    """Profiles by kind of device, then by member, of `members` or of all there are, from what each of `words` names.

    A word is `PATH` or `KIND=PATH`. PATH is a file of ours (`RUN/profiles/KIND.json`), a run's folder, or a table of
    timm's (`.csv`). Ours are of the kind they say; a table is of the one kind of GPU among `devices`, or of CPU when
    its name has `-cpu-`. `KIND=` says that they hold for that kind, whatever they were measured on. Later words go
    before earlier ones.

    Raises LibraryError for what cannot be read, lacks a member, or could be of several kinds.
    """
    found: Profiles = {}
    for word in words:
        kind, equals, path = word.rpartition("=")
        if equals and kind not in {d.kind for d in devices}:
            known = ", ".join(dict.fromkeys(d.kind for d in devices))
            raise LibraryError(f"--profiles {word}: no device is of kind {kind!r}; there are {known}")
        for of, profiles in _read(Path(path), kind, devices, members).items():
            found.setdefault(of, {}).update(profiles)
    return found


def is_cpu(kind: str) -> bool:
    """Whether `kind` is one of a CPU: they end in their cores."""
    return re.search(r"-\d+-cores?$", kind) is not None


def _read(path: Path, kind: str, devices: Sequence[Device], members: Collection[str] | None) -> Profiles:
    if path.suffix == ".csv":
        if members is None:
            raise LibraryError(f"{path} has more than a thousand networks: name those of the ensemble with --members")
        of = kind or _only_kind(path, devices)
        return {of: timm_profiles(path, of, members)}
    if path.is_dir():
        paths = sorted((path / "profiles" if (path / "profiles").is_dir() else path).glob("*.json"))
        if kind:
            raise LibraryError(f"{path} is a folder of profiles of many kinds: {kind}=FILE names one of its files")
        if not paths:
            raise LibraryError(f"{path} has no profiles: `{command('measure', path)}` makes them")
    else:
        paths = [path]
    found: Profiles = {}
    for one in paths:
        for profile in files.read_json(one, dict[str, list[Profile]])["items"]:
            if members is None or profile.member in members:
                of = kind or profile.device
                found.setdefault(of, {})[profile.member] = dataclasses.replace(profile, device=of)
    return found


def _only_kind(path: Path, devices: Sequence[Device]) -> str:
    """The one kind among `devices` that a table can be of."""
    cpu = "-cpu-" in path.name
    kinds = list(dict.fromkeys(d.kind for d in devices if (d.type == "cpu") == cpu))
    if len(kinds) != 1:
        what = "CPU" if cpu else "GPU"
        there = f"{len(kinds)} kinds of {what} ({', '.join(kinds)})" if kinds else f"no {what}"
        raise LibraryError(f"{path} is of a {what} and the devices have {there}: write KIND={path}")
    return kinds[0]
