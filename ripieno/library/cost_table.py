"""Costs of members, and of the frozen backbones that they share: an ensemble pays each backbone once.

A member with a backbone (`Member.backbone`) has a profile of its own part, the head, and its backbone has one under its
own id. Of counted costs, too, the member's own are those of the head. Alone it costs both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno.errors import LibraryError, require
from ripieno.library.backbones import backbones_folder, weights_file
from ripieno.library.library import Library
from ripieno.models.backbone_id import parse_backbone_id
from ripieno.types import Member, Profile

MEASURED = ("seconds", "memory", "latency", "joules")
"""Kinds of cost in a profile: seconds for 2,000 samples, bytes, seconds of one sample, joules for 2,000 samples."""
COUNTED = ("parameters", "flops", "bytes")
"""Kinds that are counted in the network: its parameters, its operations for one sample, the bytes of its ONNX file."""
EXPORTED = ("flops", "bytes")
"""Kinds that are counted in the exported ONNX file."""
BODY = "body."
"""Start of the names of parameters in a member's own file of weights."""


@dataclass(frozen=True)
class CostTable:
    """Costs of members by kind, and of the backbones that they share."""

    own: Mapping[str, Mapping[str, float]]
    """by member; without its backbone"""
    backbones: Mapping[str, str]
    """id of the backbone by member, for members that share one"""
    shared: Mapping[str, Mapping[str, float]]
    """by id of the backbone"""

    def alone(self, kind: str) -> dict[str, float]:
        """Return the cost of each member alone, with its backbone."""
        shared = {member: self.shared[backbone][kind] for member, backbone in self.backbones.items()}
        return {member: costs[kind] + shared.get(member, 0.0) for member, costs in self.own.items()}

    def total(self, members: Iterable[str]) -> dict[str, float]:
        """Return the cost of an ensemble of `members` by kind: each member and each backbone once."""
        distinct = list(dict.fromkeys(members))
        backbones = dict.fromkeys(self.backbones[m] for m in distinct if m in self.backbones)
        parts = [*(self.own[m] for m in distinct), *(self.shared[b] for b in backbones)]
        return {kind: sum(part[kind] for part in parts) for kind in parts[0]}

    def arguments(self, members: Iterable[str]) -> dict[str, Any]:
        """Return `costs`, `shared` and `shared_costs` of `members`, in their order, as `select_members` takes them."""
        ids = list(members)
        kinds = list(self.own[ids[0]]) if ids else []
        arguments: dict[str, Any] = {"costs": {kind: [self.own[m][kind] for m in ids] for kind in kinds}}
        backbones = {self.backbones[m] for m in ids if m in self.backbones}
        if backbones:
            arguments["shared"] = [self.backbones.get(m, "") for m in ids]
            arguments["shared_costs"] = {b: dict(costs) for b, costs in self.shared.items() if b in backbones}
        return arguments


def read_cost_table(
    library: Library, kinds: Collection[str], device: str = "", members: Collection[Member] | None = None
) -> CostTable:
    """Return the costs of `kinds` of the `members` (None: all) that have them all.

    `device` is a kind of device; without it nothing counts as measured. An imported cost takes precedence over a
    measured one of the same kind.
    """
    profiles = library.profiles(device) if device else {}
    own: dict[str, dict[str, float]] = {}
    backbones: dict[str, str] = {}
    shared: dict[str, dict[str, float] | None] = {}
    for member in library.members() if members is None else members:
        costs = _complete({k: own_cost(library, member, profiles.get(member.id), k) for k in kinds})
        backbone = member.backbone
        if costs is not None and backbone and backbone not in shared:
            known = profiles.get(backbone)
            shared[backbone] = _complete({k: backbone_cost(library, backbone, known, k) for k in kinds})
        if costs is not None and (not backbone or shared[backbone] is not None):
            own[member.id] = costs
            backbones |= {member.id: backbone} if backbone else {}
    return CostTable(own, backbones, {b: costs for b, costs in shared.items() if costs is not None})


def own_cost(library: Library, member: Member, profile: Profile | None, kind: str) -> float | None:
    """Return the cost of a member without its backbone, None where it is not known."""
    if kind in member.costs:
        return member.costs[kind]
    if kind in MEASURED:
        return profile_cost(profile, kind)
    if kind == "parameters" and member.backbone and member.format == "safetensors":
        return _count_parameters(library.weights_path(member.id), BODY)
    if kind == "parameters":
        return float(member.parameters) or None
    return _count_file(library.onnx_path(member.id), kind)


def backbone_cost(library: Library, backbone: str, profile: Profile | None, kind: str) -> float | None:
    """Return the cost of a backbone by its id, None where it is not known.

    Its parameters are those of its file of weights, which is of three channels.
    """
    if kind in MEASURED:
        return profile_cost(profile, kind)
    if kind == "parameters":
        return _count_parameters(weights_file(library.path, parse_backbone_id(backbone).stem))
    return _count_file(backbones_folder(library.path) / f"{backbone}.onnx", kind)


def _complete(costs: Mapping[str, float | None]) -> dict[str, float] | None:
    known = {kind: cost for kind, cost in costs.items() if cost is not None}
    return known if len(known) == len(costs) else None


def profile_cost(profile: Profile | None, kind: str) -> float | None:
    """Return the cost of a kind of `MEASURED` in a profile; None without one, and for joules that were not measured."""
    if profile is None:
        return None
    latency = min(profile.points, key=lambda p: p.batch_size)
    costs = {"seconds": profile.cost, "memory": float(profile.best.bytes), "latency": latency.seconds}
    return profile.joules if kind == "joules" else costs[kind]


def _count_parameters(path: Path, start: str = "") -> float | None:
    """Count the parameters in a file of weights whose names begin with `start`; None where it cannot be read."""
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            tensors = {name: file.get_slice(name) for name in file.keys() if name.startswith(start)}  # noqa: SIM118
            # of a network's tensors, integers and running statistics are buffers
            shapes = [
                tensor.get_shape()
                for name, tensor in tensors.items()
                if "F" in tensor.get_dtype() and not name.endswith(("running_mean", "running_var"))
            ]
    except (OSError, safetensors.SafetensorError):
        return None
    return float(sum(map(math.prod, shapes))) or None


def _count_file(path: Path, kind: str) -> float | None:
    """Return a cost of kind `EXPORTED`, counted in an ONNX file; None where it has none."""
    if kind not in EXPORTED or not path.exists():
        return None
    if kind == "bytes":
        return float(path.stat().st_size)
    from ripieno.backends.flops import onnx_flops

    try:
        return onnx_flops(path)
    except LibraryError:  # a graph with unknown shapes or operations
        return None
