"""JSON of version 1, in which everything was a classification of images: its fields become those of today."""

from __future__ import annotations

from typing import Any


def upgrade(fields: Any) -> Any:
    """Convert the decoded JSON of a member, a bundle or a data set of version 1; anything else is returned as it is."""
    if isinstance(fields, list):
        return [upgrade(item) for item in fields]
    if not isinstance(fields, dict):
        return fields
    fields = {name: upgrade(value) for name, value in fields.items()}
    if "classes" in fields and ("losses" in fields or "allocation" in fields or "mean" in fields):
        classes = fields.pop("classes")
        fields["task"] = {"kind": "classification", "output": [len(classes)], "names": classes}
        if "metric" in fields:
            fields["task"]["metric"] = fields.pop("metric")
    if "train_cross_entropy" in fields:
        for split in ("train", "valid"):
            fields[f"{split}_loss"] = fields.pop(f"{split}_cross_entropy")
    return fields
