"""Augmentation that a search leaves out: hyperparameters of a space, and operations of its policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ripieno.data.augmentation_policy import OPERATIONS
from ripieno.errors import SearchError
from ripieno.search.space import Space
from ripieno.types import Value

CHANGES: Mapping[str, tuple[str, ...]] = {
    "flip": ("flip",),
    "crop": ("min_crop", "crop"),
    "zoom": ("max_zoom",),
    "rotate": ("max_rotation",),
    "shear-x": ("max_shear",),
    "translate-x": ("max_translation",),
    "translate-y": ("max_translation",),
    "channel-shift": ("max_channel_shift",),
    "colour": ("colour",),
    "contrast": ("colour",),
    "brightness": ("colour",),
    "mixup": ("mixup",),
    "cutmix": ("cutmix",),
    "erasing": ("erasing",),
    "jitter": ("jitter",),
    "scaling": ("scaling",),
    "window-warp": ("window_warp",),
}
"""Hyperparameters of a space that make each change, besides an operation of the same name."""


def parse_without(without: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of changes to leave out, separated by commas. Raises SearchError for an unknown one."""
    given = (without,) if isinstance(without, str) else without or ()
    names = tuple(dict.fromkeys(name for text in given for name in str(text).replace(",", " ").split()))
    known = sorted(CHANGES.keys() | {name for names in OPERATIONS.values() for name in names if name != "identity"})
    if unknown := [name for name in names if name not in known]:
        raise SearchError(f"without is {unknown[0]!r}: it must be of {', '.join(known)}")
    return names


def leave_out(space: Space, names: Iterable[str]) -> Space:
    """Return `space` without the changes `names`: neither its hyperparameters nor its policy make them.

    Raises SearchError where nothing is left to search or, of a policy, to draw.
    """
    names = tuple(names)
    gone = {hyperparameter for name in names for hyperparameter in CHANGES.get(name, ())}
    ranges = {name: choice for name, choice in space.ranges.items() if name not in gone}
    if not ranges:
        raise SearchError(f"space {space.name} searches nothing without {', '.join(names)}: leave fewer out")
    kept = {name: value for name, value in space.fixed.items() if name not in gone}
    return leave_out_operations(replace(space, ranges=ranges, fixed=kept), names)


def leave_out_operations(space: Space, names: Iterable[str]) -> Space:
    """Return `space` without the operations `names` in its policy; others are ignored."""
    operations = tuple(name for name in names if any(name in known for known in OPERATIONS.values()))
    if not operations:
        return space
    fixed = dict(space.fixed)
    if "operations" in space.ranges or fixed.get("operations"):
        before = str(fixed.get("without", "")).replace(",", " ").split()
        fixed["without"] = ", ".join(dict.fromkeys((*before, *operations)))
        if any(set(known) <= {*before, *operations} for known in OPERATIONS.values() if known):
            raise SearchError(f"without {', '.join(operations)} no operation is left: leave fewer out")
    if policy := fixed.get("policy"):
        fixed |= _policy_without(str(policy), operations)
    return replace(space, fixed=fixed)


def _policy_without(text: str, operations: tuple[str, ...]) -> dict[str, Value]:
    """Return the hyperparameter of a learnt policy without its steps of `operations`."""
    steps = [step.strip() for step in text.split(";")]
    return {"policy": "; ".join(step for step in steps if step.split()[:1] not in [[name] for name in operations])}
