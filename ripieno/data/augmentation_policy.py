"""Policies of augmentation: random ones, and learnt ones; their checks, their JSON, and their form in a configuration.

A **random policy** draws, for each sample, a number of operations, each with its sign; with a magnitude of its own
("random") or the one that is given. One operation of random magnitude is TrivialAugment (Müller and Hutter 2021),
several of one magnitude are RandAugment (Cubuk et al. 2020). A **learnt policy** is a list of steps, applied in order,
each to a sample with its probability (as in AutoAugment, Cubuk et al. 2019).

Magnitudes are 0 (no change, or the least) to 1 (the most), whatever the operation. Which operations there are depends
on the kind of data: `OPERATIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ripieno import files
from ripieno.errors import DataError
from ripieno.types import Configuration, DataKind, Value, type_version

RANDOM: Literal["random"] = "random"
"""Magnitude that each operation on each sample draws, uniformly from 0 to 1."""
MOST_OPERATIONS = 3
"""Largest number of operations of a random policy on a sample."""
OPERATIONS: Mapping[DataKind, tuple[str, ...]] = {
    "image": (
        *("identity", "auto-contrast", "equalize", "rotate", "solarize", "posterize", "colour"),
        *("contrast", "brightness", "sharpness", "shear-x", "shear-y", "translate-x", "translate-y"),
    ),
    "series": ("jitter", "scaling", "window-warp", "crop", "channel-dropout"),
    "table": ("noise", "swap"),
}
"""Operations by kind of data; of images, those of RandAugment: see `ripieno.data.image_operations`.

Those of series are in `ripieno.data.series_operations`, of tables in `table_operations`.
"""
NAMES = frozenset(("operations", "magnitude", "without", "policy"))
"""Hyperparameters of policies: see `policy_of`."""


@dataclass(frozen=True)
class RandomPolicy:
    """Operations drawn for each sample. Raises DataError for a value that is out of range or unknown."""

    kind: DataKind
    operations: int = 1
    """number of operations on a sample, 0 to `MOST_OPERATIONS`"""
    magnitude: float | Literal["random"] = RANDOM
    without: tuple[str, ...] = ()
    """operations that are not drawn"""

    def __post_init__(self) -> None:
        is_whole = isinstance(self.operations, int) and not isinstance(self.operations, bool)
        if not is_whole or not 0 <= self.operations <= MOST_OPERATIONS:
            raise DataError(f"operations is {self.operations!r}: it must be a whole number from 0 to {MOST_OPERATIONS}")
        if self.magnitude != RANDOM:
            _check_share("magnitude", self.magnitude, f" or {RANDOM!r}")
        if self.operations and not OPERATIONS[self.kind]:
            raise DataError(f"there are no operations on inputs of kind {self.kind}: leave the policy out")
        for name in self.without:
            _check_operation(name, self.kind)
        if self.operations and not self.drawn:
            raise DataError(f"without leaves no operation on inputs of kind {self.kind}: name fewer, or operations 0")

    @property
    def drawn(self) -> tuple[str, ...]:
        """Operations to draw from, in the order of `OPERATIONS`."""
        return tuple(name for name in OPERATIONS[self.kind] if name not in self.without)


@dataclass(frozen=True)
class PolicyStep:
    """Operation of a learnt policy, with the share of samples that it changes and its magnitude, both 0 to 1."""

    operation: str
    probability: float
    magnitude: float


@dataclass(frozen=True)
class LearntPolicy:
    """Steps applied in order. Raises DataError for an operation that is unknown, or a value outside 0 to 1."""

    kind: DataKind
    steps: tuple[PolicyStep, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise DataError("a policy of augmentation has no steps: it must have at least one")
        for step in self.steps:
            _check_operation(step.operation, self.kind)
            _check_share(f"probability of {step.operation}", step.probability)
            _check_share(f"magnitude of {step.operation}", step.magnitude)

    @property
    def text(self) -> str:
        """The steps as in a configuration: "rotate 0.5 0.3; colour 0.8 0.2"."""
        return "; ".join(f"{s.operation} {float(s.probability)!r} {float(s.magnitude)!r}" for s in self.steps)


Policy = RandomPolicy | LearntPolicy


def operations_of(policy: Policy) -> frozenset[str]:
    """Return the operations that `policy` may apply."""
    if isinstance(policy, LearntPolicy):
        return frozenset(step.operation for step in policy.steps)
    return frozenset(policy.drawn if policy.operations else ())


def policy_of(configuration: Configuration, kind: DataKind) -> Policy | None:
    """Return the policy in `configuration` for inputs of `kind`; None where it has none, or no operations.

    Hyperparameters of a random policy are `operations`, `magnitude` and `without` (names, separated by commas); of a
    learnt one `policy`, its text. Raises DataError for a value that is wrong, and for both policies at once.
    """
    text, operations = configuration.get("policy", ""), configuration.get("operations", 0)
    names = str(configuration.get("without", "")).replace(",", " ").split()
    magnitude: Any = configuration.get("magnitude", RANDOM)
    drawn = RandomPolicy(kind, operations, magnitude, tuple(names))  # type: ignore[arg-type]
    if not text:
        return drawn if drawn.operations else None
    if drawn.operations:
        raise DataError(f"operations is {operations!r}, but there is a learnt policy: leave one of them out")
    return policy_from_text(text, kind)


def hyperparameters_of(policy: Policy) -> dict[str, Value]:
    """Return the hyperparameters that stand for `policy`, the inverse of `policy_of`."""
    if isinstance(policy, LearntPolicy):
        return {"policy": policy.text}
    chosen: dict[str, Value] = {"operations": policy.operations, "magnitude": policy.magnitude}
    return chosen | ({"without": ", ".join(policy.without)} if policy.without else {})


def policy_from_text(text: Any, kind: DataKind) -> LearntPolicy:
    """Return the learnt policy of its `text`. Raises DataError for a step without the three values."""
    steps = []
    for part in str(text).split(";"):
        try:
            operation, probability, magnitude = part.split()
            steps.append(PolicyStep(operation, float(probability), float(magnitude)))
        except ValueError:
            raise DataError(
                f"{part.strip()!r} is no step of a policy: it must be an operation, its probability and its magnitude, "
                'as in "rotate 0.5 0.3; colour 0.8 0.2"'
            ) from None
    return LearntPolicy(kind, tuple(steps))


def policy_to_plain(policy: Policy) -> dict[str, Any]:
    """Return `policy` as plain values for a JSON file."""
    return asdict(policy)


def policy_from_plain(fields: Mapping[str, Any]) -> Policy:
    """Return the policy of plain values, the inverse of `policy_to_plain`. Raises DataError naming what is wrong."""
    kind: Any = fields.get("kind")
    if kind not in tuple(OPERATIONS):  # any value of JSON
        raise DataError(f'"kind" is {kind!r}: it must be one of {", ".join(OPERATIONS)}')
    is_learnt = "steps" in fields
    names = ("kind", "steps") if is_learnt else ("kind", "operations", "magnitude", "without")
    if unknown := sorted(fields.keys() - {*names, "version"}):
        raise DataError(f"unknown field {unknown[0]!r}: it must be one of {', '.join(names)}")
    if not is_learnt:
        if "operations" not in fields:
            raise DataError('a policy needs "operations", their number on a sample, or "steps"')
        without = fields.get("without", ())
        if not isinstance(without, list | tuple):
            raise DataError(f'"without" is {without!r}: it must be a list of operations')
        return RandomPolicy(kind, fields["operations"], fields.get("magnitude", RANDOM), tuple(without))
    if not isinstance(fields["steps"], list | tuple):
        raise DataError('"steps" must be a list of operation, probability and magnitude')
    return LearntPolicy(kind, tuple(map(_step_from_plain, fields["steps"])))


def _step_from_plain(fields: Any) -> PolicyStep:
    """Return a step of its plain values."""
    expected = set(PolicyStep.__dataclass_fields__)
    if not isinstance(fields, Mapping) or set(fields) != expected:
        raise DataError(f"step {fields!r}: it must have operation, probability and magnitude")
    return PolicyStep(**fields)


def read_policy(path: str | Path, kind: DataKind | None = None) -> Policy:
    """Return the policy in the JSON file `path`, for inputs of `kind` where it is given.

    Raises DataError naming the file and what is wrong in it.
    """
    try:
        fields = json.loads(Path(path).read_text())
        if not isinstance(fields, dict):
            raise DataError("it must hold one JSON object")
        version = fields.get("version", type_version)
        if not isinstance(version, int):
            raise DataError(f'"version" is {version!r}: it must be a whole number')
        if version > type_version:
            raise DataError(f"version {version!r} is above {type_version}, the latest that ripieno knows: upgrade it")
        return check_kind(policy_from_plain(fields), kind)
    except OSError as error:
        raise DataError(f"policy {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"policy {path} is not JSON: {error}") from error
    except DataError as error:
        raise DataError(f"policy {path}: {error}") from error


def check_kind(policy: Policy, kind: DataKind | None, where: str = "") -> Policy:
    """Return `policy`. Raises DataError, which begins with `where`, where it is for inputs of another `kind`."""
    if kind is not None and policy.kind != kind:
        wrong = f"it is for inputs of kind {policy.kind}, the data are of kind {kind}"
        raise DataError(f"{where}: {wrong}" if where else wrong)
    return policy


def write_policy(path: Path, policy: Policy) -> None:
    """Write `policy` as JSON to `path`."""
    files.write_json(path, policy_to_plain(policy))


def _check_operation(name: Any, kind: DataKind) -> None:
    """Raise DataError unless `name` is an operation on inputs of `kind`."""
    known = OPERATIONS[kind]
    if name in known:
        return
    if not known:
        raise DataError(f"there are no operations on inputs of kind {kind}: leave the policy out")
    other = next((f" (it is one on inputs of kind {k})" for k, names in OPERATIONS.items() if name in names), "")
    raise DataError(f"{name!r} is no operation on inputs of kind {kind}{other}: it must be one of {', '.join(known)}")


def _check_share(name: str, value: Any, other: str = "") -> None:
    """Raise DataError unless `value` is a number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise DataError(f"{name} is {value!r}: it must be a number from 0 to 1{other}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
