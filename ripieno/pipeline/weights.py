"""Pretrained weights of a search: found, checked and copied into the run before it begins.

Trials only read the copies, in `RUN/backbones`. Nothing is downloaded but by the word `hub`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError, SearchError, error_summary, require
from ripieno.library.backbones import BackboneRecord, read_backbones, weights_file
from ripieno.models.backbone_id import BACKBONES, split_stem
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.search.space import Categorical, Space, backbone_names

HUB = "hub"
"""Word that allows the download of weights."""
HUB_ADDRESS = "https://huggingface.co/"
SUFFIX = ".safetensors"
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of files that torch writes by pickling."""
_TIMEOUT = 10.0
"""Seconds to wait for the hub's answer."""
CHANNELS = 3
"""Channels of the images of pretrained weights."""
NAMED = 3
"""Backbones named in a line, at most."""


@dataclass(frozen=True)
class WeightsSource:
    """File of the weights of a backbone, and its origin."""

    path: Path
    source: str
    licence: str


def keep_backbones(space: Space, weights: Iterable[str]) -> Space:
    """Return `space` without the backbones that have none of the `weights` (`NAME-DIGEST`); all stay without any."""
    names = {split_stem(stem)[0] for stem in weights}
    choice = space.ranges.get("backbone")
    if not names or not isinstance(choice, Categorical):
        return space
    kept = tuple(name for name in choice.choices if name in names)
    return replace(space, ranges={**space.ranges, "backbone": Categorical(kept)}) if kept else space


def weights_of(space: Space, weights: Iterable[str]) -> tuple[str, ...]:
    """Return those of `weights` (`NAME-DIGEST`) that are of a backbone of `space`."""
    return tuple(stem for stem in weights if split_stem(stem)[0] in backbone_names(space))


def prepare_weights(
    given: str | Path | None,
    space: Space,
    run: Path,
    before: tuple[str, ...] | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> tuple[str, ...]:
    """Return the weights of the backbones of `space` as `NAME-DIGEST`, sorted; empty: networks start random.

    `given` is a .safetensors file, a folder with NAME.safetensors, `hub`, or None: the run's own. `before` are those of
    the run's last start, None for a new run. The files are checked, then copied to the folder of the `run`. `notes`
    gets a line on backbones without weights. Raises SearchError for weights that cannot be used, in one line;
    RipienoError when they cannot be copied.
    """
    names, remarks = backbone_names(space), [] if notes is None else notes
    if not names:
        if given is not None:
            raise SearchError(
                f"weights are for networks of timm, but the search trains {space.family}: leave --weights (weights=) "
                "out, or choose such networks with --space timm-small or --family timm:NAME"
            )
        return ()
    if before is not None and str(given) == HUB:
        _check_from_hub(run, before)
    if before is not None and (given is None or (str(given) == HUB and _are_recorded(run, before))):
        _check_present(run, before)
        return before
    if given is None:
        remarks.append(
            "networks of timm start from random weights; pass pretrained ones with --weights FILE, FOLDER or hub"
        )
        return ()
    sources = _download(names, progress) if str(given) == HUB else _find_files(Path(given), names)
    for name, source in sources.items():
        _check_fit(name, source.path)
    stems = tuple(sorted(_copy(run, name, source, before) for name, source in sources.items()))
    if lacking := [name for name in names if name not in sources]:
        verb = "has" if len(lacking) == 1 else "have"
        remarks.append(f"{_list(lacking)} {verb} no weights in {given}: left out of the space")
    return stems


def _check_from_hub(run: Path, stems: Collection[str]) -> None:
    """Raise SearchError, before anything is downloaded, for a run whose search has other weights than the hub's."""
    kept = read_backbones(run)
    others = [stem for stem in stems if stem in kept and not kept[stem].source.startswith(HUB_ADDRESS)]
    if others or not stems:
        has = f"the weights {_list(others)} from files" if others else "no pretrained weights"
        raise SearchError(
            f"{run} contains a search with {has}, requested are those of the hub: omit weights to resume, or use "
            "another folder with --run"
        )


def _are_recorded(run: Path, stems: Iterable[str]) -> bool:
    kept = read_backbones(run)
    return all(stem in kept for stem in stems)


def _check_present(run: Path, stems: Iterable[str]) -> None:
    kept = read_backbones(run)
    for stem in stems:
        if stem not in kept or not (path := weights_file(run, stem)).exists():
            raise SearchError(f"{run / BACKBONES} lacks the weights {stem} of the search; restore them from a copy")
        if hashlib.sha256(path.read_bytes()).hexdigest() != kept[stem].sha256:
            raise SearchError(f"{path} has changed since the search began; restore it from a copy")


def _find_files(path: Path, names: tuple[str, ...]) -> dict[str, WeightsSource]:
    """Return the file of each backbone that has one. Raises SearchError when there is none."""
    if path.is_dir():
        found = {name: path / f"{name}{SUFFIX}" for name in names if (path / f"{name}{SUFFIX}").is_file()}
        if not found:
            raise SearchError(
                f"weights {path} hold no file of a backbone of the space: expected NAME{SUFFIX}, NAME one of "
                f"{_list(names)}"
            )
    elif not path.exists():
        raise SearchError(f"weights {path} do not exist: pass a {SUFFIX} file, a folder of them, or hub")
    elif path.stem in names or len(names) == 1:
        found = {path.stem if path.stem in names else names[0]: path}
    else:
        raise SearchError(
            f"weights {path}: the name is of no backbone of the space; rename the file to NAME{SUFFIX}, NAME one of "
            f"{_list(names)}"
        )
    return {name: WeightsSource(file, file.name, _stated_licence(file)) for name, file in found.items()}


def _stated_licence(path: Path) -> str:
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


def _download(names: tuple[str, ...], progress: ProgressFunction) -> dict[str, WeightsSource]:
    """Download the weights of all backbones that timm has an address for. Raises SearchError when one is not got."""
    hub, configs = require("huggingface_hub"), {}
    for name in names:
        if (config := _pretrained_config(name)).hf_hub_id:
            configs[name] = config
    if not configs:
        raise SearchError(f"timm knows no weights of {_list(names)} on the hub: pass a file or folder with --weights")
    found = {}
    for done, (name, config) in enumerate(configs.items()):
        progress("downloading weights", done, len(configs))
        file = config.hf_hub_filename or f"model{SUFFIX}"
        try:
            if not file.endswith(SUFFIX):
                raise SearchError(f"it has {file}, which is no {SUFFIX} file")
            with _quiet(hub):
                path = _fetch(hub, config.hf_hub_id, file)
        except Exception as error:  # of the hub's client and of the network below it
            reason = error_summary(error).partition(". ")[0][:200]
            raise SearchError(
                f"cannot get the weights of {name} from the hub ({reason}): try again later, or pass a file or folder "
                "with --weights"
            ) from error
        found[name] = WeightsSource(Path(path), HUB_ADDRESS + config.hf_hub_id, config.license or "")
    progress("downloading weights", len(configs), len(configs))
    return found


def _fetch(hub: Any, repository: str, file: str) -> str:
    """Return the path of a file of the hub, from the cache of its client, or else downloaded."""
    absent = require("huggingface_hub.errors").LocalEntryNotFoundError
    try:
        path: str = hub.hf_hub_download(repository, file, local_files_only=True)
    except absent:
        # the download itself waits for minutes, in many attempts, where the hub is out of reach
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=_TIMEOUT)
        path = hub.hf_hub_download(repository, file, etag_timeout=_TIMEOUT)
    return path


@contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Keep the client of the hub from writing its retries and its progress, since ours is shown."""
    logger = logging.getLogger("huggingface_hub")
    before, are_shown = logger.level, not hub.utils.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if are_shown:  # the client warns of a change that its own variable of the environment forbids
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if are_shown:
            hub.utils.enable_progress_bars()
        logger.setLevel(before)


def _pretrained_config(name: str) -> Any:
    from ripieno.models.timm_network import check_name
    from ripieno.models.torchvision_import import import_timm

    check_name(name)
    return import_timm().models.get_pretrained_cfg(name)


def _check_fit(name: str, path: Path) -> None:
    """Raise SearchError unless the tensors at `path` are those of the network `name`, or timm can convert them.

    Only shapes are read where the names are timm's.
    """
    from safetensors import safe_open

    _read_head(path)
    with safe_open(path, framework="np") as stream:
        shapes = {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
    reason = _find_misfit(name, shapes)
    if reason and _convert(name, _read(path)) is None:
        raise SearchError(f"weights {path} are of another network: {reason}")


def _find_misfit(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Describe why tensors of these `shapes` are not those of the network `name`; empty where they are."""
    expected = {key: tuple(tensor.shape) for key, tensor in _expected_tensors(name).items()}
    shapes = {key: shape for key, shape in shapes.items() if key not in _classifier_tensors(name)}
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


def _read(path: Path) -> Mapping[str, Any]:
    from ripieno.models.backbone_weights import read_tensors

    try:
        return read_tensors(path)
    except LibraryError as error:
        raise SearchError(f"weights {error}") from error


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


def _copy(run: Path, name: str, source: WeightsSource, before: tuple[str, ...] | None) -> str:
    """Copy the weights of a backbone to the run, without the classifier, in float32; return `NAME-DIGEST`.

    Nothing is written for a run that began with others (`before`), and refuses them.
    """
    import torch
    from safetensors.torch import save

    found, tensors = _read(source.path), {}
    if _find_misfit(name, {key: tuple(tensor.shape) for key, tensor in found.items()}):
        found = _convert(name, found) or found
    for key, expected in _expected_tensors(name).items():
        # files may lack the counts of batches
        tensor = found.get(key, torch.zeros(expected.shape))
        tensors[key] = tensor.to(expected.dtype).contiguous()
        if not tensor.isfinite().all():
            raise SearchError(f"weights {source.path} hold numbers that are not finite, in {key}")
    content = save(tensors)
    record = BackboneRecord(name, source.source, source.licence, hashlib.sha256(content).hexdigest())
    path = weights_file(run, record.stem)
    refused = before is not None and record.stem not in before
    if not refused and (record.stem not in read_backbones(run) or not path.exists()):
        files.write_bytes(path, content)
        files.write_json(path.with_suffix(".json"), record)
    return record.stem


def _list(names: Iterable[str]) -> str:
    """List some names in words."""
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more
