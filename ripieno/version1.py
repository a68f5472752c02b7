"""JSON of version 1, in which every task was a classification of images: its fields become those of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EPOCH = {"train_cross_entropy": "train_loss", "valid_cross_entropy": "valid_loss"}
_EFFECT = {
    "cross_entropy": "loss",
    "whole_cross_entropy": "whole_loss",
    "accuracy": "score",
    "whole_accuracy": "whole_score",
}
_REPORT = {"accuracy": "score", "reference_accuracy": "reference_score"}
"""Former and new names"""


def upgrade(fields: Any) -> Any:
    """Convert the decoded JSON of a file of version 1.

    Members, bundles, data sets, fronts, cascades and the progress in checkpoints change; anything else is returned as
    it is. What is not of the expected type stays, and is reported by the reader.
    """
    if not isinstance(fields, dict):
        return fields
    fields = dict(fields)
    if "classes" in fields and ("losses" in fields or "allocation" in fields or "mean" in fields):
        _add_task(fields)
    if isinstance(fields.get("members"), list) and "allocation" in fields:
        fields["members"] = [upgrade(member) for member in fields["members"]]
    if "kind" in fields and "ensembles" in fields:  # a front
        fields["cost"] = fields.pop("kind")
    for part in ("cascade", "proof"):
        if part in fields:
            fields[part] = upgrade(fields[part])
    if "order" in fields and isinstance(fields.get("effects"), dict):  # a cascade
        fields["effects"] = {split: _rename(effect, _EFFECT) for split, effect in fields["effects"].items()}
    if "fits" in fields:  # the report of the backends
        fields = _rename(fields, _REPORT)
    if isinstance(fields.get("curve"), list):
        fields["curve"] = [_rename(epoch, _EPOCH) for epoch in fields["curve"]]
    return fields


def _add_task(fields: dict[str, Any]) -> None:
    names = fields.pop("classes")
    task = {"kind": "classification", "output": [len(names) if isinstance(names, list) else 0], "names": names}
    if "metric" in fields:
        task["metric"] = fields.pop("metric")
    fields.setdefault("task", task)


def _rename(fields: Any, names: Mapping[str, str]) -> Any:
    return {names.get(name, name): value for name, value in fields.items()} if isinstance(fields, dict) else fields
