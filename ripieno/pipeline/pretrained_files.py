"""Files of pretrained weights, read and checked as those of a backbone. No pickle is read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripieno.errors import LibraryError, SearchError, error_summary

SUFFIX = ".safetensors"
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of files that torch writes by pickling."""
CHANNELS = 3
"""Channels of the images of pretrained weights."""


def read_pretrained(path: Path, name: str) -> dict[str, Any]:
    """Return the tensors of the backbone `name` from the file at `path`: without the classifier, in float32.

    timm converts tensors with the names of a network's authors. Raises SearchError, in one line, for a file that is
    broken, pickled or of another network, and for numbers that are not finite.
    """
    import torch

    from ripieno.models.backbone_weights import read_tensors

    _read_head(path)
    try:
        found: Mapping[str, Any] = read_tensors(path)
    except LibraryError as error:
        raise SearchError(f"weights {error}") from error
    if reason := _find_misfit(name, found):
        converted = _convert(name, found)
        if converted is None:
            raise SearchError(f"weights {path} are of another network: {reason}")
        found = converted
    tensors = {}
    for key, expected in _expected_tensors(name).items():
        # files may lack the counts of batches
        tensors[key] = found.get(key, torch.zeros(expected.shape)).to(expected.dtype).contiguous()
        if not tensors[key].isfinite().all():
            raise SearchError(f"weights {path} hold numbers that are not finite, in {key}")
    return tensors


def stated_licence(path: Path) -> str:
    """Return the licence in the head of a file; empty without one. Raises SearchError for a file that is not read."""
    head = _read_head(path)
    return head.get("license") or head.get("licence") or ""


def _read_head(path: Path) -> Mapping[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as stream:
            first = stream.read(4)
        if first.startswith(_PICKLES):
            raise SearchError(
                f"weights {path} are pickled, and reading them could run code: convert them to a {SUFFIX} file"
            )
        with safe_open(path, framework="np") as stream:
            return stream.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SearchError(f"weights {path} are no readable {SUFFIX} file ({error_summary(error)})") from error


def _find_misfit(name: str, tensors: Mapping[str, Any]) -> str:
    """Describe why `tensors` are not those of the network `name`; empty where they are."""
    expected = {key: tuple(tensor.shape) for key, tensor in _expected_tensors(name).items()}
    shapes = {key: tuple(t.shape) for key, t in tensors.items() if key not in _classifier_tensors(name)}
    lacking = [key for key in expected if key not in shapes and not key.endswith("num_batches_tracked")]
    other = [key for key in shapes if key in expected and shapes[key] != expected[key]]
    besides = [key for key in shapes if key not in expected]
    if lacking:
        return f"{name} has {lacking[0]} and {len(lacking) - 1} more tensors that are not in the file"
    if other:
        return f"{name} has {other[0]} of shape {expected[other[0]]}, the file of {shapes[other[0]]}"
    return f"the file has {besides[0]}, which {name} has not" if besides else ""


def _convert(name: str, tensors: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the tensors of the network `name` as timm converts them from the names of its authors, or None."""
    from ripieno.models.torchvision_import import import_timm

    overlay = {"state_dict": dict(tensors), "custom_load": False}
    options = {"pretrained_cfg_overlay": overlay, "pretrained_strict": True}
    try:
        found: Mapping[str, Any] = import_timm().create_model(name, pretrained=True, **options).state_dict()
    except Exception:  # conversions report tensors of another network by any exception
        return None
    return found


@functools.cache
def _expected_tensors(name: str) -> Mapping[str, Any]:
    """Return the tensors of a network without classifier, by name; they have shapes and no content."""
    import torch

    from ripieno.models.timm_network import make_backbone

    with torch.device("meta"):
        tensors: Mapping[str, Any] = make_backbone(name, CHANNELS).state_dict()
    return tensors


@functools.cache
def _classifier_tensors(name: str) -> frozenset[str]:
    """Return the names of the tensors that a network has besides those of its backbone."""
    import torch

    from ripieno.models.torchvision_import import import_timm

    with torch.device("meta"):
        whole = import_timm().create_model(name).state_dict()
    return frozenset(whole.keys() - _expected_tensors(name).keys())
