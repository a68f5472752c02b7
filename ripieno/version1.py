"""JSON of version 1, in which every task was a classification of images: its fields become those of today."""

from __future__ import annotations

from typing import Any


def upgrade(fields: Any) -> Any:
    """Convert the decoded JSON of a file of version 1.

    Members, bundles, data sets, fronts and the progress in checkpoints change; anything else is returned as it is. What
    is not of the expected type stays, and is reported by the reader.
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
    if isinstance(fields.get("curve"), list):
        fields["curve"] = [_rename_losses(epoch) for epoch in fields["curve"]]
    return fields


def _add_task(fields: dict[str, Any]) -> None:
    names = fields.pop("classes")
    task = {"kind": "classification", "output": [len(names) if isinstance(names, list) else 0], "names": names}
    if "metric" in fields:
        task["metric"] = fields.pop("metric")
    fields.setdefault("task", task)


def _rename_losses(epoch: Any) -> Any:
    names = {f"{split}_cross_entropy": f"{split}_loss" for split in ("train", "valid")}
    return {names.get(name, name): value for name, value in epoch.items()} if isinstance(epoch, dict) else epoch
