"""Pretrained weights of a search: what is copied to the run, and bad files in one line each."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from ripieno import files
from ripieno.data import load_dataset, write_dataset
from ripieno.errors import RipienoError, SearchError
from ripieno.library import Library
from ripieno.library.backbones import read_backbones, weights_file
from ripieno.pipeline.pretrained_files import _classifier_tensors
from ripieno.pipeline.weights import fetch_weights, find_weights, keep_backbones
from ripieno.search.space import Categorical, Continuous, Space, backbone_names
from ripieno.train import TrainingConfig, train_job
from ripieno.types import Job
from tests.hub_server import hub_of
from tests.pretrained_weights import convert, find_installed

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

NAME, OTHER = "test_efficientnet", "test_resnet"
RATES = {"learning_rate": Continuous(1e-5, 1e-3, log=True)}
ONE = Space("one", f"timm:{NAME}", RATES)
TWO = Space("two", "timm", {**RATES, "backbone": Categorical((NAME, OTHER))})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of both networks, with their classifiers, as a hub has them."""
    from ripieno.models.torchvision_import import import_timm

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    for name in (NAME, OTHER):
        save_file(import_timm().create_model(name).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def changed(made: Path, target: Path, **tensors: torch.Tensor | None) -> Path:
    """Write the weights of the first network with some tensors replaced, or left out where None."""
    content = {**load_file(made / f"{NAME}.safetensors"), **{n.replace("__", "."): t for n, t in tensors.items()}}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, target)
    return target


def prepare_weights(
    given: str | Path | None,
    space: Space,
    run: Path,
    before: tuple[str, ...] | None = None,
    notes: list[str] | None = None,
) -> tuple[str, ...]:
    return fetch_weights(find_weights(given, space, run, before, notes), run, before)


def error_of(weights: str | Path, run: Path, space: Space = ONE, before: tuple[str, ...] | None = None) -> str:
    with pytest.raises(SearchError) as caught:
        prepare_weights(weights, space, run, before)
    assert "\n" not in str(caught.value)
    assert not run.exists()  # nothing is written before all is checked
    return str(caught.value)


def test_the_backbones_of_a_space() -> None:
    assert backbone_names(ONE) == (NAME,)
    assert backbone_names(TWO) == (NAME, OTHER)
    assert backbone_names(Space("fixed", "timm", RATES, {"backbone": OTHER})) == (OTHER,)
    assert backbone_names(Space("others", "resnet", RATES)) == ()


def test_the_run_keeps_the_backbone_and_its_origin(made: Path, run: Path) -> None:
    (stem,) = prepare_weights(made / f"{NAME}.safetensors", ONE, run)
    (record,) = read_backbones(run).values()
    content = weights_file(run, stem).read_bytes()
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert stem == record.stem == f"{NAME}-{record.sha256[:8]}"
    assert (record.name, record.source, record.licence) == (NAME, f"{NAME}.safetensors", "")
    kept, source = load_file(weights_file(run, stem)), load_file(made / f"{NAME}.safetensors")
    assert set(source) - set(kept) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, source[name]) for name, tensor in kept.items())


def test_the_licence_in_the_head_of_a_file_is_kept(made: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(load_file(made / f"{NAME}.safetensors"), path, {"license": "apache-2.0"})
    prepare_weights(path, ONE, run)
    (record,) = read_backbones(run).values()
    assert (record.source, record.licence) == ("own.safetensors", "apache-2.0")


def test_a_folder_has_the_weights_of_each_backbone(made: Path, run: Path) -> None:
    notes: list[str] = []
    stems = prepare_weights(made, TWO, run, notes=notes)
    assert [stem.rpartition("-")[0] for stem in stems] == [NAME, OTHER]
    assert notes == []
    assert keep_backbones(TWO, find_weights(made, TWO, run)) == TWO


def test_backbones_without_weights_are_left_out_of_the_space(made: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(made / f"{OTHER}.safetensors", folder)
    notes: list[str] = []
    sources = find_weights(folder, TWO, run, notes=notes)
    assert notes == [f"{NAME} has no weights in {folder}: left out of the space"]
    assert backbone_names(keep_backbones(TWO, sources)) == (OTHER,)


def test_without_weights_networks_start_random_which_is_said(run: Path) -> None:
    notes: list[str] = []
    assert prepare_weights(None, ONE, run, notes=notes) == ()
    assert len(notes) == 1
    assert "random weights" in notes[0]
    assert not run.exists()
    assert keep_backbones(TWO, ()) == TWO


def test_a_search_of_other_networks_takes_none(made: Path, run: Path) -> None:
    assert "trains resnet" in error_of(made, run, Space("others", "resnet", RATES))
    assert prepare_weights(None, Space("others", "resnet", RATES), run) == ()


def test_a_resumed_run_uses_its_own(made: Path, run: Path) -> None:
    stems = prepare_weights(made, TWO, run)
    before = {path: path.stat().st_mtime_ns for path in (run / "backbones").iterdir()}
    for given in (None, made):
        assert prepare_weights(given, TWO, run, stems) == stems
    assert {path: path.stat().st_mtime_ns for path in (run / "backbones").iterdir()} == before


def test_other_weights_are_not_written_into_a_run_that_refuses_them(made: Path, run: Path, tmp_path: Path) -> None:
    stems = prepare_weights(made / f"{NAME}.safetensors", ONE, run)
    other = changed(made, tmp_path / f"{NAME}.safetensors", conv_stem__weight=torch.ones(24, 3, 3, 3))
    found = prepare_weights(other, ONE, run, stems)
    assert found != stems
    assert set(read_backbones(run)) == set(stems)


def test_files_of_the_run_that_have_changed_are_refused(made: Path, run: Path) -> None:
    stems = prepare_weights(made, ONE, run)
    weights_file(run, stems[0]).write_bytes(b"other")
    with pytest.raises(SearchError, match="has changed since the search began"):
        prepare_weights(None, ONE, run, stems)
    weights_file(run, stems[0]).unlink()
    with pytest.raises(SearchError, match="lacks the weights"):
        prepare_weights(None, ONE, run, stems)


def test_the_file_of_another_network(made: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.safetensors"
    shutil.copy(made / f"{OTHER}.safetensors", path)
    assert error_of(path, run).startswith(f"weights {path} are of another network: {NAME} has conv_stem.weight")


def test_tensors_of_another_shape_and_tensors_too_many(made: Path, run: Path, tmp_path: Path) -> None:
    wide = changed(made, tmp_path / "wide.safetensors", conv_stem__weight=torch.ones(48, 3, 3, 3))
    assert "of shape (24, 3, 3, 3), the file of (48, 3, 3, 3)" in error_of(wide, run)
    more = changed(made, tmp_path / "more.safetensors", extra=torch.ones(2))
    assert "the file has extra" in error_of(more, run)


def test_numbers_that_are_not_finite(made: Path, run: Path, tmp_path: Path) -> None:
    path = changed(made, tmp_path / "nan.safetensors", conv_stem__weight=torch.full((24, 3, 3, 3), torch.nan))
    assert "not finite, in conv_stem.weight" in error_of(path, run)


@pytest.mark.parametrize("content", [b"", b"neither", b"\xff" * 100])
def test_a_broken_file(run: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    assert error_of(path, run).startswith(f"weights {path} are no readable .safetensors file")


def test_a_pickled_file_is_refused_unread(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "made-by-pickle"
    code = b"\x80\x02cos\nmkdir\n(S'%s'\ntR." % str(target).encode()
    (tmp_path / "weights.pth").write_bytes(code)
    with zipfile.ZipFile(tmp_path / f"{NAME}.safetensors", "w") as archive:  # as torch writes it
        archive.writestr("archive/data.pkl", code)
    for name in ("weights.pth", f"{NAME}.safetensors"):
        assert "are pickled" in error_of(tmp_path / name, run)
    assert not target.exists()


def test_a_folder_without_weights_and_no_folder_at_all(run: Path, tmp_path: Path) -> None:
    assert "hold no file of a backbone of the space" in error_of(tmp_path, run)
    assert "do not exist" in error_of(tmp_path / "absent", run)


def test_a_file_that_could_be_of_any_backbone(made: Path, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    shutil.copy(made / f"{NAME}.safetensors", path)
    assert "rename the file" in error_of(path, run, TWO)


def test_a_backbone_that_timm_does_not_know(made: Path, run: Path) -> None:
    with pytest.raises(RipienoError, match="timm has no network"):
        prepare_weights(made / f"{NAME}.safetensors", Space("s", "timm:nosuchnet", RATES), run)


def test_the_hub_out_of_reach(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert error_of("hub", run).startswith(f"cannot get the weights of {NAME} from the hub")


def test_weights_of_the_hub_are_downloaded_once_and_their_address_is_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = {name: f"timm/{name}.r160_in1k" for name in (NAME, OTHER)}
    contents = {r: (made / f"{name}.safetensors").read_bytes() for name, r in repositories.items()}
    with hub_of(contents, monkeypatch, str(tmp_path / "cache")) as requests:
        stems = prepare_weights("hub", TWO, tmp_path / "run")
        assert sorted(r for r in requests if r.startswith("GET")) == [f"GET {r}" for r in repositories.values()]
    records = read_backbones(tmp_path / "run")
    assert {r.source for r in records.values()} == {f"https://huggingface.co/{r}" for r in repositories.values()}
    assert stems == tuple(records)
    # the hub is out of reach now: the client's cache has the files, and a run its own
    assert prepare_weights("hub", TWO, tmp_path / "other") == stems
    shutil.rmtree(tmp_path / "cache")
    assert prepare_weights("hub", TWO, tmp_path / "run", stems) == stems


def test_a_hub_out_of_reach_is_found_at_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_of({}, monkeypatch, str(tmp_path / "cache")):
        assert "from the hub (404 Client Error" in error_of("hub", run)
    started = time.monotonic()
    with pytest.raises(SearchError, match="Connection refused"):  # before the data are read
        find_weights("hub", ONE, run)
    assert time.monotonic() - started < 5  # the client alone tries for 20 s, behind a firewall for minutes


def test_a_run_with_other_weights_does_not_ask_the_hub(
    made: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_of({}, monkeypatch, str(tmp_path / "cache")) as requests:
        line = error_of("hub", run, before=())
        assert line.startswith(f"{run} contains a search with no pretrained weights, requested are those of the hub")
        stems = prepare_weights(made, ONE, run)
        with pytest.raises(SearchError, match=rf"a search with the weights {stems[0]} from files, requested are those"):
            prepare_weights("hub", ONE, run, stems)
        assert requests == []


def test_all_that_a_network_has_besides_its_backbone_is_its_classifier() -> None:
    assert _classifier_tensors(NAME) == {"classifier.weight", "classifier.bias"}
    for name, norm in (("levit_128s", "head.bn.weight"), ("repvit_m0_9", "head.head.bn.weight")):
        assert norm in _classifier_tensors(name)


def test_names_of_a_networks_authors_are_converted_as_timm_does(run: Path, tmp_path: Path) -> None:
    from ripieno.models.torchvision_import import import_timm

    name = "test_convnext"
    own = import_timm().create_model(name).state_dict()
    renamed = {}
    for key, tensor in own.items():
        for new, old in (
            ("stem.", "downsample_layers.0."),
            (".blocks.", "."),
            ("conv_dw", "dwconv"),
            ("mlp.fc", "pwconv"),
            ("head.norm", "norm"),
            ("head.fc", "head"),
        ):
            key = key.replace(new, old)
        parts = key.split(".")
        if parts[0] == "stages" and parts[2] == "downsample":
            key = ".".join(["downsample_layers", parts[1], *parts[3:]])
        renamed[key] = tensor
    assert renamed.keys() != own.keys()
    save_file(renamed, tmp_path / f"{name}.safetensors")
    (stem,) = prepare_weights(tmp_path, Space("s", f"timm:{name}", RATES), run)
    kept = load_file(weights_file(run, stem))
    assert all(torch.equal(tensor, own[key]) for key, tensor in kept.items())
    del renamed["norm.weight"]
    save_file(renamed, tmp_path / f"{name}.safetensors")
    with pytest.raises(SearchError, match="are of another network"):
        prepare_weights(tmp_path, Space("s", f"timm:{name}", RATES), run)


def test_no_room_for_the_copy(made: Path, run: Path) -> None:
    run.mkdir()
    (run / "backbones").write_text("a file where the folder should be")
    with pytest.raises(RipienoError, match="backbones") as caught:
        prepare_weights(made, ONE, run)
    assert "\n" not in str(caught.value)


def test_a_broken_record_is_as_good_as_none(made: Path, run: Path) -> None:
    (stem,) = prepare_weights(made, ONE, run)
    path = weights_file(run, stem).with_suffix(".json")
    path.write_text(json.dumps({"version": 2}))
    with pytest.warns(UserWarning, match="backbones"):
        assert prepare_weights(made, ONE, run, (stem,)) == (stem,)
    assert read_backbones(run)[stem].name == NAME
    assert np.isfinite(load_file(weights_file(run, stem))["conv_stem.weight"].numpy()).all()


@pytest.mark.skipif(find_installed("tf_efficientnet_lite0") is None, reason="real weights are not installed")
def test_real_weights_give_the_features_that_timm_gives_and_a_good_head(run: Path, tmp_path: Path) -> None:
    from ripieno.models.torchvision_import import import_timm

    name = "tf_efficientnet_lite0"
    path = convert(name, tmp_path)
    stems = prepare_weights(path, Space("real", f"timm:{name}", RATES), run)
    digits = load_digits()
    images = np.kron(digits.images[:300], np.ones((1, 4, 4)))[..., None].repeat(3, -1) * 15
    data = write_dataset(load_dataset((images.astype(np.uint8), digits.target[:300])), tmp_path / "data")
    assert data.path is not None
    config = TrainingConfig(run=run, dataset=data.path, family=f"timm:{name}", weights=stems)
    member = train_job(config, Job(0, {"resolution": 32, "frozen": "all"}, 0, 1)).member
    assert member is not None
    assert member.losses["valid_accuracy"] > 0.6  # of ten classes
    overlay = {"file": str(path)}
    model = import_timm().create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0).eval()
    row = int(data.rows("valid")[0])
    pixels = torch.from_numpy(np.array(data.inputs[row : row + 1])).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] * 255 for key in ("mean", "std"))
    with torch.inference_mode():
        expected = model((pixels - mean) / std).numpy()[0]
    found = files.read_array(Library(run).features_path(member.backbone))[row]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
