"""A deployment: a folder that can be copied and needs nothing else.

BUNDLE/bundle.json           the ensemble, its allocation, input, class names, members
BUNDLE/members/ID/model.onnx or weights.safetensors
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.library.library import Library
from ripieno.types import Allocation, Bundle, Ensemble

FILES = {"onnx": "model.onnx", "torch": "weights.safetensors"}
"""What each backend runs."""


def model_path(bundle: Bundle, member: str) -> Path:
    """File of a member that the bundle's backend runs."""
    return bundle.path / "members" / member / FILES[bundle.backend]


def write_bundle(library: Library, ensemble: Ensemble, allocation: Allocation, backend: str, path: Path) -> Bundle:
    """Copy an ensemble's members and its allocation into the folder `path`; `bundle.json` is written last.

    Raises LibraryError when the folder holds something else, a member has no file for `backend`, or the members
    disagree on their input or classes.
    """
    if path.exists() and any(path.iterdir()) and not (path / "bundle.json").exists():
        raise LibraryError(f"{path} is not empty and holds no bundle: choose another folder")
    members = tuple(library.member(m) for m in ensemble.members)
    for member in members:
        if (member.input, member.classes) != (members[0].input, members[0].classes):
            pair = f"{member.id} and {members[0].id}"
            raise LibraryError(f"{pair} differ in input or classes: they cannot answer together")
        if not (library.member_path(member.id) / FILES[backend]).exists():
            raise LibraryError(f"{member.id} has no {FILES[backend]}, which the {backend} backend needs")
    bundle = Bundle(ensemble, allocation, members, members[0].input, members[0].classes, backend)
    for member in members:
        files.copy_file(library.member_path(member.id) / FILES[backend], path / "members" / member.id / FILES[backend])
    files.write_json(path / "bundle.json", bundle)
    return dataclasses.replace(bundle, path=path)


def read_bundle(path: str | Path) -> Bundle:
    """Read a deployment. Raises LibraryError when the folder is no bundle or a member's file is missing."""
    path = Path(path)
    if not (path / "bundle.json").exists():
        mend = f"make one with `ripieno allocate RUN ENSEMBLE --bundle {path}`"
        raise LibraryError(f"{path} is no bundle (it has no bundle.json): {mend}")
    bundle = dataclasses.replace(files.read_json(path / "bundle.json", Bundle), path=path)
    if bundle.backend not in FILES:
        raise LibraryError(f"{path} asks for backend {bundle.backend!r}; there are: {', '.join(FILES)}")
    for member in bundle.ensemble.members:
        if not model_path(bundle, member).exists():
            raise LibraryError(f"{model_path(bundle, member)} is missing: copy the bundle again, whole")
    return bundle
