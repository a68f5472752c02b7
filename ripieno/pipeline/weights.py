"""Pretrained weights of a search: found at its start, and copied into the run before its first trial.

Trials only read the copies, in `RUN/backbones`. Nothing is downloaded but by the word `hub`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import SearchError, error_summary, require
from ripieno.library.backbones import BackboneRecord, read_backbones, weights_file
from ripieno.models.backbone_id import BACKBONES, split_stem
from ripieno.pipeline.pretrained_files import SUFFIX, read_pretrained, stated_licence
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.search.space import Categorical, Space, backbone_names

HUB = "hub"
"""Word that allows the download of weights."""
HUB_ADDRESS = "https://huggingface.co/"
_TIMEOUT = 10.0
"""Seconds to wait for the hub's answer."""
NAMED = 3
"""Backbones named in a line, at most."""


@dataclass(frozen=True)
class WeightsSource:
    """Place of the weights of a backbone: a file of the user's or of the hub, or the copy that the run has."""

    path: str
    """of the file, on this machine or in the `repository`"""
    licence: str
    repository: str = ""
    """of the hub; empty: on this machine"""
    stem: str = ""
    """`NAME-DIGEST` of the run's copy; empty: it has none yet"""

    @property
    def origin(self) -> str:
        """Name of the file, or address of the repository."""
        return f"{HUB_ADDRESS}{self.repository}" if self.repository else Path(self.path).name


def keep_backbones(space: Space, names: Collection[str]) -> Space:
    """Return `space` without the backbones whose weights are not among those of `names`; all stay without any."""
    choice = space.ranges.get("backbone")
    if not names or not isinstance(choice, Categorical):
        return space
    kept = tuple(name for name in choice.choices if name in names)
    return replace(space, ranges={**space.ranges, "backbone": Categorical(kept)}) if kept else space


def find_weights(
    given: str | Path | None,
    space: Space,
    run: Path,
    before: tuple[str, ...] | None = None,
    notes: list[str] | None = None,
) -> dict[str, WeightsSource]:
    """Return where the weights of each backbone of `space` are, by its name; without any, networks start random.

    `given` is a .safetensors file, a folder with NAME.safetensors, `hub`, or None: the run's own. `before` are those of
    the run's last start (`NAME-DIGEST`), None for a new run. Files are checked, and that the hub answers where it is
    needed; nothing is downloaded or written.
    `notes` gets a line on backbones without weights. Raises SearchError for weights that cannot be used, in one line.
    """
    names, remarks = backbone_names(space), [] if notes is None else notes
    if not names:
        if given is not None:
            raise SearchError(
                f"weights are for networks of timm, but the search trains {space.family}: leave --weights (weights=) "
                "out, or choose such networks with --space timm-small or --family timm:NAME, for masks with --family "
                "smp:ARCHITECTURE/ENCODER"
            )
        return {}
    if before is not None and str(given) == HUB:
        _check_from_hub(run, before)
    if before is not None and (given is None or (str(given) == HUB and _are_recorded(run, before))):
        return _find_own(run, before)
    if given is None:
        remarks.append(
            "networks of timm start from random weights; pass pretrained ones with --weights FILE, FOLDER or hub"
        )
        return {}
    sources = _find_on_hub(names) if str(given) == HUB else _find_files(Path(given), names)
    if lacking := [name for name in names if name not in sources]:
        verb = "has" if len(lacking) == 1 else "have"
        remarks.append(f"{_list(lacking)} {verb} no weights in {given}: left out of the space")
    return sources


def fetch_weights(
    sources: Mapping[str, WeightsSource],
    run: Path,
    before: tuple[str, ...] | None = None,
    progress: ProgressFunction = no_progress,
) -> tuple[str, ...]:
    """Copy the weights of backbones to the folder of the `run`; return them as `NAME-DIGEST`, sorted.

    Those of the hub are downloaded first. Nothing is written for a run that began with others, those of `before`.
    Raises SearchError for weights that the hub does not give, RipienoError when they cannot be copied.
    """
    paths = {name: Path(source.path) for name, source in sources.items() if not source.repository}
    paths |= _download({name: source for name, source in sources.items() if source.repository}, progress)
    stems = [source.stem or _copy(run, name, paths[name], source, before) for name, source in sources.items()]
    return tuple(sorted(stems))


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


def _find_own(run: Path, stems: Iterable[str]) -> dict[str, WeightsSource]:
    """Return the copies that the run has. Raises SearchError where one is absent or has changed."""
    kept, found = read_backbones(run), {}
    for stem in stems:
        path = weights_file(run, stem)
        if stem not in kept or not path.exists():
            raise SearchError(f"{run / BACKBONES} lacks the weights {stem} of the search; restore them from a copy")
        if hashlib.sha256(path.read_bytes()).hexdigest() != kept[stem].sha256:
            raise SearchError(f"{path} has changed since the search began; restore it from a copy")
        found[split_stem(stem)[0]] = WeightsSource(str(path), kept[stem].licence, stem=stem)
    return found


def _find_files(path: Path, names: tuple[str, ...]) -> dict[str, WeightsSource]:
    """Return the file of each backbone that has one. Raises SearchError when there is none, and for bad files."""
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
    for name, file in found.items():
        read_pretrained(file, name)
    return {name: WeightsSource(str(file), stated_licence(file)) for name, file in found.items()}


def _find_on_hub(names: tuple[str, ...]) -> dict[str, WeightsSource]:
    """Return the file of each backbone that timm has an address for. Raises SearchError when there is none."""
    from ripieno.models.timm_network import check_name
    from ripieno.models.torchvision_import import import_timm

    require("huggingface_hub")
    found = {}
    for name in names:
        check_name(name)
        config = import_timm().models.get_pretrained_cfg(name)
        file, repository = config.hf_hub_filename or f"model{SUFFIX}", config.hf_hub_id
        if repository and not file.endswith(SUFFIX):
            raise SearchError(
                f"the hub has the weights of {name} in {file}, which is no {SUFFIX} file: pass a file or folder with "
                "--weights"
            )
        if repository:
            found[name] = WeightsSource(file, config.license or "", repository)
    if not found:
        raise SearchError(f"timm knows no weights of {_list(names)} on the hub: pass a file or folder with --weights")
    _check_reach(*next(iter(found.items())))
    return found


def _check_reach(name: str, source: WeightsSource) -> None:
    """Raise SearchError when the hub does not answer a request for the weights of `name`, and its cache lacks them."""
    hub, refused = require("huggingface_hub"), require("huggingface_hub.errors").HfHubHTTPError
    try:
        with _quiet(hub):
            if _cached(hub, source) is None:
                _ask(hub, source)
    except refused:  # it answers: a download says what it lacks
        pass
    except Exception as error:
        raise _unavailable(name, error) from error


def _download(sources: Mapping[str, WeightsSource], progress: ProgressFunction) -> dict[str, Path]:
    """Return the paths of files of the hub, downloaded. Raises SearchError when one is not got."""
    paths: dict[str, Path] = {}
    for done, (name, source) in enumerate(sources.items()):
        progress("downloading weights", done, len(sources))
        hub = require("huggingface_hub")
        try:
            with _quiet(hub):
                paths[name] = Path(_fetch(hub, source))
        except Exception as error:  # of the hub's client and of the network below it
            raise _unavailable(name, error) from error
    if sources:
        progress("downloading weights", len(sources), len(sources))
    return paths


def _fetch(hub: Any, source: WeightsSource) -> str:
    """Return the path of a file of the hub, from the cache of its client, or else downloaded."""
    if (path := _cached(hub, source)) is not None:
        return path
    _ask(hub, source)
    downloaded: str = hub.hf_hub_download(source.repository, source.path, etag_timeout=_TIMEOUT)
    return downloaded


def _cached(hub: Any, source: WeightsSource) -> str | None:
    """Return the path of a file of the hub in the cache of its client, None where it is not there."""
    try:
        path: str = hub.hf_hub_download(source.repository, source.path, local_files_only=True)
    except require("huggingface_hub.errors").LocalEntryNotFoundError:
        return None
    return path


def _ask(hub: Any, source: WeightsSource) -> None:
    """Ask the hub about a file: where it is out of reach, the download itself waits for minutes, in many attempts."""
    hub.get_hf_file_metadata(hub.hf_hub_url(source.repository, source.path), timeout=_TIMEOUT)


def _unavailable(name: str, error: Exception) -> SearchError:
    reason = error_summary(error).partition(". ")[0][:200]
    return SearchError(
        f"cannot get the weights of {name} from the hub ({reason}): try again later, or pass a file or folder with "
        "--weights"
    )


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


def _copy(run: Path, name: str, path: Path, source: WeightsSource, before: tuple[str, ...] | None) -> str:
    """Copy the weights of a backbone from the file at `path` to the run; return `NAME-DIGEST`.

    Nothing is written for a run that began with others (`before`), and refuses them.
    """
    from safetensors.torch import save

    content = save(read_pretrained(path, name))
    record = BackboneRecord(name, source.origin, source.licence, hashlib.sha256(content).hexdigest())
    target = weights_file(run, record.stem)
    refused = before is not None and record.stem not in before
    if not refused and (record.stem not in read_backbones(run) or not target.exists()):
        files.write_bytes(target, content)
        files.write_json(target.with_suffix(".json"), record)
    return record.stem


def _list(names: Iterable[str]) -> str:
    """List some names in words."""
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more
