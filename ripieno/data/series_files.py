"""Files of series: `.ts`, `.tsv` and `.arff`, alone or as NAME_TRAIN and NAME_TEST.

A file of such a pair, or the folder that holds them, stands for both: NAME_TRAIN is divided into train and validation,
and NAME_TEST is the test split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ripieno.data.arff import read_arff
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.series_file import SeriesFile, used_names
from ripieno.data.splits import SPLIT_WORDS
from ripieno.data.ts_file import read_ts
from ripieno.data.ucr_tsv import read_ucr_tsv
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.types import SPLITS, Split

SUFFIXES = (".ts", ".tsv", ".arff")
"""Suffixes of files of series, the first preferred where a folder holds one data set several times."""
_NAME = re.compile(rf"(?P<name>.+)[-_](?P<split>{'|'.join(SPLIT_WORDS)})", re.IGNORECASE)


class SeriesSource(NamedTuple):
    """Files of one data set."""

    name: str
    files: Mapping[Split, Path]


def is_series_file(path: Path) -> bool:
    """Return whether `path` names a file of series."""
    return path.suffix.lower() in SUFFIXES


def find_series(path: Path, notes: list[str] | None = None, *, alone: bool = False) -> SeriesSource | None:
    """Return the files of series that `path` stands for, a file or a folder; None where it holds none.

    A file stands for the whole data set that it is part of, unless `alone`. A note tells which files are left out.
    Raises DataError for a folder of several data sets.
    """
    if path.is_dir():
        return _in_folder(path, notes)
    if not (is_series_file(path) and path.is_file()):
        return None
    name, split = _parsed(path)
    if split is None or alone:
        return SeriesSource(path.stem, {split or "train": path})
    siblings = [one for one in path.parent.iterdir() if one.suffix == path.suffix and one != path and one.is_file()]
    return SeriesSource(name, _by_split([path, *(one for one in siblings if _parsed(one)[0] == name)]))


def read_series_file(path: Path, target: Sequence[str] = ()) -> SeriesFile:
    """Read a file of series; `target` names targets of an `.arff` file. Raises DataError in one line."""
    suffix = path.suffix.lower()
    if suffix == ".arff":
        return read_arff(path, target)
    if target:
        raise DataError(f"target {target[0]!r} names a column, but {shown(path)} has none; leave target out")
    readers: Mapping[str, Callable[[Path], SeriesFile]] = {".ts": read_ts, ".tsv": read_ucr_tsv}
    return readers[suffix](path)


def read_series_files(
    source: SeriesSource, notes: list[str], task: str | None = None, target: Sequence[str] = ()
) -> Samples:
    """Read the files of one data set. Raises DataError, in one line, for what cannot be used."""
    read = {split: read_series_file(path, target) for split, path in source.files.items()}
    found = [one for one in read.values() if one.targets is not None]
    for split, one in read.items():
        if one.targets is None:
            where = shown(source.files[split])
            raise DataError(f"{where} has no targets (@classLabel and @targetLabel are false); expected some")
    declared = next((one.names for one in found if one.names), ())
    names = used_names(declared, [one.targets for one in found if one.targets is not None])
    if unused := [name for name in declared if name not in names]:
        notes.append(f"{source.name} declares classes that no sample has, left out: {', '.join(unused[:5])}")
    kinds = {one.task for one in found}
    if task is None and "multilabel" in kinds:
        task = "multilabel"
    elif task is None and len(kinds) == 1:
        task = kinds.pop()
    parts = [SplitArrays(one.series, one.targets, shown(source.files[split]), split) for split, one in read.items()]
    if task == "regression":
        names = ()
    columns = found[0].columns if len(found[0].columns) > 1 else ()
    return join(source.name, parts, names or None, notes, task=task, kind="series", columns=columns)


def _parsed(path: Path) -> tuple[str, Split | None]:
    """Return the name of a data set and the split that a file's name consists of."""
    found = _NAME.fullmatch(path.stem)
    return (found["name"], SPLIT_WORDS[found["split"].lower()]) if found else (path.stem, None)


def _by_split(paths: Sequence[Path]) -> dict[Split, Path]:
    """Return files by their split, in the order of splits. Raises DataError for two of one split."""
    found: dict[Split, Path] = {}
    for path in paths:
        split = _parsed(path)[1] or "train"
        if split in found:
            both = f"{shown(found[split])} and {shown(path)}"
            raise DataError(f"{both} are both of split {split}; leave one of them out")
        found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def _in_folder(folder: Path, notes: list[str] | None) -> SeriesSource | None:
    """Return the files NAME_TRAIN and NAME_TEST of a folder; None without a file NAME_TRAIN."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name, split = _parsed(path)
        if is_series_file(path) and split is not None and path.is_file():
            found.setdefault((name, path.suffix.lower()), []).append(path)
    whole = {key: paths for key, paths in found.items() if any(_parsed(path)[1] == "train" for path in paths)}
    names = sorted({name for name, _ in whole})
    if not names:
        return None
    own = folder.resolve().name
    if len(names) > 1 and own not in names:
        few = ", ".join(names[:4])
        raise DataError(f"{shown(folder)} holds the data sets {few}; pass the NAME_TRAIN file of one of them")
    name = own if own in names else names[0]
    # the form with the most splits; of equal ones the first suffix
    suffix = max((s for n, s in whole if n == name), key=lambda s: (len(whole[name, s]), -SUFFIXES.index(s)))
    chosen = SeriesSource(name, _by_split(whole[name, suffix]))
    rest = [path for paths in found.values() for path in paths if path not in chosen.files.values()]
    if rest and notes is not None:
        used = " and ".join(shown(Path(path.name)) for path in chosen.files.values())
        notes.append(f"{shown(folder)}: read {used}; left {len(rest)} more files of series out")
    return chosen
