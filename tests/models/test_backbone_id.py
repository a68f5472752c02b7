"""Ids of shared backbones: they are read as they are written, and lead to no other folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.errors import LibraryError
from ripieno.models.backbone_id import BackboneId, backbone_path, parse_backbone_id


def test_an_id_is_read_as_it_is_written() -> None:
    found = BackboneId("mobilenetv2_100.ra_in1k", "1f2e3d4c", 128)
    assert str(found) == "mobilenetv2_100.ra_in1k-1f2e3d4c-128"
    assert parse_backbone_id(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "resnet18", "resnet18-1f2e3d4c", "../a-1f2e3d4c-32", "a/b-1f2e3d4c-32", "a-1f2e3d4-32", "a-1f2e3d4c-0"]
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(LibraryError, match="no id of a backbone"):
        parse_backbone_id(text)


def test_the_weights_lie_in_the_folder_of_the_run_and_of_the_bundle() -> None:
    for members in ("library", "members"):
        weights = Path("folder") / members / "00001-e001" / "weights.safetensors"
        found = backbone_path("resnet18-1f2e3d4c-64", weights)
        assert found == Path("folder/backbones/resnet18-1f2e3d4c.safetensors")
