"""Import of profiles for offline planning: ripieno's files, a run's folder, or a timm benchmark table."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.profiles.timm import timm_profiles
from ripieno.shell_command import command
from ripieno.types import Device, Profile

Profiles = dict[str, dict[str, Profile]]
"""Profiles by kind of device, then by member."""


def import_profiles(
    words: Iterable[str], devices: Sequence[Device], members: Collection[str] | None = None
) -> Profiles:
    """Import profiles of `members` (None: all) from each of `words`, by kind of device, then by member.

    A word is `PATH` or `KIND=PATH`. PATH is a ripieno file (`RUN/profiles/KIND.json`), a run's folder, or a timm table
    (`.csv`). A ripieno file states its kind. A table is of the only kind of GPU among `devices`, or of CPU if its name
    contains `-cpu-`. `KIND=` assigns the profiles to that kind. Later words override earlier ones.

    Raises LibraryError if a file cannot be read, lacks a member, or its kind is ambiguous.
    """
    found: Profiles = {}
    for word in words:
        kind, equals, path = word.rpartition("=")
        if equals and kind not in {d.kind for d in devices}:
            known = ", ".join(dict.fromkeys(d.kind for d in devices))
            raise LibraryError(f"--profiles {word} names unknown device kind {kind!r}: expected one of {known}")
        for of, profiles in _read(Path(path), kind, devices, members).items():
            found.setdefault(of, {}).update(profiles)
    return found


def _read(path: Path, kind: str, devices: Sequence[Device], members: Collection[str] | None) -> Profiles:
    if path.suffix == ".csv":
        if members is None:
            raise LibraryError(f"{path} has more than a thousand networks: select those of the ensemble with --members")
        of = kind or _only_kind(path, devices)
        return {of: timm_profiles(path, of, members)}
    if path.is_dir():
        paths = sorted((path / "profiles" if (path / "profiles").is_dir() else path).glob("*.json"))
        if kind:
            raise LibraryError(
                f"{path} is a folder with profiles of several kinds: pass {kind}=FILE with one of its files"
            )
        if not paths:
            raise LibraryError(f"{path} has no profiles: run `{command('measure', path)}`")
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
    """Return the only kind among `devices` that matches a table."""
    cpu = "-cpu-" in path.name
    kinds = list(dict.fromkeys(d.kind for d in devices if (d.type == "cpu") == cpu))
    if len(kinds) != 1:
        processor = "CPU" if cpu else "GPU"
        known = f"{len(kinds)} kinds of {processor} ({', '.join(kinds)})" if kinds else f"no {processor}"
        raise LibraryError(f"{path} is of a {processor}, but the devices have {known}: pass KIND={path}")
    return kinds[0]
