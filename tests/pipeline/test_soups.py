"""Soups: fine-tuned trials become members whose weights are their mean, chosen greedily, and used as any member."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from sklearn.datasets import load_digits

import ripieno
from ripieno import files
from ripieno.backends.torch import load_network
from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.errors import BrokenFileWarning, LibraryError, MissingExtraError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.library.backbones import BackboneRecord, weights_file
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.models.backbone_id import BackboneId
from ripieno.pipeline import soups
from ripieno.pipeline.soups import Soup, _prefix, find_fine_tuned, has_untried
from ripieno.search.settings import Settings, resolve_settings
from ripieno.search.space import Continuous, Space
from ripieno.train import TrainingConfig, train_job
from ripieno.train import soup as averaging
from ripieno.train.evaluate import losses_of, predict
from ripieno.types import Configuration, Ensemble, Job, Member
from tests.command_line import ripieno as ripieno_command

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

NAME = "test_efficientnet"
RATES = 2e-4, 2.5e-4, 3e-4, 1e-2
"""Learning rates of the trials; the last one diverges from the others."""
TRIALS = len(RATES)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A run with four trials that were fine-tuned for an epoch from the same weights."""
    from ripieno.models.timm_network import make_backbone

    folder = tmp_path_factory.mktemp("soups") / "run"
    torch.manual_seed(1)
    content = save(make_backbone(NAME, 3).state_dict())
    record = BackboneRecord(NAME, "made.safetensors", "mit", hashlib.sha256(content).hexdigest())
    files.write_bytes(weights_file(folder, record.stem), content)
    files.write_json(weights_file(folder, record.stem).with_suffix(".json"), record)
    source = load_digits()
    arrays = (source.images[:160, :, :, None] * 15).astype(np.uint8), source.target[:160]
    data = write_dataset(load_dataset(arrays, split=(0.7, 0.25, 0.05)), folder / "dataset")
    assert data.path is not None
    family, weights = f"timm:{NAME}", (record.stem,)
    space = Space("own", family, {"learning_rate": Continuous(min(RATES), max(RATES))})
    resolve_settings(folder / "run.json", Settings(space, trials=TRIALS, weights=weights), 1, None)
    config = TrainingConfig(run=folder, dataset=data.path, family=family, seed=1, weights=weights)
    fixed: Configuration = {"resolution": 32, "batch_size": 24, "layer_decay": 1.0}
    for trial, rate in enumerate(RATES):
        outcome = train_job(config, Job(trial, {**fixed, "learning_rate": rate}, 0, 2))
        assert outcome.failure is None, outcome.failure
    return Library(folder)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soups, "usable_cores", lambda: (0,))


@pytest.fixture(scope="module")
def souped(searched: Library, tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, Soup]:
    """A copy of the run, with its soup."""
    library = copy(searched, tmp_path_factory.mktemp("souped"))
    (made,) = ripieno.soup(library)
    return library, made


def copy(library: Library, folder: Path) -> Library:
    shutil.copytree(library.path, folder / "run")
    return Library(folder / "run")


def evaluate(library: Library, member: Member, tensors: dict[str, torch.Tensor]) -> float:
    """Return the validation loss of a member's network with other weights."""
    network = load_network(member, library.weights_path(member.id))
    network.load_state_dict(tensors)
    data = open_dataset(library.dataset_path)
    found = predict(network, data.inputs, rows=data.rows("valid"))
    return losses_of(found, data, data.rows("valid"))["valid_cross_entropy"]


def lose(library: Library) -> None:
    """Give the trials a large loss, so that an average of any two of them is better."""
    for member in library.members():
        if member.trial != NO_TRIAL:
            library.update(dataclasses.replace(member, losses={**member.losses, "valid_cross_entropy": 1e9}))


def mean_of(library: Library, members: list[str]) -> dict[str, torch.Tensor]:
    states = [load_file(library.weights_path(member)) for member in members]
    floats = [name for name, tensor in states[0].items() if tensor.is_floating_point()]
    return states[0] | {n: torch.stack([s[n].double() for s in states]).mean(0).float() for n in floats}


def counted(monkeypatch: pytest.MonkeyPatch, fails_at: int = 0) -> list[int]:
    """Count the evaluations of averages in a list; Ctrl-C comes at the one numbered `fails_at`."""
    calls: list[int] = []
    validate = averaging.validate

    def call(*given: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return validate(*given)

    monkeypatch.setattr(averaging, "validate", call)
    return calls


def test_members_stay_in_the_average_while_its_loss_does_not_rise(souped: tuple[Library, Soup]) -> None:
    library, result = souped
    ranked = sorted((m for m in library.members() if m.trial != NO_TRIAL), key=lambda m: m.loss)
    kept, lowest = [ranked[0].id], ranked[0].loss
    for member in ranked[1:]:
        loss = evaluate(library, member, mean_of(library, [*kept, member.id]))
        if loss <= lowest:
            kept, lowest = [*kept, member.id], loss
    assert len(kept) >= 2, "choose another seed: no average is better"
    assert result.member is not None
    assert (result.best, result.tried, result.added) == (ranked[0], TRIALS, True)
    assert result.member.averaged == tuple(kept)
    assert result.member.loss <= lowest <= ranked[0].loss


def test_the_member_is_the_mean_and_predicts_what_is_stored(souped: tuple[Library, Soup]) -> None:
    library, result = souped
    member = result.member
    assert member is not None
    assert (member.id, member.trial, member.epoch, member.backbone) == (
        f"soup-{NAME}-{len(member.averaged)}",
        -1,
        0,
        "",
    )
    assert (member.family, member.configuration) == (f"timm:{NAME}", result.best.configuration)
    assert library.member(member.id) == member
    found, expected = load_file(library.weights_path(member.id)), mean_of(library, list(member.averaged))
    differing = {name for name in expected if not torch.allclose(found[name], expected[name], rtol=0, atol=1e-7)}
    assert all("running_" in name or "num_batches" in name for name in differing)
    data = open_dataset(library.dataset_path)
    network = load_network(member, library.weights_path(member.id))
    predicted = predict(network, data.inputs, rows=data.rows("valid"))
    assert np.abs(predicted - library.predictions(member.id)).max() < 1e-6
    assert member.losses == losses_of(library.predictions(member.id), data, data.rows("valid"))


def test_it_is_measured_selected_placed_and_exported_as_any_member(
    souped: tuple[Library, Soup], tmp_path: Path
) -> None:
    library, result = souped
    library = copy(library, tmp_path)
    member = result.member
    assert member is not None
    for other in set(library.ids()) - {member.id}:  # it needs none of them any more
        library.remove(other)
    (chosen,) = ripieno.select(library, {"parameters": member.parameters}, calibrate="members")
    assert chosen.members == (member.id,)
    assert library.member(member.id).temperature is not None
    plain = Ensemble("one", (member.id,), (1.0,), "hand", {"seconds": 9.0}, {}, {})
    library.write_ensemble(plain)
    bundle = ripieno.allocate(library, plain, devices="cpu", bundle=tmp_path / "bundle", max_benches=0)
    data = open_dataset(library.dataset_path)
    with ripieno.Engine(bundle) as engine:
        found = engine.predict(np.asarray(data.inputs[data.rows("valid")]))
    assert np.abs(found - library.predictions(member.id)).max() < 1e-4
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert f"is the mean of the weights of {', '.join(member.averaged)}." in card
    assert "made.safetensors | mit" in card
    assert [record.name for record in ripieno.show(library).weights.values()] == [NAME]


def test_what_was_made_is_not_made_again(souped: tuple[Library, Soup], monkeypatch: pytest.MonkeyPatch) -> None:
    library, result = souped
    calls = counted(monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in library.path.rglob("*.*")}
    assert ripieno.soup(library.path) == (dataclasses.replace(result, added=False),)
    assert {path: path.stat().st_mtime_ns for path in library.path.rglob("*.*")} == before
    assert not calls
    assert not has_untried(library)


def test_an_interrupted_average_leaves_no_member_and_goes_on(
    searched: Library, souped: tuple[Library, Soup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = copy(searched, tmp_path)
    assert has_untried(library)
    before = library.members()
    with monkeypatch.context() as patch:
        counted(patch, fails_at=3)
        with pytest.raises(KeyboardInterrupt):
            ripieno.soup(library)
    assert library.members() == before
    write_json = files.write_json

    def killed(path: Path, word: object) -> None:
        if path.name == "member.json":
            raise KeyboardInterrupt
        write_json(path, word)

    with monkeypatch.context() as patch:
        calls = counted(patch)
        patch.setattr(files, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            ripieno.soup(library)
    assert len(calls) == TRIALS - 3 + 2  # the last average, and the soup with the trials' statistics and with its own
    assert library.members() == before
    (again,) = ripieno.soup(library)
    assert again.member is not None
    assert again.member.averaged == souped[1].member.averaged  # type: ignore[union-attr]
    assert np.array_equal(library.predictions(again.member.id), souped[0].predictions(again.member.id))


def test_another_soup_gets_another_name_and_the_former_stays(souped: tuple[Library, Soup], tmp_path: Path) -> None:
    library = copy(souped[0], tmp_path)
    former = souped[1].member
    assert former is not None
    library.remove(former.averaged[-1])
    lose(library)
    before = library.weights_path(former.id).read_bytes()
    (result,) = ripieno.soup(library, candidates=2)
    assert result.member is not None
    assert result.added
    assert result.member.id == f"{former.id}-2"
    assert result.member.averaged != former.averaged
    assert library.weights_path(former.id).read_bytes() == before
    assert library.member(former.id) == former


def test_statistics_of_norms_are_computed_again_where_that_is_better(searched: Library, tmp_path: Path) -> None:
    library = copy(searched, tmp_path)
    for member in library.members():
        tensors = load_file(library.weights_path(member.id))
        tensors |= {name: 1e-4 * tensor for name, tensor in tensors.items() if "running_var" in name}
        save_file(tensors, library.weights_path(member.id))
    lose(library)
    (result,) = ripieno.soup(library)
    assert result.member is not None
    averages = mean_of(library, list(result.member.averaged))
    assert result.member.loss < evaluate(library, result.best, averages)
    found = load_file(library.weights_path(result.member.id))
    assert not torch.allclose(found["body.backbone.bn1.running_var"], averages["body.backbone.bn1.running_var"])
    assert torch.allclose(found["body.head.1.weight"], averages["body.head.1.weight"], atol=1e-7)


def test_without_a_better_average_there_is_no_member(searched: Library, tmp_path: Path) -> None:
    library = copy(searched, tmp_path)
    best = min(library.members(), key=lambda m: m.loss)
    library.update(dataclasses.replace(best, losses={**best.losses, "valid_cross_entropy": 0.0}))
    (result,) = ripieno.soup(library)
    assert (result.member, result.added, result.best.id) == (None, False, best.id)
    assert len(library.members()) == TRIALS


def test_the_command_shows_what_was_averaged(souped: tuple[Library, Soup]) -> None:
    library, result = souped
    assert result.member is not None
    done = ripieno_command("soup", str(library.path))
    assert done.returncode == 0, done.stderr
    assert f"{len(result.member.averaged)} of {TRIALS}" in done.stdout
    assert f"next  ripieno measure {library.path}" in done.stdout
    (fields,) = json.loads(ripieno_command("soup", str(library.path), "--json").stdout)["soups"]
    assert fields["member"]["averaged"] == list(result.member.averaged)
    assert fields["loss"] <= fields["best_loss"]
    assert fields["added"] is False


def break_nothing(library: Library) -> None:
    pass


def share(library: Library) -> None:
    for member in library.members()[1:]:
        library.update(dataclasses.replace(member, backbone=f"{NAME}-00000000-32"))


def other_resolutions(library: Library) -> None:
    for number, member in enumerate(library.members()):
        library.update(dataclasses.replace(member, configuration={**member.configuration, "resolution": 32 + number}))


def no_weights(library: Library) -> None:
    record = json.loads((library.path / "run.json").read_text())
    (library.path / "run.json").write_text(json.dumps({**record, "weights": []}))


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        (share, {}, LibraryError, "has no 2 trials fine-tuned from the same weights at the same resolution"),
        (other_resolutions, {}, LibraryError, "has no 2 trials fine-tuned"),
        (no_weights, {}, LibraryError, "has no trials on pretrained weights, which soups are made of"),
        (break_nothing, {"candidates": 1}, LibraryError, "candidates is 1: at least 2 trials must be tried"),
        (break_nothing, {"device": "tpu"}, SearchError, "device 'tpu' is unknown"),
    ],
)
def test_what_cannot_be_averaged_is_one_line(
    searched: Library,
    tmp_path: Path,
    change: Callable[[Library], None],
    options: dict[str, Any],
    error: type[RipienoError],
    says: str,
) -> None:
    library = copy(searched, tmp_path)
    change(library)
    with pytest.raises(error, match=says) as raised:
        ripieno.soup(library, **options)
    assert "\n" not in str(raised.value)
    assert len(library.members()) == TRIALS


def test_a_search_that_runs_and_an_absent_timm_are_one_line(
    searched: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = copy(searched, tmp_path)
    with (
        files.locked(library.path / "lock", "a test"),
        pytest.raises(RipienoError, match="in use by a search or a soup"),
    ):
        ripieno.soup(library)

    def absent() -> None:
        raise MissingExtraError("timm")

    monkeypatch.setattr("ripieno.models.torchvision_import.import_timm", absent)
    with pytest.raises(
        MissingExtraError, match=r"timm is not installed; install it with: pip install 'ripieno\[timm\]"
    ):
        ripieno.soup(library)


def test_unreadable_weights_are_left_out_with_a_warning(searched: Library, tmp_path: Path) -> None:
    library = copy(searched, tmp_path)
    best = min(library.members(), key=lambda m: m.loss)
    content = library.weights_path(best.id).read_bytes()
    library.weights_path(best.id).write_bytes(content[: len(content) // 2])
    with pytest.warns(BrokenFileWarning, match=f"{best.id}/weights.safetensors is no readable safetensors file"):
        (result,) = ripieno.soup(library)
    assert result.tried == TRIALS - 1
    assert result.best.id != best.id


def test_the_name_has_the_resolution_where_there_are_several(searched: Library) -> None:
    (key,) = find_fine_tuned(searched)
    assert (key.name, key.resolution) == (NAME, 32)
    assert _prefix(key, [key]) == f"soup-{NAME}"
    assert _prefix(key, [key, BackboneId(NAME, key.digest, 64)]) == f"soup-{NAME}-32"


def test_a_run_with_folds_has_no_soups(searched: Library, tmp_path: Path) -> None:
    library = Library(shutil.copytree(searched.path, tmp_path / "run"))
    assert has_untried(library)
    data = open_dataset(library.dataset_path)
    shutil.rmtree(library.dataset_path)
    split = np.where(data.split == 1, 0, data.split).astype(np.uint8)
    folds = np.arange(len(split), dtype=np.uint8) % 2
    write_dataset(dataclasses.replace(data, split=split, folds=folds, path=None), library.dataset_path)
    assert not has_untried(library)
    with pytest.raises(LibraryError, match="validates by folds, whose models are not kept"):
        ripieno.soup(library)
