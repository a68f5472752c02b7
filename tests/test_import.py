"""Importing ripieno is free."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

import ripieno

HEAVY = ("torch", "ray", "optuna", "onnxruntime", "starlette", "matplotlib", "scipy")


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_ripieno_pulls_in_nothing_heavy() -> None:
    loaded = _run("import ripieno, sys; print(*sys.modules)").split()
    assert not set(loaded) & set(HEAVY)


@pytest.mark.parametrize("module", ["search", "selection", "allocation"])
def test_decisions_import_neither_torch_nor_ray(module: str) -> None:
    loaded = _run(f"import ripieno.{module}, sys; print(*sys.modules)").split()
    assert not set(loaded) & {"torch", "ray"}


def test_selection_needs_numpy_psutil_and_msgspec_and_nothing_else() -> None:
    code = "import ripieno.selection as s, numpy, sys; s.select_members(numpy.full((3, 4), 0.5)); print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in _run(code).split()} & set(_installed())
    assert loaded - {"typing_extensions", "ripieno"} == {"numpy", "psutil", "msgspec"}


def _installed() -> list[str]:
    """Names of the packages that were installed, not those of the standard library or of an editor's hooks."""
    return [name for name in packages_distributions() if name not in sys.stdlib_module_names and name[0] != "_"]


def test_every_public_name_exists() -> None:
    for name in ripieno.__all__:
        assert getattr(ripieno, name) is not None


def test_public_functions_stay_functions_after_all_is_imported() -> None:
    folders = (
        "reports",
        "profiles",
        "engine.engine",
        "pipeline",
        "server",
        "allocation",
        "selection",
        "train",
        "cli.main",
    )
    code = "import sys; sys.modules['gymnasium'] = sys.modules['stable_baselines3'] = None\n"  # as without the extra rl
    code += "import ripieno, " + ", ".join(f"ripieno.{f}" for f in folders) + "\n"
    verbs = [name for name in ripieno.__all__ if name[0].islower() and name != "__version__"]
    code += f"print(*[n for n in {verbs!r} if not callable(getattr(ripieno, n))])"
    assert _run(code).split() == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tuen'"):
        _ = ripieno.tuen


@pytest.mark.parametrize(("before", "after"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST", "FASTEST_FIRST")])
def test_gpus_are_numbered_as_nvidia_smi_does_unless_the_user_says_otherwise(before: str | None, after: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_DEVICE_ORDER"}
    code = "import ripieno, os; print(os.environ['CUDA_DEVICE_ORDER'])"
    given = {} if before is None else {"CUDA_DEVICE_ORDER": before}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=kept | given)
    assert done.stdout.strip() == after
