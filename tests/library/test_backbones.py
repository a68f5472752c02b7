"""Files of pretrained backbones: copies, broken records, and the members that began from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ripieno import files
from ripieno.library.backbones import BackboneRecord, find_origins, read_backbones, weights_file
from ripieno.types import Input, Member, classification


def keep(folder: Path, name: str, content: bytes = b"weights") -> str:
    record = BackboneRecord(name, f"{name}.safetensors", "mit", hashlib.sha256(content).hexdigest())
    files.write_bytes(weights_file(folder, record.stem), content)
    files.write_json(weights_file(folder, record.stem).with_suffix(".json"), record)
    return record.stem


def member(family: str, backbone: str = "") -> Member:
    task = classification(("a", "b"))
    return Member("00001-e001", 1, 1, family, {}, Input((8, 8, 3)), task, {}, 0, 0.0, backbone=backbone)


def test_a_record_under_another_name_is_left_out(tmp_path: Path) -> None:
    stem = keep(tmp_path, "resnet18")
    path = weights_file(tmp_path, stem).with_suffix(".json")
    path.rename(path.with_name("resnet18-00000000.json"))
    with pytest.warns(UserWarning, match=f"is of '{stem}'"):
        assert read_backbones(tmp_path) == {}


def test_origins_are_those_of_shared_backbones_and_of_the_search(tmp_path: Path) -> None:
    used, left = keep(tmp_path, "resnet18"), keep(tmp_path, "resnet18", b"of a search that did not begin")
    other = keep(tmp_path, "resnet34")
    files.write_json(tmp_path / "run.json", {"weights": [used, other]})
    assert set(find_origins(tmp_path, [member("timm:resnet18")])) == {used}
    assert set(find_origins(tmp_path, [member("timm:resnet34", f"{other}-64"), member("resnet")])) == {other}
    assert find_origins(tmp_path, [member("resnet")]) == {}
    assert left in read_backbones(tmp_path)


def test_networks_of_a_search_without_weights_have_no_origin(tmp_path: Path) -> None:
    keep(tmp_path, "resnet18")
    files.write_json(tmp_path / "run.json", {"space": {}})
    assert find_origins(tmp_path, [member("timm:resnet18")]) == {}
